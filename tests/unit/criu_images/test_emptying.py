"""Memory out of images: exactly what CRIU can restore lazily, and the rest stays as it is."""

from pathlib import Path
from typing import Any

import pytest

from ocimig.criu_images import pagemap, tables, tree
from ocimig.criu_images.emptying import Emptying
from ocimig.criu_images.errors import BadImage
from ocimig.criu_images.opened import ImageDirectory
from ocimig_testkit.images import (
    ANONYMOUS,
    FILE,
    HEAP,
    LAZY,
    LIBRARY,
    PAGE,
    PARENT,
    PRESENT,
    SHARED,
    Checkpoint,
    Run,
    plain,
    vma,
    write_pagemap,
)

_LOCKED, _HUGE, _AIO, _SHADOW_STACK = 0x2000, 0x40000, 1 << 13, 1 << 15


@pytest.fixture
def made(tmp_path: Path) -> Checkpoint:
    """Images of one process without memory."""
    return Checkpoint(tmp_path / "images")


def memory(made: Checkpoint, runs: list[Run], vmas: list[dict[str, Any]]) -> None:
    """Pages that are told apart by their first byte, from 1 on."""
    made.memory(1, runs, vmas)
    pages = sum(count for _, count, flags in runs if flags & PRESENT)
    for number in range(pages):
        made.fill(1, number * PAGE, bytes([number + 1]))


def pages_of(made: Checkpoint) -> list[int]:
    """The first bytes of what is left in the file of pages."""
    return list((made.path / "pages-1.img").read_bytes()[::PAGE])


def listed(made: Checkpoint, name: str = "pagemap-1.img") -> list[tuple[int, int, int]]:
    """What its list says."""
    return [tuple(each) for each in pagemap.read(str(made.path / name)).entries]  # type: ignore[misc]


def take(made: Checkpoint) -> dict[int, int]:
    """Empty process 1: address of each page that came -> its first byte."""
    found: dict[int, int] = {}

    def put(start: int, data: bytes) -> None:
        found.update({start + at: data[at] for at in range(0, len(data), PAGE)})

    with ImageDirectory(str(made.path)) as directory:
        (process,) = tree.processes(directory)
        size = Emptying(directory).process(process, put)
    assert size == len(found) * PAGE
    return found


def stack_pointer(made: Checkpoint, address: int) -> None:
    """Where process 1 has its stack."""
    entry = {"mtype": 1, "thread_info": {"gpregs": {"sp": address}}, "tc": {"task_state": 1}}
    made.image("core-1.img", "core", tables.CORE, entry)


def test_plain_memory_comes_out_and_the_rest_stays(made: Checkpoint) -> None:
    """A process's own copy of a library's page is nothing that CRIU would leave to a page server."""
    memory(
        made,
        [(HEAP, 2, PRESENT | LAZY), (LIBRARY, 1, PRESENT), (LIBRARY + 4 * PAGE, 1, PRESENT)],
        [
            plain(HEAP, HEAP + 8 * PAGE),
            vma(LIBRARY, LIBRARY + 4 * PAGE, FILE),
            plain(LIBRARY + 4 * PAGE, LIBRARY + 8 * PAGE, ANONYMOUS | 1 << 5),
        ],
    )
    assert take(made) == {HEAP: 1, HEAP + PAGE: 2, LIBRARY + 4 * PAGE: 4}
    assert pages_of(made) == [3]
    assert listed(made) == [
        (HEAP, 2, LAZY),
        (LIBRARY, 1, PRESENT),
        (LIBRARY + 4 * PAGE, 1, LAZY),
    ]


