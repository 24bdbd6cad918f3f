"""Memory searched, extracted, compared, and as a core file."""

import os
import re
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from ocimig.criu_images import compare, contents, corefile, tables
from ocimig.criu_images.descriptors import Files
from ocimig.criu_images.errors import MemoryElsewhere, NoCore, NoMapping
from ocimig.criu_images.opened import ImageDirectory
from ocimig.criu_images.pages import BLOCK
from ocimig_testkit.images import (
    FILE,
    HEAP,
    LAZY,
    LIBRARY,
    PAGE,
    PRESENT,
    SHARED,
    Checkpoint,
    vma,
    write_pagemap,
)

PAGES = 3 * BLOCK // PAGE
END = HEAP + PAGES * PAGE


@pytest.fixture
def checkpoint(tmp_path: Path) -> Checkpoint:
    """Three blocks of memory, and the first page of a mapping that follows at once."""
    found = Checkpoint(tmp_path / "c")
    found.memory(1, [(HEAP, PAGES + 1, PRESENT)], [vma(HEAP, END), vma(END, END + 2 * PAGE)])
    return found


@pytest.fixture
def directory(checkpoint: Checkpoint) -> Iterator[ImageDirectory]:
    """The same, opened."""
    with ImageDirectory(str(checkpoint.path)) as opened:
        yield opened


def _found(
    directory: ImageDirectory, find: contents.Finder, context: int = 0
) -> list[contents.Match]:
    return list(contents.search(directory, 1, Files(directory), find, context))


