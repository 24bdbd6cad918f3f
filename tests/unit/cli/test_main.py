"""The front door: exit codes, and where an error is told."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ocimig import log
from ocimig.cli import main
from ocimig.cli.commands import query
from ocimig.cli.verbs import Call
from ocimig.errors import OcimigError, SystemFailure
from ocimig.migrate.errors import HostKeyUnknown

Run = Callable[..., int]


@pytest.fixture(autouse=True)
def _own_log() -> Iterator[None]:
    """Each test begins with the log of a new process."""
    yield
    if log.log.fd != 2:
        os.close(log.log.fd)
    log.log.__init__()  # type: ignore[misc]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """A command line whose `state` does what the test says."""

    def perform(*argv: str, does: Callable[[Call], int] | BaseException | int = 0) -> int:
        def command(call: Call) -> int:
            if isinstance(does, BaseException):
                raise does
            return does if isinstance(does, int) else does(call)

        monkeypatch.setattr(query, "state", command)
        return main.run(list(argv))

    return perform


def _records(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_code_is_what_the_verb_returns(run: Run) -> None:
    """run and exec pass on the status of the process."""
    assert run("state", "c1", does=7) == 7


def test_an_error_of_a_runc_verb_is_code_1_whatever_it_is(
    run: Run, capfd: pytest.CaptureFixture[str]
) -> None:
    """A caller of runc knows no other codes; the text is one record on stderr."""
    error = SystemFailure(what="look", reason="no such thing")
    error.code = 14
    assert run("state", "c1", does=error) == 1
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith('time="')
    assert lines[0].endswith('level=error msg="look: no such thing"')


def test_a_log_file_gets_one_json_object_and_stderr_the_bare_message(
    run: Run, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """podman decodes the whole file as one object; conmon forwards stderr."""
    path = tmp_path / "log.json"
    error = SystemFailure(what="look", reason='a "quoted" thing')
    assert run("--log", str(path), "--log-format", "json", "state", "c1", does=error) == 1
    (record,) = _records(path)
    assert record["level"] == "error"
    assert record["msg"] == 'look: a "quoted" thing'
    assert capfd.readouterr().err == 'look: a "quoted" thing\n'


def test_a_wrong_command_line_is_logged_where_the_caller_looks(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The options before the verb count although what follows is wrong."""
    path = tmp_path / "log.json"
    argv = ["--log", str(path), "--log-format", "json", "restore", "--lsm-mount-context"]
    assert main.run(argv) == 1
    (record,) = _records(path)
    assert record["msg"] == "flag needs an argument: -lsm-mount-context"
    seen = capfd.readouterr()
    assert seen.err == "flag needs an argument: -lsm-mount-context\n"
    assert seen.out.startswith("Incorrect Usage: flag needs an argument: -lsm-mount-context\n")


