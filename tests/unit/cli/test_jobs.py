"""job run, list, status, validate, show, install-timer: what they print and how they exit."""

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from ocimig.cli.commands import jobs
from ocimig.cli.verbs import Call, Misuse
from ocimig.cli.verbs_jobs import JOBS
from ocimig.errors import SystemFailure
from ocimig.migrate.jobs.errors import NoSuchJob
from ocimig_testkit.backups import FakeRepository, write_job

LEAST = 'repository = "sftp://me:s3cret@host/b"\ncontainers = ["web"]\n'
VERBS = {verb.name: verb for verb in JOBS}


class Desk:
    """A directory of jobs, a repository, and the verbs over them."""

    def __init__(self, directory: Path) -> None:
        self.jobs = directory / "jobs.d"
        self.states = directory / "state"
        self.root = directory / "root"
        self.repository = FakeRepository()
        self.jobs.mkdir()

    def write(self, name: str, text: str = LEAST) -> Path:
        """A job's file."""
        return write_job(self.jobs, text, name)

    def __call__(self, verb: str, *arguments: str, **options: Any) -> int:
        """Run a verb as the command line would."""
        given: dict[str, object] = {
            name.replace("_", "-"): value for name, value in options.items()
        }
        given["jobs"] = str(self.jobs)
        if "state" in VERBS[verb].by_name:
            given["state"] = str(self.states)
        call = Call(VERBS[verb], {"root": str(self.root)}, given, list(arguments))
        module, _, name = VERBS[verb].target.partition(":")
        assert module == jobs.__name__
        code: int = getattr(jobs, name)(call)
        return code


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    """With a repository that opens."""
    found = Desk(tmp_path)
    monkeypatch.setattr(
        jobs, "_repository", lambda call, job, passphrase: nullcontext(found.repository)
    )
    return found


