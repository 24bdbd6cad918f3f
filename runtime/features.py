"""What this runtime can do, as the specification's features document. Says only what was built, never what is planned."""

import os

from ocimig import __version__
from ocimig.runtime import fields, mounts
from ocimig.runtime.linux import capabilities

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

OCI_MIN, OCI_MAX = "1.0.0", "1.3.0"


def document() -> "dict[str, Any]":
    """The document that `ocimig features` prints."""
    version, seccomp = _seccomp()
    annotations = {
        # callers look for exactly this key before they offer a checkpoint; crun says it too
        "org.opencontainers.runc.checkpoint.enabled": "true",
        "org.opencontainers.runc.version": __version__,
        "org.ocimig.version": __version__,
    }
    if version:
        annotations["io.github.seccomp.libseccomp.version"] = version
    return {
        "ociVersionMin": OCI_MIN,
        "ociVersionMax": OCI_MAX,
        "hooks": list(fields.HOOK_KINDS),
        "mountOptions": mount_options(),
        "linux": {
            "namespaces": sorted(fields.NAMESPACE_TYPES),
            "capabilities": list(capabilities.NAMES),
            "cgroup": {
                "v1": True, "v2": True, "systemd": True, "systemdUser": True, "rdma": True,
            },
            "seccomp": seccomp,
            "apparmor": {"enabled": True},
            "selinux": {"enabled": True},
            "intelRdt": {"enabled": False},
            "memoryPolicy": {"modes": [], "flags": []},
            "mountExtensions": {"idmap": {"enabled": True}},
            "netDevices": {"enabled": False},
        },
        "annotations": annotations,
        "potentiallyUnsafeConfigAnnotations": ["org.systemd.property.", "org.criu.config"],
    }  # fmt: skip


# words that fsconfig(2) itself takes as flags of any file system
_SUPERBLOCK = ("async", "dirsync", "lazytime", "mand", "nolazytime", "nomand", "sync")


def mount_options() -> "list[str]":
    """Every option word that is not simply handed to the file system."""
    words = {"bind", "rbind", "idmap", "ridmap", "tmpcopyup", *_SUPERBLOCK, *mounts.IGNORED}
    for name in (*mounts.ATTRIBUTES, *mounts.PROPAGATION):
        words.update((name, "r" + name))
    return sorted(words)


def _seccomp() -> "tuple[str, dict[str, Any]]":
    from ocimig.runtime.linux import seccomp

    version = seccomp.version()
    if not version or not os.path.exists("/proc/sys/kernel/seccomp"):
        return "", {"enabled": False}
    return version, {
        "enabled": True,
        "actions": sorted(fields.SECCOMP_ACTIONS),
        "operators": sorted(fields.SECCOMP_OPERATORS),
        "archs": [name for name in fields.SECCOMP_ARCHITECTURES if seccomp.arch_token(name)],
        "knownFlags": sorted(fields.SECCOMP_FLAGS),
        "supportedFlags": [name for name in fields.SECCOMP_FLAGS if seccomp.flag_supported(name)],
    }
