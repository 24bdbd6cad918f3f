"""systemd's units of a job: a service and a timer that all jobs share, and a drop-in with what is its own.

contrib/systemd has the two shared ones as files; they are what `service` and `timer` return.
"""

import os
import shutil
import subprocess
from dataclasses import dataclass

from ocimig import files
from ocimig.migrate.jobs.config import CREDENTIALS
from ocimig.migrate.jobs.errors import TimerRefused
from ocimig.migrate.jobs.job import Job

DIRECTORY = "/etc/systemd/system"
CREDENTIAL_STORE = "/etc/ocimig/credentials"
_BOOTED = "/run/systemd/system"  # sd_booted(3)
_SYSTEMCTL_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Unit:
    """One file, by its path below the directory of units."""

    path: str
    text: str


def service(program: str) -> str:
    """The service that runs a job. `program` is the absolute path of ocimig."""
    return f"""\
# Runs one backup job of ocimig, now: systemctl start ocimig-job@NAME
[Unit]
Description=Backup job %i of ocimig
Documentation=man:ocimig-job-run(8)
Wants=network-online.target
After=network-online.target

[Service]
Type=oneshot
NotifyAccess=main
ExecStart={program} job run %i
# The job's own timeout, if it has one, is in a drop-in.
TimeoutStartSec=infinity
# SIGTERM to ocimig alone: it thaws what it froze and runs the hooks after.
KillMode=mixed
TimeoutStopSec=5min
UMask=0077
# CRIU must see the mounts of containers, trace their processes and use any system call they use. So no
# option here that makes a mount namespace (ProtectSystem, PrivateTmp, ProtectKernelTunables, ...) or a
# filter (NoNewPrivileges, RestrictNamespaces, SystemCallFilter, MemoryDenyWriteExecute, ...).
"""


def timer() -> str:
    """The timer of a job; its drop-in says when."""
    return """\
# When a backup job of ocimig runs: daily, unless a drop-in says otherwise (ocimig job install-timer).
[Unit]
Description=Schedule of backup job %i of ocimig

[Timer]
OnCalendar=daily
Persistent=true

[Install]
WantedBy=timers.target
"""


def units(job: Job, program: str) -> tuple[Unit, ...]:
    """Every file for the timer of a job. Raises TimerRefused when it has no schedule."""
    if not job.schedule:
        raise TimerRefused(job=job.name, reason="its file names no schedule")
    made = "# Made by ocimig job install-timer.\n"
    delay = ""
    if job.randomized_delay:
        delay = f"RandomizedDelaySec={job.randomized_delay:.0f}\n"
    found = [
        Unit("ocimig-job@.service", service(program)),
        Unit("ocimig-job@.timer", timer()),
        Unit(
            f"ocimig-job@{job.name}.timer.d/ocimig.conf",
            f"{made}[Timer]\nOnCalendar=\nOnCalendar={_literal(job.schedule)}\n{delay}",
        ),
    ]
    own = _service_lines(job)
    if own:
        text = f"{made}[Service]\n" + "".join(f"{line}\n" for line in own)
        found.append(Unit(_service_drop_in(job), text))
    return tuple(found)


def install(job: Job, program: str, directory: str = DIRECTORY) -> list[str]:
    """Write the units, and start the timer where systemd runs. Returns what was done, in words.

    Raises TimerRefused.
    """
    wanted = units(job, program)
    _check_schedule(job)
    done = []
    try:
        for unit in wanted:
            path = os.path.join(directory, unit.path)
            os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
            files.write_atomic(path, unit.text.encode(), 0o644)
            done.append(f"wrote {path}")
        old = os.path.join(directory, _service_drop_in(job))
        if old not in [os.path.join(directory, unit.path) for unit in wanted] and os.path.exists(
            old
        ):
            os.unlink(old)  # the job has no limit and no credential any more
            done.append(f"removed {old}")
    except OSError as error:
        reason = f"{error.filename}: {(error.strerror or str(error)).lower()}"
        raise TimerRefused(job=job.name, reason=reason) from None
    if directory != DIRECTORY or not os.path.isdir(_BOOTED):
        return [*done, "systemd does not run here: nothing was enabled"]
    for argv in (["daemon-reload"], ["enable", "--now", f"ocimig-job@{job.name}.timer"]):
        _ask(job, "systemctl", *argv)
    return [*done, f"enabled ocimig-job@{job.name}.timer"]


def _service_drop_in(job: Job) -> str:
    return f"ocimig-job@{job.name}.service.d/ocimig.conf"


def _service_lines(job: Job) -> list[str]:
    lines = []
    if job.timeout:
        # A minute more than ours: systemd's is for the case that ours does not work.
        lines.append(f"TimeoutStartSec={job.timeout + 60:.0f}")
    for path in (job.passphrase_file, job.key_file):
        if path.startswith(CREDENTIALS):
            name = path.removeprefix(CREDENTIALS)
            store = os.path.join(CREDENTIAL_STORE, f"{job.name}.{name}.cred")
            lines.append(f"LoadCredentialEncrypted={_literal(name)}:{_literal(store)}")
    return lines


def _literal(text: str) -> str:
    """A value without specifiers of systemd's."""
    return text.replace("%", "%%")


def _check_schedule(job: Job) -> None:
    if shutil.which("systemd-analyze"):
        _ask(job, "systemd-analyze", "calendar", "--iterations=0", "--", job.schedule)


def _ask(job: Job, *argv: str) -> None:
    try:
        ended = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=_SYSTEMCTL_SECONDS, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        reason = f"{argv[0]}: {type(error).__name__}"
        raise TimerRefused(job=job.name, reason=reason) from None
    if ended.returncode:
        said = (ended.stderr or ended.stdout).strip().splitlines()
        reason = f"{' '.join(argv[:2])}: {said[0] if said else f'status {ended.returncode}'}"
        raise TimerRefused(job=job.name, reason=reason)
