"""Snapshots of containers of many kinds, each brought back from the store alone."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ocimig_testkit import until
from ocimig_testkit.backup_shelf import Shelf
from ocimig_testkit.box import Box
from ocimig_testkit.sshd import Sshd

pytestmark = [pytest.mark.root, pytest.mark.criu]


def _comes_back(box: Box, shelf: Shelf) -> None:
    """From the store alone, and it counts on where it was."""
    taken = shelf.take()
    box.goes_on()
    shelf.lose()
    shelf.bring_back(taken["id"])
    box.goes_on()
    assert len({checksum for _, checksum in box.lines()}) == 1
    assert shelf.left() == []


@pytest.mark.parametrize("argv", [["family"], ["threads", "9"]], ids=["processes", "threads"])
def test_many_tasks_come_back(box: Box, shelf: Shelf, argv: list[str]) -> None:
    """Several processes, or several threads of one."""
    box.run(*argv)
    _comes_back(box, shelf)


@pytest.mark.parametrize("kind", ["", "memfd", "sysv"])
def test_memory_that_processes_share_comes_back_shared(box: Box, shelf: Shelf, kind: str) -> None:
    """What the child writes, the parent sees, afterwards too; and a second snapshot is small."""
    box.run("share", "24", *([kind] if kind else []))
    shelf.take()
    _comes_back(box, shelf)


def test_without_a_tracker_all_memory_is_saved_in_the_freeze(box: Box, shelf: Shelf) -> None:
    """And it is said, as it takes longer."""
    box.run("count", "16")
    (taken,) = shelf("create", box.id, "--tracker", "none")
    assert any("in the freeze" in note for note in taken["notes"])
    shelf.lose()
    shelf.bring_back(taken["id"])
    box.goes_on()


def test_files_that_are_written_all_the_time_are_those_of_one_instant(
    box: Box, shelf: Shelf
) -> None:
    """A second process writes a number into one file, then into another: they never differ by two."""
    box.run("count", "8")
    script = (
        "n=0; while :; do n=$((n+1)); echo $n > /one.new; mv /one.new /one; "
        "echo $n > /other.new; mv /other.new /other; done"
    )
    box.ocimig("exec", "-d", box.id, "/bin/sh", "-c", script)
    first = shelf.take()
    second = shelf.take()
    shelf.lose()
    shelf.bring_back(second["id"])
    root = box.bundle.rootfs
    box.ocimig("pause", box.id)
    one, other = (int((root / name).read_text()) for name in ("one", "other"))
    assert 0 <= one - other <= 1
    box.ocimig("resume", box.id)
    found = shelf("diff", first["id"], second["id"])
    assert any(change["path"].endswith("/one") for change in found["files"])


def test_a_container_runs_beside_the_one_it_was_saved_from(
    box: Box, shelf: Shelf, tmp_path: Path
) -> None:
    """Under another name, in another directory; each goes its own way."""
    box.run("count", "16")
    taken = shelf.take()
    twin, bundle = box.ocimig.new_id(), tmp_path / "twin"
    shelf.bring_back(taken["id"], "--as", twin, "-b", str(bundle))
    assert box.ocimig.status(twin) == "running"
    assert box.ocimig.state(twin)["bundle"] == str(bundle)
    assert box.ocimig.pid(twin) != box.ocimig.pid(box.id)
    (Path(bundle) / "rootfs/only-there").write_text("x")
    assert not (box.bundle.rootfs / "only-there").exists()
    before = os.path.getsize(box.output)
    box.ocimig("kill", box.id, "KILL")
    box.ocimig.wait(box.id, "stopped")
    assert os.path.getsize(box.output) >= before
    assert box.ocimig.status(twin) == "running"


def test_a_sealed_store_gives_a_container_back(box: Box, tmp_path: Path) -> None:
    """With its passphrase; nothing in it is readable without."""
    secret = tmp_path / "secret"
    secret.write_text("correct horse\n")
    secret.chmod(0o600)
    box.ocimig.environment["OCIMIG_PASSPHRASE"] = "correct horse"
    (box.bundle.rootfs / "letter").write_text("a letter that nobody may read" * 50)
    shelf = Shelf(box, tmp_path)
    box.run("count", "8")
    taken = shelf.take()
    assert not any(
        b"nobody may read" in path.read_bytes() or box.id.encode() in path.read_bytes()
        for path in shelf.path.rglob("*")
        if path.is_file()
    )
    shelf.lose()
    denied = box.ocimig(
        "backup", "restore", str(shelf.path), taken["id"], *shelf.options(), code=12,
        env={"OCIMIG_PASSPHRASE": "battery staple"},
    )  # fmt: skip
    assert "cannot be opened" in denied.err
    assert not box.bundle.path.exists()
    shelf.bring_back(taken["id"])
    box.goes_on()


def test_two_containers_are_saved_at_the_same_time(
    box: Box, shelf: Shelf, new_box: Callable[[], Box]
) -> None:
    """Into one store by two commands; both snapshots are whole."""
    other = new_box()
    box.run("count", "24")
    other.run("count", "24")
    with ThreadPoolExecutor(2) as threads:
        taken = [each[0] for each in threads.map(lambda one: shelf("create", one.id), [box, other])]
    assert {each["container"] for each in taken} == {box.id, other.id}
    assert shelf("verify", "--read-data")["problems"] == []
    shelf.lose()
    shelf.bring_back("latest", "--container", box.id)
    box.goes_on()
    other.goes_on()


def test_one_container_is_saved_by_one_command_at_a_time(box: Box, shelf: Shelf) -> None:
    """The other is told so, and does not wait."""
    box.run("count", "64")
    with ThreadPoolExecutor(3) as threads:
        answers = list(
            threads.map(
                lambda _: box.ocimig(
                    "backup", "create", str(shelf.path), box.id, *shelf.options(), code=None
                ),
                range(3),
            )
        )
    done = [answer for answer in answers if answer.code == 0]
    assert done
    assert len(shelf("list")) == len(done)
    for answer in answers:
        assert "Traceback" not in answer.err
    box.goes_on()
    box.unbroken()
    assert shelf("verify", "--read-data")["problems"] == []
    assert shelf.left() == []


def _connections(pid: int) -> int:
    """Established ones of its network, each end counted."""
    lines = Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]
    return sum(line.split()[3] == "01" for line in lines)


def test_a_connection_is_kept(box: Box, shelf: Shelf) -> None:
    """While the container runs on, and in the one that comes back; --tcp-close ends it there."""
    script = "/bin/worker serve 5000 & sleep 1; sleep 99 | nc 127.0.0.1 5000"
    box.bundle.argv("/bin/sh", "-c", script)
    box.ocimig("run", "-d", "-b", box.bundle.path, box.id)
    until(lambda: _connections(box.ocimig.pid(box.id)) == 2, "the connection")
    taken = shelf.take()
    assert _connections(box.ocimig.pid(box.id)) == 2
    assert not box.locked()
    shelf.lose()
    shelf.bring_back(taken["id"])
    assert _connections(box.ocimig.pid(box.id)) == 2
    assert not box.locked()
    shelf.lose()
    shelf.bring_back(taken["id"], "--tcp-close")
    assert _connections(box.ocimig.pid(box.id)) == 0


@pytest.mark.ssh
def test_a_store_behind_ssh_gives_a_container_back(box: Box, tmp_path: Path) -> None:
    """By a real server: made, filled, verified and restored from, sealed by a passphrase."""
    server = Sshd(tmp_path / "sshd")
    with server:
        where = f"ssh://root@127.0.0.1:{server.port}{tmp_path}/store"
        options = [
            "--cache", str(tmp_path / "cache"), "-i", str(server.identity),
            "--known-hosts", str(server.known_hosts), "--remote-command", box.ocimig.argv[0],
        ]  # fmt: skip
        box.ocimig.environment["OCIMIG_PASSPHRASE"] = "correct horse"
        assert "sealed by aes-256-gcm" in box.ocimig("backup", "init", where, *options).out
        box.run("count", "24")
        taken = box.ocimig("backup", "create", where, box.id, *options, "-f", "json").json()[0]
        assert box.ocimig("backup", "verify", where, "--read-data", *options).out.endswith(
            "no problems\n"
        )
        box.goes_on()
        box.ocimig("delete", "--force", box.id)
        box.bundle.path.rename(tmp_path / "away")
        box.ocimig("backup", "restore", where, taken["id"], *options)
        box.goes_on()
        assert len({checksum for _, checksum in box.lines()}) == 1


@pytest.mark.userns
def test_a_container_with_mapped_users_falls_back_and_says_so(box: Box, shelf: Shelf) -> None:
    """Its memory cannot be followed while it runs: it is saved in the freeze, and comes back."""
    box.map_users()
    box.run("count", "8")
    taken = shelf.take()
    assert any("in the freeze" in note for note in taken["notes"])
    _comes_back(box, shelf)
    assert "100000" in Path(f"/proc/{box.ocimig.pid(box.id)}/uid_map").read_text()
