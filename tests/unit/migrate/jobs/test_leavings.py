"""What runs leave: state, metrics, status; and the units that systemd starts them by."""

import re
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from ocimig.migrate.jobs import metrics, state, status, units
from ocimig.migrate.jobs.errors import JobStateUnreadable, TimerRefused
from ocimig.migrate.jobs.forgetting import zone
from ocimig.migrate.jobs.job import Job
from ocimig.migrate.jobs.run import run
from ocimig.migrate.jobs.state import ContainerState, JobState
from ocimig_testkit.backups import START, Stand
from ocimig_testkit.source import ROOT

FULL = JobState(
    started=START,
    ended=START + 5,
    seconds=5.0,
    last_success=START - 86400,
    result="partial",
    code=3,
    reason="web: no",
    failures=2,
    prune_pending=True,
    checks={"data": START},
    containers={
        "web": ContainerState(START, START - 86400, "abc", "no", 2.0, 0.25, 1000, 10, 2),
        'a"b\\c\nd': ContainerState(START, START),
    },
)
UTC = Job("", "", "", timezone="UTC")
# One sample of the exposition format: name, labels, value.
SAMPLE = re.compile(
    r'([a-z_]+)\{([a-z]+="(?:[^"\\\n]|\\["\\n])*"(?:,[a-z]+="(?:[^"\\\n]|\\["\\n])*")*)\} ([0-9.e+]+)'
)


def test_a_state_comes_back_as_it_was(tmp_path: Path) -> None:
    """Every field, by way of the disk."""
    state.save("j", str(tmp_path), FULL)
    assert state.load("j", str(tmp_path)) == FULL
    assert state.load("other", str(tmp_path)) == JobState()


def test_a_reader_ignores_what_it_does_not_know(tmp_path: Path) -> None:
    """A newer program may have added names; numbers without a point are numbers too."""
    (tmp_path / "j.json").write_text(
        '{"version": 1, "new": 1, "started": 5, "containers": {"web": {"new": 1, "seconds": 2}}}'
    )
    found = state.load("j", str(tmp_path))
    assert found == JobState(started=5.0, containers={"web": ContainerState(seconds=2.0)})


@pytest.mark.parametrize(
    "text",
    ["", "[]", '{"version": 2}', '{"code": "x"}', '{"containers": []}', '{"containers": {"a": 1}}',
     '{"checks": {"a": "b"}}', '{"failures": true'],
)  # fmt: skip
def test_a_state_that_is_none_is_said_to_be(tmp_path: Path, text: str) -> None:
    """Never a traceback: the next run writes a new one."""
    (tmp_path / "j.json").write_text(text)
    with pytest.raises(JobStateUnreadable, match="state of job j in "):
        state.load("j", str(tmp_path))
    assert status.look("j", str(tmp_path)).status == "unreadable"


def test_metrics_are_what_prometheus_reads() -> None:
    """HELP and TYPE once a metric and before it, its samples together, labels escaped."""
    lines = metrics.render("night ly", FULL).splitlines()
    seen: list[str] = []
    for line in lines:
        if line.startswith("# HELP "):
            name = line.split()[2]
            assert name not in seen
            seen.append(name)
        elif line.startswith("# TYPE "):
            assert line.split()[2:] == [
                seen[-1],
                "counter" if seen[-1].endswith("_total") else "gauge",
            ]
        else:
            match = SAMPLE.fullmatch(line)
            assert match, line
            assert match[1] == seen[-1]
    assert len(set(lines)) == len(lines)
    assert 'ocimig_job_last_success_timestamp_seconds{job="night ly"} 1699913600.0' in lines
    assert 'ocimig_job_frozen_seconds{job="night ly",container="web"} 0.25' in lines
    assert 'ocimig_job_bytes{job="night ly",container="web",kind="read"} 1000' in lines
    assert 'ocimig_job_failures_total{job="night ly",container="web"} 2' in lines
    assert 'ocimig_job_duration_seconds{job="night ly",container="a\\"b\\\\c\\nd"} 0.0' in lines


def test_a_run_puts_its_metrics_where_the_collector_reads(stand: Stand, tmp_path: Path) -> None:
    """Readable by it, and nothing half written beside it; a directory that is not there is a warning."""
    place = tmp_path / "collector"
    place.mkdir()
    job = stand.job(f'metrics_directory = "{place}"\n')
    stand.repository.fail["web"] = OSError(5, "Input/output error")
    run(job, stand.world)
    run(job, stand.world)
    (file,) = place.iterdir()
    assert file.name == "ocimig_job_nightly.prom"
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
    assert 'ocimig_job_failures_total{job="nightly",container="web"} 2' in file.read_text()
    stand.repository.fail.clear()
    run(job, stand.world)
    assert 'ocimig_job_failures_total{job="nightly"} 2' in file.read_text()
    assert 'ocimig_job_bytes{job="nightly",container="web",kind="stored"} 100' in file.read_text()
    shutil.rmtree(place)
    report = run(job, stand.world)
    assert report.code == 3
    assert report.warnings[-1].startswith("cannot write the metrics: ")


