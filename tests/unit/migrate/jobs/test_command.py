"""Commands of a job, its passphrase and its pings: bounded, and nothing of them left or shown."""

import os
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from ocimig.migrate.jobs import command, notify, process, secret
from ocimig.migrate.jobs.errors import CommandFailed, SecretUnavailable
from ocimig.migrate.jobs.job import Hook
from ocimig.migrate.jobs.ping import ping
from ocimig.migrate.jobs.secret import Redaction
from ocimig_testkit.backups import Stand, make_job
from ocimig_testkit.waiting import until

SHOW = Redaction()


def _run(
    *lines: str, timeout: float = 30, left: float = 60, hide: Redaction = SHOW, **environment: str
) -> None:
    command.run(Hook("before", "job", lines, timeout=timeout), environment, hide, left)


def _alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(("timeout", "left"), [(0.3, 60.0), (60.0, 0.3)])
def test_a_command_that_hangs_is_ended_with_its_children(
    tmp_path: Path, timeout: float, left: float
) -> None:
    """By its own time or by what is left of the job's."""
    child = tmp_path / "child"
    begun = time.monotonic()
    with pytest.raises(CommandFailed, match=r"did not end in 0\.3 s: waiting"):
        _run(f"echo waiting; sleep 60 & echo $! >{child}; wait", timeout=timeout, left=left)
    assert time.monotonic() - begun < 20
    until(lambda: not _alive(int(child.read_text())), "the end of the child")


def test_what_a_command_leaves_behind_ends_with_it(tmp_path: Path) -> None:
    """A good command too; and who holds its output open holds up nobody."""
    child = tmp_path / "child"
    begun = time.monotonic()
    _run(f"sleep 60 & echo $! >{child}")
    assert time.monotonic() - begun < 20
    until(lambda: not _alive(int(child.read_text())), "the end of the child")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("echo why >&2; exit 7", "exit status 7: why"),
        ("kill -TERM $$", "killed by SIGTERM"),
        ("nosuchprogram-ocimig", "exit status 127: /bin/sh: "),
        ("seq 9; false", "exit status 1: 5; 6; 7; 8; 9"),
        (r"printf 'a\033[2Jb\r\n'; false", "exit status 1: a [2Jb"),
    ],
)
def test_a_command_that_fails_says_why(line: str, reason: str) -> None:
    """Its status and its last words."""
    with pytest.raises(CommandFailed) as failed:
        _run("true", line, "echo never")
    assert reason in str(failed.value)


def test_a_command_gets_what_it_may_want_to_know_and_not_our_socket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """systemd must not hear of a hook's READY=1."""
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/x")
    monkeypatch.setenv("OWN", "kept")
    _run(f'echo "$OCIMIG_JOB $OWN ${{NOTIFY_SOCKET-none}}" >{tmp_path}/out', OCIMIG_JOB="a; b $(c)")
    assert (tmp_path / "out").read_text() == "a; b $(c) kept none\n"


def test_a_secret_cut_in_half_is_not_shown_either() -> None:
    """Only the end of a long output is kept; it may begin within a secret."""
    secret_value = "s3cret" * 5
    size = process.TAIL - len(secret_value) + 8
    line = f"printf %s {secret_value}; head -c {size - 8} /dev/zero | tr '\\0' x; echo; echo {secret_value}; false"
    with pytest.raises(CommandFailed) as failed:
        _run(line, hide=Redaction(secret_value))
    assert str(failed.value).endswith("exit status 1: ***")
    assert "s3cret" not in str(failed.value)


def test_redaction_hides_the_longest_and_every_login() -> None:
    """One secret may be a part of another; an address is recognised wherever it stands."""
    hide = Redaction("abc", "abcdef", "")
    assert hide.clean("abcdef abc") == "*** ***"
    assert hide.clean("at https://me:pw@host/x, ssh://u@h") == "at https://***@host/x, ssh://***@h"
    assert hide.clean_all({"a": ["abc", 1, ("x abc",)]}) == {"a": ["***", 1, ["x ***"]]}


