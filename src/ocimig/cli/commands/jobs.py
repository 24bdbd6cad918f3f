"""job run, list, status, validate, show, install-timer: backup jobs."""

import os
import shutil
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ocimig import jsonio
from ocimig.cli import context
from ocimig.cli.shown import shown
from ocimig.cli.verbs import Call, Misuse
from ocimig.errors import OcimigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from contextlib import AbstractContextManager

    from ocimig.migrate.jobs.backups import Repository
    from ocimig.migrate.jobs.job import Job
    from ocimig.migrate.jobs.run import World


def run(call: Call) -> int:
    """Run the jobs one after another; the exit code is that of the worst."""
    from ocimig.migrate.jobs import config, report
    from ocimig.migrate.jobs import run as room
    from ocimig.migrate.jobs.errors import NoSuchJob

    if call.flag("all") == bool(call.arguments):
        raise _misuse(call, "name jobs, or --all for every one of them")
    names = call.arguments or config.names(_directory(call))
    if not names:
        raise NoSuchJob(job="at all", directory=_directory(call))
    world = _world(call)
    codes, documents = [], []
    for name in names:
        try:
            job = config.load(name, _directory(call))
            if call.flag("dry-run"):
                codes.append(_preview(job, world))
                continue
            ended = room.run(job, world)
        except OcimigError as error:
            if len(names) == 1:
                raise
            _complain(name, error)
            codes.append(error.code)
            continue
        codes.append(ended.code)
        documents.append(ended.to_dict())
        if not _json(call):
            print("\n".join(map(shown, ended.lines())), flush=True)
    if _json(call) and not call.flag("dry-run"):
        print(jsonio.dumps(documents, indent=2))
    return report.worst(codes)


def list_(call: Call) -> int:
    """The jobs and what each saves; one with mistakes is listed too, and makes the exit code 3."""
    from ocimig.migrate.jobs import config

    directory = _directory(call)
    found, code = [], 0
    for name in config.names(directory):
        entry = {"job": name, "schedule": "", "saves": "", "repository": "", "problem": ""}
        try:
            job = config.load(name, directory)
            entry |= {
                "schedule": job.schedule,
                "saves": job.wanted(),
                "repository": _shown(job),
            }
        except OcimigError as error:
            entry["problem"], code = str(error), 3
        found.append(entry)
    if call.flag("quiet"):
        print("".join(f"{each['job']}\n" for each in found), end="")
    elif _json(call):
        print(jsonio.dumps(found, indent=2))
    else:
        for each in found:
            print(f"{each['job']}: {each['problem'] or each['saves']}")
            if not each["problem"]:
                print(f"  to {each['repository']}, {each['schedule'] or 'without a schedule'}")
    return code


def status(call: Call) -> int:
    """How the last runs ended. Always 0 when it could be found out: monitoring reads the words."""
    import time

    from ocimig.migrate.jobs import config, forgetting
    from ocimig.migrate.jobs import status as room
    from ocimig.migrate.jobs.job import Job

    names = config.names(_directory(call))
    for name in call.arguments:
        if name not in names:
            config.load(name, _directory(call))  # raises, with words
    found = [room.look(name, _state(call)) for name in call.arguments or names]
    if _json(call):
        print(jsonio.dumps([each.to_dict() for each in found], indent=2))
        return 0
    zone = forgetting.zone(Job("", "", ""))
    print("\n".join(map(shown, room.table(found, zone, time.time()))))
    for each in found if call.arguments else ():
        print("\n".join(map(shown, room.details(each))))
    return 0


def validate(call: Call) -> int:
    """Every mistake of every file, one a line; 2 when there is one, 3 when there are warnings."""
    from ocimig.migrate.jobs import config, report

    directory = _directory(call)
    paths = [
        each if "/" in each or each.endswith(config.SUFFIX) else config.path(each, directory)
        for each in call.arguments or config.names(directory)
    ]
    codes = []
    for path in paths:
        try:
            job = config.read(path)
        except OcimigError as error:
            for problem in getattr(error, "problems", (str(error),)):
                print(f"{path}: {problem}")
            codes.append(error.code)
            continue
        remarks = config.warnings(job)
        print("\n".join(f"warning: {remark}" for remark in remarks) or f"{path}: ok")
        codes.append(3 if remarks else 0)
    return report.worst(codes)


