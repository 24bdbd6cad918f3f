"""A running process makes a userfaultfd for us and notices nothing."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ocimig.runtime import arming
from ocimig.runtime.linux import proc
from ocimig_testkit.tracked import Tracked, compile_tracked

pytestmark = [pytest.mark.root, pytest.mark.init]

CAPLESS = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--reuid=65534", "--regid=65534"]
CAPLESS += ["--clear-groups", "--no-new-privs"]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """tracked.c, compiled, where everybody may execute it."""
    place = tmp_path_factory.mktemp("tracked")
    for parent in [place, *place.parents][:3]:
        parent.chmod(0o711)
    return compile_tracked(place / "tracked")


@pytest.fixture
def target(program: Path) -> Iterator[Tracked]:
    """A process that waits for orders."""
    with Tracked(program) as made:
        yield made


def arm(pid: int) -> arming.Armed:
    """Arm one process and close what came."""
    answer = arming.arm([pid])[pid]
    if answer.fd >= 0:
        assert "userfaultfd" in os.readlink(f"/proc/self/fd/{answer.fd}")
        os.close(answer.fd)
    return answer


def test_it_works_here() -> None:
    """On a child of the helper's own."""
    assert arming.works() == ""


def test_nothing_is_left_in_the_process(target: Tracked) -> None:
    """No descriptor, no tracer, the same blocked signals; it goes on where it was."""
    before = os.listdir(f"/proc/{target.pid}/fd")
    status = proc.status(target.pid)
    assert arm(target.pid).reason == ""
    after = proc.status(target.pid)
    assert status is not None
    assert after is not None
    assert sorted(os.listdir(f"/proc/{target.pid}/fd")) == sorted(before)
    assert after["TracerPid"] == "0"
    assert after["SigBlk"] == status["SigBlk"]
    assert target.alive()


@pytest.mark.parametrize(
    ("call", "result", "error"),
    [
        ("nanosleep", 0, 0),
        ("poll", 0, 0),
        ("select", 0, 0),
        ("epoll_wait", 0, 0),
        ("futex", -1, 110),  # ETIMEDOUT
        ("sigtimedwait", -1, 11),  # EAGAIN
        ("semtimedop", -1, 11),
        ("recv", -1, 11),
    ],
)
def test_a_call_that_waits_goes_on_waiting(
    target: Tracked, call: str, result: int, error: int
) -> None:
    """No EINTR, and no sooner than it should; those with a restart block no later either."""
    target.begin("call", call, 400)
    target.answer()
    target.asleep(call)
    for _ in range(5):
        assert arm(target.pid).reason == ""
    got, number, milliseconds = target.answer()
    assert (got, number) == (result, error)
    assert milliseconds >= 399
    if call in {"nanosleep", "poll", "futex"}:
        assert milliseconds < 600


def test_a_signal_still_interrupts(target: Tracked) -> None:
    """pause(2) waits on through the arming, and ends when its handler ran."""
    target.begin("pause")
    target.answer()
    target.asleep()
    assert arm(target.pid).reason == ""
    target.asleep()
    os.kill(target.pid, signal.SIGUSR1)
    assert target.answer() == (-1, signal.SIGUSR1, 4)


def test_a_read_of_a_pipe_gets_its_bytes(target: Tracked) -> None:
    """It waits for its next order in read(2), a hundred times."""
    for _ in range(100):
        assert arm(target.pid).reason == ""
        assert target.do("write", 0, 0) == 0


def test_a_filter_that_kills_on_unknown_calls_does_not(target: Tracked) -> None:
    """The filter is suspended for our two calls, and in force again afterwards."""
    target.do("seccomp")
    assert arm(target.pid).reason == ""
    assert target.alive()
    target.begin("fork", 0)
    with pytest.raises(AssertionError, match="ended: -31"):
        target.answer()


