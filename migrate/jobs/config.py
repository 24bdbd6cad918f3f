"""The file of a job: TOML, checked as a whole, every problem named at once. Never acts on it.

docs/formats/job.md names every key. The name of the job is the file's, without `.toml`.
"""

import os
import re
import shlex
import stat
import tomllib
import urllib.parse
import zoneinfo

from ocimig import files
from ocimig.migrate.jobs import words
from ocimig.migrate.jobs.errors import JobInvalid, NoSuchJob
from ocimig.migrate.jobs.job import (
    ACTION,
    ACTIONS,
    AFTER,
    BEFORE,
    CONTAINER,
    CONTINUE,
    CREATE,
    DATA,
    ERROR,
    FAIL,
    FINISH,
    JOB,
    REPOSITORY,
    RESTORE,
    STOP,
    Check,
    Hook,
    Job,
    Ping,
)
from ocimig.migrate.jobs.table import Table
from ocimig.migrate.retention import Policy, Span
from ocimig.runtime.errors import InvalidId
from ocimig.runtime.store import check_id

DIRECTORY = "/etc/ocimig/jobs.d"
SUFFIX = ".toml"
CREDENTIALS = "$CREDENTIALS_DIRECTORY/"  # what systemd gives a service, by LoadCredentialEncrypted
_LARGEST = 1 << 20
_PERIODS = ("hourly", "daily", "weekly", "monthly", "yearly")
_DEFAULT_CHECKS = (Check(REPOSITORY, frequency=30 * 86400.0),)


def names(directory: str = DIRECTORY) -> list[str]:
    """The jobs that have a file, in order; none without the directory."""
    try:
        found = os.listdir(directory)
    except FileNotFoundError:
        return []
    return sorted(
        name.removesuffix(SUFFIX)
        for name in found
        if name.endswith(SUFFIX) and not name.startswith(".")
    )


def load(name: str, directory: str = DIRECTORY) -> Job:
    """The job of that name. Raises NoSuchJob or JobInvalid."""
    if not _can_name(name) or not os.path.exists(path(name, directory)):
        raise NoSuchJob(job=name, directory=directory)
    return read(path(name, directory))


def path(name: str, directory: str = DIRECTORY) -> str:
    """Where the file of a job is."""
    return os.path.join(directory, f"{name}{SUFFIX}")


def read(file: str) -> Job:
    """The job of a file. Raises JobInvalid with everything that is wrong with it, NoSuchJob without it."""
    path = os.path.abspath(file)
    try:
        content = files.read(path, limit=_LARGEST).decode()
    except FileNotFoundError:
        raise NoSuchJob(job=os.path.basename(path), directory=os.path.dirname(path)) from None
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "is not UTF-8"
        raise JobInvalid(path=path, problems=[reason.lower()]) from None
    job, problems = parse(content, path)
    problems += _writable(path)
    if problems:
        raise JobInvalid(path=path, problems=problems)
    return job


def parse(content: str, path: str) -> tuple[Job, list[str]]:
    """The job that a text describes, and its problems; with one, the job is only what could be read."""
    name = os.path.basename(path).removesuffix(SUFFIX)
    problems: list[str] = []
    try:
        document = tomllib.loads(content)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        reason = str(error)
        return Job(name, path, ""), [f"not TOML: {reason[:1].lower()}{reason[1:]}"]
    if not _can_name(name):
        problems.append(f"{name!r} cannot name a job: letters, digits and _+.- are fine")
    table = Table(document, problems)
    job = Job(
        name=name,
        path=path,
        repository=_repository(table),
        containers=table.texts("containers"),
        labels=_labels(table),
        schedule=table.text("schedule"),
        randomized_delay=table.parsed("randomized_delay", words.seconds, 0.0),
        timezone=_timezone(table),
        policy=_policy(table),
        checks=_checks(table),
        hooks=tuple(_hook(each) for each in table.tables("commands")),
        ping=_ping(table.table("ping")),
        passcommand=_passcommand(table),
        passphrase_file=_file(table, "passphrase_file"),
        key_file=_file(table, "key_file"),
        tags=table.texts("tags"),
        on_failure=table.text("on_failure", choices=(CONTINUE, STOP)) or CONTINUE,
        timeout=table.parsed("timeout", words.seconds, 0.0),
        metrics_directory=_file(table, "metrics_directory"),
    )
    if not table.given("containers") and not table.given("labels"):
        problems.append("containers: is missing, and so is labels: nothing would be saved")
    elif not job.containers and not job.labels:
        problems.append("containers: names nothing")
    for container in job.containers:
        try:
            check_id(container)
        except InvalidId:
            table.problem("containers", f"{container!r} cannot name a container")
    if job.passcommand and job.passphrase_file:
        problems.append("passphrase_file: goes not together with encryption_passcommand")
    if not job.schedule.isprintable():
        table.problem("schedule", "must be one line, as systemd.time(7) describes for OnCalendar=")
    table.end()
    return job, problems


