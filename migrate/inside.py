"""What was found inside a container → findings in words, each with its fix. Pure: reads nothing."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

REFUSE, WARN = "refused", "warning"
SHOWN = 3  # of things alike; the rest is counted


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is in the way, or worth knowing; `code` is the exit code it leads to."""

    severity: str
    name: str
    text: str
    fix: str
    code: int = 14

    def to_dict(self) -> dict[str, Any]:
        """For --json."""
        return {"severity": self.severity, "name": self.name, "text": self.text, "fix": self.fix}


@dataclass(frozen=True, slots=True)
class Wishes:
    """The options of a migration that let CRIU save what it refuses otherwise."""

    tcp_close: bool = False
    file_locks: bool = False
    link_remap: bool = False
    ext_unix_sk: bool = False

    @classmethod
    def of(cls, options: Any) -> "Wishes":
        """From whatever has fields of these names, as MigrateOptions."""
        return cls(**{name: getattr(options, name) for name in cls.__slots__})


@dataclass(frozen=True, slots=True)
class Rule:
    """What one kind of thing means. `option` of Wishes allows it; in the words {…} are fields of it."""

    words: str
    fix: str
    severity: str = REFUSE
    option: str = ""


_CLOSE = "CRIU cannot save it: let the program close it, or stop that process first"

RULES: Mapping[str, Rule] = {
    "io_uring": Rule(
        "an io_uring",
        "start the program with io_uring off (nodejs: UV_USE_IO_URING=0; mariadb: "
        "innodb_use_native_aio=0), or deny io_uring_setup by seccomp",
    ),
    "userfaultfd": Rule("a userfaultfd", "CRIU cannot save it: stop that process first"),
    "perf event": Rule("a performance counter", "end the profiler, or stop that process first"),
    "file system context": Rule("a file system that is being mounted (fsopen)", _CLOSE),
    "landlock ruleset": Rule(
        "a landlock ruleset",
        "let the program close it after landlock_restrict_self",
    ),
    "seccomp listener": Rule("a seccomp listener", "end the supervisor in the container first"),
    "bpf": Rule("a BPF program", _CLOSE),
    "bpf map": Rule(
        "a BPF map", "only a CRIU built with libbpf saves it; else close it first", severity=WARN
    ),
    "virtual machine": Rule("a virtual machine (KVM)", "migrate the virtual machine with its own tools"),
    "graphics card": Rule(
        "a graphics card", "CRIU cannot save it without a plugin: stop that process first"
    ),
    "fuse": Rule("a FUSE server's connection", "unmount it in the container and end its server first"),
    "tun": Rule("a TUN or TAP device", "end the VPN or emulator that uses it first"),
    "device": Rule("a device", _CLOSE),
    "kernel object": Rule("a kernel object", _CLOSE),
    "secret memory": Rule("secret memory (memfd_secret)", _CLOSE),
    "thread pidfd": Rule("a pidfd of a thread", _CLOSE),
    "packet pipe": Rule("a pipe in packet mode (O_DIRECT)", _CLOSE),
    "socket file": Rule("a socket file by its path (O_PATH)", _CLOSE),
    "socket": Rule(
        "a socket of protocol {protocol}", "CRIU knows no such sockets: close it or stop the process"
    ),
    "foreign socket": Rule(
        "a socket made in another network namespace",
        "start the container without sockets of the host; a pipe or a file can stay",
    ),
    "unix socket": Rule(
        "a unix socket whose other end is outside the container",
        "let the program close that connection, or stop it for the move",
    ),
    "unix datagrams": Rule(
        "a unix socket that sends to one outside the container",
        "add --ext-unix-sk: it is connected again by its name",
        option="ext_unix_sk",
    ),
    "inotify": Rule(
        "a watch (inotify, fanotify) on a file that cannot be found by its name",
        "let the program watch another file system",
    ),
    "foreign namespace": Rule("a namespace in which no process of it lives", _CLOSE),
    "queued messages": Rule(
        "netlink messages nobody reads", "let the program read them, or close the socket"
    ),
    "waiting connections": Rule(
        "TCP connections that nobody accepts",
        "try again when the program accepts them; if it hangs, restart it",
    ),
    "file lock": Rule("a locked file", "add --file-locks", option="file_locks"),
    "deleted file": Rule(
        "a deleted file of {mib} MiB",
        "let the program close or truncate it: CRIU carries at most 64 MiB of each",
    ),
    "renamed file": Rule(
        "a file that lost this name and has another",
        "add --link-remap",
        option="link_remap",
    ),
    "file in a deleted directory": Rule(
        "a deleted file in a deleted directory that is open too", "let the program close one of them"
    ),
}  # fmt: skip