def test_an_ignored_trap_stays_ignored(target: Tracked) -> None:
    """Stepping through a program by SIGTRAP would have reset that."""
    target.do("ignore")
    before = proc.status(target.pid)
    assert arm(target.pid).reason == ""
    after = proc.status(target.pid)
    assert before is not None
    assert after is not None
    assert after["SigIgn"] == before["SigIgn"]
    assert after["SigBlk"] == before["SigBlk"]


@pytest.mark.userns
def test_a_process_without_rights_in_a_user_namespace(program: Path) -> None:
    """No capability, no_new_privs, a user and a network namespace of its own."""
    before = ["unshare", "--user", "--map-root-user", "--net", *CAPLESS[:3], "--no-new-privs"]
    with Tracked(program, before=before) as target:
        assert arm(target.pid).reason == ""
        assert target.alive()


def test_a_process_without_rights(program: Path) -> None:
    """No capability, another user, no_new_privs."""
    with Tracked(program, before=CAPLESS) as target:
        assert arm(target.pid).reason == ""
        assert target.alive()


def test_a_stopped_process_stays_stopped(target: Tracked) -> None:
    """SIGSTOP before, SIGCONT afterwards."""
    os.kill(target.pid, signal.SIGSTOP)
    os.waitpid(target.pid, os.WUNTRACED)
    assert arm(target.pid).reason == ""
    time.sleep(0.05)
    assert proc.stat(target.pid).state == "T"  # type: ignore[union-attr]
    os.kill(target.pid, signal.SIGCONT)
    assert target.alive()


def test_a_process_whose_main_thread_ended(target: Tracked) -> None:
    """Another thread makes the call; before Linux 6.9 its descriptor cannot be had."""
    address = target.map(1)
    target.do("thread", address)
    target.do("leave")
    time.sleep(0.05)
    answer = arm(target.pid)
    assert answer.reason in {"", "copy its descriptor: invalid argument"}
    assert Path(f"/proc/{target.pid}/stat").exists()


def test_a_process_that_waits_for_a_vfork_is_let_go(target: Tracked) -> None:
    """It cannot stop: a refusal with words, soon; it goes on when the child ends."""
    target.begin("vfork", 0, 1500)
    target.answer()
    time.sleep(0.05)
    began = time.monotonic()
    answer = arm(target.pid)
    assert answer.reason == "it does not stop: device or resource busy"
    assert time.monotonic() - began < 5
    target.answer()
    assert target.alive()
    assert arm(target.pid).reason == ""


def test_a_traced_process_is_refused(target: Tracked) -> None:
    """strace(1) keeps it."""
    script = (
        "import ctypes,sys,time; ctypes.CDLL(None).ptrace(0x4206, int(sys.argv[1]), 0, 0);"
        "print('x', flush=True); time.sleep(60)"
    )
    tracer = subprocess.Popen(
        ["/usr/bin/python3", "-c", script, str(target.pid)], stdout=subprocess.PIPE
    )
    assert tracer.stdout is not None
    tracer.stdout.readline()
    try:
        assert arm(target.pid).reason == "trace it: operation not permitted"
    finally:
        tracer.kill()
        tracer.communicate()
    assert target.alive()


