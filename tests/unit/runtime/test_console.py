"""Terminals, with real ptys: one plays the person's, another the process's."""

import errno
import fcntl
import os
import select
import signal
import socket
import struct
import subprocess
import termios
import threading
import time
from pathlib import Path

import pytest

from ocimig.runtime import console, sockets
from ocimig.runtime.errors import SocketFailed
from ocimig.runtime.linux import process
from ocimig_testkit import until


class Person:
    """A terminal as a person has it: `side` is the far end, `tty` what the program gets."""

    def __init__(self) -> None:
        self.side, self.tty = os.openpty()
        self.seen = b""

    def reads(self, words: bytes, seconds: float = 10) -> bytes:
        """Everything shown until `words` are there."""
        deadline = time.monotonic() + seconds
        while words not in self.seen:
            left = deadline - time.monotonic()
            assert left > 0, f"waited for {words!r}, saw {self.seen[-500:]!r}"
            if select.select([self.side], [], [], left)[0]:
                self.seen += os.read(self.side, 65536)
        return self.seen

    def close(self) -> None:
        os.close(self.side)
        os.close(self.tty)


def _with_pty(*argv: str) -> "tuple[subprocess.Popen[bytes], int]":
    """A process on a pty of its own, and the master of it."""
    master, slave = os.openpty()
    child = subprocess.Popen(
        argv, stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )  # fmt: skip
    os.close(slave)
    return child, master


def _close(fd: int) -> None:
    try:
        os.close(fd)
    except OSError:
        pass  # it was the descriptor of the listing


class Running:
    """A relay in a process of its own, as `run` is: signals need a main thread."""

    def __init__(self, master: int, stdin: int, stdout: int, watched: int) -> None:
        self.pid = os.fork()
        if self.pid:
            return
        try:
            for name in os.listdir("/proc/self/fd"):  # the far ends belong to the test alone
                if int(name) not in {0, 1, 2, master, stdin, stdout}:
                    _close(int(name))
            pidfd = process.pidfd_open(watched)
            with console.Relay(master, stdin, stdout) as relay:
                relay.run(pidfd, None, lambda number: process.pidfd_send_signal(pidfd, number))
        except BaseException:  # noqa: BLE001 - a forked test process must not run the rest
            import traceback

            traceback.print_exc()
            os._exit(1)
        os._exit(0)

    def ends(self) -> int:
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def test_a_terminal_is_relayed_raw_and_given_back() -> None:
    """What is typed arrives, what is shown comes back, and the settings are what they were."""
    person = Person()
    before = termios.tcgetattr(person.tty)
    child, master = _with_pty("sh", "-c", "stty -echo; echo up; read line; echo got:$line; read x")
    relay = Running(master, person.tty, person.tty, child.pid)
    person.reads(b"up\r\n")
    until(lambda: not termios.tcgetattr(person.tty)[3] & termios.ICANON, "the terminal is raw")
    os.write(person.side, b"hello\r")
    person.reads(b"got:hello\r\n")
    os.write(person.side, b"\x03")  # ^C is a byte for the container's terminal, not a signal for us
    assert child.wait(10) == -signal.SIGINT
    assert relay.ends() == 0
    assert termios.tcgetattr(person.tty) == before
    person.close()
    os.close(master)


def test_the_size_of_the_terminal_follows() -> None:
    """At the start, and again at SIGWINCH."""
    person = Person()
    fcntl.ioctl(person.tty, termios.TIOCSWINSZ, struct.pack("4H", 31, 97, 0, 0))
    script = "trap 'stty size; exit' WINCH; stty size; while :; do sleep 0.05; done"
    child, master = _with_pty("sh", "-c", "read x; " + script)
    relay = Running(master, person.tty, person.tty, child.pid)
    until(lambda: not termios.tcgetattr(person.tty)[3] & termios.ICANON, "the terminal is raw")
    os.write(person.side, b"\r")
    person.reads(b"31 97\r\n")
    fcntl.ioctl(person.tty, termios.TIOCSWINSZ, struct.pack("4H", 40, 120, 0, 0))
    os.kill(relay.pid, signal.SIGWINCH)
    person.reads(b"40 120\r\n")
    assert child.wait(10) == 0
    assert relay.ends() == 0
    person.close()
    os.close(master)


def test_a_signal_is_forwarded_and_the_terminal_restored() -> None:
    """SIGTERM ends the process, not the relay in its middle."""
    person = Person()
    before = termios.tcgetattr(person.tty)
    child, master = _with_pty(
        "sh", "-c", "trap 'echo bye; exit 7' TERM; echo up; while :; do sleep 0.05; done"
    )
    relay = Running(master, person.tty, person.tty, child.pid)
    person.reads(b"up")
    os.kill(relay.pid, signal.SIGTERM)
    person.reads(b"bye")
    assert child.wait(10) == 7
    assert relay.ends() == 0
    assert termios.tcgetattr(person.tty) == before
    person.close()
    os.close(master)


