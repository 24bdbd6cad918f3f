"""A run of a job: the order of things, what one failure does to the rest, and what is left afterwards."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest

from ocimig.errors import NoSpace, OcimigError, SystemFailure
from ocimig.migrate.jobs.job import Job
from ocimig.migrate.jobs.report import worst
from ocimig.migrate.jobs.run import World, run
from ocimig_testkit.backups import HOST, START, FakeRepository, Kept, Stand, make_world

BAD = SystemFailure(what="dump web", reason="it does not like it")
DAY = 86400.0


def test_a_good_run_saves_forgets_prunes_and_checks(stand: Stand) -> None:
    """In this order, and the code is 0."""
    job = stand.job('containers = ["web", "db"]\nkeep_last = 1\n')
    assert run(job, stand.world).code == 0
    stand.clock.now += DAY
    stand.repository.asked.clear()
    report = run(job, stand.world)
    assert (report.result, report.code) == ("success", 0)
    words = [each.split()[0] for each in stand.repository.asked]
    assert words == ["create", "create", "snapshots", "forget", "prune"]
    assert report.freed == 200
    assert {kept.time for kept in stand.repository.kept} == {START + DAY}
    assert report.lines()[-1].startswith("nightly: success")


def test_hooks_stand_around_what_they_name(stand: Stand) -> None:
    """borgmatic's order, with containers below actions."""
    job = stand.job(
        """
        containers = ["a", "b"]
        keep_last = 1
        checks = []
        commands = [
          {before = "job", run = "echo before job >>$LOG"},
          {after = "job", run = "echo after job >>$LOG"},
          {before = "action", when = ["create", "prune"], run = "echo before action >>$LOG"},
          {after = "action", when = "create", run = "echo after create >>$LOG"},
          {before = "container", run = "echo before $OCIMIG_CONTAINER of $OCIMIG_JOB >>$LOG"},
          {after = "container", run = "echo after $OCIMIG_CONTAINER $OCIMIG_SNAPSHOT >>$LOG"},
          {after = "container", states = "fail", run = "echo never >>$LOG"},
          {before = "job", when = "check", run = "echo never >>$LOG"},
          {after = "error", run = "echo never >>$LOG"},
        ]
        """
    )
    assert run(job, stand.world).code == 0
    assert stand.lines() == [
        "before job",
        "before action",
        "before a of nightly",
        "after a a-1",
        "before b of nightly",
        "after b b-2",
        "after create",
        "before action",
        "after job",
    ]


def test_a_container_that_fails_keeps_no_other_from_being_saved(stand: Stand) -> None:
    """The code is 3, the hooks on errors hear of it, and only what was saved is thinned out."""
    stand.repository.kept = [
        Kept(f"{name}-old{n}", name, START - n * DAY, {"host": HOST})
        for name in ("web", "db")
        for n in (1, 2)
    ]
    stand.repository.fail["web"] = BAD
    job = stand.job(
        """
        containers = ["web", "db"]
        keep_last = 1
        commands = [
          {after = "container", states = "fail", run = 'echo "$OCIMIG_CONTAINER: $OCIMIG_ERROR" >>$LOG'},
          {after = "error", run = 'echo "$OCIMIG_ERROR" >>$LOG'},
        ]
        """
    )
    report = run(job, stand.world)
    assert (report.result, report.code) == ("partial", 3)
    assert stand.lines() == ["web: dump web: it does not like it"] * 2
    left = {kept.id for kept in stand.repository.kept}
    assert left == {"web-old1", "web-old2", report.outcomes[1].snapshot}
    found = stand.state()
    assert (found.failures, found.last_success) == (1, 0.0)
    assert found.containers["web"].error == "dump web: it does not like it"
    assert found.containers["db"].last_success > 0


def test_stop_tries_no_other(stand: Stand) -> None:
    """on_failure = "stop" is for containers that mean nothing without each other."""
    stand.repository.fail["web"] = BAD
    job = stand.job('containers = ["web", "db"]\non_failure = "stop"\n')
    report = run(job, stand.world)
    assert stand.repository.did("create") == ["create web"]
    assert report.code == 1
    assert "not tried" in report.outcomes[1].error