def test_the_table_of_jobs(tmp_path: Path) -> None:
    """One line each; what a dead run left is called killed."""
    where = str(tmp_path)
    state.save("a", where, FULL)
    state.save("b", where, JobState(started=START, result="running"))
    found = [status.look(name, where) for name in ("a", "b", "c")]
    assert status.table(found, zone(UTC), START) == [
        "JOB  STATUS   LAST SUCCESS      AGO    TOOK  CONTAINERS",
        "a    partial  2023-11-13 22:13  1 day  5 s   1/2",
        "b    killed   never             -      -     0/0",
        "c    never    never             -      -     0/0",
    ]
    assert status.details(found[0])[:1] == ["reason: web: no"]
    assert "web: failed: no" in status.details(found[0])
    assert found[0].to_dict()["status"] == "partial"


def test_the_units_are_the_files_in_contrib() -> None:
    """What a package installs is what install-timer writes."""
    where = ROOT / "contrib/systemd"
    assert (where / "ocimig-job@.service").read_text() == units.service("/usr/local/bin/ocimig")
    assert (where / "ocimig-job@.timer").read_text() == units.timer()


def test_a_drop_in_says_what_is_the_jobs_own(stand: Stand) -> None:
    """When, how long, and its credentials; percent signs mean themselves."""
    job = stand.job(
        'schedule = "*-*-* 02:30"\nrandomized_delay = "2 weeks"\ntimeout = "3 hours"\n'
        'key_file = "$CREDENTIALS_DIRECTORY/key"\n'
    )
    texts = {unit.path: unit.text for unit in units.units(job, "/usr/bin/ocimig")}
    assert texts["ocimig-job@nightly.timer.d/ocimig.conf"].splitlines()[1:] == [
        "[Timer]", "OnCalendar=", "OnCalendar=*-*-* 02:30", "RandomizedDelaySec=1209600",
    ]  # fmt: skip
    assert texts["ocimig-job@nightly.service.d/ocimig.conf"].splitlines()[1:] == [
        "[Service]",
        "TimeoutStartSec=10860",
        "LoadCredentialEncrypted=key:/etc/ocimig/credentials/nightly.key.cred",
    ]
    plain = units.units(stand.job('schedule = "daily"\n'), "/usr/bin/ocimig")
    assert len(plain) == 3
    assert units._literal("100%") == "100%%"


def test_a_job_without_a_schedule_has_no_timer(stand: Stand) -> None:
    """Nothing is guessed."""
    with pytest.raises(TimerRefused, match="names no schedule"):
        units.units(stand.job(), "/usr/bin/ocimig")


def _refusal() -> str:
    """Why systemd-analyze cannot be used here: it is tried."""
    try:
        tried = subprocess.run(
            ["systemd-analyze", "calendar", "daily"], capture_output=True, text=True, check=False
        )
    except OSError as error:
        return f"systemd-analyze: {error.strerror}"
    return tried.stderr if tried.returncode else ""


needs_systemd = pytest.mark.skipif(bool(_refusal()), reason=_refusal())


@needs_systemd
def test_systemd_takes_the_units(stand: Stand, tmp_path: Path) -> None:
    """systemd-analyze verify finds nothing to complain of."""
    job = stand.job(
        'schedule = "Mon..Fri *-*-* 02:30"\ntimeout = "1 hour"\nrandomized_delay = "5 min"\n'
    )
    where = tmp_path / "units"
    done = units.install(job, shutil.which("true") or "", str(where))
    assert done[-1] == "systemd does not run here: nothing was enabled"
    for kind in ("service", "timer"):  # verify takes an instance by its file
        (where / f"ocimig-job@nightly.{kind}").symlink_to(f"ocimig-job@.{kind}")
    names = [f"./ocimig-job@nightly.{kind}" for kind in ("service", "timer")]
    verified = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *names],
        cwd=where, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (verified.returncode, verified.stderr) == (0, "")


@needs_systemd
def test_what_the_job_no_longer_asks_for_is_removed(stand: Stand, tmp_path: Path) -> None:
    """A limit that is gone from the file must not end the next run."""
    where = str(tmp_path / "units")
    units.install(stand.job('schedule = "daily"\ntimeout = "1 hour"\n'), "/bin/true", where)
    drop_in = tmp_path / "units/ocimig-job@nightly.service.d/ocimig.conf"
    assert drop_in.exists()
    done = units.install(stand.job('schedule = "daily"\n'), "/bin/true", where)
    assert f"removed {drop_in}" in done
    assert not drop_in.exists()


@needs_systemd
def test_a_schedule_that_systemd_does_not_know_is_refused(stand: Stand, tmp_path: Path) -> None:
    """Before anything is written."""
    for schedule in ("every night", "--help"):
        job = stand.job(f'schedule = "{schedule}"\n')
        with pytest.raises(TimerRefused, match="systemd-analyze calendar: "):
            units.install(job, "/usr/bin/ocimig", str(tmp_path / "units"))
    assert not (tmp_path / "units").exists()