def test_passphrases_come_from_a_command_or_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line, as typed; a credential of systemd's is a file too."""
    (tmp_path / "pass").write_text("  two words \n")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    for key in (
        f"passphrase_file = '{tmp_path}/pass'",
        "passphrase_file = '$CREDENTIALS_DIRECTORY/pass'",
        f"encryption_passcommand = 'cat \"{tmp_path}/pass\"'",
    ):
        assert secret.passphrase(make_job(tmp_path, key)) == "  two words "
    assert secret.passphrase(make_job(tmp_path, "")) == ""


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("passphrase_file = '/nowhere/pass'", "/nowhere/pass: no such file"),
        ("passphrase_file = '/dev/null'", "empty passphrase"),
        ("passphrase_file = '$CREDENTIALS_DIRECTORY/x'", "only systemd gives credentials"),
        ("encryption_passcommand = 'false'", "false ended with status 1"),
        ("encryption_passcommand = 'true'", "true gave an empty passphrase"),
        ("encryption_passcommand = 'nosuchprogram-ocimig x'", "nosuchprogram-ocimig no such file"),
        ("encryption_passcommand = 'head -c 99999 /dev/zero'", "printed more than a passphrase"),
        ("encryption_passcommand = \"printf '\\\\377'\"", "printed no UTF-8"),
    ],
)
def test_a_passphrase_that_cannot_be_had_is_code_12(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str, reason: str
) -> None:
    """And nothing is opened without it."""
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    with pytest.raises(SecretUnavailable) as missing:
        secret.passphrase(make_job(tmp_path, key))
    assert reason in str(missing.value)
    assert missing.value.code == 12


class Listener:
    """A server for pings on this machine: what it was asked, and what it answers."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.status = 200
        listener = self

        class Handler(BaseHTTPRequestHandler):
            """Answers and keeps quiet."""

            def do_GET(self) -> None:
                """Note it."""
                listener.asked.append((self.path, self.headers.get("Authorization", "")))
                self.send_response(listener.status)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                """Nothing on stderr."""

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()

    def close(self) -> None:
        """It is gone."""
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def listener(monkeypatch: pytest.MonkeyPatch) -> Iterator[Listener]:
    """Where pings go, without anybody's proxy."""
    monkeypatch.setenv("no_proxy", "*")
    there = Listener()
    yield there
    there.close()


def test_pings_tell_how_a_job_goes(stand: Stand, listener: Listener) -> None:
    """start, then finish or fail; a login goes into a header."""
    job = stand.job(
        f'[ping]\nstart = "http://{listener.address}/start"\n'
        f'finish = "http://me:p%40ss@{listener.address}/finish"\n'
        f'fail = "http://{listener.address}/fail"\n'
    )
    from ocimig.migrate.jobs.run import run

    os.chmod(job.path, 0o600)
    assert run(job, stand.world).code == 0
    stand.repository.fail["web"] = OSError(5, "Input/output error")
    assert run(job, stand.world).code == 1
    assert [path for path, _ in listener.asked] == ["/start", "/finish", "/start", "/fail"]
    assert listener.asked[1][1] == "Basic bWU6cEBzcw=="


def test_a_ping_that_fails_is_a_warning_without_its_secrets(
    stand: Stand, listener: Listener
) -> None:
    """The server is down, or does not like it: the backup counts."""
    from ocimig.migrate.jobs.run import run

    listener.status = 503
    with socket.create_server(("127.0.0.1", 0)) as free:
        nobody = f"127.0.0.1:{free.getsockname()[1]}"
    job = stand.job(
        f'[ping]\nstart = "http://{nobody}/t0ken"\nfinish = "http://u:pw@{listener.address}/t0ken"\n'
    )
    report = run(job, stand.world)
    assert (report.result, report.code) == ("warnings", 3)
    assert report.warnings == (
        f"ping: http://{nobody}: connection refused",
        f"ping: http://{listener.address} answered 503",
    )
    assert stand.state().last_success > 0


def test_a_server_that_never_answers_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection is taken and nothing comes."""
    monkeypatch.setenv("no_proxy", "*")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        assert ping(f"http://{address}/x", 0.2) == f"http://{address}: no answer in time"


@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_systemd_hears_what_is_being_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """One datagram each; a manager that is gone is no error."""
    name = str(tmp_path / "notify") if kind == "path" else f"@ocimig-test-{os.getpid()}"
    monkeypatch.setenv("NOTIFY_SOCKET", name)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0" + name[1:] if name.startswith("@") else name)
        notify.notify("READY=1")
        notify.status("save web\nREADY=0", 1.5)
        assert manager.recv(1000) == b"READY=1"
        assert manager.recv(1000) == b"STATUS=save web READY=0\nEXTEND_TIMEOUT_USEC=1500000"
    notify.notify("READY=1")
    monkeypatch.setenv("NOTIFY_SOCKET", "relative")
    notify.notify("READY=1")