def warnings(job: Job) -> list[str]:
    """What an administrator should know of the files of a job: secrets that others can read."""
    found = []
    if has_secrets(job) and _mode(job.path) & 0o077:
        found.append(f"{job.path}: holds a secret, and others can read it: chmod 600 {job.path}")
    return found + [
        f"{path}: others can read it: chmod 600 {path}"
        for path in (job.passphrase_file, job.key_file)
        if path and not path.startswith(CREDENTIALS) and _mode(path) & 0o077
    ]


def has_secrets(job: Job) -> bool:
    """Whether the file itself holds what others should not read: addresses with a password or a token."""
    addresses = (job.repository, job.ping.start, job.ping.finish, job.ping.fail)
    return any(address and _secret_in(address) for address in addresses)


def _secret_in(address: str) -> bool:
    parts = urllib.parse.urlsplit(address)
    return bool(parts.password or (parts.scheme in ("http", "https") and parts.path.strip("/")))


def _can_name(name: str) -> bool:
    try:
        check_id(name)
    except InvalidId:
        return False
    return True


def _mode(path: str) -> int:
    try:
        return stat.S_IMODE(os.stat(path).st_mode)
    except OSError:
        return 0


def _writable(path: str) -> list[str]:
    """A job's file runs commands: who can write it is who runs it."""
    try:
        found = os.stat(path)
    except OSError as error:
        return [(error.strerror or str(error)).lower()]
    problems = []
    if found.st_mode & 0o022:
        problems.append(f"others can write it, and it names commands to run: chmod go-w {path}")
    if found.st_uid not in (0, os.geteuid()):
        problems.append(
            f"it belongs to user {found.st_uid}, and names commands to run: chown root {path}"
        )
    return problems


def _repository(table: Table) -> str:
    def readable(text: str) -> str:
        try:
            urllib.parse.urlsplit(text)
        except ValueError:
            raise ValueError("is neither a path nor an address") from None  # it may hold a password
        return text

    text = table.parsed("repository", readable, "")
    if not text and not table.given("repository"):
        table.problem("repository", "is missing")
    elif table.given("repository") and not text and not table.problems:
        table.problem("repository", "is empty")
    return text


def _labels(table: Table) -> tuple[tuple[str, str], ...]:
    found = []
    for text in table.texts("labels"):
        key, equals, value = text.partition("=")
        if not key or not equals:
            table.problem("labels", f"{text!r} is no annotation: as in backup=daily")
        found.append((key, value))
    return tuple(found)


def _timezone(table: Table) -> str:
    def known(name: str) -> str:
        try:
            zoneinfo.ZoneInfo(name)
        except (zoneinfo.ZoneInfoNotFoundError, OSError):
            raise ValueError(f"there is no time zone {name!r}: as in Europe/Berlin") from None
        return name

    return table.parsed("timezone", known, "")


