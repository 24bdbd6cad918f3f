"""The processes of a checkpoint: who they were, whose children, with what rights. Reads no memory but the
command line and the environment, which the processes keep there."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ocimig.criu_images import fields, names, tables
from ocimig.criu_images.errors import NoProcess
from ocimig.criu_images.opened import Images
from ocimig.criu_images.pages import SAVED, Piece, Space

PROCESSES = 1 << 18
WORDS = 128 << 10  # bytes of a command line, and of an environment, that are read
MM_ENTRY = 64 << 20  # the largest mm image: a million mappings
_HIGHEST_PID = 1 << 22
_SEEN_FILTERS = 1 << 10
_AREAS = fields.Table("arg_start=8 arg_end=9 env_start=10 env_end=11")


@dataclass(frozen=True, slots=True)
class Process:
    """One line of the tree. Numbers are those inside the container's pid namespace."""

    pid: int
    parent: int  # 0 at the root
    group: int
    session: int
    threads: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Credentials:
    """Ids as in /proc/PID/status: real, effective, saved, of the file system."""

    uids: tuple[int, ...] = (0, 0, 0, 0)
    gids: tuple[int, ...] = (0, 0, 0, 0)
    groups: tuple[int, ...] = ()
    effective: tuple[str, ...] = ()
    permitted: tuple[str, ...] = ()
    inheritable: tuple[str, ...] = ()
    bounding: tuple[str, ...] = ()
    ambient: tuple[str, ...] = ()
    no_new_privileges: bool = False
    profile: str = ""


@dataclass(frozen=True, slots=True)
class Detail:
    """What the core image of a process says. `ids` are CRIU's numbers of what may be shared; a limit is
    (soft, hard), -1 for none. A process that is dead has hardly any of it."""

    name: str
    state: str
    machine: str
    exit_code: int = 0
    nice: int = 0
    oom_score_adj: int = 0
    credentials: Credentials = field(default_factory=Credentials)
    limits: tuple[tuple[str, int, int], ...] = ()
    seccomp: str = "disabled"
    seccomp_filter: int = 0  # the number of the last one, when seccomp is "filter"
    cgroup_set: int = 0
    ids: tuple[tuple[str, int], ...] = ()

    @property
    def id_of(self) -> dict[str, int]:
        """The same ids by name."""
        return dict(self.ids)


def processes(directory: Images) -> list[Process]:
    """The tree, parents before their children, root first. Raises BadImage."""
    name = "pstree.img"
    found: dict[int, Process] = {}
    taken: set[int] = set()
    for entry in directory.each(name, "pstree", tables.PSTREE):
        pid, parent = entry["pid"], entry["ppid"]
        # The first thread is the process; for one that is dead CRIU writes what was in its memory there.
        threads = tuple(entry["threads"]) if pid in entry["threads"] else (pid,)
        if not 0 < pid <= _HIGHEST_PID or not all(0 < each <= _HIGHEST_PID for each in threads):
            raise directory.refusal(name, f"there is no process {pid}")
        if not taken.isdisjoint({pid, *threads}):
            raise directory.refusal(name, f"process {pid}, or a thread of it, is in it twice")
        # CRIU writes a parent first and wants to read it first: so nobody is their own ancestor
        if found and parent not in found:
            raise directory.refusal(name, f"the parent of {pid}, {parent}, is not in it before")
        if len(found) == PROCESSES:
            raise directory.refusal(name, f"more than {PROCESSES} processes")
        taken.update({pid, *threads})
        found[pid] = Process(pid, parent if found else 0, entry["pgid"], entry["sid"], threads)
    if not found:
        raise directory.refusal(name, "it has no process")
    return list(found.values())


def process(directory: Images, pid: int) -> Process:
    """One of them. Raises NoProcess and BadImage."""
    for each in processes(directory):
        if each.pid == pid:
            return each
    raise NoProcess(pid=pid, path=directory.path)


def core(directory: Images, pid: int) -> dict[str, Any]:
    """The core image of a process or a thread under CRIU's names. Raises BadImage."""
    return directory.only(f"core-{pid}.img", "core", tables.CORE)


