"""The migration benchmark's eyes: a client that misses nothing. On this host's loopback, without CRIU."""

import json
import shutil
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ocimig_testkit.source import ROOT
from ocimig_testkit.waiting import until


@pytest.fixture(scope="module")
def workload(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The compiled program."""
    if shutil.which("gcc") is None:
        pytest.skip("no compiler")
    program = tmp_path_factory.mktemp("bench") / "workload"
    argv = [
        "gcc",
        "-std=gnu11",
        "-O2",
        "-static",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-o",
        str(program),
    ]
    subprocess.run([*argv, str(ROOT / "contrib/bench/workload.c")], check=True)
    return str(program)


class Client:
    """`workload ask`."""

    def __init__(self, workload: str, port: int) -> None:
        self.process = subprocess.Popen(
            [workload, "ask", "127.0.0.1", str(port)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip

    def look(self, word: str = "look") -> dict[str, Any]:
        """What it saw since the last look."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{word}\n")
        self.process.stdin.flush()
        seen: dict[str, Any] = json.loads(self.process.stdout.readline())
        return seen

    def end(self) -> tuple[int, dict[str, Any]]:
        """Its exit status and its last look."""
        out, _ = self.process.communicate(timeout=20)
        return self.process.returncode, json.loads(out.splitlines()[-1])


@pytest.fixture
def server(workload: str) -> Iterator[tuple[int, int]]:
    """`workload serve` with 8 MiB of memory: its port and its process."""
    port = _free_port()
    argv = [workload, "serve", str(port), "8", "5000", "8", "random"]
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL)
    until(lambda: _listens(port), "the workload to listen", 10, 0.02)
    yield port, process.pid
    process.kill()
    process.wait()


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def _listens(port: int) -> bool:
    return f":{port:04X} 00000000:0000 0A" in Path("/proc/net/tcp").read_text()


def test_a_server_that_answers_is_seen_as_whole(workload: str, server: tuple[int, int]) -> None:
    """Replies without an error, and memory that is as it must be though it is written to."""
    client = Client(workload, server[0])
    until(lambda: client.look()["replies"] > 20, "replies", 10, 0.05)
    seen = client.look("check")
    assert (seen["error"], seen["wrong_pages"]) == ("", 0)
    assert client.end()[0] == 0


def test_a_page_that_is_not_as_it_must_be_is_counted(
    workload: str, server: tuple[int, int]
) -> None:
    """Any bit of any page: here one far into its largest mapping."""
    port, pid = server
    maps = [line.split() for line in Path(f"/proc/{pid}/maps").read_text().splitlines()]
    bounds = [[int(part, 16) for part in fields[0].split("-")] for fields in maps]
    start, end = max(bounds, key=lambda pair: pair[1] - pair[0])
    with open(f"/proc/{pid}/mem", "r+b", buffering=0) as memory:
        memory.seek((start + end) // 2 // 4096 * 4096 + 2048)
        byte = memory.read(1)
        memory.seek(-1, 1)
        memory.write(bytes([byte[0] ^ 1]))
    client = Client(workload, port)
    assert client.look("check")["wrong_pages"] == 1
    client.end()


@pytest.mark.parametrize(
    ("replies", "said"),
    [
        ([(1, 7), (2, 8), (2, 9)], "reply 2 came after 2"),
        ([(1, 7), (3, 8)], "reply 3 came after 1"),
        ([(1, 7), (2, 9)], "the server's count went from 7 to 9"),
    ],
    ids=["repeated", "lost", "answered elsewhere"],
)
def test_a_lost_or_repeated_reply_ends_it(
    workload: str, replies: list[tuple[int, int]], said: str
) -> None:
    """Whoever lost it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = Client(workload, listener.getsockname()[1])
        peer, _ = listener.accept()
        with peer:
            for reply in replies:
                peer.sendall(struct.pack("=QQ", *reply))
            client.process.wait(20)  # by itself: the end of its input would end it, too
            status, seen = client.end()
    assert (status, seen["error"]) == (1, said)


def test_a_connection_that_ends_ends_it(workload: str) -> None:
    """A reset too."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = Client(workload, listener.getsockname()[1])
        peer, _ = listener.accept()
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.close()
        client.process.wait(20)
        status, seen = client.end()
    assert status == 1
    assert seen["error"]


def test_the_longest_gap_is_measured(workload: str) -> None:
    """Between two replies, however often it was asked meanwhile."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = Client(workload, listener.getsockname()[1])
        peer, _ = listener.accept()
        with peer:
            peer.sendall(struct.pack("=QQ", 1, 1))
            until(lambda: client.look()["replies"] == 1, "the first reply", 10, 0.02)
            time.sleep(0.2)
            peer.sendall(struct.pack("=QQ", 2, 2))
            seen = client.look()
            while not seen["replies"]:
                seen = client.look()
        client.end()
    assert 190 <= seen["gap_ms"] < 5000