def test_a_search_finds_what_crosses_pages_and_blocks(
    checkpoint: Checkpoint, directory: ImageDirectory
) -> None:
    """At the first byte, over each kind of border, and at the last one of a mapping; each once."""
    places = [0, PAGE - 3, BLOCK // 2 - 2, BLOCK - 3, 2 * BLOCK - 4096, 3 * BLOCK - 6]
    for place in places:
        checkpoint.fill(1, place, b"secret")
    expected = [HEAP + place for place in places]
    assert [each.address for each in _found(directory, contents.literal(b"secret"))] == expected
    pattern = contents.expression(re.compile(rb"se[a-z]+t"))
    assert [each.address for each in _found(directory, pattern)] == expected


def test_a_search_does_not_cross_from_one_mapping_into_another(
    checkpoint: Checkpoint, directory: ImageDirectory
) -> None:
    """They are neighbours by chance."""
    checkpoint.fill(1, 3 * BLOCK - 3, b"secret")
    assert _found(directory, contents.literal(b"secret")) == []


def test_what_is_around_a_match_is_shown(checkpoint: Checkpoint, directory: ImageDirectory) -> None:
    """Also where it lies in another block."""
    checkpoint.fill(1, BLOCK - 8, b"aaaasecretbbbb")
    (match,) = _found(directory, contents.literal(b"secret"), 4)
    assert (match.before, match.data, match.behind) == (b"aaaa", b"secret", b"bbbb")


def test_shared_memory_is_searched_where_it_is_mapped(
    checkpoint: Checkpoint, directory: ImageDirectory, tmp_path: Path
) -> None:
    """What databases keep their pages in; its pages lie with the object, by offset."""
    area = {**vma(HEAP, HEAP + 3 * PAGE, SHARED, 5), "pgoff": PAGE}
    checkpoint.memory(1, [], [area])
    write_pagemap(checkpoint.path / "pagemap-shmem-5.img", 5, [(0, 3, PRESENT)])
    (checkpoint.path / "pages-5.img").write_bytes(bytes(2 * PAGE) + b"secret".ljust(PAGE, b"\0"))
    (match,) = _found(directory, contents.literal(b"secret"))
    assert match.address == HEAP + PAGE
    target = tmp_path / "core"
    assert corefile.write(directory, 1, Files(directory), str(target)) == 2
    assert b"secret" in target.read_bytes()
    (checkpoint.path / "pagemap-shmem-5.img").unlink()
    with pytest.raises(MemoryElsewhere):
        contents.extract(directory, 1, Files(directory), [(HEAP, END)], str(tmp_path / "x"))


def test_an_empty_match_is_none(directory: ImageDirectory) -> None:
    """Or there would be one at every byte."""
    assert _found(directory, contents.expression(re.compile(rb"x*"))) == []


def test_extracted_memory_is_the_same_and_sparse(
    checkpoint: Checkpoint, directory: ImageDirectory, tmp_path: Path
) -> None:
    """What was never touched takes no space; the file is readable by its owner alone."""
    checkpoint.fill(1, BLOCK, b"x" * PAGE)
    target = tmp_path / "out"
    chosen = [(HEAP + PAGE, END + 2 * PAGE)]
    done = contents.extract(directory, 1, Files(directory), chosen, str(target))
    assert (done.written, done.holes) == (PAGES * PAGE, PAGE)
    data = target.read_bytes()
    assert data[BLOCK - PAGE :][:PAGE] == b"x" * PAGE
    assert data.count(0) == len(data) - PAGE
    assert target.stat().st_size == END + PAGE - HEAP
    assert target.stat().st_blocks * 512 <= BLOCK
    assert target.stat().st_mode & 0o777 == 0o600
    with pytest.raises(FileExistsError):
        contents.extract(directory, 1, Files(directory), chosen, str(target))


def test_memory_that_is_held_elsewhere_is_not_extracted_as_zeros(
    checkpoint: Checkpoint, directory: ImageDirectory, tmp_path: Path
) -> None:
    """Nothing is written before that is known."""
    write_pagemap(checkpoint.path / "pagemap-1.img", 1, [(HEAP + PAGE, 1, LAZY)])
    target = tmp_path / "out"
    with pytest.raises(MemoryElsewhere, match="left out of the dump"):
        contents.extract(directory, 1, Files(directory), [(HEAP, HEAP + 2 * PAGE)], str(target))
    assert not target.exists()
    with pytest.raises(NoMapping):
        contents.extract(directory, 1, Files(directory), [(PAGE, 2 * PAGE)], str(target))
    with pytest.raises(NoMapping, match="named 'heap'"):
        contents.named(directory, 1, Files(directory), "heap")


def test_a_core_file_has_every_mapping_and_the_registers(
    checkpoint: Checkpoint, directory: ImageDirectory, tmp_path: Path
) -> None:
    """Saved pages with their bytes, untouched ones as holes, a file's pages not at all."""
    checkpoint.files(1, {3: {"type": 1, "reg": {"name": "/lib/l.so"}}})
    areas = [vma(HEAP, END), vma(LIBRARY, LIBRARY + 3 * PAGE, FILE, 1003)]
    checkpoint.memory(1, [(HEAP + PAGE, 1, PRESENT), (LIBRARY + PAGE, 1, PRESENT)], areas)
    checkpoint.fill(1, 0, b"heap")
    checkpoint.fill(1, PAGE, b"data")
    target = tmp_path / "core"
    assert corefile.write(directory, 1, Files(directory), str(target)) == 6
    data = target.read_bytes()
    count = struct.unpack_from("<H", data, 56)[0]
    lines = [struct.unpack_from("<IIQQQQQQ", data, 64 + 56 * each) for each in range(count)]
    loads = {line[3]: line for line in lines if line[0] == 1}
    assert sum(line[6] for line in loads.values()) == END - HEAP + 3 * PAGE
    for address, word in ((HEAP + PAGE, b"heap"), (LIBRARY + PAGE, b"data")):
        assert data[loads[address][2] :][:4] == word
    assert [loads[LIBRARY + each * PAGE][5] for each in range(3)] == [0, PAGE, 0]
    assert loads[HEAP][5] == PAGE
    assert target.stat().st_blocks * 512 < len(data)
    notes = data[lines[0][2] :][: lines[0][5]]
    registers = struct.unpack_from("<27Q", notes, 12 + 8 + 112)
    assert registers == tuple(range(1, 28))
    assert b"/lib/l.so\0" in notes


def test_every_thread_has_its_registers_in_the_core_file(
    checkpoint: Checkpoint, directory: ImageDirectory, tmp_path: Path
) -> None:
    """The first one first: it is the one a debugger shows."""
    threads = {"pid": 1, "ppid": 0, "pgid": 1, "sid": 1, "threads": [1, 9, 5]}
    checkpoint.image("pstree.img", "pstree", tables.PSTREE, threads)
    for thread, ip in ((9, 0x999), (5, 0x555)):
        info = {"thread_info": {"gpregs": {"ip": ip}}, "mtype": 1, "thread_core": {}}
        checkpoint.image(f"core-{thread}.img", "core", tables.CORE, info)
    target = tmp_path / "core"
    corefile.write(directory, 1, Files(directory), str(target))
    found = []
    data = target.read_bytes()
    _, _, at, _, _, size, _, _ = struct.unpack_from("<IIQQQQQQ", data, 64)
    end = at + size
    while at < end:
        _, length, kind = struct.unpack_from("<III", data, at)
        if kind == 1:
            pid, ip = struct.unpack_from("<i", data, at + 52)[0], 12 + 8 + 112 + 16 * 8
            found.append((pid, struct.unpack_from("<Q", data, at + ip)[0]))
        at += 12 + 8 + -(-length // 4) * 4
    assert found == [(1, 17), (9, 0x999), (5, 0x555)]


def test_a_process_without_memory_has_no_core(
    checkpoint: Checkpoint, directory: ImageDirectory, tmp_path: Path
) -> None:
    """And leaves no empty file."""
    os.unlink(checkpoint.path / "mm-1.img")
    with pytest.raises(NoCore, match="dead"):
        corefile.write(directory, 1, Files(directory), str(tmp_path / "core"))
    assert not (tmp_path / "core").exists()


def _sides(tmp_path: Path, directory: ImageDirectory) -> tuple[Checkpoint, ImageDirectory]:
    other = Checkpoint(tmp_path / "d")
    return other, ImageDirectory(str(other.path))


def test_pages_are_compared_byte_by_byte(
    checkpoint: Checkpoint, directory: ImageDirectory, tmp_path: Path
) -> None:
    """Changed, added, removed and unknown, by mapping, however the lists are cut."""
    other, opened = _sides(tmp_path, directory)
    runs = [(HEAP + PAGE, 2, PRESENT), (HEAP + 3 * PAGE, 1, LAZY), (HEAP + 4 * PAGE, PAGES - 4, PRESENT),
            (END + PAGE, 1, PRESENT)]  # fmt: skip
    other.memory(1, runs, [vma(HEAP, END), vma(END, END + 2 * PAGE)])
    other.fill(1, PAGE, b"!")
    other.fill(1, BLOCK + PAGE, b"!")
    with opened:
        a, b = compare.Side(directory), compare.Side(opened)
        heap, behind = compare.pages(a, b)
        assert (heap.changed, heap.added, heap.removed, heap.unknown) == (2 * PAGE, 0, PAGE, PAGE)
        assert heap.same == (PAGES - 4) * PAGE
        assert (behind.added, behind.removed, behind.same) == (PAGE, PAGE, 0)
        assert list(compare.pages(a, a)) == []


def test_processes_and_descriptors_are_compared(
    checkpoint: Checkpoint, directory: ImageDirectory, tmp_path: Path
) -> None:
    """What came, what went, what moved on."""
    other, opened = _sides(tmp_path, directory)
    checkpoint.tree((1, 0), (2, 1))
    other.tree((1, 0), (3, 1))
    checkpoint.files(
        1, {0: {"type": 1, "reg": {"name": "/a", "pos": 1}}, 1: {"type": 2, "pipe": {}}}
    )
    other.files(1, {0: {"type": 1, "reg": {"name": "/a", "pos": 2}}, 2: {"type": 2, "pipe": {}}})
    with opened:
        found = compare.differences(compare.Side(directory), compare.Side(opened))
        said = [(each.what, each.change, each.pid, each.name) for each in found]
    assert said == [
        ("file", "changed", 1, "0"), ("file", "removed", 1, "1"), ("file", "added", 1, "2"),
        ("process", "removed", 2, ""), ("process", "added", 3, ""),
    ]  # fmt: skip
