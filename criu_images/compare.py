"""Two checkpoints beside each other: processes, open files, mounts, pages. Holds one block of memory of each."""

from collections.abc import Iterator
from dataclasses import dataclass

from ocimig.criu_images import descriptors, mappings, surroundings, tree
from ocimig.criu_images.descriptors import Files
from ocimig.criu_images.mappings import Mapping
from ocimig.criu_images.opened import Images
from ocimig.criu_images.pagemap import PAGE
from ocimig.criu_images.pages import SAVED, Piece

ADDED, REMOVED, CHANGED = "added", "removed", "changed"
_DESCRIPTORS = 1 << 17  # of one process


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that is not the same: `before` is empty where it was added, `after` where it was removed."""

    what: str  # "process", "file", "mount"
    change: str
    pid: int
    name: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class PageDifference:
    """Bytes of one mapping by what became of them. `unknown` were left out of one of the dumps.

    The mapping is that of the second checkpoint where there is one, else that of the first.
    """

    pid: int
    mapping: Mapping
    changed: int
    added: int
    removed: int
    same: int
    unknown: int


class Side:
    """One checkpoint of the two."""

    def __init__(self, directory: Images) -> None:
        surroundings.inventory(directory)
        self.directory = directory
        self.files = Files(directory)
        self.processes = {each.pid: each for each in tree.processes(directory)}

    def command(self, pid: int) -> str:
        """The command line, or the name in brackets."""
        words = tree.command(self.directory, pid)
        return " ".join(words) or f"[{tree.detail(self.directory, pid).name}]"

    def table(self, pid: int) -> int:
        """CRIU's number of its table of descriptors; 0 for none."""
        return tree.detail(self.directory, pid).id_of.get("files_id", 0)

    def descriptors(self, files_id: int) -> dict[int, descriptors.Descriptor]:
        """What is open in a table, by number. Raises BadImage."""
        found: dict[int, descriptors.Descriptor] = {}
        for each in self.files.of(files_id):
            found[each.number] = each
            if len(found) > _DESCRIPTORS:
                raise self.directory.refusal(f"fdinfo-{files_id}.img", "too many descriptors")
        return found


def same_program(a: Side, b: Side, pid: int) -> bool:
    """Whether the number means the same process on both sides, as far as that can be seen: a command line
    may be held elsewhere, then the name has to do."""
    words = [tree.command(side.directory, pid) for side in (a, b)]
    if all(words):
        return words[0] == words[1]
    names = [tree.detail(side.directory, pid).name for side in (a, b)]
    return names[0] == names[1]


def differences(a: Side, b: Side) -> Iterator[Difference]:
    """Everything but memory: processes with what they had open by number, then mounts. Raises BadImage."""
    seen: set[tuple[int, int]] = set()  # tables that processes share are compared once
    for pid in sorted(a.processes.keys() | b.processes.keys()):
        yield from _process(a, b, pid, seen)
    yield from _mounts(a, b)


def _process(a: Side, b: Side, pid: int, seen: set[tuple[int, int]]) -> Iterator[Difference]:
    before = a.command(pid) if pid in a.processes else ""
    after = b.command(pid) if pid in b.processes else ""
    if pid not in b.processes:
        yield Difference("process", REMOVED, pid, "", before, "")
        return
    if pid not in a.processes:
        yield Difference("process", ADDED, pid, "", "", after)
        return
    if not same_program(a, b, pid):
        yield Difference("process", CHANGED, pid, "", before, after)
    tables = a.table(pid), b.table(pid)
    if tables in seen:
        return
    seen.add(tables)
    old, new = a.descriptors(tables[0]), b.descriptors(tables[1])
    for number in sorted(old.keys() | new.keys()):
        said = _said(old.get(number)), _said(new.get(number))
        if said[0] != said[1]:
            yield Difference("file", _change(*said), pid, str(number), *said)


def _said(found: descriptors.Descriptor | None) -> str:
    if found is None:
        return ""
    position = found.details.get("position")
    at = f" at {position}" if position else ""
    return f"{found.kind} {found.text}{at} ({','.join(found.flags)})"


def _change(before: str, after: str) -> str:
    return CHANGED if before and after else REMOVED if before else ADDED


def _mounts(a: Side, b: Side) -> Iterator[Difference]:
    """By target, and by number where one target is mounted over. Numbers of mounts mean nothing."""
    old, new = _mounted(a), _mounted(b)
    for key in sorted(old.keys() | new.keys()):
        said = old.get(key, ""), new.get(key, "")
        if said[0] != said[1]:
            yield Difference("mount", _change(*said), 0, key[0], *said)


def _mounted(side: Side) -> dict[tuple[str, int], str]:
    found: dict[tuple[str, int], str] = {}
    counts: dict[str, int] = {}
    for _, each in surroundings.mounts(side.directory):
        number = counts[each.target] = counts.get(each.target, -1) + 1
        flags = ",".join(each.flags)
        found[each.target, number] = f"{each.filesystem} {each.source} {each.root} ({flags})"
    return found


