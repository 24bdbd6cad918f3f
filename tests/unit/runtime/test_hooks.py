"""Hooks, run for real: what they are given, and that none of them can hang or hurt the runtime."""

import os
import time
from pathlib import Path

import pytest

from ocimig import jsonio
from ocimig.runtime import hooks
from ocimig.runtime.errors import HookFailed
from ocimig.runtime.linux import proc
from ocimig_testkit import until

STATE = {"ociVersion": "1.2.0", "id": "c1", "status": "creating", "pid": 7, "bundle": "/b"}


def _shell(script: str, **more: object) -> "dict[str, object]":
    return {"path": "/bin/sh", "args": ["sh", "-c", script], **more}


def test_a_hook_reads_the_state_and_has_only_its_own_environment(tmp_path: Path) -> None:
    """State on stdin, args from config.json, env replaced as a whole."""
    script = f"cat > {tmp_path}/in; /usr/bin/env > {tmp_path}/env; echo $0 $1 > {tmp_path}/args"
    hook = {"path": "/bin/sh", "args": ["sh", "-c", script, "zero", "one"], "env": ["A=b=c", "N="]}
    hooks.run([hook], STATE, "createRuntime")
    assert jsonio.loads((tmp_path / "in").read_bytes()) == STATE
    seen = set((tmp_path / "env").read_text().splitlines())
    assert {"A=b=c", "N="} <= seen
    assert not any(line.startswith(("HOME=", "PATH=")) for line in seen)
    assert (tmp_path / "args").read_text() == "zero one\n"


def test_without_env_a_hook_has_ours_and_with_an_empty_one_nothing(tmp_path: Path) -> None:
    """As runc does it."""
    hooks.run([_shell(f"/usr/bin/env > {tmp_path}/a")], STATE, "poststart")
    assert f"PATH={os.environ['PATH']}" in (tmp_path / "a").read_text().splitlines()
    hooks.run([_shell(f"/usr/bin/env > {tmp_path}/b", env=[])], STATE, "poststart")
    assert "PATH=" not in (tmp_path / "b").read_text().replace("OLDPWD", "")


def test_a_hook_that_fails_ends_the_row_and_is_quoted(tmp_path: Path) -> None:
    """The error names the point, the number, the program and what it said last."""
    row = [
        _shell(f"echo one > {tmp_path}/one"),
        _shell("echo out; for n in 1 2 3 4 5 6 7; do echo bad $n >&2; done; exit 3"),
        _shell(f"echo three > {tmp_path}/three"),
    ]
    with pytest.raises(HookFailed) as caught:
        hooks.run(row, STATE, "prestart")
    said = str(caught.value)
    assert said.startswith("error running prestart hook #1: /bin/sh: exit status 3: ")
    assert said.endswith("bad 3; bad 4; bad 5; bad 6; bad 7")
    assert (tmp_path / "one").exists()
    assert not (tmp_path / "three").exists()


def test_a_failing_poststop_hook_is_a_warning_and_the_rest_run(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """run_all goes on."""
    hooks.run_all([_shell("exit 1"), _shell(f"echo > {tmp_path}/two")], STATE, "poststop")
    assert (tmp_path / "two").exists()
    assert "level=warning" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("hook", "words"),
    [
        ({"path": "/no/such/hook"}, "no such file or directory"),
        ({"path": "/etc/passwd"}, "permission denied"),
        ({"path": "true"}, "the path is not absolute"),
        ({"path": "/bin/sh", "args": ["sh", "-c", "kill -9 $$"]}, "killed by SIGKILL"),
    ],
)
def test_a_hook_that_cannot_run_is_named(hook: "dict[str, object]", words: str) -> None:
    """With the reason the kernel gave."""
    with pytest.raises(HookFailed, match=words):
        hooks.run([hook], STATE, "createRuntime")


def test_a_hook_past_its_time_is_killed_with_its_children(tmp_path: Path) -> None:
    """The whole process group, within the time, and no zombie stays."""
    script = f"sleep 1000 & echo $! > {tmp_path}/pid; echo almost >&2; wait"
    began = time.monotonic()
    with pytest.raises(HookFailed, match=r"past specified timeout of 1s: almost"):
        hooks.run([_shell(script, timeout=1)], STATE, "prestart")
    assert time.monotonic() - began < 5
    child = int((tmp_path / "pid").read_text())

    def gone() -> bool:
        stat = proc.stat(child)
        return stat is None or stat.ended

    until(gone, "the hook's child is gone")
    assert not [pid for pid in proc.children(os.getpid()) if (s := proc.stat(pid)) and s.ended]


@pytest.mark.parametrize(
    "script",
    [
        "exec 0<&-; exit 0",  # does not read
        "head -c 10000000 /dev/zero",  # prints 10 MB
        "head -c 10000000 /dev/zero >&2",
        "exec >&- 2>&-; exit 0",
    ],
)
def test_no_hook_hangs_the_runtime(script: str) -> None:
    """Neither by not reading nor by printing too much."""
    began = time.monotonic()
    hooks.run([_shell(script)], {**STATE, "annotations": {"a": "x" * 1_000_000}}, "prestart")
    assert time.monotonic() - began < 10


def test_a_daemon_that_a_hook_leaves_does_not_hold_up(tmp_path: Path) -> None:
    """The hook's own end counts, not the end of what its children might print."""
    script = f"setsid sleep 1000 & echo $! > {tmp_path}/pid"
    began = time.monotonic()
    try:
        hooks.run([_shell(script)], STATE, "prestart")
        assert time.monotonic() - began < 5
    finally:
        os.kill(int((tmp_path / "pid").read_text()), 9)


def test_a_hook_has_ordinary_signals_and_no_descriptor_of_ours(tmp_path: Path) -> None:
    """SIGPIPE is not ignored, and nothing is open but 0, 1, 2 and what we inherited ourselves."""
    inherited = {name for name in os.listdir("/proc/self/fd") if _inheritable(int(name))}
    script = (
        f"grep ^SigIgn /proc/self/status > {tmp_path}/ign; exec ls /proc/self/fd > {tmp_path}/fds"
    )
    secret = os.open("/etc/passwd", os.O_RDONLY | os.O_CLOEXEC)
    try:
        hooks.run([_shell(script)], STATE, "prestart")
    finally:
        os.close(secret)
    assert int((tmp_path / "ign").read_text().split()[1], 16) & (1 << 12) == 0
    seen = set((tmp_path / "fds").read_text().split()) - {"3"}  # which is the listing's own
    assert seen == inherited | {"0", "1", "2"}


def _inheritable(fd: int) -> bool:
    try:
        return os.get_inheritable(fd)
    except OSError:  # the descriptor of the listing itself
        return False