@pytest.mark.parametrize(
    ("error", "code"),
    [(BAD, 1), (OSError(28, "No space left on device", "/srv"), 15), (NoSpace(path="/srv"), 15)],
)  # fmt: skip
def test_a_repository_that_does_not_open_ends_the_run(
    stand: Stand, error: Exception, code: int
) -> None:
    """Hooks after come, and the code says what it was."""

    def refuse(job: Job, passphrase: str) -> FakeRepository:
        raise error

    job = stand.job(
        'commands = [{after = "job", states = "fail", run = "echo after >>$LOG"},'
        '{after = "error", run = "echo error >>$LOG"}]\n'
    )
    report = run(job, make_world(stand.states, stand.repository, open=refuse))
    assert (report.result, report.code) == ("failed", code)
    assert stand.lines() == ["after", "error"]


def test_a_wrong_key_has_its_own_code(stand: Stand) -> None:
    """12, whether it cannot be had or is not the right one."""

    class WrongKey(OcimigError):
        """As the store would say."""

        message = "the key does not open it"
        code = 12

    job = stand.job('encryption_passcommand = "false"\n')
    assert run(job, stand.world).code == 12
    assert stand.repository.asked == []

    def refuse(job: Job, passphrase: str) -> FakeRepository:
        raise WrongKey

    assert run(stand.job(), make_world(stand.states, stand.repository, open=refuse)).code == 12


def test_a_hook_before_that_fails_keeps_the_job_from_running(stand: Stand) -> None:
    """The disk is not there: nothing is written where it should be."""
    job = stand.job(
        'commands = [{before = "job", run = ["echo not there; false", "echo never >>$LOG"]},'
        '{after = "job", run = "echo cleaned up >>$LOG"}]\n'
    )
    report = run(job, stand.world)
    assert report.code == 1
    assert "(before job): exit status 1: not there" in report.reason
    assert stand.repository.asked == []
    assert stand.lines() == ["cleaned up"]


def test_a_hook_before_a_container_that_fails_is_that_containers_failure(stand: Stand) -> None:
    """The others are saved."""
    job = stand.job(
        'containers = ["web", "db"]\n'
        "commands = [{before = 'container', run = 'test $OCIMIG_CONTAINER != web'}]\n"
    )
    report = run(job, stand.world)
    assert report.code == 3
    assert stand.repository.did("create") == ["create db"]
    assert "before container" in report.outcomes[0].error


def test_a_hook_after_that_fails_does_not_undo_the_backup(stand: Stand) -> None:
    """All is saved, and yet something is wrong: 3."""
    report = run(stand.job('commands = [{after = "job", run = "false"}]\n'), stand.world)
    assert (report.result, report.code) == ("partial", 3)
    assert report.outcomes[0].error == ""


def test_nothing_to_save_is_a_failure(stand: Stand) -> None:
    """A label that no container has any more must not look like a good backup; its hooks are told."""
    job = stand.job(
        'labels = ["backup=nightly"]\ncontainers = []\n'
        'commands = [{after = "error", run = "echo error >>$LOG"}]\n'
    )
    report = run(job, stand.world)
    assert report.code == 10
    assert "annotation backup=nightly" in report.reason
    assert stand.lines() == ["error"]


def test_warnings_of_the_store_make_a_code_of_three(stand: Stand) -> None:
    """All is saved and somebody should look."""
    stand.repository.warn = ("a file changed",)
    report = run(stand.job(), stand.world)
    assert (report.result, report.code) == ("warnings", 3)
    assert "warning: web: a file changed" in report.lines()
    assert stand.state().last_success > 0


def test_checks_come_when_they_are_due_and_stay_due_until_they_find_nothing(stand: Stand) -> None:
    """A broken repository is code 1, and is looked at again the next time."""
    job = stand.job(
        'checks = [{name = "repository", frequency = "1 week"}, '
        '{name = "data", frequency = "2 weeks", part = "5%"}, {name = "restore"}]\n'
    )
    stand.repository.problems = ["pack 1 is damaged"]
    report = run(job, stand.world)
    assert (report.result, report.code) == ("failed", 1)
    assert stand.repository.did("check") == ["check 0", "check 0.05"]
    assert stand.repository.did("rehearse") == ["rehearse web-1"]
    assert "repository: pack 1 is damaged" in report.lines()
    stand.repository.problems = []
    assert run(job, stand.world).code == 0
    assert stand.repository.did("check") == ["check 0", "check 0.05"] * 2
    stand.repository.asked.clear()
    stand.clock.now += 8 * DAY
    assert run(job, stand.world).code == 0
    assert stand.repository.did("check") == ["check 0"]
    assert len(stand.repository.did("rehearse")) == 1


