"""What can go wrong with a backup job, in words. Only classes."""

from collections.abc import Sequence

from ocimig.errors import OcimigError, Usage


class NoSuchJob(OcimigError):
    """There is no file for the job."""

    message = "no job {job} in {directory}"
    hint = "see what is there: ocimig job list"
    code = 10


class JobInvalid(Usage):
    """A job's file asks for something that is not understood; every problem of it is named."""

    message = "{path}: {reasons}"
    hint = "docs/formats/job.md names every key; try again with: ocimig job validate {path}"

    def __init__(self, *, path: str, problems: Sequence[str]) -> None:
        OcimigError.__init__(self, path=path, reasons="; ".join(problems))
        self.problems = tuple(problems)


class JobBusy(OcimigError):
    """Another run of the same job has not ended."""

    message = "job {job} runs already"
    hint = "wait for it; see: ocimig job status {job}"
    code = 11


class JobStateUnreadable(OcimigError):
    """What earlier runs of a job left cannot be read."""

    message = "state of job {job} in {path}: {reason}"
    hint = "remove that file: the next run makes a new one, and all checks are due then"


class NothingToSave(OcimigError):
    """The job names no container that is here."""

    message = "job {job}: no container matches {wanted}"
    hint = "see what is here: ocimig list"
    code = 10


class CommandFailed(OcimigError):
    """A command of the job's file ended badly, or not in time."""

    message = "command {command!r} ({when}): {reason}"
    hint = "run it by hand with OCIMIG_JOB set, as docs/jobs.md describes"


class SecretUnavailable(OcimigError):
    """The passphrase or key of the repository cannot be had."""

    message = "the key of the repository of job {job}: {reason}"
    hint = "see encryption_passcommand, passphrase_file and key_file in the job's file"
    code = 12


class OutOfTime(OcimigError):
    """The run took longer than the job allows."""

    message = "job {job} ran past its timeout of {seconds:g} s while it did: {step}"
    hint = "raise timeout in the job's file, or let it save less"


class TimerRefused(OcimigError):
    """systemd does not take the schedule of a job, or its unit files cannot be written."""

    message = "timer of job {job}: {reason}"
    hint = "see what would be written: ocimig job install-timer --print {job}"