def test_a_hint_follows_the_message(run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    """One line that says what to do."""
    assert main.run(["--root", "/nonexistent-ocimig", "list"]) == 1
    first, second = capfd.readouterr().err.splitlines()
    assert "open /nonexistent-ocimig: no such file or directory" in first
    assert second.startswith("hint: ")


def test_ocimigs_own_verbs_exit_with_the_code_of_the_error(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """And say it to a person, without a time stamp."""
    from ocimig.cli.commands import doctor

    def refuse(call: Call) -> int:
        raise HostKeyUnknown(
            host="h", type="ed25519", fingerprint="SHA256:x", remedy="ssh-keyscan h"
        )

    monkeypatch.setattr(doctor, "doctor", refuse)
    assert main.run(["doctor"]) == 13
    assert capfd.readouterr().err.startswith("ocimig doctor: the host key of h is not known")


def test_what_nobody_expected_shows_its_traceback(
    run: Run, capfd: pytest.CaptureFixture[str]
) -> None:
    """A defect is told in full, with the same one record."""
    assert run("state", "c1", does=ZeroDivisionError("x")) == 1
    text = capfd.readouterr().err
    assert text.count("level=error") == 1
    assert "ZeroDivisionError: x" in text
    assert "Traceback (most recent call last)" in text


@pytest.mark.parametrize(("options", "shown"), [((), False), (("--debug",), True)])
def test_what_was_expected_shows_one_only_with_debug(
    run: Run, capfd: pytest.CaptureFixture[str], options: tuple[str, ...], shown: bool
) -> None:
    """A person who mistyped a name is not shown our source."""
    run(*options, "state", "c1", does=OcimigError(reason="no"))
    assert ("Traceback" in capfd.readouterr().err) == shown


def _terminate(call: Call) -> int:
    os.kill(os.getpid(), signal.SIGTERM)
    return 0


def test_interrupts_have_their_codes(run: Run) -> None:
    """130 and 143, as a shell would say."""
    assert run("state", "c1", does=KeyboardInterrupt()) == 130
    assert run("state", "c1", does=_terminate) == 143
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.mark.parametrize("root", ["", "/", "//", "/x/.."])
def test_the_whole_file_system_is_no_root(root: str, capfd: pytest.CaptureFixture[str]) -> None:
    """An empty variable in a script must not make it one."""
    assert main.run(["--root", root, "list"]) == 1
    assert "Option --root argument should not be set to /" in capfd.readouterr().err


def test_a_log_that_cannot_be_opened_is_an_error(
    run: Run, capfd: pytest.CaptureFixture[str]
) -> None:
    """The caller would look for the reason in vain."""
    assert run("--log", "/nonexistent-ocimig/log", "state", "c1") == 1
    assert "open /nonexistent-ocimig/log: no such file or directory" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("verb", "message"),
    [
        ("create", "create failed: "),
        ("run", "run failed: "),
        ("exec", "exec failed: container does not exist"),
    ],
)
def test_runcs_verbs_say_which_of_them_failed(
    verb: str, message: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """As runc prefixes them, and exec's code is 255."""
    words = ["exec", "c1", "ls"] if verb == "exec" else [verb, "-b", "/nonexistent-ocimig", "c1"]
    assert main.run(["--root", str(tmp_path), *words]) == (255 if verb == "exec" else 1)
    assert message in capfd.readouterr().err


SOURCE = str(Path(main.__file__).parents[2])
LAUNCHER = (
    f"import sys; sys.path.insert(0, {SOURCE!r}); sys.argv[0] = 'ocimig'\n"
    "from ocimig.cli.main import main; main()"
)


def _isolated(*argv: str, **streams: int) -> subprocess.CompletedProcess[bytes]:
    """As the launcher starts it: without site, environment and working directory."""
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams}
    words = [sys.executable, "-IS", "-c", LAUNCHER, *argv]
    return subprocess.run(words, check=False, stdin=subprocess.DEVNULL, **streams)  # type: ignore[call-overload, no-any-return]


def test_the_program_runs_without_site_and_finds_click_when_it_needs_it() -> None:
    """The launcher leaves out site; an odd command line brings it back."""
    answer = _isolated("checkpoint", "--help")
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.startswith(b"NAME:\n   ocimig checkpoint - ")


def test_a_reader_that_goes_away_is_no_crash() -> None:
    """`ocimig --help | head -1` ends quietly."""
    reader, writer = os.pipe()
    os.close(reader)
    answer = _isolated("--help", stdout=writer)
    os.close(writer)
    assert answer.returncode == 1
    assert answer.stderr == b""


def test_an_output_that_does_not_arrive_is_an_error() -> None:
    """A full disk: who reads the file must not take half of it for all."""
    with open("/dev/full", "wb") as full:
        answer = _isolated("--help", stdout=full.fileno())
    assert answer.returncode == 1
    assert answer.stderr == b"write <stdout>: no space left on device\n"


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_standard_descriptors_are_no_crash(closed: str, tmp_path: Path) -> None:
    """What is opened next must not become standard output: the log file stays a log."""
    path = tmp_path / "log"
    words = [sys.executable, "-IS", "-c", LAUNCHER, "--root", str(tmp_path), "--log", str(path)]
    script = f'exec "$@" {closed}'
    for verb, code in (("list", 0), ("state", 1)):
        done = subprocess.run(
            ["sh", "-c", script, "sh", *words, verb, *(["c1"] * code)], check=False
        )
        assert done.returncode == code
    assert path.read_text().count("level=error") == 1
    assert len(path.read_text().splitlines()) == 1
