"""What a plan has to know of this host and of the caller, found out just before it is made."""

import os

from ocimig import log
from ocimig.runtime import mounts, plan, steps
from ocimig.runtime.errors import BadDescriptor, CannotRunHere

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ocimig.runtime.cgroups import Cgroup


def standard_streams() -> "list[str]":
    """What 0, 1 and 2 are, as /proc names them: restore finds them again by that."""
    found = []
    for fd in range(3):
        try:
            found.append(os.readlink(f"/proc/self/fd/{fd}"))
        except OSError:
            found.append("")
    return found


def preserved(count: int) -> "tuple[int, list[str]]":
    """How many descriptors from 3 on the process keeps, and the variables that tell it of them."""
    env = []
    listen = os.environ.get("LISTEN_FDS", "")
    total = count
    # Meant for us, or (as podman says it) for the container; else they were our caller's, and are gone.
    meant = os.environ.get("LISTEN_PID", "1") in {"1", str(os.getpid())}
    if meant and listen.isascii() and listen.isdigit() and int(listen):
        total += int(listen)
        env = [f"LISTEN_FDS={listen}", "LISTEN_PID="]
        if "LISTEN_FDNAMES" in os.environ:
            env.append(f"LISTEN_FDNAMES={os.environ['LISTEN_FDNAMES']}")
    for number in range(total):
        try:
            given = os.get_inheritable(3 + number)
        except OSError:
            given = False
        if not given:  # what we opened ourselves, such as the log, is close-on-exec
            raise BadDescriptor(number=number, count=total)
    return total, env


def describe_process(
    facts: plan.Facts, spec: "dict[str, Any]", process: "dict[str, Any]", root: str
) -> None:
    """Fill in what the last steps need to know: capabilities, the seccomp filter, labels.

    `root` is that of the store, which keeps compiled filters.
    """
    linux = spec.get("linux") or {}
    facts.persona = linux.get("personality")
    if "capabilities" in process:
        from ocimig.runtime import capabilities
        from ocimig.runtime.linux.capabilities import bounding_set

        mapped = any(entry["type"] == "user" for entry in linux.get("namespaces") or [])
        available = capabilities.ALL if mapped else bounding_set()
        planned = capabilities.plan(process["capabilities"], available=available)
        for words in planned.warnings:
            log.warning(words)
        facts.caps = (
            planned.bounding, planned.effective, planned.permitted, planned.inheritable, planned.ambient
        )  # fmt: skip
    if linux.get("seccomp"):
        from ocimig.runtime import seccomp

        made = seccomp.plan(linux["seccomp"], cache=os.path.join(root, seccomp.CACHE_NAME))
        facts.seccomp, facts.seccomp_flags = made.bpf, made.flags
        if made.notify:
            facts.seccomp_flags |= plan.SECCOMP_FILTER_FLAG_NEW_LISTENER
    if process.get("apparmorProfile"):
        if not os.path.isdir("/sys/kernel/security/apparmor"):
            raise CannotRunHere(
                what="process.apparmorProfile",
                reason="AppArmor is not enabled on the host",
                advice="remove it from config.json, or boot with apparmor=1",
            )
        if not os.path.exists(facts.apparmor):
            facts.apparmor = "/proc/thread-self/attr/exec"


def cgroup_mount(
    cgroup: "Cgroup", mount: "dict[str, Any]", own: bool, mapped: bool
) -> "list[steps.Step]":
    """The steps for a mount of type "cgroup": what a container sees of its cgroups.

    `own`: it has a cgroup namespace. `mapped`: it has a user namespace, which may not mount version 1.
    """
    options = mounts.Options(mount.get("options") or [])
    target = mounts.destination(mount["destination"])
    found = []
    fixed = options.set & ~mounts.MOUNT_ATTR_RDONLY
    last: list[steps.Step] = []
    for piece in cgroup.mount_points(cgroup_namespace=own):
        path = f"{target}/{piece.destination}" if piece.destination else target
        if piece.kind == "tmpfs":  # read-only only when all is in it
            found.append(steps.mount("tmpfs", "tmpfs", path, ["mode=755"], fixed, 0, False))
            if options.set & mounts.MOUNT_ATTR_RDONLY:
                last.append(steps.attributes(path, options.set))
        elif piece.kind == "link":
            found.append(steps.symlink(piece.source, path))
        elif piece.kind == "mount" and not (mapped and piece.fstype == "cgroup"):
            words = piece.data.split(",") if piece.data else []
            found.append(
                steps.mount(
                    piece.fstype, "cgroup", path, words, options.set, options.propagation, False
                )
            )
        else:
            source = steps.Source("tree", piece.fallback or piece.source)
            found.append(steps.bind(source, path, (options.set, 0, 0, 0), options.propagation))
    return found + last


def limit_process(pid: int, process: "dict[str, Any]") -> None:
    """What is set on a process from outside. Raises InitFailed."""
    if process.get("rlimits") or process.get("oomScoreAdj") is not None:
        from ocimig.runtime import limits

        limits.apply(pid, process)
