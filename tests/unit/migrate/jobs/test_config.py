"""The file of a job: what it may say, and how mistakes are told."""

import os
import re
from pathlib import Path
from typing import Any

import pytest

from ocimig.migrate.jobs import config, words
from ocimig.migrate.jobs.errors import JobInvalid, NoSuchJob
from ocimig.migrate.jobs.job import Check, Ping, select
from ocimig.migrate.jobs.table import Table
from ocimig.migrate.retention import Policy, Span
from ocimig_testkit.backups import make_job, write_job
from ocimig_testkit.source import ROOT

LEAST = 'repository = "/srv/backup"\ncontainers = ["web"]\n'


def _problems(text: str, name: str = "nightly") -> list[str]:
    return config.parse(text, f"/etc/ocimig/jobs.d/{name}.toml")[1]


def test_the_example_is_a_job() -> None:
    """What administrators start from works, and uses every kind of thing there is."""
    text = (ROOT / "contrib/jobs/example.toml").read_text()
    job, problems = config.parse(text, "/etc/ocimig/jobs.d/nightly.toml")
    assert problems == []
    assert job.name == "nightly"
    assert job.policy == Policy(
        daily=7, weekly=5, monthly=12, within=Span(days=2), tags=(("release",),)
    )
    assert job.checks[1] == Check("data", 30 * 86400.0, 0.05)
    assert [(hook.side, hook.level) for hook in job.hooks] == [
        ("before", "job"),
        ("before", "container"),
        ("after", "action"),
        ("after", "error"),
    ]
    assert (job.timeout, job.randomized_delay) == (10800.0, 600.0)


def test_the_example_of_the_manual_is_a_job() -> None:
    """Administrators copy it."""
    page = (ROOT / "docs/jobs.md").read_text()
    (text,) = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    job, problems = config.parse(text, "/etc/ocimig/jobs.d/nightly.toml")
    assert problems == []
    assert len(job.checks) == 3
    assert len(job.hooks) == 2


def test_every_key_is_documented_and_every_documented_key_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """docs/formats/job.md and the reader know the same keys."""
    asked = set()
    take = Table._take

    def note(table: Table, key: str, default: Any) -> Any:
        asked.add(re.sub(r"\[[0-9]+\]", "", f"{table._where}{key}"))
        return take(table, key, default)

    monkeypatch.setattr(Table, "_take", note)
    _problems("[[checks]]\n[[commands]]\nafter = 'job'\n")
    page = (ROOT / "docs/formats/job.md").read_text()
    assert set(re.findall(r"^\| `([a-z_.]+)` \|", page, re.MULTILINE)) == asked


WRONG = ["1", "-5", "true", '"x"', '""', "[1]", "[]", "{a = 1}", "{}", "[{}]", "[[1]]", "inf",
         "1979-05-27", '"\\u0000"', '["", "x=", "=", "\\n"]', "99999999999999999999"]  # fmt: skip


@pytest.mark.parametrize("value", WRONG)
def test_no_value_of_any_key_is_more_than_a_problem(value: str) -> None:
    """Never a traceback, whatever somebody writes; what is not there at all still has its default."""
    page = (ROOT / "docs/formats/job.md").read_text()
    for key in re.findall(r"^\| `([a-z_.]+)` \|", page, re.MULTILINE):
        table, _, name = key.rpartition(".")
        head = f"[[{table}]]" if table in ("checks", "commands") else f"[{table}]" if table else ""
        job, problems = config.parse(
            f"{head}\n{name} = {value}\n", "/etc/ocimig/jobs.d/nightly.toml"
        )
        assert job.name == "nightly"
        assert problems, (key, value)


def test_little_is_enough() -> None:
    """A repository and a container; the repository is looked at once a month."""
    job, problems = config.parse(LEAST, "/etc/ocimig/jobs.d/nightly.toml")
    assert problems == []
    assert not job.policy
    assert job.checks == (Check("repository", 30 * 86400.0),)
    assert job.ping == Ping()


