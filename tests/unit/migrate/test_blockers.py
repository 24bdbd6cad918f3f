"""What is found in /proc, tried on this very process: no container, no privileges."""

import fcntl
import os
import socket
from pathlib import Path

import pytest

from ocimig.migrate import blockers
from ocimig.migrate.blockers_open import Thing

ME = os.getpid()


def look() -> dict[int, Thing]:
    """What is in the way, by descriptor."""
    return {int(thing["fd"]): thing for thing in blockers.look(ME, [ME], {}) if "fd" in thing}


def test_a_pipe_in_packet_mode_is_found_once() -> None:
    """Both ends are one pipe; an ordinary one beside it is not named."""
    plain, packets = os.pipe(), os.pipe2(os.O_DIRECT | os.O_CLOEXEC)
    try:
        found = look()
        assert len({*packets} & set(found)) == 1
        assert not {*plain} & set(found)
    finally:
        for fd in (*plain, *packets):
            os.close(fd)


def test_a_deleted_file_is_found_by_its_size(tmp_path: Path) -> None:
    """By what it takes on disk: a hole of a terabyte travels for nothing."""
    with (tmp_path / "big").open("wb") as big, (tmp_path / "sparse").open("wb") as sparse:
        os.posix_fallocate(big.fileno(), 0, 65 << 20)
        sparse.truncate(1 << 40)
        for name in ("big", "sparse"):
            (tmp_path / name).unlink()
        found = look()
        assert found[big.fileno()]["kind"] == "deleted file"
        assert sparse.fileno() not in found


def test_a_file_under_another_name_is_found(tmp_path: Path) -> None:
    """It has lost the name by which it was opened, but not the last."""
    with (tmp_path / "one").open("wb") as file:
        (tmp_path / "other").hardlink_to(tmp_path / "one")
        (tmp_path / "one").unlink()
        assert look()[file.fileno()]["kind"] == "renamed file"


def test_a_renamed_file_is_not_found(tmp_path: Path) -> None:
    """It is known by its new name."""
    with (tmp_path / "one").open("wb") as file:
        (tmp_path / "one").rename(tmp_path / "other")
        assert file.fileno() not in look()


def test_a_lock_is_found(tmp_path: Path) -> None:
    """flock(2) and fcntl(2) alike."""
    with (tmp_path / "one").open("wb") as one, (tmp_path / "two").open("wb") as two:
        fcntl.flock(one, fcntl.LOCK_EX)
        fcntl.lockf(two, fcntl.LOCK_EX)
        found = look()
        assert [found[each.fileno()]["kind"] for each in (one, two)] == ["file lock"] * 2


def test_a_socket_file_opened_by_path_is_found(tmp_path: Path) -> None:
    """O_PATH leads to the file, not to the socket."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
    fd = os.open(tmp_path / "s", os.O_PATH | os.O_CLOEXEC)
    try:
        assert look()[fd]["kind"] == "socket file"
    finally:
        os.close(fd)


def test_namespaces_given_by_path_are_found() -> None:
    """Those that CRIU cannot join; a network can be given."""
    namespaces = [
        {"type": "user", "path": "/u"},
        {"type": "network", "path": "/n"},
        {"type": "pid"},
    ]
    found = blockers.configured({"linux": {"namespaces": namespaces}})
    assert [(thing["name"], thing["path"]) for thing in found] == [("user", "/u")]


def test_a_process_of_its_own_parentage_is_an_exec() -> None:
    """In the cgroup, but not below the first process."""
    (found,) = blockers.others(1, [1, 2], [1, 2, ME])
    assert (found["kind"], found["pid"]) == ("exec", ME)


@pytest.mark.parametrize("name", ["TracerPid:x", "TracerPid:77"])
def test_a_process_that_is_called_like_a_field_is_not_traced(name: str) -> None:
    """A process chooses its name, and /proc/PID/status begins with it."""
    before = process_name()
    Path("/proc/self/comm").write_text(name)
    try:
        assert blockers._tracer(ME) == 0
    finally:
        Path("/proc/self/comm").write_text(before)


def process_name() -> str:
    """As it is now."""
    return Path("/proc/self/comm").read_text().strip()