def detail(directory: Images, pid: int) -> Detail:
    """What is known of a process besides its files and its memory. Raises BadImage."""
    entry = core(directory, pid)
    task = entry["tc"]
    if task is None:
        raise directory.refusal(f"core-{pid}.img", "it is of a thread, not of a process")
    thread = entry["thread_core"] or fields.parse(b"", tables.THREAD)
    ids = directory.maybe(f"ids-{pid}.img", "ids", tables.IDS) or entry["ids"] or {}
    mode = thread["seccomp_mode"] or task["old_seccomp_mode"]
    return Detail(
        name=task["comm"],
        state=names.word(names.TASK_STATES, task["task_state"]),
        machine=names.word(names.MACHINES, entry["mtype"]),
        exit_code=task["exit_code"],
        nice=thread["sched_nice"],
        oom_score_adj=task["oom_score_adj"],
        credentials=_credentials(thread["creds"]),
        limits=tuple(_limits(task["rlimits"])),
        seccomp=names.word(names.SECCOMP_MODES, mode),
        seccomp_filter=thread["seccomp_filter"],
        cgroup_set=thread["cg_set"] or task["cg_set"],
        ids=tuple((name, number) for name, number in ids.items() if number),
    )


def _credentials(creds: dict[str, Any] | None) -> Credentials:
    if creds is None:
        return Credentials()

    def named(which: str) -> tuple[str, ...]:
        return tuple(names.capabilities(creds[f"cap_{which}"]))

    return Credentials(
        tuple(creds[f"{which}uid"] for which in ("", "e", "s", "fs")),
        tuple(creds[f"{which}gid"] for which in ("", "e", "s", "fs")),
        tuple(creds["groups"]),
        named("eff"),
        named("prm"),
        named("inh"),
        named("bnd"),
        named("amb"),
        bool(creds["no_new_privs"]),
        creds["lsm_profile"],
    )


def _limits(rlimits: dict[str, Any] | None) -> Iterator[tuple[str, int, int]]:
    for number, limit in enumerate(rlimits["rlimits"] if rlimits else ()):
        name = names.LIMITS[number] if number < len(names.LIMITS) else str(number)
        soft, hard = (-1 if each == (1 << 64) - 1 else each for each in limit.values())
        yield f"RLIMIT_{name}", soft, hard


def command(directory: Images, pid: int) -> list[str]:
    """The command line, of at most WORDS bytes; empty where it is not in the images. Raises BadImage."""
    return _words(directory, pid, "arg")


def environment(directory: Images, pid: int) -> list[str]:
    """The environment the process was started with, NAME=value, of at most WORDS bytes; likewise."""
    return _words(directory, pid, "env")


def words(directory: Images, pid: int) -> Iterator[Piece]:
    """Where a process keeps both, as far as they are saved. Raises BadImage."""
    for which in ("arg", "env"):
        yield from _saved(directory, pid, which)


def _words(directory: Images, pid: int, which: str) -> list[str]:
    blocks = (data for piece in _saved(directory, pid, which) for _, data in piece.blocks())
    found = b"".join(blocks).rstrip(b"\0")
    return [fields.text(word) for word in found.split(b"\0")] if found else []


def _saved(directory: Images, pid: int, which: str) -> Iterator[Piece]:
    if not directory.exists(f"mm-{pid}.img") or not directory.exists(f"pagemap-{pid}.img"):
        return
    mm = next(directory.records(f"mm-{pid}.img", "mm", MM_ENTRY), b"")
    found = directory.decoded(f"mm-{pid}.img", mm, _AREAS)
    start = found[f"{which}_start"]
    end = min(found[f"{which}_end"], start + WORDS)
    at = start
    with Space(directory, f"pagemap-{pid}.img") as space:
        for piece in space.within(start, end) if start < end else ():
            if piece.where != SAVED or piece.start != at:
                break  # what is behind a gap would be words in the wrong place
            yield piece
            at = piece.end


def filters(directory: Images, last: int) -> tuple[int, int]:
    """How many filters of seccomp end with number `last`, and how many instructions they have."""
    entry = directory.maybe("seccomp.img", "seccomp", tables.SECCOMP)
    known = entry["seccomp_filters"] if entry else []
    count = instructions = 0
    seen: set[int] = set()
    while last < len(known) and last not in seen and len(seen) < _SEEN_FILTERS:
        seen.add(last)
        count += 1
        instructions += len(known[last]["filter"]) // 8
        previous = known[last]["prev"]
        if previous >= last:  # the first one has none, which reads as 0; an earlier one is lower
            break
        last = previous
    return count, instructions
