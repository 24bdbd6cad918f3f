"""Hooks of config.json that run in the runtime's namespaces. Never decides what a failure means."""

import fcntl
import os
import select
import time

from ocimig import files, jsonio, log
from ocimig.runtime.errors import HookFailed
from ocimig.runtime.linux import process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Hook = dict[str, Any]

_TAIL = 4096  # of what a hook prints, so much is kept for the error
_LINES = 5


def run(hooks: "list[Hook]", state_doc: "dict[str, Any]", what: str) -> None:
    """Run the hooks one after another with the state on stdin. The first that fails ends it: HookFailed."""
    for number, hook in enumerate(hooks):
        _run_one(hook, state_doc, what, number)


def run_all(hooks: "list[Hook]", state_doc: "dict[str, Any]", what: str) -> None:
    """Run every hook; one that fails is only a warning in the log (poststop of the specification)."""
    for number, hook in enumerate(hooks):
        try:
            _run_one(hook, state_doc, what, number)
        except HookFailed as error:
            log.warning(str(error))


def _run_one(hook: "Hook", state_doc: "dict[str, Any]", what: str, number: int) -> None:
    path = hook.get("path", "")
    if not os.path.isabs(path):
        raise HookFailed(what=what, number=number, path=path, reason="the path is not absolute")
    # A file in memory as stdin: a hook that never reads it, or closes it, holds up nobody.
    state = process.memfd_create("state")
    try:
        files.write_all(state, jsonio.dumps(state_doc).encode())
        os.lseek(state, 0, os.SEEK_SET)
        reader, writer = os.pipe2(os.O_CLOEXEC)
        try:
            try:
                pid = _spawn(hook, state, writer)
            except OSError as error:
                reason = f"{(error.strerror or str(error)).lower()}"
                raise HookFailed(what=what, number=number, path=path, reason=reason) from None
            finally:
                os.close(writer)
            reason = _result(pid, reader, hook.get("timeout"))
        finally:
            os.close(reader)
    finally:
        os.close(state)
    if reason:
        raise HookFailed(what=what, number=number, path=path, reason=reason)


def _spawn(hook: "Hook", stdin: int, output: int) -> int:
    environment: dict[bytes, bytes]
    if hook.get("env") is None:  # as runc: no "env" means the runtime's own, an empty one is empty
        environment = dict(os.environb)
    else:
        pairs = (os.fsencode(entry).partition(b"=") for entry in hook["env"])
        environment = {name: value for name, _, value in pairs if name}
    return os.posix_spawn(
        hook["path"],
        hook.get("args") or [hook["path"]],
        environment,
        file_actions=[
            (os.POSIX_SPAWN_DUP2, stdin, 0),
            (os.POSIX_SPAWN_DUP2, output, 1),
            (os.POSIX_SPAWN_DUP2, output, 2),
        ],
        setpgroup=0,  # so that a timeout reaches the hook's children too
        setsigmask=[],
        setsigdef=process.IGNORED_BY_PYTHON,
    )


def _result(pid: int, reader: int, timeout: "float | None") -> str:
    """Wait for the hook; "" when it did well, else what happened and the last lines it printed."""
    fcntl.fcntl(reader, fcntl.F_SETFL, os.O_NONBLOCK)
    end = None if timeout is None else time.monotonic() + timeout
    tail = b""
    pidfd = process.pidfd_open(pid)
    reaped = False
    try:
        poller = select.poll()
        poller.register(pidfd, select.POLLIN)
        poller.register(reader, select.POLLIN)
        ended = False
        while not ended:
            left = None if end is None else max(0.0, end - time.monotonic()) * 1000
            events = dict(poller.poll(left))
            if reader in events:
                chunk = _some(reader)
                tail = (tail + chunk)[-_TAIL:]
                if not chunk:
                    poller.unregister(reader)
            # The process counts, not the end of its output: a daemon it left may hold the pipe open.
            ended = pidfd in events
            if not ended and end is not None and time.monotonic() >= end:
                return f"hook ran past specified timeout of {timeout:g}s" + _quote(tail)
        _, code = os.waitpid(pid, 0)
        reaped = True
        while chunk := _some(reader):
            tail = (tail + chunk)[-_TAIL:]
    finally:
        if not reaped:
            _kill_group(pid)
        os.close(pidfd)
    return _verdict(os.waitstatus_to_exitcode(code), tail)


def _some(reader: int) -> bytes:
    try:
        return os.read(reader, 65536)
    except BlockingIOError:
        return b""


def _kill_group(pid: int) -> None:
    try:
        os.killpg(pid, process.SIGKILL)
    except ProcessLookupError:
        pass
    os.waitpid(pid, 0)


def _verdict(code: int, tail: bytes) -> str:
    if code == 0:
        return ""
    if code < 0:
        return f"killed by {process.signal_name(-code)}" + _quote(tail)
    return f"exit status {code}" + _quote(tail)


def _quote(tail: bytes) -> str:
    lines = [line.strip() for line in tail.decode("utf-8", "replace").splitlines() if line.strip()]
    return ": " + "; ".join(lines[-_LINES:]) if lines else ""
