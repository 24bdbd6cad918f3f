"""The config.json that `ocimig spec` writes: runc's example, field by field. Never reads a bundle."""

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_CAPABILITIES = ("CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE")
_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_SPACES = ("pid", "network", "ipc", "uts", "mount")


def default_spec(rootless: bool = False) -> "dict[str, Any]":
    """A container that runs `sh`; with `rootless` one that a user without privileges can run."""
    spec: dict[str, Any] = {
        "ociVersion": "1.2.0",
        "process": {
            "terminal": True,
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": [_PATH, "TERM=xterm"],
            "cwd": "/",
            "capabilities": {
                kind: list(_CAPABILITIES) for kind in ("bounding", "effective", "permitted")
            },
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "runc",
        "mounts": _mounts(),
        "linux": {
            "resources": {"devices": [{"allow": False, "access": "rwm"}]},
            "namespaces": [{"type": space} for space in _SPACES],
            "maskedPaths": [
                "/proc/acpi",
                "/proc/asound",
                "/proc/kcore",
                "/proc/keys",
                "/proc/latency_stats",
                "/proc/timer_list",
                "/proc/timer_stats",
                "/proc/sched_debug",
                "/sys/firmware",
                "/proc/scsi",
            ],
            "readonlyPaths": [
                "/proc/bus",
                "/proc/fs",
                "/proc/irq",
                "/proc/sys",
                "/proc/sysrq-trigger",
            ],
        },
    }
    if os.path.exists("/sys/fs/cgroup/cgroup.controllers"):
        spec["linux"]["namespaces"].append({"type": "cgroup"})
    return _rootless(spec) if rootless else spec


def _mounts() -> "list[dict[str, Any]]":
    rows = (
        ("/proc", "proc", "proc", ""),
        ("/dev", "tmpfs", "tmpfs", "nosuid strictatime mode=755 size=65536k"),
        (
            "/dev/pts", "devpts", "devpts",
            "nosuid noexec newinstance ptmxmode=0666 mode=0620 gid=5",
        ),
        ("/dev/shm", "tmpfs", "shm", "nosuid noexec nodev mode=1777 size=65536k"),
        ("/dev/mqueue", "mqueue", "mqueue", "nosuid noexec nodev"),
        ("/sys", "sysfs", "sysfs", "nosuid noexec nodev ro"),
        ("/sys/fs/cgroup", "cgroup", "cgroup", "nosuid noexec nodev relatime ro"),
    )  # fmt: skip
    mounts = []
    for destination, kind, source, options in rows:
        mount: dict[str, Any] = {"destination": destination, "type": kind, "source": source}
        if options:
            mount["options"] = options.split()
        mounts.append(mount)
    return mounts


def _rootless(spec: "dict[str, Any]") -> "dict[str, Any]":
    """Without what an ordinary user may not do: a network of its own, other ids, cgroups, sysfs."""
    linux = spec["linux"]
    kept = [space for space in linux["namespaces"] if space["type"] not in ("network", "user")]
    mounts = []
    for mount in spec["mounts"]:
        if mount["destination"] == "/sys":
            # mounting sysfs needs a network namespace of one's own
            options = ["rbind", "nosuid", "noexec", "nodev", "ro"]
            mounts.append(
                {"destination": "/sys", "type": "none", "source": "/sys", "options": options}
            )
            continue
        if "options" in mount:
            wanted = [word for word in mount["options"] if not word.startswith(("uid=", "gid="))]
            mount["options"] = wanted
        mounts.append(mount)
    spec["mounts"] = mounts
    # the order in which runc prints these fields
    spec["linux"] = {
        "uidMappings": [{"containerID": 0, "hostID": os.geteuid(), "size": 1}],
        "gidMappings": [{"containerID": 0, "hostID": os.getegid(), "size": 1}],
        "namespaces": [*kept, {"type": "user"}],
        "maskedPaths": linux["maskedPaths"],
        "readonlyPaths": linux["readonlyPaths"],
    }
    return spec
