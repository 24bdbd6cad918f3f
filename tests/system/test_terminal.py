"""Terminals: ours handed through in the foreground, or the container's own handed to a console socket."""

import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from fcntl import ioctl
from pathlib import Path
from typing import Any

import pytest

from ocimig_testkit import Bundle, Ocimig, until
from ocimig_testkit.console import ConsoleSocket

pytestmark = [pytest.mark.root, pytest.mark.busybox]
own = pytest.mark.skipif("OCIMIG_RUNTIME" in os.environ, reason="another runtime does otherwise")


class Outer:
    """A person at a terminal: starts a command on it, types, reads, resizes the window."""

    def __init__(self, argv: list[str], rows: int = 24, columns: int = 80) -> None:
        self.shown = b""
        self.master, slave = pty.openpty()
        self.resize(rows, columns, quiet=True)
        self.before = termios.tcgetattr(slave)
        self.slave = slave
        # a session of its own, with this terminal as the controlling one
        take = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0);" \
               " os.execvp(sys.argv[1], sys.argv[1:])"  # fmt: skip
        self.process = subprocess.Popen(
            [sys.executable, "-c", take, *argv],
            stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
        )  # fmt: skip

    def type(self, text: str) -> None:
        """Keys."""
        os.write(self.master, text.encode())

    def resize(self, rows: int, columns: int, *, quiet: bool = False) -> None:
        """Pull the window; the kernel tells the foreground process."""
        ioctl(self.master, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))
        assert quiet or self.process.poll() is None

    def until(self, wanted: str, seconds: float = 15.0) -> str:
        """What is shown, up to where `wanted` appears."""
        deadline = time.monotonic() + seconds
        while wanted.encode() not in self.shown:
            left = max(0.0, deadline - time.monotonic())
            assert select.select([self.master], [], [], left)[0], f"no {wanted!r}: {self.shown!r}"
            self.shown += os.read(self.master, 65536)
        before, _, self.shown = self.shown.partition(wanted.encode())
        return before.decode(errors="replace")

    def wait(self) -> int:
        """Until the command ends; its code."""
        end = time.monotonic() + 20
        while self.process.poll() is None and time.monotonic() < end:
            if select.select([self.master], [], [], 0.05)[0]:
                self.shown += os.read(self.master, 65536)
        return self.process.wait(1)

    def restored(self) -> bool:
        """Whether the terminal is as it was before."""
        return termios.tcgetattr(self.slave) == self.before

    def close(self) -> None:
        """Go away."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.slave)
        os.close(self.master)


@pytest.fixture
def outer(ocimig: Ocimig) -> Iterator[Any]:
    """`outer(verb, …)` starts the program on a terminal of its own."""
    made: list[Outer] = []

    def start(*arguments: "str | os.PathLike[str]", **options: int) -> Outer:
        made.append(Outer(ocimig.command(*arguments), **options))
        return made[-1]

    yield start
    for one in made:
        one.close()


@pytest.fixture
def tty(bundle: Bundle) -> Bundle:
    """A bundle that wants a terminal and runs a shell on it."""
    bundle.process["terminal"] = True
    bundle.process["env"].append("PS1=> ")
    return bundle.argv("/bin/sh")


# ---- in the foreground


def test_a_person_works_in_a_container(ocimig: Ocimig, tty: Bundle, outer: Any) -> None:
    """Type, read, end with a code; afterwards the terminal is as before."""
    person = outer("run", "--bundle", tty.path, ocimig.new_id())
    person.until("> ")
    person.type("tty; echo $((40 + 2))\n")
    person.until("/dev/pts/0")
    person.until("42")
    person.type("exit 7\n")
    assert person.wait() == 7
    assert person.restored()


def test_exec_with_a_terminal(ocimig: Ocimig, bundle: Bundle, outer: Any) -> None:
    """The same by exec -t."""
    id = ocimig.launch(bundle)
    person = outer("exec", "-t", "--env", "PS1=% ", id, "/bin/sh")
    person.until("% ")
    person.type("test -t 0 && test -t 1 && echo ter''minal; exit 5\n")
    person.until("terminal")
    assert person.wait() == 5
    assert person.restored()
    assert ocimig.status(id) == "running"


def test_control_c_reaches_the_program_and_not_the_runtime(
    ocimig: Ocimig, tty: Bundle, outer: Any
) -> None:
    """It is a key like any other; the container's terminal makes a signal of it."""
    tty.shell("trap 'echo caught; exit 3' INT; echo up; while :; do sleep 0.1; done")
    person = outer("run", "--bundle", tty.path, ocimig.new_id())
    person.until("up")
    person.type("\x03")
    person.until("caught")
    assert person.wait() == 3
    assert person.restored()