def test_jobs_run_one_after_another_and_the_worst_counts(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    """One that fails, or whose file is wrong, keeps no other from running."""
    for name in ("a", "c"):
        desk.write(name)
    desk.write("b", "containers = 1\n")
    desk.write("d", LEAST.replace("web", "db"))
    desk.repository.fail["db"] = SystemFailure(what="dump", reason="no")
    assert desk("job run", all=True) == 2
    assert desk.repository.did("create") == ["create web", "create web", "create db"]
    out, err = capsys.readouterr()
    assert [line for line in out.splitlines() if "success" in line or "failed in" in line] == [
        line for line in out.splitlines() if line[:2] in ("a:", "c:", "d:")
    ]
    assert "b: " in err
    assert "containers: must be a list of strings" in err
    assert "hint: " in err
    assert desk("job run", "a", "d") == 1
    assert desk("job run", "a", "c") == 0


def test_programs_read_json(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing else on standard output."""
    desk.write("a")
    assert desk("job run", "a", format="json") == 0
    (document,) = json.loads(capsys.readouterr().out)
    assert (document["job"], document["result"]) == ("a", "success")
    assert document["containers"][0]["frozen_seconds"] == 0.25
    assert desk("job status", format="json") == 0
    (document,) = json.loads(capsys.readouterr().out)
    assert (document["status"], document["containers"]["web"]["bytes_read"]) == ("success", 1000)


def test_a_dry_run_runs_nothing(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    """It says what would be done."""
    desk.write("a", LEAST + "keep_last = 2\n")
    assert desk("job run", "a", dry_run=True) == 0
    out = capsys.readouterr().out
    assert "a:\n  save web\n" in out
    assert desk.repository.asked == ["snapshots"]
    assert not desk.states.exists()


@pytest.mark.parametrize(("arguments", "all_of_them"), [((), False), (("a",), True)])
def test_names_or_all_but_not_both(
    desk: Desk, arguments: tuple[str, ...], all_of_them: bool
) -> None:
    """Nothing is guessed: code 2; and all of none is no success."""
    with pytest.raises(NoSuchJob, match="no job at all in "):
        desk("job run", all=True)
    desk.write("a")
    with pytest.raises(Misuse) as error:
        desk("job run", *arguments, all=all_of_them)
    assert error.value.code == 2


def test_a_job_that_is_not_there_is_said_to_be(desk: Desk) -> None:
    """By every verb that takes a name."""
    for verb in ("job run", "job status", "job show", "job install-timer"):
        with pytest.raises(NoSuchJob) as error:
            desk(verb, "nobody")
        assert error.value.code == 10


def test_the_list_shows_broken_jobs_too(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    """And no password."""
    desk.write("a", LEAST + 'schedule = "daily"\n')
    desk.write("b", "x = 1\n")
    assert desk("job list") == 3
    out = capsys.readouterr().out
    assert "a: web\n  to sftp://***@host/b, daily\n" in out
    assert "b: " in out
    assert "x: there is no such key" in out
    assert desk("job list", quiet=True) == 3
    assert capsys.readouterr().out == "a\nb\n"
    assert desk("job list", format="json") == 3
    assert [each["job"] for each in json.loads(capsys.readouterr().out)] == ["a", "b"]


def test_every_mistake_of_every_file_is_a_line(
    desk: Desk, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Code 2; a file may lie elsewhere, as before it is put in place. A warning is 3."""
    good = desk.write("good")
    assert desk("job validate", "good") == 0
    assert capsys.readouterr().out == f"{good}: ok\n"
    other = write_job(tmp_path / "new", "x = 1\ny = 2\n", "new")
    assert desk("job validate", "good", str(other)) == 2
    out = capsys.readouterr().out.splitlines()
    assert [line for line in out if line.startswith(f"{other}: ")] == [
        f"{other}: repository: is missing",
        f"{other}: containers: is missing, and so is labels: nothing would be saved",
        f"{other}: x: there is no such key",
        f"{other}: y: there is no such key",
    ]
    assert desk("job validate", "nobody") == 10
    good.chmod(0o644)
    assert desk("job validate") == 3
    assert "holds a secret, and others can read it" in capsys.readouterr().out


def test_a_job_is_shown_with_its_defaults_and_without_its_secrets(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    """What would be used, not what was written."""
    desk.write("a", LEAST + 'keep_last = 3\n[ping]\nstart = "https://hc-ping.com/t0ken"\n')
    assert desk("job show", "a") == 0
    out = capsys.readouterr().out
    shown = json.loads(out)
    assert shown["repository"] == "sftp://***@host/b"
    assert shown["policy"] == "keep 3 last"
    assert shown["on_failure"] == "continue"
    assert "s3cret" not in out
    assert "t0ken" not in out


def test_the_units_can_be_looked_at_first(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    """Every file with its path, and nothing is written."""
    desk.write("a", LEAST + 'schedule = "*-*-* 02:30"\n')
    assert desk("job install-timer", "a", print=True) == 0
    out = capsys.readouterr().out
    assert "# /etc/systemd/system/ocimig-job@a.timer.d/ocimig.conf\n" in out
    assert "OnCalendar=*-*-* 02:30\n" in out
    assert "/ocimig job run %i\n" in out


def test_without_a_store_the_run_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Code 1 and a reason without the password."""
    desk = Desk(tmp_path)
    desk.write("a")
    assert desk("job run", "a") == 1
    said = capsys.readouterr().out
    assert "sftp://***@host/b" in said
    assert "a store is a directory or ssh://HOST/DIRECTORY" in said


def test_annotations_choose_containers(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Read from the state of the containers that are here; one that is half made is passed over."""
    from ocimig.runtime.state import ContainerState
    from ocimig.runtime.store import Store

    store = Store(str(desk.root))
    for id, value in (("one", "nightly"), ("two", "weekly")):
        store.claim(id)
        made = ContainerState(id)
        made.annotations = {"backup": value}
        store.save(made)
    store.claim("half")
    desk.write("a", 'repository = "/b"\nlabels = ["backup=nightly"]\n')
    assert desk("job run", "a") == 0
    assert desk.repository.did("create") == ["create one"]
