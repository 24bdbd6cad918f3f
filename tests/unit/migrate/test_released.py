"""Whether a process that was restored here has begun to run, when nobody is left who would know."""

import os
import platform
import subprocess
import sys

import pytest

from ocimig.migrate import destination

BLOCK = """
import ctypes, platform, sys, threading
number = {"x86_64": 14, "aarch64": 135}[platform.machine()]  # rt_sigprocmask
def block():
    assert ctypes.CDLL(None).syscall(number, 2, ctypes.byref(ctypes.c_ulong(2**64 - 1)), None, 8) == 0
blocked = threading.Event()
def run():
    if "other" in sys.argv:
        block()
    blocked.set()
    threading.Event().wait()
if "thread" in sys.argv:
    threading.Thread(target=run, daemon=True).start()
    blocked.wait()
if "main" in sys.argv:
    block()
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(platform.machine() not in ("x86_64", "aarch64"), reason="another number")
@pytest.mark.parametrize(
    ("words", "restoring"),
    [
        (["main"], True),
        (["main", "thread", "other"], True),
        (["main", "thread"], False),
        (["thread", "other"], False),
        ([], False),
    ],
)
def test_one_thread_that_takes_signals_has_left_the_restorer(
    words: list[str], restoring: bool
) -> None:
    """A program may block them all in a thread; ended as one that never ran, it would lose what it did."""
    program = [sys.executable, "-c", BLOCK, *words]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        assert destination._restoring(process.pid) is restoring
        process.kill()


def test_what_is_gone_is_not_restored() -> None:
    """Its number may be nobody's by now."""
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    assert not destination._restoring(pid)