def test_the_window_is_the_persons_and_follows_it(ocimig: Ocimig, tty: Bundle, outer: Any) -> None:
    """At the start and at each change."""
    tty.shell("trap 'stty size' WINCH; stty size; echo up; while :; do sleep 0.1; done")
    person = outer("run", "--bundle", tty.path, ocimig.new_id(), rows=33, columns=111)
    assert "33 111" in person.until("up")
    person.resize(44, 122)
    person.until("44 122")


@own
def test_the_size_of_the_config_holds_without_a_persons(ocimig: Ocimig, tty: Bundle) -> None:
    """consoleSize."""
    tty.process["consoleSize"] = {"height": 20, "width": 70}
    tty.shell("stty size; while :; do sleep 1; done")
    with ConsoleSocket(tty.path / "console") as console:
        ocimig.launch(tty, "--console-socket", str(console.path))
        console.read_until("20 70")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_the_runtime_goes_to_the_program_and_the_terminal_is_restored(
    ocimig: Ocimig, tty: Bundle, outer: Any, number: int
) -> None:
    """While a person's terminal is raw."""
    tty.shell("trap 'exit 9' TERM HUP; echo up; while :; do sleep 0.1; done")
    person = outer("run", "--bundle", tty.path, ocimig.new_id())
    person.until("up")
    until(lambda: not person.restored(), "the terminal to be raw")
    os.kill(person.process.pid, number)
    assert person.wait() == 9
    assert person.restored()


def test_much_output_arrives_whole(ocimig: Ocimig, tty: Bundle, outer: Any) -> None:
    """A megabyte, to the last byte, though the program ends at once."""
    tty.shell(
        "i=0; while [ $i -lt 16000 ]; do echo 0123456789012345678901234567890123456789012345678901234567890; i=$((i+1)); done; echo the-end"
    )
    person = outer("run", "--bundle", tty.path, ocimig.new_id())
    assert person.wait() == 0
    text = person.shown
    while select.select([person.master], [], [], 0.2)[0]:
        text += os.read(person.master, 65536)
    assert text.rstrip().endswith(b"the-end")
    assert text.count(b"567890\r") == 16000


@own
def test_no_container_is_left_when_the_person_hangs_up(
    ocimig: Ocimig, tty: Bundle, outer: Any
) -> None:
    """A shell reads the end of its terminal and ends, so the container goes with the window."""
    id = ocimig.new_id()
    person = outer("run", "--bundle", tty.path, id)
    person.until("> ")
    os.close(person.master)
    person.master = os.open("/dev/null", os.O_RDONLY)
    person.process.wait(20)
    assert ocimig.status(id) == ""


# ---- by a console socket


@pytest.mark.parametrize("verb", ["create", "run -d"])
def test_a_console_socket_gets_the_terminal(ocimig: Ocimig, tty: Bundle, verb: str) -> None:
    """create and run -d: what conmon and containerd do."""
    with ConsoleSocket(tty.path / "console") as console:
        id = ocimig.new_id()
        ocimig(*verb.split(), "--bundle", tty.path, "--console-socket", console.path, id)
        assert os.isatty(console.master())
        if verb == "create":
            ocimig.start(id)
        console.write("echo $((40 + 2)); ls -l /dev/console; stat -c %t,%T /dev/console; exit\n")
        shown = console.read_until("88,0\r\n")
        assert "42\r\n" in shown
        assert "/dev/console" in shown
        ocimig.wait(id, "stopped")


def test_exec_detached_with_a_console_socket(ocimig: Ocimig, bundle: Bundle) -> None:
    """Its terminal is another than that of the container."""
    id = ocimig.launch(bundle)
    with ConsoleSocket(bundle.path / "console") as console:
        options = ["-t", "-d", "--console-socket", str(console.path)]
        ocimig.exec(id, "/bin/sh", "-c", "tty; read x; echo got $x", options=options)
        console.read_until("/dev/pts/")
        console.write("it\n")
        console.read_until("got it")


