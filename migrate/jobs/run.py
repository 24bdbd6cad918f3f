"""A run of a job, from its lock to its metrics. Decides nothing: plan, forgetting and report do.

The order: lock, start ping, hooks before, save each container, forget, prune, checks, hooks after,
hooks on an error, finish or fail ping, state, metrics. Whatever fails, hooks after, the ping, the
state and the metrics still come.
"""

import errno
import os
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from functools import partial

from ocimig import files
from ocimig.errors import NoSpace, OcimigError, SystemFailure
from ocimig.migrate.jobs import command, config, forgetting, metrics, notify, ping, secret, state
from ocimig.migrate.jobs.backups import Outcome, Repository
from ocimig.migrate.jobs.errors import (
    CommandFailed,
    JobBusy,
    JobStateUnreadable,
    NothingToSave,
    OutOfTime,
)
from ocimig.migrate.jobs.job import (
    ACTION,
    ACTIONS,
    AFTER,
    BEFORE,
    CHECK,
    CONTAINER,
    CREATE,
    DATA,
    ERROR,
    FAIL,
    FINISH,
    FORGET,
    JOB,
    PRUNE,
    RESTORE,
    STOP,
    Job,
    select,
)
from ocimig.migrate.jobs.plan import Plan, Step, plan
from ocimig.migrate.jobs.report import Report, advance
from ocimig.migrate.jobs.timeout import OutOfTimeSignal, Timeout

_LONGEST_ERROR = 16384  # characters in a hook's environment, which the kernel bounds
_LONGEST_STEP = 86400.0  # seconds that systemd waits for our next word when the job has no limit


def _nobody(line: str) -> None:
    """Nobody listens."""


@dataclass(frozen=True, slots=True)
class World:
    """What a run acts on. `open` gets the job and its passphrase ("" without one), and what it gives is
    left before the hooks after the job, which may unmount a disk; `annotations` are those of every
    container that is here; `clock` gives seconds since 1970, UTC."""

    open: Callable[[Job, str], AbstractContextManager[Repository]]
    annotations: Callable[[], Mapping[str, Mapping[str, str]]]
    state_directory: str = state.DIRECTORY
    tell: Callable[[str], None] = _nobody
    clock: Callable[[], float] = time.time
    host: str = os.uname().nodename


def run(job: Job, world: World) -> Report:
    """Run the job to its end. What goes wrong is in the report; raises JobBusy when it runs already,
    SystemFailure when its lock cannot be taken.

    SIGTERM and Ctrl-C end it early: then the hooks after, the fail ping and the state come, and
    the exception goes on.
    """
    with ExitStack() as held:
        try:
            os.makedirs(world.state_directory, mode=0o700, exist_ok=True)
            _lock(job, world.state_directory, held)
        except OSError as error:
            raise SystemFailure.of(f"cannot take the lock of job {job.name}", error) from None
        return _Run(job, world).run()


def _lock(job: Job, directory: str, held: ExitStack) -> None:
    for pause in (0.1, 0.2, 0.0):  # who looks at the state takes the lock for a moment: try again
        try:
            held.enter_context(files.Lock(state.lock_path(job.name, directory), wait=False))
        except BlockingIOError:
            time.sleep(pause)
        else:
            return
    raise JobBusy(job=job.name)