def test_input_that_is_no_terminal_ends_where_it_ends(tmp_path: Path) -> None:
    """A pipe's end becomes ^D, also after an unfinished line; all output arrives."""
    child, master = _with_pty("sh", "-c", "stty -echo; cat; seq 1 20000")
    in_reader, in_writer = os.pipe()
    out = os.open(tmp_path / "out", os.O_RDWR | os.O_CREAT)
    relay = Running(master, in_reader, out, child.pid)
    os.close(in_reader)
    time.sleep(0.2)  # `stty -echo` first: an echo in between is no fault but would change the text
    os.write(in_writer, b"one\nunfinished")
    os.close(in_writer)
    assert child.wait(20) == 0
    assert relay.ends() == 0
    text = os.pread(out, 1 << 20, 0).decode().replace("\r\n", "\n")
    assert text.startswith("one\nunfinished")
    assert text.endswith("".join(f"{number}\n" for number in range(19990, 20001)))
    os.close(out)
    os.close(master)


def test_a_process_that_does_not_read_cannot_block_the_relay() -> None:
    """Megabytes typed at a process that only prints: what it prints still arrives."""
    child, master = _with_pty("sh", "-c", "stty raw -echo; sleep 0.3; seq 1 50000; echo end")
    in_reader, in_writer = os.pipe()
    out_reader, out_writer = os.pipe()
    relay = Running(master, in_reader, out_writer, child.pid)
    os.close(in_reader)
    os.close(out_writer)

    def type_much() -> None:
        try:
            for _ in range(64):
                os.write(in_writer, b"x" * 65536)
        except BrokenPipeError:
            pass
        os.close(in_writer)

    typist = threading.Thread(target=type_much)
    typist.start()
    shown = b""
    while chunk := os.read(out_reader, 65536):
        shown += chunk
    assert b"50000\nend\n" in shown
    assert relay.ends() == 0
    child.wait(10)
    typist.join(10)
    os.close(out_reader)
    os.close(master)


def test_a_reader_that_goes_away_does_not_stop_the_process() -> None:
    """Like `run | head`: the process runs to its end, printing to nobody."""
    child, master = _with_pty("sh", "-c", "seq 1 200000; exit 5")
    null = os.open("/dev/null", os.O_RDONLY)
    reader, writer = os.pipe()
    relay = Running(master, null, writer, child.pid)
    os.close(writer)
    os.read(reader, 100)
    os.close(reader)
    assert child.wait(20) == 5
    assert relay.ends() == 0
    os.close(null)
    os.close(master)


def test_a_pty_held_open_by_another_does_not_hold_up() -> None:
    """The watched process's end ends the relay once its output is read."""
    script = "(trap '' HUP; echo $$ $(sh -c 'echo $PPID'); exec sleep 1000) & sleep 0.3; echo last"
    child, master = _with_pty("sh", "-c", script)
    null = os.open("/dev/null", os.O_RDONLY)
    reader, writer = os.pipe()
    relay = Running(master, null, writer, child.pid)
    os.close(writer)
    began = time.monotonic()
    assert relay.ends() == 0
    assert time.monotonic() - began < 10
    shown = os.read(reader, 65536)
    assert b"last" in shown
    child.wait()
    subprocess.run(["pkill", "-KILL", "-s", str(child.pid)], check=False)
    for fd in (null, reader, master):
        os.close(fd)


def test_signals_arrive_as_numbers_and_handlers_come_back() -> None:
    """Within the block nothing is killed; after it all is as before."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    with console.Signals() as signals:
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGRTMIN + 2):
            os.kill(os.getpid(), number)
        assert select.select([signals], [], [], 5)[0]
        assert set(signals.read()) == {signal.SIGTERM, signal.SIGHUP, signal.SIGRTMIN + 2}
        assert signals.read() == []
    assert {number: signal.getsignal(number) for number in before} == before
    assert signal.set_wakeup_fd(-1) == -1


@pytest.mark.parametrize("depth", [0, 3])
def test_a_descriptor_is_sent_with_its_name(tmp_path: Path, depth: int) -> None:
    """One message, one descriptor, whatever the length of the socket's path."""
    path = tmp_path.joinpath(*["d" * 60] * depth, "sock")
    path.parent.mkdir(parents=True, exist_ok=True)
    listener = sockets.bind(str(path), socket.SOCK_STREAM, 0o600)
    listener.listen(1)
    reader, writer = os.pipe()
    console.send_fd(str(path), writer, "/dev/pts/0")
    with socket.socket(fileno=listener.detach()) as server:
        peer, _ = server.accept()
        with peer:
            name, fds = sockets.receive(peer, 4096, 2)
    assert name == b"/dev/pts/0"
    assert len(fds) == 1
    assert not os.get_inheritable(fds[0])
    os.write(fds[0], b"same")
    assert os.read(reader, 4) == b"same"
    for fd in (fds[0], reader, writer):
        os.close(fd)


def test_a_socket_nobody_listens_on_is_named(tmp_path: Path) -> None:
    """With the reason, and what must be there."""
    with pytest.raises(
        SocketFailed, match=r"cannot send the console to .*: no such file"
    ) as caught:
        console.send_fd(str(tmp_path / "none"), 0, "x")
    assert "listen" in caught.value.advice
    (tmp_path / "file").touch()
    with pytest.raises(SocketFailed, match=os.strerror(errno.ECONNREFUSED).lower()):
        console.send_fd(str(tmp_path / "file"), 0, "x", what="pidfd")