def test_the_terminal_belongs_to_the_user(ocimig: Ocimig, tty: Bundle) -> None:
    """And job control works: it is the controlling terminal."""
    tty.process["user"] = {"uid": 1000, "gid": 1000}
    tty.shell("stat -c %u $(tty); echo hi >/dev/tty; sleep 100")
    with ConsoleSocket(tty.path / "console") as console:
        ocimig.launch(tty, "--console-socket", str(console.path))
        assert "1000\r\n" in console.read_until("hi\r\n")


def test_a_hang_up_ends_what_reads_the_terminal(ocimig: Ocimig, tty: Bundle) -> None:
    """The caller closes the master: SIGHUP for the session's leader."""
    with ConsoleSocket(tty.path / "console") as console:
        id = ocimig.launch(tty, "--console-socket", str(console.path))
        console.read_until("> ")
    ocimig.wait(id, "stopped")


@pytest.mark.userns
def test_a_terminal_in_a_user_namespace(ocimig: Ocimig, tty: Bundle) -> None:
    """It belongs to the mapped root."""
    tty.linux["namespaces"].append({"type": "user"})
    mapping = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    tty.linux["uidMappings"] = tty.linux["gidMappings"] = mapping
    subprocess.run(["chown", "-hR", "100000:100000", tty.rootfs], check=True)
    for directory in tty.rootfs.parents:
        if directory != Path("/tmp") and directory.is_relative_to("/tmp"):
            directory.chmod(0o755)
    with ConsoleSocket(tty.path / "console") as console:
        id = ocimig.launch(
            tty.shell("stat -c %u,%t $(tty); sleep 100"), "--console-socket", str(console.path)
        )
        console.read_until("0,88")
        console.fd, first = -1, console.fd
        options = ["-t", "-d", "--console-socket", str(console.path)]
        ocimig.exec(id, "/bin/sh", "-c", "tty; sleep 100", options=options)
        console.read_until("/dev/pts/1")
        os.close(first)


# ---- what is refused


def test_a_terminal_without_a_socket_is_refused(ocimig: Ocimig, tty: Bundle) -> None:
    """Where the runtime will not stay."""
    for verb in (["create"], ["run", "-d"]):
        id = ocimig.new_id()
        answer = ocimig(*verb, "--bundle", tty.path, id, code=1)
        assert "cannot allocate tty if" in answer.err
        assert "without setting console socket" in answer.err
        assert ocimig.status(id) == ""


def test_a_socket_without_a_terminal_is_refused(
    ocimig: Ocimig, bundle: Bundle, tmp_path: Path
) -> None:
    """And where it stays."""
    id = ocimig.new_id()
    answer = ocimig(
        "create", "--bundle", bundle.path, "--console-socket", tmp_path / "s", id, code=1
    )
    assert "cannot use console socket if" in answer.err
    assert ocimig.status(id) == ""


@own
@pytest.mark.parametrize("kind", ["missing", "file", "nobody listens"])
def test_a_console_socket_that_is_none_is_named(
    ocimig: Ocimig, tty: Bundle, tmp_path: Path, kind: str
) -> None:
    """And nothing is left of the container."""
    path = tmp_path / "console"
    if kind == "file":
        path.touch()
    elif kind == "nobody listens":
        ConsoleSocket(path).close()
    id = ocimig.new_id()
    answer = ocimig("create", "--bundle", tty.path, "--console-socket", path, id, code=1)
    assert str(path) in answer.err
    assert ocimig.status(id) == ""


@own
def test_a_terminal_without_devpts_says_so(ocimig: Ocimig, tty: Bundle, outer: Any) -> None:
    """Its master would be one of the host's."""
    mounts = tty.config["mounts"]
    tty.config["mounts"] = [row for row in mounts if row["destination"] != "/dev/pts"]
    person = outer("run", "--bundle", tty.write().path, ocimig.new_id())
    assert person.wait() == 1
    assert b"devpts" in person.shown


@own
def test_a_terminal_run_works_where_the_caller_has_none(ocimig: Ocimig, tty: Bundle) -> None:
    """Its streams are files then: what it prints arrives, and the end of input ends it."""
    answer = ocimig.run(tty.shell("test -t 1 && echo ter''minal; cat; exit 4"), timeout=20)
    assert "terminal" in answer.out or "tty" in answer.err
    assert answer.code in {4, 1}
