"""What a checkpoint from somewhere else asks of this host, and what of it it gets. Pure.

Each thing is granted by a word of --allow, put in place by something of ours, left out, or, where the
container cannot come back without it, a reason to refuse. Nothing else of the document is changed.
"""

import copy
import os
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from ocimig.criu_images.screening import Screened
from ocimig.migrate import tmpfs
from ocimig.migrate.archive.foreign import is_bind
from ocimig.migrate.archive.members import legible
from ocimig.migrate.descriptors import HostFile
from ocimig.migrate.external import External
from ocimig.runtime.linux.capabilities import CAPS

GRANTS = {
    "mounts": "bind mounts of paths of this host",
    "files": "files of this host that it had open",
    "devices": "device nodes, and rules that let it use them",
    "hooks": "programs that run on this host as its caller",
    "sysctls": "settings of the kernel",
    "namespaces": "joining namespaces by path",
    "cgroup": "a cgroup path of its choice",
    "annotations": "annotations that steer a runtime or CRIU",
    "capabilities": "capabilities beyond the usual ones",
    "unconfined": "running without a seccomp filter",
    "labels": "labels of a security module",
    "mappings": "user and group ids of its choice",
    "network": "the address and the bridge that it had",
}
GRANTED, REPLACED, DROPPED, WANTED = "granted", "replaced", "dropped", "not granted"
# What engines bind into every container, of their own making: a plain file or directory does as well.
ENGINE_MADE = {
    "/etc/hosts": "file", "/etc/hostname": "file", "/etc/resolv.conf": "file",
    "/run/.containerenv": "file", "/dev/termination-log": "file",
    "/run/secrets": "directory", "/dev/shm": "directory",
}  # fmt: skip
_USUAL = {
    f"CAP_{name}"
    for name in (
        "AUDIT_WRITE CHOWN DAC_OVERRIDE FOWNER FSETID KILL MKNOD NET_BIND_SERVICE NET_RAW SETFCAP "
        "SETGID SETPCAP SETUID SYS_CHROOT"
    ).split()
}
_NOTED = ("mounts", "files", "streams", "root_slave", "network_empty")
_KINDS = {"bind", "cgroup", "notify", "null", "tmpfs"}
_KEY = re.compile(r"m[0-9]{1,12}")
# null, zero, full, random, urandom, tty, ptmx: what every container has
_PLAIN_DEVICES = {(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 2)}
_STEERING = ("org.criu.", "run.oci.", "org.systemd.property.", "cdi.k8s.io/", "module.wasm.",
             "org.ocimig.")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Asked:
    """One thing. `grant` is a word of GRANTS."""

    grant: str
    what: str
    verdict: str

    def describe(self) -> str:
        """One line."""
        return f"{self.verdict}: {self.grant}: {self.what}"


@dataclass(slots=True)
class Decision:
    """What was asked for, and config.json without what was not granted.

    `binds` are the sources of bind mounts by destination; "" stands for one of our own (ENGINE_MADE).
    """

    spec: dict[str, Any]
    asked: list[Asked] = field(default_factory=list)
    binds: dict[str, str] = field(default_factory=dict)

    @property
    def wanting(self) -> list[str]:
        """The grants without which it cannot be restored."""
        return sorted({item.grant for item in self.asked if item.verdict == WANTED})


def decide(spec: Mapping[str, Any], granted: Collection[str]) -> Decision:
    """Judge a config.json; `granted` are words of GRANTS."""
    made = Decision(copy.deepcopy(dict(spec)))
    judge = _Judge(made, granted)
    judge.mounts()
    judge.devices()
    judge.namespaces()
    judge.host()
    judge.process()
    judge.annotations()
    root = made.spec.get("root")
    made.spec["root"] = {
        "path": "rootfs", "readonly": bool(isinstance(root, dict) and root.get("readonly"))
    }  # fmt: skip
    return made


def decide_facts(
    facts: Mapping[str, Any], decision: Decision, granted: Collection[str]
) -> dict[str, Any]:
    """Likewise for what ocimig noted beside config.json when it made the checkpoint: mounts, files that
    were open, the network. What is granted or denied is added to the decision. Raises ValueError and what
    a value of another type raises for what ocimig would not have noted."""
    judge = _Judge(decision, granted)
    kept: dict[str, Any] = {name: copy.deepcopy(facts[name]) for name in _NOTED if name in facts}
    for file in kept.get("files") or []:
        path = HostFile.from_json(file).path
        if path != "/dev/null":
            judge.say("files", f"{path} open", WANTED)
    for item in kept.get("mounts") or []:
        _judge_mount(judge, item, decision)
    state = {"bundle": "", "rootfs": ""}
    network = (facts.get("state") or {}).get("network")
    if network and judge.say("network", str(network.get("address") or "its network"), DROPPED):
        state["network"] = network
    kept["state"] = state
    if kept.get("root_slave") and "mounts" not in granted:
        kept["root_slave"] = False
    return kept


def _judge_mount(judge: "_Judge", item: dict[str, Any], decision: Decision) -> None:
    mount = External.from_json(item)
    target = os.path.normpath(mount.target)
    if mount.kind not in _KINDS or not _KEY.fullmatch(mount.key):
        raise ValueError(f"a mount {mount.key!r} of the kind {mount.kind!r}")
    if mount.kind == "bind" and target not in decision.binds:
        judge.bind(target, mount.source)
    elif mount.kind == "cgroup" and not _below(mount.below):
        judge.say("mounts", f"a cgroup outside its own at {target}", WANTED)
    elif mount.kind == "tmpfs" and mount.content:
        tmpfs.check(mount.content)
        for entry in mount.content:
            device = entry.get("device")
            if device is not None and (os.major(device), os.minor(device)) not in _PLAIN_DEVICES:
                numbers = f"{os.major(device)}:{os.minor(device)}"
                judge.say("devices", f"{target}/{entry['name']} is {numbers}", WANTED)