def test_every_mistake_is_named_at_once() -> None:
    """Nobody wants to find them one by one."""
    problems = _problems(
        """
        contaners = ["web"]
        keep_daily = "seven"
        keep_within = "1w"
        timeout = "soon"
        on_failure = "ignore"
        timezone = "Mars/Olympus"
        passphrase_file = "pass"
        labels = ["backup"]
        [ping]
        finsh = "https://example.com/x"
        fail = "file:///etc/shadow"
        [[checks]]
        name = "datas"
        frequency = "weekly"
        [[commands]]
        before = "container"
        after = "job"
        when = ["prune"]
        """
    )
    wanted = [
        "repository: is missing",
        "contaners: there is no such key; did you mean containers?",
        'keep_daily: must be a number, or "unlimited"',
        "keep_within: '1w' is no duration",
        "timeout: 'soon' is no length of time",
        "on_failure: 'ignore' is none of continue, stop",
        "timezone: there is no time zone 'Mars/Olympus'",
        "passphrase_file: must be an absolute path",
        "labels: 'backup' is no annotation",
        "ping.finsh: there is no such key; did you mean finish?",
        "ping.fail: is no address",
        "checks[1].name: 'datas' is none of repository, data, restore; did you mean data?",
        "checks[1].frequency: 'weekly' is no length of time",
        "commands[1].before: there must be one of before and after",
        "commands[1].when: of a container there is only create",
        "commands[1].run: is missing",
    ]
    for start in wanted:
        assert [each for each in problems if each.startswith(start)], (start, problems)
    assert len(problems) == len(wanted), problems


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("keep_last = 0", "keep_last: keeps nothing"),
        ('keep_within = ""\nkeep_tags = []', "keep_tags: keeps nothing"),
        ("keep_last = -2", "keep_last: must be a number"),
        ("keep_last = true", "keep_last: must be a number"),
        ('schedule = "daily\\nExecStart=x"', "schedule: must be one line"),
        ('key_file = "/a\\nb"', "key_file: must be an absolute path"),
        ('key_file = "$CREDENTIALS_DIRECTORY/../x/y"', "key_file: does not name a credential"),
        ('encryption_passcommand = "echo \'x"', "encryption_passcommand: No closing quotation"),
        ('encryption_passcommand = "x"\npassphrase_file = "/x"', "passphrase_file: goes not together"),
        ('checks = [{name = "data"}, {name = "data"}]', "checks[2].name: data is there twice"),
        ('checks = [{name = "restore", part = "5%"}]', "checks[1].part: is for the check named data"),
        ('checks = ["data"]', "checks: must be a list of tables"),
        ('commands = [{before = "error", run = "x"}]', "commands[1].before: 'error' is none of"),
        ('commands = [{after = "error", run = "x", states = ["fail"]}]', "commands[1].states: is for"),
        ('commands = [{after = "job", run = "x", timeout = "0"}]', "commands[1].timeout: must be more"),
        ("ping = 1", "ping: must be a table"),
        ('timeout = "99999999999999 s"', "timeout: '99999999999999 s' is more than"),
        ("x = " + "[" * 5000, "not TOML: "),
        ("= 1", "not TOML: "),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused(line: str, reason: str) -> None:
    """A key that is silently ignored is a backup that silently is not made."""
    assert [each for each in _problems(f"{LEAST}{line}\n") if each.startswith(reason)]


def test_a_name_that_could_lead_elsewhere_is_no_job(tmp_path: Path) -> None:
    """The name becomes part of paths and of units."""
    for name in ("../nightly", "", ".hidden", "a/b", "a b"):
        with pytest.raises(NoSuchJob):
            config.load(name, str(tmp_path))
    assert _problems(LEAST, "a b")[0].startswith("'a b' cannot name a job")


