"""Slows a container down by the CPU quota of its cgroup, and gives back exactly what it had. Never decides when.

What was is written to `<migration>/throttle` before the first change, so that whoever finds a migration
that died (`restore_left`) can undo it. Files of the kernel: Documentation/scheduler/sched-bwc.rst for
cpu.cfs_*, Documentation/admin-guide/cgroup-v2.rst for cpu.max. systemd's scopes are slowed down by the same
files: what systemd would write there is what is written back.
"""

import errno
import os
import time
from collections.abc import Mapping

from ocimig import files, jsonio
from ocimig.migrate.memory.errors import CannotSlowDown
from ocimig.runtime.cgroups import tree

NAME = "throttle"
VERSION = 1
_LEAST = 1000  # microseconds: the smallest quota and period that the kernel takes
_PERIOD = 10_000  # microseconds: short, so that nobody waits long for a container that is stopped
_LONGEST = 1_000_000  # microseconds: the longest period that the kernel takes
_GONE = (errno.ENOENT, errno.ENODEV)
Writes = list[tuple[str, str]]  # file, value


class Throttle:
    """The brake of one container. `cgroups` are the facts of its state, `home` is the migration's directory."""

    def __init__(self, cgroups: Mapping[str, str], home: str) -> None:
        self.share = 0.0  # of what it used, that is taken away
        self._cgroups = cgroups
        self._record = os.path.join(home, NAME)
        self._began = time.monotonic()
        self._used = _usage(cgroups)
        self._base = 0.0

    def slow_down(self, share: float) -> None:
        """Leave it 1 - `share` of the processor time it used until now. Raises CannotSlowDown.

        A share of the machine would not hold back a process that uses one processor of many.
        """
        before = _now(self._cgroups)
        if not self.share:
            self._base = self._cpus(before)
            text = jsonio.dumps({"version": VERSION, "writes": before.undo})
            files.write_atomic(self._record, text.encode())
        try:
            for path, value in before.limit(self._base * (1 - share)):
                tree.write(path, value)
        except OSError as error:
            self.restore()
            raise CannotSlowDown(reason=_why(error)) from error
        self.share = share

    def restore(self) -> None:
        """Give back what it had; fine when nothing was taken."""
        restore_left(os.path.dirname(self._record))
        self.share = 0.0

    def _cpus(self, now: "_Limits") -> float:
        """How many processors it used since this object was made; what it may use where that is unknown."""
        allowed = float(len(os.sched_getaffinity(0)))
        if now.quota > 0:
            allowed = min(allowed, now.quota / now.period)
        elapsed = time.monotonic() - self._began
        used = (_usage(self._cgroups) - self._used) / elapsed if elapsed > 0 else 0.0
        return min(allowed, used) if used > 0 else allowed


class _Limits:
    """What stands in the files now, what gives it back, and how to write something smaller."""

    def __init__(self, path: str, version: int) -> None:
        self.path = path
        self.version = version
        quota, period = (
            tree.read(f"{path}/cpu.max").split()
            if version == 2
            else (tree.read(f"{path}/cpu.cfs_quota_us"), tree.read(f"{path}/cpu.cfs_period_us"))
        )
        self.quota = -1 if quota == "max" else int(quota)
        self.period = int(period)
        self.burst = tree.read(f"{path}/{self._burst_file}")

    @property
    def _burst_file(self) -> str:
        return "cpu.max.burst" if self.version == 2 else "cpu.cfs_burst_us"

    @property
    def undo(self) -> Writes:
        """In an order that the kernel takes: a period never next to a quota that is not its own."""
        if self.version == 2:
            quota = "max" if self.quota < 0 else str(self.quota)
            writes = [(f"{self.path}/cpu.max", f"{quota} {self.period}")]
        else:
            writes = [(f"{self.path}/cpu.cfs_quota_us", str(self.quota))]
            if self.quota < 0:
                writes.append((f"{self.path}/cpu.cfs_period_us", str(self.period)))
        if self.burst not in ("", "0"):
            writes.append((f"{self.path}/{self._burst_file}", self.burst))
        return writes

    def limit(self, cpus: float) -> Writes:
        """Writes that leave it so many processors."""
        cpus = max(cpus, _LEAST / _LONGEST)
        period = self.period
        fresh = self.quota < 0 or self.version == 2
        if fresh:
            period = min(_LONGEST, max(_PERIOD, round(_LEAST / cpus)))
        quota = max(_LEAST, round(cpus * period))
        writes = [] if self.burst in ("", "0") else [(f"{self.path}/{self._burst_file}", "0")]
        if self.version == 2:
            return [*writes, (f"{self.path}/cpu.max", f"{quota} {period}")]
        if fresh:
            writes.append((f"{self.path}/cpu.cfs_period_us", str(period)))
        return [*writes, (f"{self.path}/cpu.cfs_quota_us", str(quota))]


def restore_left(home: str) -> bool:
    """Undo what a migration that is gone left in force; True when there was something.

    Raises OSError where the cgroup is there and refuses, and keeps the record.
    """
    record = os.path.join(home, NAME)
    try:
        saved = jsonio.loads(files.read(record, limit=1 << 16))
    except FileNotFoundError:
        return False
    except ValueError:  # written whole or not at all: not ours
        saved = {}
    for path, value in saved.get("writes", ()):
        try:
            tree.write(str(path), str(value))
        except OSError as error:
            if error.errno not in _GONE:
                raise
    os.unlink(record)
    return True


def _now(cgroups: Mapping[str, str]) -> _Limits:
    version = 2 if "mountpoint" in cgroups else 1
    path = cgroups.get("unified" if version == 2 else "cpu", "")
    if not path:
        raise CannotSlowDown(reason="it has no cgroup of the cpu controller")
    try:
        return _Limits(path, version)
    except (OSError, ValueError):
        raise CannotSlowDown(reason=f"{path} has no CPU quota") from None


def _usage(cgroups: Mapping[str, str]) -> float:
    """Seconds of processor time it has used; 0 when nobody counts them."""
    try:
        if "mountpoint" in cgroups:
            for line in tree.read(f"{cgroups.get('unified', '')}/cpu.stat").splitlines():
                name, _, value = line.partition(" ")
                if name == "usage_usec":
                    return int(value) / 1e6
            return 0.0
        return int(tree.read(f"{cgroups.get('cpuacct', '')}/cpuacct.usage") or 0) / 1e9
    except (OSError, ValueError):
        return 0.0


def _why(error: OSError) -> str:
    if error.errno == errno.EINVAL:
        return f"{error.filename}: a cgroup inside it may use more than that"
    return f"{error.filename}: {error.strerror}"
