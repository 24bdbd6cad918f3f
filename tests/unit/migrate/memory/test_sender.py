"""Pages from a process to what the far side holds: all of them, once, over any number of wires."""

import os
from collections.abc import Callable, Iterator

import pytest

from ocimig.migrate.errors import BrokenFrame, FarFailure, LinkLost
from ocimig.migrate.memory import frames, stream
from ocimig.migrate.memory.reader import Reader
from ocimig.migrate.memory.runs import PAGE, Run, merge, total
from ocimig.migrate.memory.sender import PageSender
from ocimig.migrate.transport.memory import pair
from ocimig.migrate.wire import Wire
from ocimig_testkit.areas import Area, Far, noise

MINE = os.getpid()


@pytest.fixture
def far() -> Iterator[Far]:
    """Another side."""
    made = Far()
    yield made
    made.close()


def arrived(far: Far, space: str, runs: list[Run], *areas: Area) -> None:
    """Assert that what is held of the runs is what the areas contain, byte by byte."""
    assert far.held.covers(space, merge(runs)) == []
    for start, end in runs:
        area = next(area for area in areas if area.start <= start and end <= area.run[1])
        here = area.map[start - area.start : end - area.start]
        assert os.pread(far.held.fd(space), end - start, start) == here


@pytest.mark.parametrize("streams", [1, 3])
@pytest.mark.parametrize("compress", ["none", "zstd", "auto"])
def test_every_page_arrives(far: Far, streams: int, compress: str) -> None:
    """Noise, text and zeros, in one long run and in single pages, over one wire and over three."""
    area = Area(3000)
    kinds: list[Callable[[int], bytes]] = [
        noise,
        lambda number: b"%04d" % number * (PAGE // 4),
        lambda _: bytes(PAGE),
    ]
    area.fill(lambda number: kinds[number // 7 % 3](number))
    scattered = Area(900)
    scattered.fill(lambda number: kinds[number % 3](number))
    singles = [scattered.page(number) for number in range(0, 900, 2)]
    pages = PageSender([far.wire() for _ in range(streams)], compress=compress)
    sent = pages.send([("p1", MINE, [area.run]), ("p2", MINE, singles)])
    pages.settle(10)
    arrived(far, "p1", [area.run], area)
    arrived(far, "p2", singles, scattered)
    assert far.held.runs("p2") == singles
    assert (sent.pages + sent.zero, sent.missing, sent.same) == (3450, 0, 0)
    assert sent.zero == sum(number // 7 % 3 == 2 for number in range(3000)) + 150
    assert sent.read_bytes == 3450 * PAGE
    assert pages.lost() == []


@pytest.mark.parametrize("streams", [1, 2])
def test_a_page_that_changed_is_sent_as_it_is_now(far: Far, streams: int) -> None:
    """Round after round, over several wires none of which overtakes another's older frame."""
    area = Area(600)
    pages = PageSender([far.wire() for _ in range(streams)], compress="none")
    for _ in range(8):
        area.fill(noise)
        pages.send([("p1", MINE, [area.run])])
    area.fill(lambda number: bytes(PAGE) if number % 2 else noise(number))
    pages.send([("p1", MINE, [area.run])])
    pages.settle(10)
    arrived(far, "p1", [area.run], area)


def test_memory_of_zeros_costs_next_to_nothing(far: Far) -> None:
    """16 MiB of it are a few hundred bytes on the wire and none there."""
    area = Area(4096)
    area.fill(lambda _: bytes(PAGE))
    pages = PageSender([far.wire()])
    sent = pages.send([("p1", MINE, [area.run])])
    pages.settle(10)
    assert (sent.zero, sent.pages) == (4096, 0)
    assert sent.wire_bytes < 4096
    assert far.held.bytes == 0
    assert far.held.covers("p1", [area.run]) == []


def test_text_shrinks_and_noise_is_left_alone(far: Far) -> None:
    """Compression is worth a table's size at most where it does not help."""
    text, random = Area(1024), Area(1024)
    text.fill(lambda number: (b"the same words over and over %4d " % number * 256)[:PAGE])
    random.fill(noise)
    pages = PageSender([far.wire()], compress="zstd")
    small = pages.send([("p1", MINE, [text.run])])
    large = pages.send([("p2", MINE, [random.run])])
    pages.settle(10)
    assert small.wire_bytes < small.read_bytes // 10
    assert large.wire_bytes < large.read_bytes + 4096
    arrived(far, "p1", [text.run], text)
    arrived(far, "p2", [random.run], random)


@pytest.mark.parametrize("again", [False, True])
def test_what_was_unmapped_meanwhile_is_counted_as_missing(far: Far, again: bool) -> None:
    """In the midst of runs, in the first round and later; no byte of anything else is sent for it."""
    left, gone, right = Area(40), Area(300), Area(40)
    for area in (left, gone, right):
        area.fill(noise)
    pages = PageSender([far.wire()])
    if again:
        pages.send([("p1", MINE, [left.page(0)])])
    gone.map.close()
    wanted = merge([left.run, gone.run, right.run])
    sent = pages.send([("p1", MINE, wanted)])
    pages.settle(10)
    assert (sent.pages, sent.missing) == (80, 300)
    assert far.held.covers("p1", wanted) == [gone.run]
    arrived(far, "p1", [left.run, right.run], left, right)


@pytest.mark.parametrize("again", [False, True])
def test_a_process_that_is_gone_has_no_pages(far: Far, again: bool) -> None:
    """It ends as missing pages, not as an error."""
    pages = PageSender([far.wire()])
    if again:
        pages.send([("p1", MINE, [])])
    child = os.fork()
    if not child:
        os._exit(0)
    os.waitpid(child, 0)
    sent = pages.send([("p1", child, [(PAGE, 9 * PAGE)])])
    pages.settle(10)
    assert sent.missing == 8
    assert far.held.runs("p1") == []


def test_a_shared_object_is_read_by_its_descriptor(far: Far) -> None:
    """Runs are offsets; what lies behind its end is missing."""
    fd = os.memfd_create("shared")
    content = os.urandom(5 * PAGE)
    os.pwrite(fd, content, 2 * PAGE)
    pages = PageSender([far.wire()])
    sent = pages.send([("s7", fd, [(0, 9 * PAGE)])])
    pages.settle(10)
    os.close(fd)
    assert (sent.zero, sent.pages, sent.missing) == (2, 5, 2)
    assert os.pread(far.held.fd("s7"), 5 * PAGE, 2 * PAGE) == content


@pytest.mark.parametrize("streams", [1, 2])
def test_after_a_broken_link_the_rest_is_sent_over_another(far: Far, streams: int) -> None:
    """lost() names what may not have come, and only that; together everything arrives."""
    area = Area(4000)
    area.fill(noise)
    first, rest = (area.start, area.page(1000)[0]), (area.page(1000)[0], area.run[1])
    wires = [far.wire() for _ in range(streams - 1)]
    pages = PageSender([far.wire(deaf_after=7), *wires], compress="none", timeout=5)
    pages.send([("p1", MINE, [first])])
    pages.settle(10)

    def send() -> None:
        for _ in range(50):
            pages.send([("p1", MINE, [rest])])
            pages.settle(10)

    with pytest.raises(LinkLost):
        send()
    [(space, pid, runs)] = pages.lost()
    assert (space, pid) == ("p1", MINE)
    assert 0 < total(runs) <= total([rest])
    assert rest[0] <= runs[0][0]
    pages.reopen([far.wire()])
    assert pages.lost() == []
    pages.send([(space, pid, runs)])
    pages.settle(10)
    arrived(far, "p1", [area.run], area)


def test_the_far_sides_error_is_heard(far: Far) -> None:
    """Where it refuses a frame, its words are raised here."""
    far.held.limit = 8 << 20
    area = Area(4096)
    area.fill(noise)
    pages = PageSender([far.wire()], compress="none", timeout=5)

    def send() -> None:
        for number in range(2, 9):
            pages.send([(f"p{number}", MINE, [area.run])])
        pages.settle(5)

    with pytest.raises(FarFailure, match="more than 8388608 bytes"):
        send()


def test_a_confirmation_nobody_understands_is_refused(far: Far) -> None:
    """Any other frame, and a number that is none."""
    for kind, said in (("go", {}), (frames.TAKEN, {"seq": "x"})):
        near, other = (Wire(channel) for channel in pair())
        other.send(kind, said)
        with pytest.raises(BrokenFrame, match=kind):
            PageSender([near]).settle(1)
        near.close()
        other.close()


def test_a_limit_holds(far: Far) -> None:
    """8 MiB at 32 MiB a second take about a quarter of a second, and small frames."""
    area = Area(2048)
    area.fill(noise)
    pages = PageSender([far.wire()], compress="none", limit=32 << 20)
    sent = pages.send([("p1", MINE, [area.run])])
    pages.settle(10)
    assert 0.1 < sent.seconds < 5
    pages.limit.rate = 1 << 40
    assert pages.send([("p1", MINE, [area.run])]).seconds < sent.seconds


def test_a_frame_is_no_larger_than_the_far_side_takes() -> None:
    """The two sides' constants belong together."""
    assert stream.FRAME <= frames.MOST_DATA
    assert stream.FRAME // PAGE <= frames.MOST_RUNS


def test_what_is_left_for_the_freeze_is_sent_by_what_was_learned(
    far: Far, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last sender pins pages of spaces that were read before, and knows how slow the link is."""
    pinned: list[int] = []
    pin = Reader.pin

    def noted(reader: Reader) -> None:
        pinned.append(reader.pid)
        pin(reader)

    monkeypatch.setattr(Reader, "pin", noted)
    area = Area(2048)
    area.fill(lambda number: b"%8d" % number * (PAGE // 8))
    wire = far.wire()
    pages = PageSender([wire], compress="auto", limit=40 << 20)
    last = PageSender([wire], compress="auto", after=pages)
    pages.send([("p1", MINE, [area.run])])
    assert pinned == []
    sent = last.send([("p1", MINE, [area.run])])
    last.settle(10)
    assert pinned == [MINE]
    assert sent.wire_bytes < sent.read_bytes // 4
    arrived(far, "p1", [area.run], area)
