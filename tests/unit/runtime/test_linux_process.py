"""Calls about processes, tried on real ones."""

import errno
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ocimig.runtime.linux import proc, process
from ocimig_testkit import until


@pytest.fixture
def sleeper() -> "Iterator[subprocess.Popen[bytes]]":
    """A process that does nothing, ended afterwards."""
    child = subprocess.Popen(["sleep", "1000"])
    yield child
    child.kill()
    child.wait()


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("9", 9),
        ("0", 0),
        ("64", 64),
        ("KILL", 9),
        ("kill", 9),
        ("SIGTERM", 15),
        ("sigusr1", signal.SIGUSR1),
        ("RTMIN", signal.SIGRTMIN),
        ("RTMIN+3", signal.SIGRTMIN + 3),
        ("SIGRTMAX-1", signal.SIGRTMAX - 1),
        ("CLD", signal.SIGCHLD),
        ("POLL", signal.SIGIO),
        ("IOT", signal.SIGABRT),
    ],
)
def test_a_signal_is_known_by_number_and_by_name(text: str, number: int) -> None:
    """With SIG and without, in any case, real-time ones relative to either end."""
    assert process.signal_number(text) == number


@pytest.mark.parametrize(
    "text",
    ["", "SIG", "65", "-1", "+9", " 9", "９", "NOPE", "RTMIN+31", "RTMAX+1", "RTMIN-1", "_IGN"],
)
def test_what_is_no_signal_is_refused(text: str) -> None:
    """Nothing is guessed: full-width digits, signs and out-of-range offsets are no signals."""
    with pytest.raises(ValueError, match="no signal is called"):
        process.signal_number(text)


def test_every_number_has_a_name_that_is_its_own() -> None:
    """Names of numbers and numbers of names agree for all of 1 to 64."""
    for number in range(1, 65):
        assert process.signal_number(process.signal_name(number)) == number
    assert process.signal_name(9) == "SIGKILL"
    assert process.signal_name(6) == "SIGABRT"


def test_a_pidfd_outlives_the_number(sleeper: "subprocess.Popen[bytes]") -> None:
    """Signals go to the process, and nowhere once it is gone."""
    fd = process.pidfd_open(sleeper.pid)
    try:
        assert not process.pidfd_wait(fd, 0)
        process.pidfd_send_signal(fd, signal.SIGKILL)
        assert process.pidfd_wait(fd, 10)
        assert sleeper.wait() == -signal.SIGKILL
        with pytest.raises(ProcessLookupError):
            process.pidfd_send_signal(fd, 0)
    finally:
        os.close(fd)


def test_a_descriptor_of_another_process_can_be_copied() -> None:
    """pidfd_getfd gives the same open file."""
    reader, writer = os.pipe()
    child = subprocess.Popen(["sleep", "1000"], stdout=writer)
    os.close(writer)
    try:
        pidfd = process.pidfd_open(child.pid)
        copy = process.pidfd_getfd(pidfd, 1)
        os.close(pidfd)
        os.write(copy, b"hello")
        os.close(copy)
        assert os.read(reader, 10) == b"hello"
    finally:
        child.kill()
        child.wait()
        os.close(reader)


def test_close_range_marks_descriptors() -> None:
    """CLOSE_RANGE_CLOEXEC takes back an inheritable descriptor."""
    fd = os.open("/dev/null", os.O_RDONLY)
    high = 900
    os.dup2(fd, high, inheritable=True)
    os.close(fd)
    process.close_range(high, high, process.CLOSE_RANGE_CLOEXEC)
    assert not os.get_inheritable(high)
    process.close_range(high, high)
    with pytest.raises(OSError, match="Bad file") as caught:
        os.fstat(high)
    assert caught.value.errno == errno.EBADF


def test_prctl_answers_and_raises() -> None:
    """A known option returns its value, an unknown one an errno."""
    assert process.prctl(process.PR_GET_DUMPABLE) in {0, 1, 2}
    with pytest.raises(OSError, match="Invalid argument"):
        process.prctl(999999)