# Of these the process itself is in the way, or a mount.
WHOLE: Mapping[str, Rule] = {
    "traced": Rule(
        "process {pid} ({command}) is traced by process {by} ({name})",
        "detach the debugger: CRIU would wait for it with the container frozen",
    ),
    "ended leader": Rule(
        "process {pid} ({command}) lives on in threads after its main thread ended",
        "CRIU cannot save that: stop the process first",
    ),
    "shared memory space": Rule(
        "process {pid} ({command}) shares its memory with process {by} (vfork or CLONE_VM)",
        "try again when it has started its program, or stop it",
    ),
    "stuck process": Rule(
        "process {pid} ({command}) is in uninterruptible sleep and may not stop in time",
        "see what it waits for: cat /proc/{pid}/stack",
        severity=WARN,
    ),
    "deadline scheduling": Rule(
        "process {pid} ({command}) runs under SCHED_DEADLINE, which CRIU cannot bring back",
        "chrt --other --pid 0 {pid}",
    ),
    "nested namespace": Rule(
        "process {pid} ({command}) lives in its own {name} namespace inside the container",
        "stop the sandbox or inner container first: CRIU saves nested mount and network "
        "namespaces only",
    ),
    "given namespace": Rule(
        "its {name} namespace is one that exists already ({path})",
        "give the container a {name} namespace of its own in config.json",
    ),
    "mount": Rule(
        "{mount} is a file system ({name}) mounted inside the container that cannot be carried over",
        "unmount it in the container, or mount it by config.json from a directory of the host",
    ),
    "message queues": Rule(
        "there are POSIX message queues in {mount}: {name}",
        "let the program remove them (mq_unlink)",
    ),
    "exec": Rule(
        "process {pid} ({command}) was started by exec from outside and ends with the move",
        "start it again over there",
        severity=WARN,
    ),
}  # fmt: skip


def findings(things: Iterable[Mapping[str, Any]], wishes: Wishes | None) -> Iterator[Finding]:
    """One finding a thing; of many alike only some, with how many more there are.

    Without wishes (nobody asked) what an option would allow is a warning.
    """
    kinds: dict[str, list[Mapping[str, Any]]] = {}
    for thing in things:
        kinds.setdefault(str(thing["kind"]), []).append(thing)
    for kind, alike in kinds.items():
        rule = WHOLE.get(kind) or RULES.get(kind) or RULES["kernel object"]
        severity = rule.severity
        if rule.option:
            if wishes is None:
                severity = WARN
            elif getattr(wishes, rule.option):
                continue
        for number, thing in enumerate(alike[:SHOWN], 1):
            text, fix = _words(kind, rule, thing), _fill(rule.fix, thing)
            if number == SHOWN and len(alike) > SHOWN:
                text += f", and {len(alike) - SHOWN} more like it"
            yield Finding(severity, kind, text, fix)


def _words(kind: str, rule: Rule, thing: Mapping[str, Any]) -> str:
    if kind in WHOLE:
        return _fill(rule.words, thing)
    who = f"process {thing['pid']} ({thing.get('command', '?')})"
    where = (
        f"at descriptor {thing['fd']}"
        if "fd" in thing
        else f"mapped at {thing.get('mapping', '?')}"
    )
    return f"{who} has {_fill(rule.words, thing)} {where}: {thing.get('name', '?')}"


def _fill(words: str, thing: Mapping[str, Any]) -> str:
    mib = int(thing.get("size", 0)) >> 20
    return words.format_map({"command": "?", "mib": mib, **thing})