def decide_processes(found: Screened, decision: Decision, granted: Collection[str]) -> None:
    """Likewise for the processes themselves, as CRIU is going to make them: config.json may say less
    than the images hold."""
    judge = _Judge(decision, granted)
    usual = {CAPS[name] for name in _USUAL}
    known = {item.grant for item in decision.asked}
    names = {number: name for name, number in CAPS.items()}
    extra = sorted(names.get(number, str(number)) for number in found.capabilities - usual)
    if extra and "capabilities" not in known:
        judge.say("capabilities", f"{', '.join(extra)} in its images", WANTED)
    if found.unfiltered and "unconfined" not in known:
        judge.say("unconfined", f"{found.unfiltered} threads have no seccomp filter", WANTED)


def _below(path: str) -> bool:
    """Whether a path leads nowhere but down."""
    return not path.startswith("/") and ".." not in path.split("/")


class _Judge:
    """Goes through one document."""

    def __init__(self, decision: Decision, granted: Collection[str]) -> None:
        self.decision = decision
        self.spec = decision.spec
        self.granted = granted
        for name in ("linux", "process"):
            self.spec.setdefault(name, {})
        for name in ("linux", "process", "annotations", "hooks"):
            if not isinstance(self.spec.get(name) or {}, dict):
                raise TypeError(f"{name} is not an object")
        self.linux: dict[str, Any] = self.spec["linux"]
        self.process_part: dict[str, Any] = self.spec["process"]

    def say(self, grant: str, what: str, otherwise: str) -> bool:
        """Note one thing; whether it may stay."""
        allowed = grant in self.granted
        verdict = GRANTED if allowed else otherwise
        self.decision.asked.append(Asked(grant, legible(what), verdict))
        return allowed

    def bind(self, target: str, source: str) -> None:
        """A bind mount: the source it shall have, or one of our own, or a refusal."""
        own = target in ENGINE_MADE
        if self.say("mounts", f"{source or '?'} at {target}", REPLACED if own else WANTED):
            self.decision.binds[target] = source
        elif own:
            self.decision.binds[target] = ""

    def mounts(self) -> None:
        for mount in self.spec.get("mounts") or []:
            if is_bind(mount):
                target = os.path.normpath("/" + str(mount.get("destination", "")).lstrip("/"))
                self.bind(target, str(mount.get("source") or ""))

    def devices(self) -> None:
        devices = self.linux.get("devices") or []
        for device in devices:
            self.say("devices", f"{device.get('path')}", DROPPED)
        if devices and "devices" not in self.granted:
            self.linux["devices"] = []
        resources = self.linux.get("resources") or {}
        rules = resources.get("devices") or []
        allowing = [rule for rule in rules if rule.get("allow")]
        for rule in allowing:
            numbers = f"{rule.get('type', 'a')} {rule.get('major', '*')}:{rule.get('minor', '*')}"
            self.say("devices", f"{numbers} {rule.get('access', '')}".strip(), DROPPED)
        if allowing and "devices" not in self.granted:
            resources["devices"] = [rule for rule in rules if not rule.get("allow")]

    def namespaces(self) -> None:
        entries = self.linux.get("namespaces") or []
        kinds = {entry.get("type") for entry in entries}
        for entry in entries:
            path = entry.get("path")
            if not path:
                continue
            # engines make the network beforehand: another new one does, the images hold none of it
            otherwise = REPLACED if entry.get("type") == "network" else WANTED
            if not self.say("namespaces", f"{entry.get('type')} at {path}", otherwise):
                entry.pop("path")
        for missing in sorted({"mount", "pid", "network", "ipc"} - kinds):
            self.say("namespaces", f"the {missing} namespace of this host", WANTED)
        for name in ("uidMappings", "gidMappings"):
            for row in self.linux.get(name) or []:
                self.say(
                    "mappings", f"{row.get('containerID')} is {row.get('hostID')} here", WANTED
                )

    def host(self) -> None:
        for name, programs in (self.spec.get("hooks") or {}).items():
            for program in programs or []:
                self.say("hooks", f"{name} {program.get('path')}", DROPPED)
        if self.spec.get("hooks") and "hooks" not in self.granted:
            self.spec.pop("hooks")
        self._drop(self.linux, "sysctl", "sysctls", lambda value: ", ".join(sorted(value)))
        self._drop(self.linux, "cgroupsPath", "cgroup", str)
        self._drop(self.linux, "mountLabel", "labels", str)
        self._drop(self.linux, "intelRdt", "devices", lambda _: "intelRdt")
        self._drop(self.linux, "netDevices", "devices", lambda value: ", ".join(sorted(value)))
        if not self.linux.get("seccomp"):
            self.say("unconfined", "it has no seccomp filter", WANTED)

    def process(self) -> None:
        part = self.process_part
        self._drop(part, "apparmorProfile", "labels", str)
        self._drop(part, "selinuxLabel", "labels", str)
        held: set[str] = set()
        for names in (part.get("capabilities") or {}).values():
            held.update(str(name) for name in names or [])
        if extra := sorted(held - _USUAL):
            self.say("capabilities", ", ".join(extra), WANTED)

    def annotations(self) -> None:
        found = self.spec.get("annotations") or {}
        for name in sorted(found):
            if name.startswith(_STEERING) and not self.say(
                "annotations", f"{name}={found[name]}", DROPPED
            ):
                found.pop(name)

    def _drop(
        self, holder: dict[str, Any], name: str, grant: str, words: Callable[[Any], str]
    ) -> None:
        value = holder.get(name)
        if value and not self.say(grant, words(value), DROPPED):
            holder.pop(name)
