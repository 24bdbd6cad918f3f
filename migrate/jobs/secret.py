"""The passphrase of a repository, and what must never be shown. Keeps nothing on a disk."""

import os
import re
import shlex
import urllib.parse
from collections.abc import Mapping
from typing import Any

from ocimig import files
from ocimig.migrate.jobs import process
from ocimig.migrate.jobs.config import CREDENTIALS
from ocimig.migrate.jobs.errors import SecretUnavailable
from ocimig.migrate.jobs.job import Job

HIDDEN = "***"
_PASSCOMMAND_SECONDS = 60.0
_LARGEST = 1 << 16
_USERINFO = re.compile(r"(?<=://)[^\s/@]+(?=@)")


class Redaction:
    """Takes secrets out of texts: these values, and user and password of every address."""

    def __init__(self, *values: str) -> None:
        # The longest first: one may be a part of another.
        self._values = sorted({value for value in values if value}, key=len, reverse=True)

    def clean(self, text: str) -> str:
        """The text without them."""
        for value in self._values:
            text = text.replace(value, HIDDEN)
        return _USERINFO.sub(HIDDEN, text)

    def clean_all(self, value: Any) -> Any:
        """A document of dicts, lists and texts without them."""
        if isinstance(value, str):
            return self.clean(value)
        if isinstance(value, Mapping):
            return {name: self.clean_all(inner) for name, inner in value.items()}
        if isinstance(value, list | tuple):
            return [self.clean_all(inner) for inner in value]
        return value


def redaction(job: Job, passphrase: str = "") -> Redaction:
    """What a run of this job hides: the passphrase, its addresses' passwords, and whole ping addresses.

    A ping address is a secret as it is: who knows it can say that all went well.
    """
    passwords = []
    for address in (job.repository, job.ping.start, job.ping.finish, job.ping.fail):
        raw = urllib.parse.urlsplit(address).password or ""
        passwords += [raw, urllib.parse.unquote(raw)]
    pings = (job.ping.start, job.ping.finish, job.ping.fail)
    return Redaction(passphrase, *passwords, *pings)


def place(path: str) -> str:
    """The path of a file that may be one of systemd's credentials. Raises KeyError outside a service."""
    if path.startswith(CREDENTIALS):
        return os.path.join(os.environ["CREDENTIALS_DIRECTORY"], path.removeprefix(CREDENTIALS))
    return path


def passphrase(job: Job) -> str:
    """What opens the repository, without the end of its line; "" where the job names none.

    Raises SecretUnavailable.
    """
    if job.passcommand:
        return _by_command(job)
    if not job.passphrase_file:
        return ""
    try:
        content = files.read(place(job.passphrase_file), limit=_LARGEST).decode()
    except KeyError:
        reason = f"{job.passphrase_file}: only systemd gives credentials: run it by its timer"
        raise SecretUnavailable(job=job.name, reason=reason) from None
    except (OSError, UnicodeDecodeError) as error:
        reason = (getattr(error, "strerror", None) or "is not UTF-8").lower()
        reason = f"{job.passphrase_file}: {reason}"
        raise SecretUnavailable(job=job.name, reason=reason) from None
    return _only_line(job, content, job.passphrase_file)


def _by_command(job: Job) -> str:
    """As borg's BORG_PASSCOMMAND: split as a shell would, run without one."""
    argv = shlex.split(job.passcommand)
    try:
        ended = process.run(argv, {}, _PASSCOMMAND_SECONDS, errors_too=False)
        if ended.late:
            reason = f"did not answer in {_PASSCOMMAND_SECONDS:g} s"
        elif ended.code:
            reason = f"ended with status {ended.code}"
        elif not ended.whole:
            reason = "printed more than a passphrase"
        else:
            return _only_line(job, ended.output.decode(), argv[0])
    except UnicodeDecodeError:
        reason = "printed no UTF-8"
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
    raise SecretUnavailable(job=job.name, reason=f"{argv[0]} {reason}")


def _only_line(job: Job, text: str, source: str) -> str:
    line = text.removesuffix("\n").removesuffix("\r")
    if not line:
        raise SecretUnavailable(job=job.name, reason=f"{source} gave an empty passphrase")
    return line
