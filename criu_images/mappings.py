"""The memory of a process by mapping: what it is, and where its pages are. Addresses and sizes in bytes.

Mappings and lists of pages are walked side by side, both ascending: memory here does not grow with that of
the checkpoint.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ocimig.criu_images import fields, names, tables
from ocimig.criu_images.descriptors import Files
from ocimig.criu_images.opened import Images
from ocimig.criu_images.pagemap import PAGE
from ocimig.criu_images.pages import ELSEWHERE, LOST, SAVED, Piece, Space
from ocimig.criu_images.tree import MM_ENTRY

_HIGHEST = 1 << 63
_SHARED = 4096  # mappings of shared objects whose pages are looked for, each anew
_PATHS = 4096  # of mapped files that are remembered
# MAP_PRIVATE and MAP_ANONYMOUS, without MAP_LOCKED and MAP_HUGETLB
_LAZY = 0x02 | 0x20 | 0x2000 | 0x40000, 0x02 | 0x20
# VMA_AREA_REGULAR, _STACK and _HEAP, which say nothing of the kind
_PLACES = 1 << 0 | 1 << 1 | 1 << 5


@dataclass(frozen=True, slots=True)
class Mapping:
    """One mapping: `start` to `end`, exclusive. `name` is the path of its file, or a word in brackets.

    `shared_object` is CRIU's number of the anonymous object behind it, or -1; its pages are counted there.
    """

    start: int
    end: int
    protection: str
    kind: str  # "private", "shared"
    backing: str  # "anonymous", "file", "shared-object", "kernel"
    name: str
    offset: int = 0
    file: int = 0
    shared_object: int = -1

    @property
    def size(self) -> int:
        """In bytes."""
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class Counted:
    """A mapping with its pages, in bytes.

    `saved` are in this image, `inherited` in a parent's, `elsewhere` was left out of the dump, `lost` is
    said to be in a parent that is not there. What is left is `untouched`: zeros in anonymous memory, the file's
    content where a file is mapped. In a private mapping of a file every page counted is the process's own copy.
    """

    mapping: Mapping
    saved: int = 0
    inherited: int = 0
    elsewhere: int = 0
    lost: int = 0

    @property
    def untouched(self) -> int:
        """In bytes."""
        return self.mapping.size - self.saved - self.inherited - self.elsewhere - self.lost

    @property
    def changed(self) -> int:
        """Bytes that differ from the file it is mapped from, as far as that can be told."""
        return self.mapping.size - self.untouched if self.mapping.backing == "file" else 0


@dataclass(frozen=True, slots=True)
class SharedObject:
    """Anonymous memory that processes share, by CRIU's number; bytes as in Counted."""

    number: int
    saved: int = 0
    inherited: int = 0
    elsewhere: int = 0
    lost: int = 0


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the kernel keeps what in the address space."""

    code: tuple[int, int]
    data: tuple[int, int]
    heap: tuple[int, int]
    stack: int
    arguments: tuple[int, int]
    environment: tuple[int, int]
    executable: int
    auxv: tuple[int, ...]


def layout(directory: Images, pid: int) -> Layout:
    """Raises BadImage."""
    name = f"mm-{pid}.img"
    record = next(directory.records(name, "mm", MM_ENTRY), b"")
    mm = directory.decoded(name, record, tables.MM)

    def pair(which: str) -> tuple[int, int]:
        return mm[f"mm_{which}_start"], mm[f"mm_{which}_end"]

    return Layout(
        (mm["mm_start_code"], mm["mm_end_code"]), (mm["mm_start_data"], mm["mm_end_data"]),
        (mm["mm_start_brk"], mm["mm_brk"]), mm["mm_start_stack"], pair("arg"), pair("env"),
        mm["exe_file_id"], tuple(mm["mm_saved_auxv"]),
    )  # fmt: skip


def has_memory(directory: Images, pid: int) -> bool:
    """Dead processes have none."""
    return directory.exists(f"mm-{pid}.img")


def space(directory: Images, pid: int) -> Space:
    """The pages of a process."""
    return Space(directory, f"pagemap-{pid}.img")


def of(directory: Images, pid: int, files: Files) -> Iterator[Mapping]:
    """The mappings, ascending. Raises BadImage."""
    paths: dict[int, str] = {}
    for vma, stack in _areas(directory, pid):
        try:
            yield _mapping(vma, stack, files, paths)
        except ValueError as error:
            raise directory.refusal(f"mm-{pid}.img", error) from None


def lazy(directory: Images, pid: int) -> Iterator[tuple[int, int]]:
    """Start and end of every mapping whose pages CRIU can restore lazily, ascending. Raises BadImage.

    Private and anonymous, not locked, no huge page, nothing of the kernel's own: vma_entry_can_be_lazy in
    criu/include/vma.h, and of that plain memory only."""
    for vma, _ in _areas(directory, pid):
        if vma["flags"] & _LAZY[0] == _LAZY[1] and vma["status"] & ~_PLACES == names.ANON_PRIVATE:
            yield vma["start"], vma["end"]


def _areas(directory: Images, pid: int) -> Iterator[tuple[dict[str, Any], int]]:
    """The entries of the mappings, ascending, each with where the stack begins."""
    name = f"mm-{pid}.img"
    record = next(directory.records(name, "mm", MM_ENTRY), b"")
    end = stack = 0
    try:
        for number, value in fields.walk(record):
            if number == tables.MM_STACK and isinstance(value, int):
                stack = value
            if number != tables.MM_VMAS:
                continue
            vma = fields.parse(value if isinstance(value, bytes) else b"", tables.VMA)
            if vma["start"] % PAGE or vma["end"] % PAGE or not end <= vma["start"] < vma["end"]:
                raise ValueError(f"the mapping at {vma['start']:#x} is not in order")
            end = vma["end"]
            # [vsyscall] lies at the very top, where no page of a process can be
            if end > _HIGHEST and not vma["status"] & 1 << 2:
                raise ValueError(f"there is no memory at {vma['start']:#x}")
            yield vma, stack
    except ValueError as error:
        raise directory.refusal(name, error) from None


def _mapping(vma: dict[str, Any], stack: int, files: Files, paths: dict[int, str]) -> Mapping:
    status = vma["status"]
    shared = status & (names.FILE_SHARED | names.ANON_SHARED | names.SYSVIPC)
    name, backing, file, shared_object = names.area(status), "anonymous", 0, -1
    if status & (names.FILE_PRIVATE | names.FILE_SHARED | names.AREA_SOCKET) and not name:
        backing, file = "file", vma["shmid"]
        name = _path(file, files, paths)
    if status & (names.ANON_SHARED | names.SYSVIPC | names.AREA_MEMFD):
        backing, shared_object = "shared-object", vma["shmid"]
        name = name or "[shared]"
        if status & names.AREA_MEMFD:
            # the number is that of the open file; pages are under that of what is behind it
            opened = files.file(vma["shmid"])
            memfd = opened["memfd"] if opened is not None else None
            shared_object = files.memfd(memfd["inode_id"]).get("shmid", -1) if memfd else -1
            name = _path(vma["shmid"], files, paths)
            # as with any file that is mapped privately, what was written is the process's own
            backing = backing if shared else "file"
    elif not name and backing == "anonymous" and vma["start"] <= stack < vma["end"]:
        name = "[stack]"
    elif name in ("[vsyscall]", "[vdso]", "[vvar]"):
        backing = "kernel"
    return Mapping(
        vma["start"], vma["end"], names.protection(vma["prot"]),
        "shared" if shared else "private", backing, name, vma["pgoff"], file, shared_object,
    )  # fmt: skip


def _path(file: int, files: Files, paths: dict[int, str]) -> str:
    if file not in paths:
        if len(paths) == _PATHS:
            paths.clear()
        paths[file] = files.path(file)
    return paths[file]


def pieces(directory: Images, pid: int, files: Files) -> Iterator[tuple[Mapping, Piece]]:
    """Every piece with the mapping it lies in; one that crosses a border is cut. Raises BadImage, also where a
    page lies in no mapping."""
    if not directory.exists(f"pagemap-{pid}.img"):
        return
    with space(directory, pid) as found:
        each = found.pieces()
        piece = next(each, None)
        for mapping in of(directory, pid, files):
            while piece is not None and piece.start < mapping.end:
                if piece.start < mapping.start:
                    raise found.refusal(f"page {piece.start:#x} is in no mapping")
                if piece.end <= mapping.end:
                    yield mapping, piece
                    piece = next(each, None)
                else:
                    yield mapping, piece.part(piece.start, mapping.end)
                    piece = piece.part(mapping.end, piece.end)
        if piece is not None:
            raise found.refusal(f"page {piece.start:#x} is in no mapping")


def contents(directory: Images, pid: int, files: Files) -> Iterator[tuple[Mapping, Piece]]:
    """The same with the pages of shared objects, at the addresses that they are mapped at."""
    own = pieces(directory, pid, files)
    waiting = next(own, None)
    followed = 0
    for mapping in of(directory, pid, files):
        shared = mapping.backing == "shared-object"
        while waiting is not None and waiting[0].start == mapping.start:
            yield mapping, waiting[1]
            waiting = next(own, None)
            shared = False  # CRIU never does both
        if shared:
            followed += 1
            if followed > _SHARED:
                name = f"mm-{pid}.img"
                raise directory.refusal(name, f"more than {_SHARED} mappings of shared objects")
            for piece in _mapped(directory, mapping):
                yield mapping, piece


def _mapped(directory: Images, mapping: Mapping) -> Iterator[Piece]:
    """What of a shared object is in a mapping of it."""
    name = f"pagemap-shmem-{mapping.shared_object}.img"
    if not directory.exists(name):
        yield Piece(mapping.start, mapping.end, LOST)
        return
    shift = mapping.start - mapping.offset
    with Space(directory, name) as found:
        for piece in found.within(mapping.offset, mapping.offset + mapping.size):
            yield piece._replace(start=piece.start + shift, end=piece.end + shift)


def counted(directory: Images, pid: int, files: Files) -> Iterator[Counted]:
    """Every mapping with where its pages are. Raises BadImage."""
    each = pieces(directory, pid, files)
    waiting = next(each, None)
    for mapping in of(directory, pid, files):
        sums = _Sums()
        while waiting is not None and waiting[0].start == mapping.start:
            sums.add(waiting[1])
            waiting = next(each, None)
        yield Counted(mapping, *sums.found)


def shared_objects(directory: Images) -> Iterator[SharedObject]:
    """Every shared object whose pages are in the checkpoint, by number. Raises BadImage."""
    prefix, suffix = "pagemap-shmem-", ".img"
    numbers = [
        int(name[len(prefix) : -len(suffix)])
        for name in directory.names()
        if name.startswith(prefix) and name[len(prefix) : -len(suffix)].isascii()
        and name[len(prefix) : -len(suffix)].isdigit()
    ]  # fmt: skip
    for number in sorted(numbers):
        sums = _Sums()
        with Space(directory, f"{prefix}{number}{suffix}") as found:
            for piece in found.pieces():
                sums.add(piece)
        yield SharedObject(number, *sums.found)


class _Sums:
    """Bytes by place, while they are counted."""

    def __init__(self) -> None:
        self._bytes = dict.fromkeys(("saved", "inherited", ELSEWHERE, LOST), 0)

    def add(self, piece: Piece) -> None:
        where = "inherited" if piece.inherited and piece.where == SAVED else piece.where
        self._bytes[where] += piece.end - piece.start

    @property
    def found(self) -> tuple[int, int, int, int]:
        saved, inherited, elsewhere, lost = self._bytes.values()
        return saved, inherited, elsewhere, lost


def find(directory: Images, pid: int, files: Files, name: str) -> list[Mapping]:
    """The mappings of that name, path or last part of a path. Raises BadImage."""
    return [
        each
        for each in of(directory, pid, files)
        if name in (each.name, each.name.strip("[]"), each.name.rpartition("/")[2])
    ]
