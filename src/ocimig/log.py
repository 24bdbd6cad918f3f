"""The log as runc's callers read it: text or one JSON object a line. Never decides what is worth saying."""

import os
import time

from ocimig import jsonio

DEBUG, INFO, WARNING, ERROR = 10, 20, 30, 40
_NAMES = {DEBUG: "debug", INFO: "info", WARNING: "warning", ERROR: "error"}


class Log:
    """Where records go. One object for the process, configured once by `cli`."""

    __slots__ = ("fd", "format", "level")

    def __init__(self) -> None:
        self.fd = 2
        self.format = "text"
        self.level = WARNING

    def configure(self, *, path: str = "", format: str = "text", debug: bool = False) -> None:
        """Send records to `path` (appended, 0644) in `format` "text" or "json"; stderr without a path."""
        self.format = format
        self.level = DEBUG if debug else WARNING
        if path:
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_SYNC
            self.fd = os.open(path, flags, 0o644)

    def record(self, level: int, message: str) -> None:
        """Write one record; a log that cannot be written never stops the work."""
        if level < self.level:
            return
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        if self.format == "json":
            line = jsonio.dumps({"level": _NAMES[level], "msg": message, "time": stamp})
        else:
            line = f'time="{stamp}" level={_NAMES[level]} msg={jsonio.dumps(message)}'
        try:
            os.write(self.fd, line.encode() + b"\n")
        except OSError:
            pass


log = Log()


def debug(message: str) -> None:
    """A step taken, for `--debug`."""
    log.record(DEBUG, message)


def warning(message: str) -> None:
    """Something asked for was not done, or not as asked; the work goes on."""
    log.record(WARNING, message)


def error(message: str) -> None:
    """The work ends here."""
    log.record(ERROR, message)
