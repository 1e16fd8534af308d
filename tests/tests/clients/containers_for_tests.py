"""Testcontainers for Python as a test suite uses it, its reaper included. Prints `done` at the end."""
import time
import urllib.request
from importlib.metadata import version

import docker
from testcontainers.core.container import DockerContainer
from testcontainers.core.network import Network
from testcontainers.core.waiting_utils import wait_for_logs

page = "mkdir /www && echo served > /www/index.html && echo ready && exec httpd -f -p 80 -h /www"
with Network() as network:
    server = DockerContainer("busybox").with_command(["sh", "-c", page]).with_exposed_ports(80)
    with server.with_network(network).with_network_aliases("server") as web:
        wait_for_logs(web, "ready", timeout=30)
        address = f"http://{web.get_container_host_ip()}:{web.get_exposed_port(80)}/"
        # The listener of the host comes with the container, a moment after it.
        for attempt in range(100):
            try:
                assert urllib.request.urlopen(address, timeout=5).read() == b"served\n"
                break
            except OSError:
                assert attempt < 99, address
                time.sleep(0.1)
        status, output = web.exec(["wget", "-qO-", "http://server/"])
        assert (status, output) == (0, b"served\n"), (status, output)
        reapers = docker.from_env().containers.list(filters={"ancestor": "testcontainers/ryuk:0.8.1"})
        assert len(reapers) == 1, reapers
print("done", version("testcontainers"))