def test_jobs_are_the_files_of_the_directory(tmp_path: Path) -> None:
    """Editors' copies are none."""
    write_job(tmp_path, LEAST, "b")
    write_job(tmp_path, LEAST, "a")
    (tmp_path / "a.toml~").touch()
    (tmp_path / ".a.toml").touch()
    assert config.names(str(tmp_path)) == ["a", "b"]
    assert config.names(str(tmp_path / "nowhere")) == []
    assert config.load("a", str(tmp_path)).containers == ("web",)


def test_a_file_that_others_can_write_is_refused(tmp_path: Path) -> None:
    """It names commands that root runs."""
    path = write_job(tmp_path, LEAST)
    for mode in (0o620, 0o602):
        path.chmod(mode)
        with pytest.raises(JobInvalid, match="others can write it"):
            config.read(str(path))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_of_somebody_else_is_refused(tmp_path: Path) -> None:
    """As a crontab would be."""
    path = write_job(tmp_path, LEAST)
    os.chown(path, 65534, -1)
    with pytest.raises(JobInvalid, match="belongs to user 65534"):
        config.read(str(path))


def test_secrets_that_others_can_read_are_warned_of(tmp_path: Path) -> None:
    """The passphrase's file, the key, and a job that holds an address with a token."""
    secret = tmp_path / "pass"
    secret.touch(mode=0o644)
    secret.chmod(0o644)
    job = make_job(tmp_path, f'passphrase_file = "{secret}"\n')
    os.chmod(job.path, 0o644)
    assert config.warnings(job) == [f"{secret}: others can read it: chmod 600 {secret}"]
    token = make_job(tmp_path, '[ping]\nfinish = "https://hc-ping.com/1234"\n', "token")
    assert config.warnings(token) == []
    os.chmod(token.path, 0o640)
    assert config.warnings(token)[0].startswith(f"{token.path}: holds a secret")


def test_an_address_that_is_refused_is_not_repeated() -> None:
    """It may hold a password."""
    problems = _problems('containers = ["web"]\nrepository = "sftp://me:hunter2@[host/"\n')
    assert problems == ["repository: is neither a path nor an address"]
    assert _problems('containers = ["web"]\nrepository = ""\n') == ["repository: is empty"]
    assert _problems('containers = ["web"]\n') == ["repository: is missing"]
    problems = _problems(LEAST + '[ping]\nfail = "ftp://me:hunter2@host/"\n')
    assert problems == ["ping.fail: is no address: as in https://hc-ping.com/UUID"]


def test_labels_choose_by_annotation(tmp_path: Path) -> None:
    """All of them must match; what is named is meant, here or not."""
    job = make_job(tmp_path, 'containers = ["db"]\nlabels = ["backup=night*", "tier=1"]\n')
    here = {
        "web": {"backup": "nightly", "tier": "1"},
        "db": {"backup": "nightly", "tier": "1"},
        "cache": {"backup": "nightly", "tier": "2"},
        "other": {},
    }
    assert select(job, here) == ("db", "web")
    assert select(job, {}) == ("db",)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90 s", 90), ("1 hour 30 min", 5400), ("2 weeks", 1209600), ("1.5h", 5400), ("1d12h", 129600),
     ("0", 0), ("1 month", 2592000), ("5m", 300)],
)  # fmt: skip
def test_lengths_of_time(text: str, seconds: float) -> None:
    """As people and systemd write them."""
    assert words.seconds(text) == seconds


@pytest.mark.parametrize("text", ["5", "h", "1 fortnight", "-1 s", "1 s,", "", "1 hour x"])
def test_what_is_no_length_of_time(text: str) -> None:
    """Nothing is guessed."""
    with pytest.raises(ValueError, match="no length of time|no unit of time"):
        words.seconds(text)


@pytest.mark.parametrize("text", ["0%", "101%", "5", "-1%", "x%"])
def test_what_is_no_part(text: str) -> None:
    """A part is more than nothing and no more than all."""
    with pytest.raises(ValueError, match="no part"):
        words.part(text)
