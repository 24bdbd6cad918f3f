"""What can go wrong with a cgroup, in words for people."""

from ocimig.errors import OcimigError


class NoCgroups(OcimigError):
    """No cgroup file system is mounted where this process can see it."""

    message = "cgroups are not mounted"
    hint = "mount -t cgroup2 cgroup2 /sys/fs/cgroup"


class InvalidCgroupsPath(OcimigError):
    """linux.cgroupsPath cannot be used."""

    message = "invalid linux.cgroupsPath {path!r}: {reason}"


class CgroupNotEmpty(OcimigError):
    """A cgroup of that name is there and holds processes that are not the container's."""

    message = "container's cgroup is not empty: {count} process(es) found in {path}"
    hint = "choose another linux.cgroupsPath, or end these processes: {pids}"


class CgroupFrozen(OcimigError):
    """A cgroup of that name is there and frozen: a process put into it would never run."""

    message = "container's cgroup unexpectedly frozen: {path}"


class CgroupDenied(OcimigError):
    """A cgroup could not be made or joined."""

    message = "unable to apply cgroup configuration: {path}: {reason}"


class LimitRefused(OcimigError):
    """The kernel, or a rule of ours, does not take a value of linux.resources."""

    message = "cannot set {controller} limit: {reason}"


class DevicesRefused(OcimigError):
    """linux.resources.devices cannot be enforced."""

    message = "cannot set device rules: {reason}"


class FreezeFailed(OcimigError):
    """Some process of the container did not reach a state in which it can be frozen."""

    message = "unable to freeze {path} within {seconds} s{detail}"


class CgroupBusy(OcimigError):
    """A cgroup cannot be removed: something still runs in it."""

    message = "cannot remove cgroup {path}: {reason}"
    hint = "kill what runs there, then delete the container again"


class NoSystemd(OcimigError):
    """--systemd-cgroup was asked for and systemd does not answer."""

    message = "systemd not running on this host, cannot use systemd cgroups manager: {reason}"
    hint = "leave out --systemd-cgroup"


class UnitFailed(OcimigError):
    """systemd did not start, change or stop the container's unit."""

    message = "unable to {verb} unit {unit}: {reason}"
