"""Runs of a job that meet others, are ended early, or whose clock is set: what is left, and what the next one does."""

import fcntl
import os
import signal
import stat
import subprocess
import sys
import threading
import time

import pytest

from ocimig import files
from ocimig.errors import SystemFailure
from ocimig.migrate.jobs import state, status
from ocimig.migrate.jobs.errors import JobBusy
from ocimig.migrate.jobs.job import Job
from ocimig.migrate.jobs.run import run
from ocimig_testkit.backups import FakeRepository, Stand, make_world
from ocimig_testkit.waiting import until

BAD = SystemFailure(what="dump web", reason="it does not like it")
DAY = 86400.0


def test_two_runs_at_once_are_refused(stand: Stand) -> None:
    """Code 11; and a look at the status in between is no run."""
    job = stand.job()
    stand.states.mkdir()
    with files.Lock(state.lock_path("nightly", str(stand.states)), wait=False):
        with pytest.raises(JobBusy) as busy:
            run(job, stand.world)
        assert busy.value.code == 11
        assert status.look("nightly", str(stand.states)).status == "running"
    assert stand.repository.asked == []
    assert run(job, stand.world).code == 0
    assert status.look("nightly", str(stand.states)).status == "success"


def test_who_looks_at_the_status_keeps_no_run_from_beginning(stand: Stand) -> None:
    """Looking takes the lock for a moment; here for one that is long enough to be met."""
    stand.states.mkdir()
    looking = os.open(
        state.lock_path("nightly", str(stand.states)), os.O_RDONLY | os.O_CREAT, 0o600
    )
    fcntl.flock(looking, fcntl.LOCK_SH)
    over = threading.Timer(0.05, os.close, (looking,))
    over.start()
    try:
        assert run(stand.job(), stand.world).code == 0
    finally:
        over.join()


def test_a_clock_that_jumps_back_loses_nothing(stand: Stand) -> None:
    """What was just saved is not what the policy removes, and checks are done rather than not."""
    job = stand.job('keep_last = 1\nchecks = [{name = "repository", frequency = "1 week"}]\n')
    assert run(job, stand.world).code == 0
    stand.clock.now -= 400 * DAY
    report = run(job, stand.world)
    assert report.code == 3
    assert "was the clock set?" in report.warnings[0]
    assert {kept.id for kept in stand.repository.kept} == {"web-1", report.outcomes[0].snapshot}
    assert len(stand.repository.did("check")) == 2


def test_a_crash_between_forget_and_prune_is_made_up_for(stand: Stand) -> None:
    """The next run prunes although it has nothing to forget."""

    class Killed(BaseException):
        """As SIGKILL would: nothing after it runs, so the state is put back to what it was then."""

    job = stand.job("keep_last = 1\n")
    run(job, stand.world)
    stand.repository.fail["forget"] = Killed()
    stand.clock.now += DAY
    before = (stand.states / "nightly.json").read_bytes
    seen: list[bytes] = []
    ask = stand.repository.forget

    def forget(ids: list[str]) -> None:
        seen.append(before())
        ask(ids)

    stand.repository.forget = forget  # type: ignore[method-assign, assignment]
    with pytest.raises(Killed):
        run(job, stand.world)
    (stand.states / "nightly.json").write_bytes(seen[0])
    assert status.look("nightly", str(stand.states)).status == "killed"
    assert stand.state().prune_pending
    stand.repository.fail.clear()
    stand.repository.kept = stand.repository.kept[-1:]  # forgotten it was, pruned it was not
    stand.repository.garbage = 700
    stand.repository.asked.clear()
    job = stand.job("keep_last = 2\n")
    report = run(job, stand.world)
    assert stand.repository.did("forget") == []
    assert report.freed == 700
    assert not stand.state().prune_pending


def test_a_crash_between_create_and_forget_forgets_the_next_time(stand: Stand) -> None:
    """What the dead run made counts like any other."""
    job = stand.job("keep_last = 1\n")
    stand.repository.fail["snapshots"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        run(job, stand.world)
    assert stand.state().result == "failed"
    assert "KeyboardInterrupt while it did: forget old snapshots" in stand.state().reason
    stand.repository.fail.clear()
    stand.clock.now += DAY
    report = run(job, stand.world)
    assert (report.code, report.forgotten) == (0, ("web-1",))
    assert len(stand.repository.kept) == 1


def test_a_failed_prune_is_tried_again(stand: Stand) -> None:
    """The backup counts, the space comes later."""
    job = stand.job("keep_last = 1\n")
    run(job, stand.world)
    stand.clock.now += DAY
    stand.repository.fail["prune"] = BAD
    assert run(job, stand.world).code == 3
    assert stand.state().prune_pending
    stand.repository.fail.clear()
    assert run(job, stand.world).freed > 0


def test_a_run_past_its_timeout_is_ended(stand: Stand) -> None:
    """Whatever it waits for; the hooks after come."""
    job = stand.job(
        'timeout = "0.3 s"\ncommands = [{after = "error", run = "echo error >>$LOG"}]\n'
    )

    def hang(job: Job, passphrase: str) -> FakeRepository:
        time.sleep(60)
        return stand.repository

    report = run(job, make_world(stand.states, stand.repository, open=hang))
    assert report.code == 1
    assert "ran past its timeout of 0.3 s while it did: open the repository" in report.reason
    assert stand.lines() == ["error"]
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_a_run_that_ends_in_time_leaves_no_alarm(stand: Stand) -> None:
    """It would ring in the next job."""
    before = signal.getsignal(signal.SIGALRM)
    assert run(stand.job('timeout = "1 hour"\n'), stand.world).code == 0
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    assert signal.getsignal(signal.SIGALRM) is before


def test_a_state_that_cannot_be_read_keeps_no_backup_from_being_made(stand: Stand) -> None:
    """It is said, and written anew."""
    stand.states.mkdir()
    (stand.states / "nightly.json").write_text('{"version": 9}')
    assert status.look("nightly", str(stand.states)).status == "unreadable"
    report = run(stand.job(), stand.world)
    assert report.code == 3
    assert "version 9, this program knows 1" in report.warnings[0]
    assert stand.state().result == "warnings"


def test_what_is_left_is_for_its_owner_only(stand: Stand) -> None:
    """Names of containers and words of errors are nobody else's."""
    run(stand.job(), stand.world)
    for path in stand.states.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(stand.states.stat().st_mode) == 0o700


def test_sigterm_lets_the_hooks_after_run_and_leaves_a_state(stand: Stand) -> None:
    """systemd stops a job by it: the process is another one here, and the whole way is gone."""
    job = stand.job(
        'commands = [{before = "job", run = "echo begun >>$LOG; sleep 60"},'
        '{after = "job", run = "echo cleaned up >>$LOG"}]\n'
    )
    script = (
        "import signal, sys\n"
        "from ocimig.cli.main import _terminate\n"
        "from ocimig.migrate.jobs import config, run\n"
        "signal.signal(signal.SIGTERM, _terminate)\n"
        "run.run(config.read(sys.argv[1]), run.World(lambda j, p: None, dict, sys.argv[2]))\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", script, job.path, str(stand.states)], stderr=subprocess.PIPE
    )
    until(lambda: stand.lines() == ["begun"], "the hook")
    child.send_signal(signal.SIGTERM)
    _, said = child.communicate(timeout=30)
    assert b"Terminated" in said
    assert stand.lines() == ["begun", "cleaned up"]
    found = stand.state()
    assert found.result == "failed"
    assert "Terminated while it did" in found.reason
