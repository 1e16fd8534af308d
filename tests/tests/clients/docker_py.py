"""What programs do with docker-py: run, build, copy, follow, and hold streams open as editors do. Prints `done` at the end."""
import io
import tarfile
import threading
import time

import docker

client = docker.from_env()
assert client.ping()
image = "busybox"


def tar(name, data):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        info = tarfile.TarInfo(name)
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


# Run, with output, an exit code and limits.
assert client.containers.run(image, ["echo", "hello"], remove=True) == b"hello\n"
try:
    client.containers.run(image, ["sh", "-c", "echo why >&2; exit 3"], remove=True)
    raise AssertionError("an exit code of 3 is an error")
except docker.errors.ContainerError as error:
    assert error.exit_status == 3 and b"why" in error.stderr, error
try:
    client.containers.run("no-such-image-anywhere:x", "true", platform="linux/none")
    raise AssertionError("there is no such image")
except docker.errors.DockerException:
    pass

# Events stay open all the time while the rest goes on.
seen = []
events = client.events(decode=True, filters={"type": "container"})
threading.Thread(target=lambda: seen.extend(event["Action"] for event in events), daemon=True).start()

box = client.containers.run(image, ["sh", "-c", "i=0; while :; do echo tick $i; i=$((i+1)); sleep 0.2; done"], detach=True, name="box")
lines = box.logs(stream=True, follow=True)
assert next(lines) == b"tick 0\n"
box.put_archive("/tmp", tar("in", b"x" * 3_000_000))
bits, stat = box.get_archive("/tmp/in")
assert stat["size"] == 3_000_000
with tarfile.open(fileobj=io.BytesIO(b"".join(bits))) as archive:
    assert archive.extractfile("in").read() == b"x" * 3_000_000
assert box.exec_run(["sh", "-c", "exit 7"]).exit_code == 7
out, err = box.exec_run(["sh", "-c", "echo o; echo e >&2"], demux=True).output
assert (out, err) == (b"o\n", b"e\n")

# An editor's server: one exec with its input kept open and a protocol on it, while it polls.
made = client.api.exec_create(box.id, ["sh"], stdin=True)
held = client.api.exec_start(made["Id"], socket=True)
raw = held._sock


def said(word):
    """Frames of the multiplexed stream until the word has come."""
    data = b""
    raw.settimeout(20)
    while word not in data:
        head = b""
        while len(head) < 8:
            part = raw.recv(8 - len(head))
            assert part, "the stream ended"
            head += part
        size = int.from_bytes(head[4:], "big")
        while size:
            part = raw.recv(size)
            assert part, "the stream ended within a frame"
            data += part
            size -= len(part)
    return data


for number in range(30):
    raw.sendall(b"echo answer-%d $((%d * 2))\n" % (number, number))
    assert b"answer-%d %d\n" % (number, number * 2) in said(b"answer-%d " % number)
    assert client.api.inspect_container(box.id)["State"]["Running"]
    assert client.api.exec_inspect(made["Id"])["Running"]
    client.containers.list(all=True)
raw.sendall(b"exit 4\n")
while raw.recv(4096):
    pass
held.close()
assert client.api.exec_inspect(made["Id"])["ExitCode"] == 4

# The same with a terminal, whose size changes.
made = client.api.exec_create(box.id, ["sh"], stdin=True, tty=True)
held = client.api.exec_start(made["Id"], socket=True, tty=True)
client.api.exec_resize(made["Id"], height=33, width=111)
held._sock.sendall(b"stty size; exit\n")
text = b""
while part := held._sock.recv(4096):
    text += part
assert b"33 111" in text, text
held.close()

# Attach to a container before it starts, and end its input.
made = client.api.create_container(image, ["sh", "-c", "read l; echo got $l; cat; echo end"], stdin_open=True, host_config=client.api.create_host_config())
attached = client.api.attach_socket(made["Id"], params={"stdin": 1, "stdout": 1, "stream": 1})
client.api.start(made["Id"])
attached._sock.sendall(b"word\nmore\n")
attached._sock.shutdown(1)
text = b""
while part := attached._sock.recv(4096):
    text += part
assert b"got word\n" in text and b"more\n" in text and text.endswith(b"end\n"), text
assert client.api.wait(made["Id"])["StatusCode"] == 0

# Build from memory, volumes, networks, save and load.
context = io.BytesIO()
with tarfile.open(fileobj=context, mode="w") as archive:
    for name, data in (("Dockerfile", b"FROM busybox\nCOPY f /f\nRUN wc -c < /f > /n\n"), ("f", b"y" * 100_000)):
        info = tarfile.TarInfo(name)
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))
context.seek(0)
built, _ = client.images.build(fileobj=context, custom_context=True, tag="built:1", rm=True)
assert client.containers.run("built:1", ["cat", "/n"], remove=True).strip() == b"100000"
saved = b"".join(built.save(named=True))
client.images.remove("built:1", force=True)
assert [image.tags for image in client.images.load(saved)] == [["built:1"]]
volume = client.volumes.create("vol")
network = client.networks.create("net")
mount = {"vol": {"bind": "/v", "mode": "rw"}}
client.containers.run(image, ["sh", "-c", "echo kept > /v/f"], remove=True, volumes=mount, network="net")
assert client.containers.run(image, ["cat", "/v/f"], remove=True, volumes=mount) == b"kept\n"
stats = client.api.stats(box.id, stream=False)
assert stats["memory_stats"], stats
volume.remove()
network.remove()
box.remove(force=True)
deadline = time.monotonic() + 20
while not {"create", "start", "die", "destroy"} <= set(seen):
    assert time.monotonic() < deadline, seen
    time.sleep(0.05)
events.close()
print("done", docker.__version__)