def _policy(table: Table) -> Policy:
    named = [f"keep_{name}" for name in ("last", *_PERIODS, "tags")]
    named += ["keep_within", *(f"keep_within_{name}" for name in _PERIODS)]

    def span(key: str) -> Span:
        return table.parsed(key, Span.parse, Span())

    policy = Policy(
        last=table.count("keep_last"),
        hourly=table.count("keep_hourly"),
        daily=table.count("keep_daily"),
        weekly=table.count("keep_weekly"),
        monthly=table.count("keep_monthly"),
        yearly=table.count("keep_yearly"),
        within=span("keep_within"),
        within_hourly=span("keep_within_hourly"),
        within_daily=span("keep_within_daily"),
        within_weekly=span("keep_within_weekly"),
        within_monthly=span("keep_within_monthly"),
        within_yearly=span("keep_within_yearly"),
        tags=tuple(tuple(text.split(",")) for text in table.texts("keep_tags")),
    )
    given = [key for key in named if table.given(key)]
    if given and not policy and not table.problems:
        table.problem(given[0], "keeps nothing; leave all keep_… out to forget nothing")
    return policy


def _checks(table: Table) -> tuple[Check, ...]:
    if not table.given("checks"):
        table.tables("checks")
        return _DEFAULT_CHECKS
    found: list[Check] = []
    for each in table.tables("checks"):
        name = each.text("name", choices=(REPOSITORY, DATA, RESTORE), required=True)
        if each.given("part") and name != DATA:
            each.problem("part", "is for the check named data")
        if name in [check.name for check in found]:
            each.problem("name", f"{name} is there twice")
        found.append(
            Check(
                name=name,
                frequency=each.parsed("frequency", words.frequency, 0.0),
                part=each.parsed("part", words.part, 1.0),
            )
        )
        each.end()
    return tuple(found)


def _hook(table: Table) -> Hook:
    levels = {BEFORE: (JOB, ACTION, CONTAINER), AFTER: (JOB, ACTION, CONTAINER, ERROR)}
    given = [side for side in levels if table.given(side)]
    side = given[0] if given else BEFORE
    level = table.text(side, choices=levels[side])
    table.text(AFTER if side == BEFORE else BEFORE)
    if len(given) != 1:
        table.problem(BEFORE, "there must be one of before and after")
    when = table.texts("when", choices=ACTIONS)
    if level == CONTAINER and when and CREATE not in when:
        table.problem("when", "of a container there is only create")
    states = table.texts("states", choices=(FINISH, FAIL))
    if states and (side, level) not in ((AFTER, JOB), (AFTER, ACTION), (AFTER, CONTAINER)):
        table.problem("states", "is for after job, action and container")
    run = table.texts("run")
    if not any(line.strip() for line in run):
        table.problem("run", "is missing")
    timeout = table.parsed("timeout", words.seconds, 3600.0)
    if timeout <= 0:
        table.problem("timeout", "must be more than 0")
    table.end()
    return Hook(side, level, run, when or ACTIONS, states or (FINISH, FAIL), timeout)


def _ping(table: Table) -> Ping:
    addresses = {}
    for key in ("start", "finish", "fail"):
        addresses[key] = table.parsed(key, _address, "")
    timeout = table.parsed("timeout", words.seconds, 10.0)
    if timeout <= 0:
        table.problem("timeout", "must be more than 0")
    table.end()
    return Ping(**addresses, timeout=timeout)


def _address(text: str) -> str:
    try:
        parts = urllib.parse.urlsplit(text)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        good = False
    if not good or re.search(r"[\s\x00-\x1f\x7f]", text):
        # Not quoted: it may hold a password.
        raise ValueError("is no address: as in https://hc-ping.com/UUID")
    return text


def _passcommand(table: Table) -> str:
    def split(text: str) -> str:
        if not shlex.split(text):
            raise ValueError("is empty")
        return text

    return table.parsed("encryption_passcommand", split, "")


def _file(table: Table, key: str) -> str:
    path = table.text(key)
    if path.startswith(CREDENTIALS) and key != "metrics_directory":
        if not re.fullmatch(r"[A-Za-z0-9_.-]+", path.removeprefix(CREDENTIALS)):
            table.problem(key, "does not name a credential: letters, digits and _.- are fine")
    elif path and (not os.path.isabs(path) or not path.isprintable()):
        table.problem(key, "must be an absolute path")
    return path