def show(call: Call) -> int:
    """The job as it is understood, without its secrets."""
    from ocimig.migrate.jobs import config, secret

    job = config.load(call.arguments[0], _directory(call))
    print(jsonio.dumps(secret.redaction(job).clean_all(job.to_dict()), indent=2))
    return 0


def install_timer(call: Call) -> int:
    """Write the units and enable the timer, or only show them."""
    from ocimig.migrate.jobs import config, units

    job = config.load(call.arguments[0], _directory(call))
    program = _program()
    if call.flag("print"):
        for unit in units.units(job, program):
            print(f"# {os.path.join(units.DIRECTORY, unit.path)}\n{unit.text}")
        return 0
    print("\n".join(units.install(job, program)))
    return 0


def _shown(job: "Job") -> str:
    """Its repository, without a password."""
    from ocimig.migrate.jobs import secret

    return secret.redaction(job).clean(job.repository)


@contextmanager
def _repository(call: Call, job: "Job", passphrase: str) -> "Iterator[Repository]":
    """The store of a job, open within a `with`. The one place that knows who keeps backups."""
    from ocimig.cli.commands import stores
    from ocimig.migrate.backup.repository import StoreRepository
    from ocimig.migrate.jobs.secret import place
    from ocimig.migrate.store.secret import PASSPHRASE, Secret, find
    from ocimig.migrate.store.store import Store

    key_file = place(job.key_file) if job.key_file else ""
    if passphrase:
        opens: Secret | None = Secret(PASSPHRASE, passphrase.encode(), "the passphrase of the job")
    else:
        opens = find(job.repository, key_file=key_file, environment=os.environ)
    with stores.plain_place(job.repository) as found:
        store = Store.open(found, opens, cache=stores.CACHE)
        yield StoreRepository(context.store(call), store, job.tags)


def _world(call: Call) -> "World":
    from ocimig.migrate.jobs.run import World

    store = context.store(call)

    def annotations() -> "Mapping[str, Mapping[str, str]]":
        found = {}
        for id in store.ids():
            try:
                found[id] = store.load(id).annotations
            except OcimigError:
                pass  # it is being made or removed
        return found

    def opened(job: "Job", passphrase: str) -> "AbstractContextManager[Repository]":
        return _repository(call, job, passphrase)

    return World(open=opened, annotations=annotations, state_directory=_state(call), tell=_tell)


def _preview(job: "Job", world: "World") -> int:
    from ocimig.migrate.jobs.preview import preview

    print("\n".join([f"{job.name}:", *(shown(f"  {line}") for line in preview(job, world))]))
    return 0


def _program() -> str:
    """What systemd shall call: this program, by its absolute path."""
    own = os.path.abspath(sys.argv[0])
    if os.path.basename(own) == "ocimig" and os.access(own, os.X_OK):
        return own
    return shutil.which("ocimig") or "/usr/local/bin/ocimig"


def _directory(call: Call) -> str:
    from ocimig.migrate.jobs import config

    return call.text("jobs", config.DIRECTORY)


def _state(call: Call) -> str:
    from ocimig.migrate.jobs import state

    return call.text("state", state.DIRECTORY)


def _json(call: Call) -> bool:
    return call.text("format") == "json"


def _tell(line: str) -> None:
    print(shown(line), file=sys.stderr, flush=True)


def _complain(name: str, error: OcimigError) -> None:
    print(shown(f"{name}: {error}"), file=sys.stderr, flush=True)
    if error.advice:
        print(shown(f"hint: {error.advice}"), file=sys.stderr, flush=True)


def _misuse(call: Call, reason: str) -> Misuse:
    error = Misuse(reason, code=2, verb=call.verb)
    error.outer = call.outer
    return error
