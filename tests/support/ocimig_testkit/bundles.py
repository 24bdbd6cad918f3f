"""Bundles: a directory with a config.json and a root file system."""

import json
from pathlib import Path
from typing import Any

from ocimig_testkit.rootfs import make_rootfs

_CAPABILITIES = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]


def default_config() -> dict[str, Any]:
    """What `runc spec` writes, without a terminal: the config.json most callers start from."""
    return {
        "ociVersion": "1.0.2",
        "process": {
            "terminal": False,
            "user": {"uid": 0, "gid": 0},
            "args": ["/bin/sh"],
            "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": {
                "bounding": list(_CAPABILITIES),
                "effective": list(_CAPABILITIES),
                "permitted": list(_CAPABILITIES),
            },
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs", "readonly": False},
        "hostname": "box",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {
                "destination": "/dev",
                "type": "tmpfs",
                "source": "tmpfs",
                "options": ["nosuid", "strictatime", "mode=755", "size=65536k"],
            },
            {
                "destination": "/dev/pts",
                "type": "devpts",
                "source": "devpts",
                "options": [
                    "nosuid",
                    "noexec",
                    "newinstance",
                    "ptmxmode=0666",
                    "mode=0620",
                    "gid=5",
                ],
            },
            {
                "destination": "/dev/shm",
                "type": "tmpfs",
                "source": "shm",
                "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"],
            },
            {
                "destination": "/dev/mqueue",
                "type": "mqueue",
                "source": "mqueue",
                "options": ["nosuid", "noexec", "nodev"],
            },
            {
                "destination": "/sys",
                "type": "sysfs",
                "source": "sysfs",
                "options": ["nosuid", "noexec", "nodev", "ro"],
            },
            {
                "destination": "/sys/fs/cgroup",
                "type": "cgroup",
                "source": "cgroup",
                "options": ["nosuid", "noexec", "nodev", "relatime", "ro"],
            },
        ],
        "linux": {
            "resources": {"devices": [{"allow": False, "access": "rwm"}]},
            "namespaces": [
                {"type": "pid"},
                {"type": "network"},
                {"type": "ipc"},
                {"type": "uts"},
                {"type": "mount"},
            ],
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


class Bundle:
    """A bundle whose `config` may be changed freely; `write()` puts it on disk."""

    def __init__(self, path: Path, config: dict[str, Any]) -> None:
        self.path = path
        self.config = config

    @property
    def rootfs(self) -> Path:
        """The root file system on the host."""
        return self.path / "rootfs"

    @property
    def process(self) -> dict[str, Any]:
        """The `process` object of config.json."""
        process: dict[str, Any] = self.config["process"]
        return process

    @property
    def linux(self) -> dict[str, Any]:
        """The `linux` object of config.json."""
        linux: dict[str, Any] = self.config["linux"]
        return linux

    def argv(self, *argv: str) -> "Bundle":
        """Set what it runs."""
        self.process["args"] = list(argv)
        return self.write()

    def shell(self, script: str) -> "Bundle":
        """Let it run a script of the shell."""
        return self.argv("/bin/sh", "-c", script)

    def without_namespace(self, kind: str) -> "Bundle":
        """Take one namespace out: the container shares the host's."""
        spaces = self.linux["namespaces"]
        self.linux["namespaces"] = [space for space in spaces if space["type"] != kind]
        return self.write()

    def write(self) -> "Bundle":
        """Write config.json as `config` is now."""
        (self.path / "config.json").write_text(json.dumps(self.config, indent=1))
        return self

    def text(self, content: str) -> "Bundle":
        """Write config.json as this text, for what is no valid config."""
        (self.path / "config.json").write_text(content)
        return self


def make_bundle(path: Path, *argv: str) -> Bundle:
    """A new bundle with a tiny root file system, running `argv` (or a shell that waits for ever)."""
    path.mkdir(parents=True, exist_ok=True)
    make_rootfs(path / "rootfs")
    bundle = Bundle(path, default_config())
    # a loop, not one long sleep: a checkpoint interrupts nanosleep and busybox would end with it
    return bundle.argv(*(argv or ("/bin/sh", "-c", "while :; do sleep 1; done")))
