"""What a caller asked to be given of a process that was just made: its pid, its pidfd, its terminal."""

import os

from ocimig import files
from ocimig.errors import SystemFailure
from ocimig.runtime import launch, sync
from ocimig.runtime.errors import ConsoleMismatch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocimig.runtime.create import CreateOptions
    from ocimig.runtime.exec import ExecOptions


def check_terminal(terminal: bool, detach: bool, console_socket: str) -> None:
    """Raise ConsoleMismatch unless somebody will hold the terminal, and only if there is one."""
    if terminal and detach and not console_socket:
        raise ConsoleMismatch(
            reason="allocate tty if ocimig will detach without setting console socket"
        )
    if console_socket and not (terminal and detach):
        raise ConsoleMismatch(reason="use console socket if ocimig will not detach or allocate tty")


def hand_over(started: launch.Launch, options: "CreateOptions | ExecOptions") -> int:
    """Send and write what `options` name; returns the master of a terminal that stays ours, or -1."""
    master = started.received.pop(sync.CONSOLE, -1)
    if master >= 0 and options.console_socket:
        from ocimig.runtime import console

        try:
            console.send_fd(options.console_socket, master, "/dev/console")
        finally:
            os.close(master)
            master = -1
    elif master >= 0:
        from ocimig.runtime import console

        console.Relay(master).resize()  # before the program asks for it
    if options.pidfd_socket:
        from ocimig.runtime import console

        with files.Fd(os.pidfd_open(started.pid)) as pidfd:
            console.send_fd(options.pidfd_socket, pidfd, "pidfd", what="pidfd")
    if options.pid_file:
        write_pid_file(options.pid_file, started.pid)
    return master


def write_pid_file(path: str, pid: int) -> None:
    """The number without a newline, whole or not at all: callers read the file as soon as it is there."""
    try:
        files.write_atomic(os.path.abspath(path), str(pid).encode(), 0o644, sync=False)
    except OSError as error:
        raise SystemFailure.of(f"write the pid file {path}", error) from None