@pytest.mark.parametrize("flags", [_LOCKED, _HUGE])
@pytest.mark.parametrize("kind", ["flags", "status"])
def test_memory_that_cannot_come_late_stays(made: Checkpoint, kind: str, flags: int) -> None:
    """Locked, of huge pages, of io_submit(2), a shadow stack: whatever the list of pages says of it."""
    area = plain(HEAP, HEAP + 4 * PAGE)
    area[kind] |= flags if kind == "flags" else {_LOCKED: _AIO, _HUGE: _SHADOW_STACK}[flags]
    memory(made, [(HEAP, 2, PRESENT | LAZY)], [area])
    assert take(made) == {}
    assert pages_of(made) == [1, 2]
    assert listed(made) == [(HEAP, 2, PRESENT)]


def test_the_page_of_a_stack_pointer_stays(made: Checkpoint) -> None:
    """CRIU writes to it while it puts the memory together; in the middle of a run, and at its ends."""
    for page in (0, 2, 4):
        memory(made, [(HEAP, 5, PRESENT)], [plain(HEAP, HEAP + 8 * PAGE)])
        stack_pointer(made, HEAP + page * PAGE + 0x123)
        assert take(made) == {HEAP + n * PAGE: n + 1 for n in range(5) if n != page}
        assert pages_of(made) == [page + 1]


def test_shared_objects_are_taken_whole(made: Checkpoint) -> None:
    """By offset; a second list of the same pages is refused, since the first one emptied them."""
    (made.path / "pages-9.img").write_bytes(b"\x07" * PAGE + b"\x08" * PAGE)
    write_pagemap(made.path / "pagemap-shmem-55.img", 9, [(PAGE, 2, PRESENT)])
    write_pagemap(made.path / "pagemap-shmem-56.img", 9, [(0, 1, PRESENT)])
    made.memory(1, [], [vma(HEAP, HEAP + PAGE, SHARED, 55)])
    found: list[tuple[int, bytes]] = []
    with ImageDirectory(str(made.path)) as directory:
        emptying = Emptying(directory)
        assert emptying.shared(55, lambda start, data: found.append((start, data))) == 2 * PAGE
        with pytest.raises(BadImage, match="those of another list"):
            emptying.shared(56, lambda *_: None)
    assert found == [(PAGE, b"\x07" * PAGE + b"\x08" * PAGE)]
    assert listed(made, "pagemap-shmem-55.img") == [(PAGE, 2, LAZY)]


@pytest.mark.parametrize(
    ("runs", "words"),
    [
        ([(HEAP, 1, PARENT)], "not in these images"),
        ([(HEAP, 1, LAZY)], "not in these images"),
        ([(HEAP + PAGE, 1, PRESENT), (HEAP, 1, PRESENT)], "not in order"),
        ([(HEAP, 2, PRESENT), (HEAP + PAGE, 1, PRESENT)], "not in order"),
        ([(HEAP + 1, 1, PRESENT)], "not in order"),
        ([((1 << 63) - PAGE, 8, PRESENT)], "not in order"),
    ],
)
def test_a_list_that_lies_is_refused(made: Checkpoint, runs: list[Run], words: str) -> None:
    """Whoever wrote it: the memory of one page must not become that of another."""
    memory(made, runs, [plain(HEAP, HEAP + 4 * PAGE)])
    with pytest.raises(BadImage, match=words):
        take(made)


def test_pages_that_end_early_are_refused(made: Checkpoint) -> None:
    """They are no zeros."""
    memory(made, [(HEAP, 3, PRESENT)], [plain(HEAP, HEAP + 4 * PAGE)])
    with open(made.path / "pages-1.img", "r+b") as file:
        file.truncate(2 * PAGE + 100)
    with pytest.raises(BadImage, match="shorter than its list"):
        take(made)


def test_a_machine_that_is_not_known_is_refused(made: Checkpoint) -> None:
    """Nobody knows where its stacks are."""
    memory(made, [(HEAP, 1, PRESENT)], [plain(HEAP, HEAP + PAGE)])
    made.image("core-1.img", "core", tables.CORE, {"mtype": 5, "tc": {"task_state": 1}})
    with pytest.raises(BadImage, match="no registers of a s390x"):
        take(made)
