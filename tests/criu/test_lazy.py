"""--lazy-pages: memory is fetched later, from a server that only the address given can reach."""

import os
import socket
import subprocess

import pytest

from ocimig_testkit import until
from ocimig_testkit.box import Box

pytestmark = [pytest.mark.root, pytest.mark.criu, pytest.mark.busybox]


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def _listening(port: int) -> list[str]:
    lines = subprocess.run(["ss", "-Htln"], capture_output=True, text=True, check=True).stdout
    addresses = [line.split()[3] for line in lines.splitlines()]
    return [address for address in addresses if address.endswith(f":{port}")]


def _ended(process: "subprocess.Popen[bytes]") -> bool:
    process.terminate()
    return process.poll() is not None


def test_the_server_of_lazy_pages_listens_where_it_was_told(box: Box) -> None:
    """CRIU by itself listens on every address; --status-fd says when it listens."""
    box.run("count")
    port = _free_port()
    reader, writer = os.pipe()
    try:
        process = box.ocimig.popen(
            "checkpoint", "--lazy-pages", "--page-server", f"127.0.0.1:{port}",
            "--status-fd", str(writer), "--image-path", box.image, box.id, pass_fds=[writer],
        )  # fmt: skip
        os.close(writer)
        writer = -1
        try:
            assert os.read(reader, 1) == b"\0"
            assert until(lambda: _listening(port), "the server") == [f"127.0.0.1:{port}"]
        finally:
            until(lambda: _ended(process), "the second signal to end it", 30, 0.5)
    finally:
        os.close(reader)
        if writer >= 0:
            os.close(writer)
