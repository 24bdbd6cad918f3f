"""Commands of a job's file: run in a shell, bounded in time, nothing of them left. Never decides when.

A command is an administrator's line for /bin/sh. What it may want to know comes in its environment,
so nothing of a container's name or of an error is ever read by the shell as code:

    OCIMIG_JOB        the name of the job
    OCIMIG_CONTAINER  the container, in hooks of one
    OCIMIG_SNAPSHOT   the snapshot that was made of it, in hooks after it
    OCIMIG_ERROR      what went wrong, in hooks after something did
"""

import signal
from collections.abc import Mapping

from ocimig import log
from ocimig.migrate.jobs import process
from ocimig.migrate.jobs.errors import CommandFailed
from ocimig.migrate.jobs.job import Hook
from ocimig.migrate.jobs.secret import Redaction

_LINES = 5


def run(hook: Hook, environment: Mapping[str, str], hide: Redaction, left: float) -> None:
    """Run the commands of a hook one after another; the first that fails ends it: CommandFailed.

    `left` are the seconds that the run of the job may still take.
    """
    for line in hook.run:
        reason = _run_one(line, environment, min(hook.timeout, left), hide)
        if reason:
            when = f"{hook.side} {hook.level}"
            raise CommandFailed(command=hide.clean(line), when=when, reason=reason)


def _run_one(line: str, environment: Mapping[str, str], timeout: float, hide: Redaction) -> str:
    try:
        ended = process.run(["/bin/sh", "-c", line], environment, timeout, errors_too=True)
    except OSError as error:
        return f"/bin/sh: {(error.strerror or str(error)).lower()}"
    said = _quote(ended, hide)
    if ended.late:
        return f"did not end in {timeout:g} s{said}"
    log.debug(f"{hide.clean(line)}: status {ended.code}{said}")
    if ended.code < 0:
        return f"killed by {signal.Signals(-ended.code).name}{said}"
    return f"exit status {ended.code}{said}" if ended.code else ""


def _quote(ended: process.Ended, hide: Redaction) -> str:
    """The last lines, without secrets. The first line of a tail may be a part of one, so it goes."""
    text = ended.output.decode("utf-8", "replace")
    if not ended.whole:
        text = text.partition("\n")[2]
    text = "".join(char if char.isprintable() or char == "\n" else " " for char in hide.clean(text))
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    return ": " + "; ".join(lines[-_LINES:]) if lines else ""
