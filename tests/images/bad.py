"""Archives that mean harm: bad.py OUT_DIR HOST_DIR PROBE. HOST_DIR is a directory of the host that links point to; PROBE is a static program."""
import gzip, hashlib, io, json, os, sys, tarfile

out, host, probe = sys.argv[1:]
program = open(probe, "rb").read()


def entry(tar, name, kind=tarfile.REGTYPE, link="", data=b"", mode=0o755, **more):
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size, info.mode = kind, link, len(data), mode
    for key, value in more.items():
        setattr(info, key, value)
    tar.addfile(info, io.BytesIO(data))


def layer(*entries):
    bytes_ = io.BytesIO()
    with tarfile.open(fileobj=bytes_, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for one in entries:
            entry(tar, *one[:1], **one[1]) if len(one) == 2 else entry(tar, one[0])
    return bytes_.getvalue()


def d(name): return (name, {"kind": tarfile.DIRTYPE})
def ln(name, to): return (name, {"kind": tarfile.SYMTYPE, "link": to})
def hard(name, to): return (name, {"kind": tarfile.LNKTYPE, "link": to})
def f(name, data=b"x", **more): return (name, {"data": data, **more})


base = [d("bin"), f("bin/probe", program)]


def root(name, *entries):
    with open(f"{out}/{name}.tar", "wb") as file:
        file.write(layer(*entries))


def saved(name, layers, times=1, packed=None):
    ids = ["sha256:" + hashlib.sha256(one).hexdigest() for one in layers] * times
    config = json.dumps({"architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": ids}}).encode()
    files = [f"{hashlib.sha256(one).hexdigest()}/layer.tar" for one in layers]
    named = hashlib.sha256(config).hexdigest() + ".json"
    manifest = json.dumps([{"Config": named, "RepoTags": [], "Layers": files * times}]).encode()
    with open(f"{out}/{name}.tar", "wb") as file:
        file.write(layer(f("manifest.json", manifest), f(named, config), *[f(n, data) for n, data in zip(files, packed or layers)]))


root("no-shell", *base, d("etc"), f("etc/os-release"))
root("no-etc", *base)
root("links-absolute", *base, d("var"), ln("var/lib", host), ln("proc", "/"), ln("dev", host), ln("sys", host), ln("run", host), d("etc"), ln("etc/resolv.conf", f"{host}/kept"),
     ln("etc/hosts", f"{host}/made"), ln("etc/hostname", "/proc/1/root/x"), d("usr"), ln("usr/local", host))
up = "../" * 30
root("links-escaping", *base, d("var"), ln("var/lib", up + host[1:]), ln("proc", up), ln("dev", up + host[1:]), ln("etc", up + host[1:]))
root("special", *base, f("bin/suid", program, mode=0o4755), f("bin/sgid", program, mode=0o2755), d("dev"), ("dev/vda", {"kind": tarfile.BLKTYPE, "devmajor": 254}),
     ("bin/mem", {"kind": tarfile.CHRTYPE, "devmajor": 1, "devminor": 1}), ("bin/fifo", {"kind": tarfile.FIFOTYPE}))
saved("whiteouts", [layer(*base, d("gone"), f("gone/x")), layer(f(".wh.gone", b""), f(".wh..wh..opq", b""), *base)])
saved("whiteout-of-the-root", [layer(*base), layer(f(".wh..", b""))])
saved("whiteout-above", [layer(*base), layer(f("../.wh.kept", b""))])
saved("10000-layers", [layer(*base)], times=10000)
bomb = layer(f("bomb", bytes(256 << 20)))
saved("bomb", [bomb], packed=[gzip.compress(bomb, 9)])
root("hard-link-absolute", *base, hard("stolen", f"{host}/kept"))
root("hard-link-escaping", *base, hard("stolen", up + f"{host[1:]}/kept"))
root("hard-link-by-symlink", *base, ln("way", host), hard("stolen", "way/kept"))
root("foreign-id", *base, f("bin/owned", uid=70000))
root("climbs", *base, f("../outside"))