def test_stat_reads_any_name(tmp_path: "os.PathLike[str]") -> None:
    """A command called ") R 1 (" does not shift the fields after it."""
    program = os.path.join(tmp_path, ") R 1 (")
    os.symlink("/bin/sleep", program)
    child = subprocess.Popen([program, "1000"])
    try:
        found = proc.stat(child.pid)
        assert found is not None
        assert found.comm == ") R 1 ("
        assert found.ppid == os.getpid()
        assert found.pid == child.pid
        assert found.start_time > 0
        assert not found.ended
    finally:
        child.kill()
        child.wait()
    assert proc.stat(child.pid) is None


def test_a_zombie_has_ended_but_a_process_without_its_main_thread_has_not() -> None:
    """The kernel shows both as Z; only the number of threads tells them apart."""
    child = subprocess.Popen(["true"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    found = proc.stat(child.pid)
    assert found is not None
    assert found.ended
    child.wait()
    script = (
        "import ctypes, threading, time\n"
        "threading.Thread(target=time.sleep, args=(1000,)).start()\n"
        "print('up', flush=True)\n"
        "ctypes.CDLL(None).syscall(60, 0)\n"  # exit(2): this thread only
    )
    child = subprocess.Popen(["python3", "-c", script], stdout=subprocess.PIPE)
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == b"up\n"

        def shown_as_zombie() -> "proc.ProcStat | None":
            stat = proc.stat(child.pid)
            return stat if stat is not None and stat.state == proc.ZOMBIE else None

        found = until(shown_as_zombie, "the main thread has ended")
        assert found is not None
        assert not found.ended
    finally:
        child.kill()
        child.wait()
        assert child.stdout is not None
        child.stdout.close()


def test_children_and_descendants_are_found(sleeper: "subprocess.Popen[bytes]") -> None:
    """A grandchild is no child, but a descendant."""
    shell = subprocess.Popen(["sh", "-c", "sleep 1000 & wait"])
    try:
        below = until(lambda: proc.children(shell.pid), "the shell has a child")
        assert {sleeper.pid, shell.pid} <= set(proc.children(os.getpid()))
        assert below[0] not in proc.children(os.getpid())
        assert below[0] in proc.descendants(os.getpid())
    finally:
        for pid in below:
            os.kill(pid, signal.SIGKILL)
        shell.kill()
        shell.wait()


def test_status_reads_the_fields() -> None:
    """/proc/PID/status as a dict; None for a process that is not there."""
    found = proc.status(os.getpid())
    assert found is not None
    assert found["Pid"] == str(os.getpid())
    assert len(found["Uid"].split()) == 4
    assert proc.status(2**22 + 1) is None


def test_the_boot_has_an_id() -> None:
    """It does not change between two looks."""
    assert len(proc.boot_id()) == 36
    assert proc.boot_id() == proc.boot_id()


def test_a_process_that_is_about_to_end_is_seen_before_its_status_is() -> None:
    """Its flags say so while it still looks as if it ran."""
    line = "7 (a) b) R 1 7 7 0 -1 {} 0 0 0 0 0 0 0 0 20 0 1 0 42 0 0"
    runs = proc.ProcStat(line.format(0x400100).encode())
    ends = proc.ProcStat(line.format(0x400100 | proc.PF_EXITING).encode())
    assert (runs.start_time, runs.comm) == (42, "a) b")
    assert not runs.ending
    assert ends.ending
    assert not ends.ended


def test_the_name_of_a_process_makes_no_field_of_its_status() -> None:
    """A process chooses it; of the ends of line that Python knows the kernel escapes one only."""
    comm = Path("/proc/self/comm")
    before = comm.read_text().strip()
    comm.write_text("a\rOther:\t1")
    try:
        found = proc.status(os.getpid())
    finally:
        comm.write_text(before)
    assert found is not None
    assert found["Name"] == "a\rOther:\t1"
    assert "Other" not in found
