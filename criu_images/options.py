"""What is asked of CRIU, as a value, and its message. Never decides what to ask."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ocimig.criu_images.errors import BadOption

LOG_LEVEL = 4
QUIET = 2  # errors and warnings: a line costs the frozen container two microseconds, a process writes 200
FREEZE_SECONDS = 180  # CRIU's own 10 s are not enough for a loaded host

CGROUP_MODES = ("ignore", "none", "props", "soft", "full", "strict", "default")
LOCKS = ("iptables", "nftables", "skip")
EMPTY_NAMESPACES = {"network": 0x40000000}


@dataclass(frozen=True, slots=True)
class CriuOptions:
    """The fields of criu_opts that we use, with their names there. Unset ones are not sent.

    `values` are plain fields; descriptors in it are numbers of our process for the two directories
    (CRIU opens /proc/OUR PID/fd/N) and of CRIU's own for `inherit`.
    """

    images_fd: int
    work_fd: int
    log_file: str
    values: Mapping[str, Any] = field(default_factory=dict)
    external: tuple[str, ...] = ()
    inherit: Mapping[str, int] = field(default_factory=dict)
    join: Mapping[str, str] = field(default_factory=dict)
    mounts: Mapping[str, str] = field(default_factory=dict)
    page_server: tuple[str, int] | None = None
    cgroup_mode: str = "ignore"
    lock: str = "skip"
    log_level: int = LOG_LEVEL

    def write(self, rpc: Any, opts: Any) -> None:
        """Fill in a criu_opts message."""
        opts.images_dir_fd = self.images_fd
        opts.work_dir_fd = self.work_fd
        opts.log_file = self.log_file
        opts.log_level = self.log_level
        opts.notify_scripts = True
        known = opts.DESCRIPTOR.fields_by_name
        for name, value in self.values.items():
            if name not in known:
                raise BadOption(
                    option=name.replace("_", "-"), reason="this criu does not know it",
                    remedy="run contrib/install-criu",
                )  # fmt: skip
            if isinstance(value, list):
                getattr(opts, name).extend(value)
            else:
                setattr(opts, name, value)
        opts.external.extend(self.external)
        for key, fd in self.inherit.items():
            entry = opts.inherit_fd.add()
            entry.key, entry.fd = key, fd
        for name, path in self.join.items():
            joined = opts.join_ns.add()
            joined.ns, joined.ns_file = name, path
        for key, value in self.mounts.items():
            pair = opts.ext_mnt.add()
            pair.key, pair.val = key, value
        if self.page_server is not None:
            opts.ps.address, opts.ps.port = self.page_server
        opts.manage_cgroups = True
        opts.manage_cgroups_mode = _cgroup_mode(rpc, self.cgroup_mode)
        opts.network_lock = getattr(rpc, self.lock.upper())


def _cgroup_mode(rpc: Any, name: str) -> Any:
    if name not in CGROUP_MODES:
        raise BadOption(option="manage-cgroups-mode", reason=f"no such mode: {name}",
                        remedy="use one of: " + ", ".join(CGROUP_MODES))  # fmt: skip
    return getattr(rpc, "CG_NONE" if name == "none" else name.upper())


def empty_namespaces(names: tuple[str, ...]) -> int:
    """The flags of namespaces whose content is neither saved nor restored."""
    flags = 0
    for name in names:
        if name not in EMPTY_NAMESPACES:
            raise BadOption(option="empty-ns", reason=f"{name} cannot be left empty",
                            remedy="CRIU knows only: network")  # fmt: skip
        flags |= EMPTY_NAMESPACES[name]
    return flags
