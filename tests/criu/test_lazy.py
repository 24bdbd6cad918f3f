"""--lazy-pages: memory is fetched later, from a server that only the address given can reach, or from us."""

import hashlib
import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ocimig.migrate.lazy import mark
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


@contextmanager
def _restoring(box: Box) -> Iterator["subprocess.Popen[bytes]"]:
    """A restore that fills the memory of a container which runs already."""
    process = box.ocimig.popen(
        "restore", "-d", "--lazy-pages", "-b", box.bundle.path, "--image-path", box.image, box.id
    )
    try:
        until((box.ocimig.root / box.id / mark.NAME).exists, "a container that is being filled")
        yield process
    finally:
        process.wait(30)


def _handlers(process: "subprocess.Popen[bytes]") -> list[int]:
    """Its children that are forks of itself."""
    found = [
        pid
        for children in Path(f"/proc/{process.pid}/task").glob("*/children")
        for pid in children.read_text().split()
    ]
    return [
        int(pid) for pid in found if b"--lazy-pages" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]


def test_a_container_runs_before_its_memory_is_there_and_misses_nothing(box: Box) -> None:
    """The checksums it computes over its memory go on as they were."""
    box.run("count", "64")
    box.checkpoint()
    box.restore("--lazy-pages")
    box.goes_on()
    box.unbroken()


def test_a_container_can_be_checkpointed_while_its_memory_is_still_coming(box: Box) -> None:
    """The second checkpoint waits until all is there: nothing is taken for never written."""
    box.run("count", "128")
    box.checkpoint()
    with _restoring(box):
        second = box.image.with_name("second")
        box.ocimig("checkpoint", "--image-path", second, box.id)
    box.image = second
    box.restore()
    box.goes_on()
    box.unbroken()


def test_a_page_handler_that_is_killed_under_a_container_costs_it_nothing(box: Box) -> None:
    """Another takes over, with every page that had not come."""
    box.run("count", "256")
    box.checkpoint()
    with _restoring(box) as process:
        (handler,) = _handlers(process)
        os.kill(handler, signal.SIGKILL)
        box.goes_on()
    assert process.returncode == 0
    box.unbroken()


def test_whoever_restored_it_may_be_killed_while_memory_is_still_coming(box: Box) -> None:
    """The page handler finishes alone, and then the sign of it is gone."""
    box.run("count", "256")
    box.checkpoint()
    with _restoring(box) as process:
        box.goes_on()
        process.kill()
    assert mark.wait(str(box.ocimig.root / box.id), 30)
    box.goes_on()
    box.unbroken()


@pytest.mark.parametrize("place", ["unlocking", "unlocked"])
def test_whoever_restores_it_may_be_killed_around_the_opening_of_its_network(
    box: Box, place: str
) -> None:
    """CRIU has a last word for the page handler, and kills what it restored when nobody is there to hear it."""
    box.run("count", "8")
    box.checkpoint()
    stopped_at = box.lines()[-1][0]
    with box.output.open("ab") as output:
        command = box.ocimig.command("restore", "-d", "--lazy-pages", "--tcp-established", "-b", box.bundle.path,
                                     "--image-path", box.image, box.id)  # fmt: skip
        env = {**os.environ, "OCIMIG_FAILPOINT": f"destination:{place}"}
        killed = subprocess.run(command, stdout=output, stderr=output, env=env, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert mark.wait(str(box.ocimig.root / box.id), 30)
    until(lambda: box.lines()[-1][0] > stopped_at + 2, "the container to go on")
    box.unbroken()
    assert box.locked()
    assert "unlocked its network" in box.ocimig("recover").out
    assert not box.locked()


def test_a_server_of_pages_that_was_killed_is_not_waited_for(box: Box) -> None:
    """Its socket is still there in CRIU's work directory; nobody listens."""
    box.run("count", "8")
    box.checkpoint()
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(box.image / "lazy-pages.socket"))
        left.listen()
    box.restore("--lazy-pages")
    box.goes_on()


@pytest.mark.parametrize("ending", [("kill", "KILL"), ("delete", "--force")])
def test_a_container_can_be_ended_while_its_memory_is_still_coming(
    box: Box, ending: tuple[str, str]
) -> None:
    """Neither it nor whoever fills it is left."""
    box.run("count", "256")
    box.checkpoint()
    with _restoring(box) as process:
        pid = box.ocimig.pid(box.id)
        words = (box.id, ending[1]) if ending[0] == "kill" else (ending[1], box.id)
        box.ocimig(ending[0], *words)
        until(lambda: not Path(f"/proc/{pid}").exists(), "the end of the container")
    assert process.returncode == 0
    assert not _handlers(process)


def test_memory_that_is_not_in_the_images_is_asked_of_nobody_silently(box: Box) -> None:
    """Images of which a part was withheld need the one who has it."""
    from ocimig.criu_images import pagemap

    box.run("count")
    box.checkpoint()
    path = next(box.image.glob("pagemap-[0-9]*.img"))
    found = pagemap.read(str(path))
    last = found.entries[-1]
    away = pagemap.Entry(last.end + (1 << 20), 1, pagemap.LAZY)
    pagemap.write(str(path), found._replace(entries=[*found.entries, away]))
    sealed = json.loads((box.image / "manifest.json").read_text())
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    sealed["files"][path.name] = {"size": path.stat().st_size, "sha256": digest}
    (box.image / "manifest.json").write_text(json.dumps(sealed))
    assert "not all of its memory is in the images" in box.restore("--lazy-pages", code=1)