def test_a_number_that_is_another_process_now_is_left_alone(
    target: Tracked, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The helper compares start times when the process stands still."""
    real = proc.stat

    def older(pid: int) -> proc.ProcStat | None:
        stat = real(pid)
        if stat is not None and pid == target.pid:
            stat.start_time -= 1
        return stat

    monkeypatch.setattr(proc, "stat", older)
    assert arm(target.pid).reason == "the process is another now: no such process"
    assert target.alive()


def tiny(path: Path, code: str, *, bits: int) -> "subprocess.Popen[bytes]":
    """A static program of these instructions, or a skip where it cannot run."""
    wide, base, word = bits == 64, 0x08048000, 8 if bits == 64 else 4
    size, entry = (64, 56) if wide else (52, 32)
    body = bytes.fromhex(code)

    def number(value: int, length: int) -> bytes:
        return value.to_bytes(length, "little")

    head = (b"\x7fELF" + (b"\2" if wide else b"\1") + b"\1\1").ljust(16, b"\0")
    head += number(2, 2) + number(62 if wide else 3, 2) + number(1, 4)
    head += number(base + size + entry, word) + number(size, word) + bytes(word + 4)
    head += b"".join(number(value, 2) for value in (size, entry, 1, 64 if wide else 40, 0, 0))
    length = number(size + entry + len(body), word)
    places = bytes(word) + number(base, word) * 2 + length * 2
    middle = number(5, 4)
    segment = number(1, 4) + (middle + places if wide else places + middle) + number(4096, word)
    path.write_bytes(head + segment + body)
    path.chmod(0o755)
    try:
        return subprocess.Popen([str(path)])
    except OSError as error:
        pytest.skip(f"cannot run: {error}")


def test_a_32_bit_program_is_refused(tmp_path: Path) -> None:
    """pause(2) for ever by int 0x80."""
    with tiny(tmp_path / "tiny", "b81d000000cd80ebf7", bits=32) as child:
        time.sleep(0.05)
        assert arm(child.pid).reason.startswith("it is a 32-bit program")
        assert child.poll() is None
        child.kill()


def test_a_program_that_makes_no_system_call_is_armed(tmp_path: Path) -> None:
    """A loop of two bytes: the instruction is found in the kernel's own page."""
    with tiny(tmp_path / "tiny", "ebfe", bits=64) as child:
        time.sleep(0.05)
        for _ in range(20):
            assert arm(child.pid).reason == ""
        assert child.poll() is None
        child.kill()


def test_restartable_sequences_stay_whole(target: Tracked) -> None:
    """A thread stopped inside one is sent to its abort address, as the kernel would send it."""
    if not target.do("sequences", 0, 1):
        pytest.skip("the C library registers no rseq area")
    target.answer()
    target.begin("sequences", 0, 20000)
    target.answer()
    for _ in range(60):
        assert arm(target.pid).reason == ""
    whole, broken, _ = target.answer()
    assert whole > 0
    assert broken == 0


def test_many_are_armed_by_one_helper(program: Path) -> None:
    """Fifty, each stopped for its own short time; those that have ended are left out."""
    targets = [Tracked(program) for _ in range(50)]
    gone = targets.pop()
    gone.__exit__()
    try:
        answers = arming.arm([target.pid for target in [*targets, gone]])
        assert sorted(answers) == sorted(target.pid for target in targets)
        assert {answer.reason for answer in answers.values()} == {""}
        for answer in answers.values():
            os.close(answer.fd)
        assert all(target.alive() for target in targets)
    finally:
        for target in targets:
            target.__exit__()


def test_the_death_of_the_caller_hurts_nobody(program: Path, tmp_path: Path) -> None:
    """SIGKILL at any moment of arming fifty processes: all of them go on, armed or not."""
    script = (
        "import sys; from ocimig.runtime import arming\n"
        "while True: arming.arm([int(pid) for pid in sys.argv[1:]])"
    )
    targets = [Tracked(program) for _ in range(10)]
    try:
        for turn in range(12):
            argv = [os.sys.executable, "-c", script]  # type: ignore[attr-defined]
            child = subprocess.Popen([*argv, *[str(target.pid) for target in targets]])
            time.sleep(0.25 + turn * 0.003)
            child.kill()
            child.wait()
            assert all(target.alive() for target in targets)
            for target in targets:
                links = [
                    os.readlink(f"/proc/{target.pid}/fd/{fd}")
                    for fd in os.listdir(f"/proc/{target.pid}/fd")
                ]
                assert not any("userfaultfd" in link for link in links)
    finally:
        for target in targets:
            target.__exit__()