class _Run:
    """One run: what it has done so far, as it will be told."""

    def __init__(self, job: Job, world: World) -> None:
        self.job = job
        self.world = world
        self.hide = secret.redaction(job)
        self.begun = time.monotonic()  # the clock of the wall may be set while it runs
        self.step = "nothing yet"
        self.outcomes: list[Outcome] = []
        self.errors: list[str] = []
        self.problems: list[str] = []
        self.warnings: list[str] = list(config.warnings(job))
        self.forgotten: tuple[str, ...] = ()
        self.freed = 0
        self.fatal = 0
        self.checked: dict[str, float] = {}
        self.plan = Plan((), job.hooks)
        self.before = self._earlier()
        self.prune_pending = self.before.prune_pending
        self.started = world.clock()

    def run(self) -> Report:
        """Everything between taking the lock and giving it back."""
        self._save(self._underway())
        notify.notify("READY=1")
        self._ping(self.job.ping.start)
        try:
            with Timeout(self.job.timeout):
                self._work()
        except OutOfTimeSignal:
            late = OutOfTime(job=self.job.name, seconds=self.job.timeout, step=self.step)
            self._fail(late, ends=True)
        except (OcimigError, OSError) as error:
            self._fail(error, ends=True)
        except BaseException as error:
            # SIGTERM, Ctrl-C, or something nobody expected: it is told here too, and then goes on.
            self.errors.append(f"{type(error).__name__} while it did: {self.hide.clean(self.step)}")
            self.fatal = 1
            raise
        finally:
            report = self._close()
        return report

    def _work(self) -> None:
        self._doing("read the passphrase")
        passphrase = secret.passphrase(self.job)
        self.hide = secret.redaction(self.job, passphrase)
        containers = select(self.job, self.world.annotations())
        if not containers:
            raise NothingToSave(job=self.job.name, wanted=self.job.wanted())
        now = self.world.clock()
        pending = self.prune_pending
        self.plan = plan(self.job, containers, self.before.checks, now, prune_pending=pending)
        self._around(lambda: self._actions(passphrase), JOB, ends=True)

    def _actions(self, passphrase: str) -> None:
        self._doing("open the repository")
        with self.world.open(self.job, passphrase) as repository:
            for action in ACTIONS:
                if self.plan.of(action):
                    self._around(partial(self._act, repository, action), ACTION, action)

    def _act(self, repository: Repository, action: str) -> None:
        act = {
            CREATE: self._create,
            FORGET: self._forget,
            PRUNE: self._prune,
            CHECK: self._check,
        }[action]
        for step in self.plan.of(action):
            act(repository, step)

    def _around(
        self,
        body: Callable[[], None],
        level: str,
        action: str = "",
        container: str = "",
        *,
        ends: bool = False,
    ) -> None:
        """Do something between the hooks of its level. The hooks after come however it ends.

        An error is noted and goes no further; with `ends` it is the one that ended the run.
        """
        before = self._trouble()
        failed = True
        try:
            self._hooks(BEFORE, level, action, container)
            body()
            failed = self._trouble() > before
        except (OcimigError, OSError) as error:
            self._fail(error, container, ends=ends)
        finally:
            self._hooks(AFTER, level, action, container, FAIL if failed else FINISH)

    def _trouble(self) -> int:
        return len(self.errors) + len(self.problems) + sum(bool(o.error) for o in self.outcomes)

    # -- the actions

    def _create(self, repository: Repository, step: Step) -> None:
        name = step.container
        if self.job.on_failure == STOP and any(outcome.error for outcome in self.outcomes):
            self._ended(
                Outcome(name, error="not tried: on_failure is stop, and another one failed")
            )
            return

        def save() -> None:
            self._doing(step.describe())
            for outcome in repository.create([name]):
                self._ended(outcome)

        self._around(save, CONTAINER, CREATE, name)
        if self._outcome(name) is None:
            self._ended(Outcome(name, error="the repository did not say how it ended"))

    def _forget(self, repository: Repository, step: Step) -> None:
        self._doing(step.describe())
        saved = [outcome for outcome in self.outcomes if not outcome.error]
        decided = forgetting.decide(
            self.job,
            repository.snapshots(),
            containers={outcome.name for outcome in saved},
            fresh={outcome.snapshot for outcome in saved},
            host=self.world.host,
            zone=forgetting.zone(self.job),
            now=self.world.clock(),
        )
        self.warnings += map(self.hide.clean, decided.warnings)
        if decided.ids:
            # Before it is done: a run that dies in between leaves data that the next one has to remove.
            self.prune_pending = True
            self._save(replace(self._underway(), prune_pending=True))
            repository.forget(decided.ids)
            self.forgotten = decided.ids

    def _prune(self, repository: Repository, step: Step) -> None:
        if self.prune_pending:
            self._doing(step.describe())
            self.freed += repository.prune().bytes_freed
            self.prune_pending = False

    def _check(self, repository: Repository, step: Step) -> None:
        check = step.check
        if check is None:
            return
        self._doing(step.describe())
        if check.name == RESTORE:
            names = {each.container for each in self.plan.of(CREATE)}
            ids = forgetting.newest(repository.snapshots(), names, self.world.host)
            found = repository.rehearse(ids)
        else:
            found = repository.check(check.part if check.name == DATA else 0.0)
        self.problems += map(self.hide.clean, found)
        if not found:  # what found something stays due
            self.checked[check.name] = self.world.clock()

    # -- who hears of it

    def _hooks(
        self, side: str, level: str, action: str = "", container: str = "", how: str = ""
    ) -> None:
        """Run the hooks of one place. Before, the first failure is raised; after, all of them run."""
        for hook in self.plan.around(side, level, action):
            if how and how not in hook.states:
                continue
            self._doing(f"run the hooks {side} {level}")
            try:
                left = self._left() if side == BEFORE else hook.timeout
                command.run(hook, self._environment(container), self.hide, left)
            except CommandFailed as error:
                if side == BEFORE:
                    raise
                self._fail(error)

    def _environment(self, container: str) -> dict[str, str]:
        found = {"OCIMIG_JOB": self.job.name}
        errors = [*self.errors, *self.problems]
        if container:
            found["OCIMIG_CONTAINER"] = container
            outcome = self._outcome(container)
            if outcome is not None:
                found["OCIMIG_SNAPSHOT"] = outcome.snapshot
                errors = [outcome.error] if outcome.error else []
        else:
            errors += [f"{each.name}: {each.error}" for each in self.outcomes if each.error]
        if errors:
            found["OCIMIG_ERROR"] = "; ".join(errors).replace("\0", "")[:_LONGEST_ERROR]
        return found

    def _ping(self, address: str) -> None:
        reason = ping.ping(address, self.job.ping.timeout) if address else ""
        if reason:
            self.warnings.append(f"ping: {self.hide.clean(reason)}")

    def _doing(self, what: str) -> None:
        self.step = what
        text = self.hide.clean(what)
        self.world.tell(f"{self.job.name}: {text}")
        notify.status(text, self._left())

    def _left(self) -> float:
        if not self.job.timeout:
            return _LONGEST_STEP
        return max(0.0, self.job.timeout - (time.monotonic() - self.begun))

    # -- what is kept

    def _ended(self, outcome: Outcome) -> None:
        clean = self.hide.clean
        self.outcomes.append(
            replace(
                outcome,
                error=clean(outcome.error),
                warnings=tuple(clean(text) for text in outcome.warnings),
            )
        )

    def _outcome(self, container: str) -> Outcome | None:
        return next((each for each in self.outcomes if each.name == container), None)

    def _fail(self, error: Exception, container: str = "", *, ends: bool = False) -> None:
        expected = _expected(error, self.step)
        if container and self._outcome(container) is None:
            self._ended(Outcome(container, error=str(expected)))
            return
        self.errors.append(self.hide.clean(str(expected)))
        if ends:
            self.fatal = expected.code or 1

    def _earlier(self) -> state.JobState:
        try:
            return state.load(self.job.name, self.world.state_directory)
        except JobStateUnreadable as error:
            # A backup is worth more than the memory of the last one.
            self.warnings.append(str(error))
            return state.JobState(prune_pending=True)

    def _underway(self) -> state.JobState:
        return replace(self.before, started=self.started, result=state.RUNNING)

    def _save(self, found: state.JobState) -> None:
        try:
            state.save(self.job.name, self.world.state_directory, found)
        except OSError as error:
            self.warnings.append(str(_expected(error, "write the state of the job")))

    def _close(self) -> Report:
        """Hooks on an error, the last ping, state and metrics; each whatever the others do."""
        if self._trouble() or self.fatal:
            self._hooks(AFTER, ERROR)
        good = not self._trouble() and not self.fatal
        self._ping(self.job.ping.finish if good else self.job.ping.fail)
        report = self._report()
        if self.job.metrics_directory:
            try:
                found = advance(self.before, report)
                metrics.write(self.job.name, found, self.job.metrics_directory)
            except OSError as error:
                self.warnings.append(str(_expected(error, "write the metrics")))
                report = self._report()
        self._save(advance(self.before, report))
        return self._report()

    def _report(self) -> Report:
        return Report(
            job=self.job.name,
            started=self.started,
            seconds=time.monotonic() - self.begun,
            outcomes=tuple(self.outcomes),
            selected=tuple(step.container for step in self.plan.of(CREATE)),
            errors=tuple(self.errors),
            fatal=self.fatal,
            problems=tuple(self.problems),
            warnings=tuple(self.warnings),
            forgotten=self.forgotten,
            freed=self.freed,
            checked=dict(self.checked),
            prune_pending=self.prune_pending,
        )


def _expected(error: Exception, step: str) -> OcimigError:
    """The error in words for people; the kernel's get what was being done."""
    if isinstance(error, OcimigError):
        return error
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpace(path=error.filename or "its disk")
    if isinstance(error, OSError):
        return SystemFailure.of(f"cannot {step}", error)
    return SystemFailure(what=step, reason=type(error).__name__)