# ---- memory


def pages(a: Side, b: Side) -> Iterator[PageDifference]:
    """What became of the memory of each process that is on both sides, by mapping, where there is a difference.

    Memory is the same process's where number and command line are. Raises BadImage.
    """
    for pid in sorted(a.processes.keys() & b.processes.keys()):
        both = (a, b)
        if all(mappings.has_memory(each.directory, pid) for each in both) and same_program(
            a, b, pid
        ):
            yield from _of_process(a, b, pid)


def _of_process(a: Side, b: Side, pid: int) -> Iterator[PageDifference]:
    counts = _Counts(pid)
    for mapping, kind, size in _walk(_pieces(a, pid), _pieces(b, pid)):
        if counts.mapping is not None and counts.mapping.start != mapping.start:
            yield from counts.finish()
        counts.add(mapping, kind, size)
    yield from counts.finish()


class _Counts:
    """Bytes by kind of one mapping, while they are counted."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.mapping: Mapping | None = None
        self.bytes: dict[str, int] = {}

    def add(self, mapping: Mapping, kind: str, size: int) -> None:
        self.mapping = mapping
        self.bytes[kind] = self.bytes.get(kind, 0) + size

    def finish(self) -> Iterator[PageDifference]:
        mapping, found = self.mapping, self.bytes
        self.mapping, self.bytes = None, {}
        if mapping is not None and found.keys() - {"same"}:
            kinds = (CHANGED, ADDED, REMOVED, "same", "unknown")
            yield PageDifference(self.pid, mapping, *(found.get(kind, 0) for kind in kinds))


_Placed = tuple[Mapping, Piece]


def _pieces(side: Side, pid: int) -> Iterator[_Placed]:
    return mappings.contents(side.directory, pid, side.files)


def _walk(a: Iterator[_Placed], b: Iterator[_Placed]) -> Iterator[tuple[Mapping, str, int]]:
    """Both sides in step: which mapping, what became of how many bytes."""
    old, new = next(a, None), next(b, None)
    while old is not None or new is not None:
        if new is None or (old is not None and old[1].end <= new[1].start):
            assert old is not None
            yield old[0], REMOVED, old[1].end - old[1].start
            old = next(a, None)
        elif old is None or new[1].end <= old[1].start:
            yield new[0], ADDED, new[1].end - new[1].start
            new = next(b, None)
        elif old[1].start != new[1].start:
            first, at = min(old[1].start, new[1].start), max(old[1].start, new[1].start)
            if old[1].start == first:
                yield old[0], REMOVED, at - first
                old = old[0], old[1].part(at, old[1].end)
            else:
                yield new[0], ADDED, at - first
                new = new[0], new[1].part(at, new[1].end)
        else:
            end = min(old[1].end, new[1].end)
            for kind, size in _compared(old[1].part(0, end), new[1].part(0, end)):
                yield new[0], kind, size
            old = next(a, None) if old[1].end == end else (old[0], old[1].part(end, old[1].end))
            new = next(b, None) if new[1].end == end else (new[0], new[1].part(end, new[1].end))


def _compared(old: Piece, new: Piece) -> Iterator[tuple[str, int]]:
    """Two pieces at the same addresses."""
    size = old.end - old.start
    if old.where != SAVED or new.where != SAVED:
        yield "unknown", size
        return
    at = old.start
    for start, end in _apart(old, new):
        if at < start:
            yield "same", start - at
        yield from _read(old.part(start, end), new.part(start, end))
        at = end
    if at < old.end:
        yield "same", old.end - at


def _apart(old: Piece, new: Piece) -> Iterator[tuple[int, int]]:
    """The ranges of two pieces that do not lie in one place. What does is the same without a look: it is
    inherited, or a store has it once for both."""
    ones, others = old.places(), new.places()
    a, b = next(ones), next(others)
    start = at = old.start  # from `start` to `at` nothing lies in one place
    while True:
        size = min(a.size, b.size)
        if (a.key, a.at) == (b.key, b.at):
            if start < at:
                yield start, at
            start = at + size
        at += size
        if at >= old.end:
            break
        a = a.behind(size) if a.size > size else next(ones)
        b = b.behind(size) if b.size > size else next(others)
    if start < at:
        yield start, at


def _read(old: Piece, new: Piece) -> Iterator[tuple[str, int]]:
    """Two saved pieces, page by page."""
    for (_, before), (_, after) in zip(old.blocks(), new.blocks(), strict=True):
        if before == after:
            yield "same", len(after)
            continue
        equal = sum(
            before[at : at + PAGE] == after[at : at + PAGE] for at in range(0, len(after), PAGE)
        )
        if equal:
            yield "same", equal * PAGE
        yield CHANGED, len(after) - equal * PAGE