def test_other_hosts_and_containers_are_left_alone(stand: Stand) -> None:
    """A repository may be shared."""
    others = [
        Kept("h1", "web", START - DAY, {"host": "elsewhere"}),
        Kept("h2", "web", START - 2 * DAY, {"host": "elsewhere"}),
        Kept("c", "cache", START - DAY, {"host": HOST}),
    ]
    stand.repository.kept = [*others, Kept("old", "web", START - DAY, {"host": HOST})]
    report = run(stand.job("keep_last = 1\n"), stand.world)
    assert report.forgotten == ("old",)
    assert others == stand.repository.kept[:3]


def test_a_secret_is_shown_nowhere(stand: Stand, tmp_path: Path) -> None:
    """Not in errors of hooks or of the store, not in the state, not in what is told on the way."""
    passphrase = "hunter2 & Söhne"
    (tmp_path / "pass").touch(mode=0o600)
    (tmp_path / "pass").write_text(passphrase + "\n")
    stand.repository.fail["web"] = SystemFailure(what="open", reason=f"bad key {passphrase}")
    stand.repository.warn = (f"{passphrase}?",)
    job = stand.job(
        f"""
        containers = ["web", "db"]
        repository = "sftp://me:s3cret@host/backup"
        passphrase_file = "{tmp_path}/pass"
        commands = [
          {{after = "job", run = "cat {tmp_path}/pass; echo sftp://me:s3cret@host; false"}},
          {{after = "error", run = 'echo "$OCIMIG_ERROR" >>$LOG'}},
        ]
        """
    )
    report = run(job, stand.world)
    shown = "\n".join(
        [*report.lines(), report.reason, str(report.to_dict()), *stand.told, *stand.lines(),
         (stand.states / "nightly.json").read_text()]
    )  # fmt: skip
    assert "***" in shown
    for secret in (passphrase, "hunter2", "s3cret"):
        assert secret not in shown


@pytest.mark.parametrize(
    ("codes", "code"), [([], 0), ([0, 0], 0), ([0, 3], 3), ([3, 1, 12], 1), ([0, 12, 3], 12)]
)
def test_the_code_of_several_jobs_is_that_of_the_worst(codes: list[int], code: int) -> None:
    """The first that failed, else 3, else 0."""
    assert worst(codes) == code


def test_the_world_has_a_name() -> None:
    """Snapshots of this host are told from those of others by it."""
    world = World(lambda job, passphrase: nullcontext(FakeRepository()), dict)
    assert world.host == os.uname().nodename


def test_a_container_that_is_no_longer_saved_is_forgotten_by_the_state(stand: Stand) -> None:
    """Its numbers would grow old and alarm; a run that fails early forgets none."""
    run(stand.job('containers = ["web", "db"]\n'), stand.world)
    run(stand.job('encryption_passcommand = "false"\n'), stand.world)
    assert set(stand.state().containers) == {"web", "db"}
    run(stand.job('containers = ["db"]\n'), stand.world)
    assert set(stand.state().containers) == {"db"}


def test_a_state_directory_that_cannot_be_made_is_an_error_in_words(stand: Stand) -> None:
    """As for a user who is not root."""
    stand.states.touch()
    with pytest.raises(SystemFailure, match="cannot take the lock of job nightly"):
        run(stand.job(), stand.world)


def test_the_repository_is_left_before_the_hooks_after_the_job(stand: Stand) -> None:
    """They may unmount the disk that it is on."""

    @contextmanager
    def opened(job: Job, passphrase: str) -> Iterator[FakeRepository]:
        stand.log.write_text("opened\n")
        yield stand.repository
        with stand.log.open("a") as log:
            log.write("left\n")

    job = stand.job('commands = [{after = "job", run = "echo after >>$LOG"}]\n')
    run(job, make_world(stand.states, stand.repository, open=opened))
    assert stand.lines() == ["opened", "left", "after"]


def test_what_failed_is_named_by_what_was_being_done(stand: Stand) -> None:
    """Not by the hooks that came before it."""
    stand.repository.fail["web"] = OSError(5, "Input/output error")
    report = run(stand.job('commands = [{before = "container", run = "true"}]\n'), stand.world)
    assert report.outcomes[0].error == "cannot save web: Input/output error"
    assert stand.told == [
        "nightly: read the passphrase",
        "nightly: open the repository",
        "nightly: run the hooks before container",
        "nightly: save web",
        "nightly: check the repository",
    ]
