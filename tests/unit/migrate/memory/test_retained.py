"""Memory that was kept: what did not change does not travel again, and what is damaged costs no byte."""

import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocimig.migrate.errors import BrokenFrame
from ocimig.migrate.memory import frames, retained
from ocimig.migrate.memory.digests import SIZE, Digests, digest, digests
from ocimig.migrate.memory.retained import Retained, expire
from ocimig.migrate.memory.runs import PAGE
from ocimig.migrate.memory.sender import PageSender
from ocimig.migrate.transport.memory import pair
from ocimig.migrate.wire import Wire
from ocimig.runtime.store import Store
from ocimig_testkit.areas import Area, Far, noise

MINE = os.getpid()


@pytest.fixture
def stay(tmp_path: Path) -> Retained:
    """Where the memory of one container is kept."""
    return Retained(Store(str(tmp_path / "root")), "c1")


def held_as(far: Far, area: Area, space: str = "p1") -> bool:
    """Whether the far side holds exactly what is in the area."""
    start, end = area.run
    covered = far.held.covers(space, [area.run]) == []
    return covered and os.pread(far.held.fd(space), end - start, start) == area.map[:]


def test_only_what_changed_travels_when_it_comes_back(stay: Retained) -> None:
    """Over two spaces, with pages of zeros, and pages that are written again while it travels."""
    area, other = Area(700), Area(300)
    area.fill(lambda number: bytes(PAGE) if number % 10 == 0 else noise(number))
    other.fill(noise)
    kept = stay.keep([("p1", MINE, [area.run]), ("p2", MINE, [other.run]), ("p3", MINE, [])])
    assert (kept.pages, kept.reason) == (930, "")
    for number in (5, 6, 300):
        area.map[number * PAGE : (number + 1) * PAGE] = noise(number)
    area.map[7 * PAGE : 8 * PAGE] = bytes(PAGE)
    area.map[10 * PAGE : 11 * PAGE] = noise(10)
    far = Far(stay)
    pages = PageSender([far.wire()], compress="none")
    assert pages.learn(10) == 930
    assert far.held.runs("p1") == []
    sent = pages.send([("p1", MINE, [area.run]), ("p2", MINE, [other.run])])
    pages.settle(10)
    assert (sent.pages, sent.zero, sent.same) == (4, 69, 927)
    assert sent.wire_bytes < 5 * PAGE
    assert held_as(far, area)
    assert held_as(far, other, "p2")
    before = area.map[:]
    area.fill(noise)
    pages.send([("p1", MINE, [area.run])])
    area.map[:] = before  # equal to what was kept, but that is overwritten there
    again = pages.send([("p1", MINE, [area.run])])
    pages.settle(10)
    assert again.same == 0
    assert held_as(far, area)
    far.close()


def test_nothing_kept_is_nothing_offered(stay: Retained) -> None:
    """Whether this host never had it, or keeps nothing."""
    for far in (Far(stay), Far()):
        assert PageSender([far.wire()]).learn(10) == 0
        far.close()


def test_a_damaged_page_is_sent_again(stay: Retained) -> None:
    """A byte that tipped over on the disk is another page, which is not the same."""
    area = Area(50)
    area.fill(noise)
    stay.keep([("p1", MINE, [area.run])])
    path = Path(stay.directory, "p1")
    data = bytearray(path.read_bytes())
    data[17 * PAGE + 5] ^= 1
    path.write_bytes(data)
    far = Far(stay)
    pages = PageSender([far.wire()], compress="none")
    pages.learn(10)
    sent = pages.send([("p1", MINE, [area.run])])
    pages.settle(10)
    assert (sent.pages, sent.same) == (1, 49)
    assert held_as(far, area)
    far.close()


@pytest.mark.parametrize("length", [0, 5, 24, 40, 10 * PAGE, 50 * PAGE + 20])
def test_a_file_cut_short_is_passed_over(stay: Retained, length: int) -> None:
    """And so is one with a name that no space has; the others still count."""
    area = Area(50)
    area.fill(noise)
    stay.keep([("p1", MINE, [area.run]), ("p2", MINE, [area.run])])
    os.truncate(os.path.join(stay.directory, "p1"), length)
    Path(stay.directory, "readme").write_text("x")
    Path(stay.directory, "p4").symlink_to("p2")
    far = Far(stay)
    assert PageSender([far.wire()]).learn(10) == 50
    far.close()


def test_the_memory_of_a_container_is_for_root_alone(stay: Retained) -> None:
    """It holds the container's secrets."""
    area = Area(2)
    area.fill(noise)
    stay.keep([("p1", MINE, [area.run])])
    assert os.stat(stay.directory).st_mode & 0o777 == 0o700
    assert os.stat(os.path.join(stay.directory, "p1")).st_mode & 0o777 == 0o600


def test_only_the_newest_stay_is_kept_and_not_for_ever(stay: Retained) -> None:
    """A second keep() replaces the first; expire() removes what is old; drop() all."""
    area = Area(2)
    area.fill(noise)
    stay.keep([("p1", MINE, [area.run])])
    stay.keep([("p2", MINE, [area.run])])
    assert os.listdir(stay.directory) == ["p2"]
    homes = os.path.dirname(stay.directory)
    expire(homes, seconds=60)
    assert os.listdir(homes) == ["c1"]
    past = time.time() - 3600
    os.utime(stay.directory, (past, past))
    expire(homes, seconds=60)
    assert os.listdir(homes) == []
    stay.keep([("p2", MINE, [area.run])])
    stay.drop()
    assert os.listdir(homes) == []
    expire(homes + "/nowhere")


def test_without_room_nothing_is_kept(stay: Retained, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says so; nothing fails."""
    area = Area(2)
    monkeypatch.setattr(retained, "_room", lambda _: PAGE)
    kept = stay.keep([("p1", MINE, [area.run])])
    assert (kept.pages, kept.reason) == (0, "8192 bytes of memory, and room for 4096")
    assert not os.path.exists(stay.directory)


def test_where_nothing_can_be_written_nothing_is_kept(tmp_path: Path) -> None:
    """The reason is the kernel's."""
    (tmp_path / "root").write_text("in the way")
    area = Area(2)
    area.fill(noise)
    kept = Retained(Store(str(tmp_path / "root")), "c1").keep([("p1", MINE, [area.run])])
    assert "Not a directory" in kept.reason


pages_of = st.dictionaries(st.integers(0, 30), st.binary(min_size=SIZE, max_size=SIZE))


@given(pages_of, st.integers(0, 30), st.integers(1, 31))
def test_digests_are_found_where_they_belong(
    known: dict[int, bytes], first: int, count: int
) -> None:
    """For each page of a run: its own digest, or none."""
    table = Digests()
    for number, of_it in sorted(known.items(), key=lambda item: item[1]):
        table.add((number * PAGE, (number + 1) * PAGE), of_it)
    found = table.of(first * PAGE, (first + count) * PAGE)
    expected = [known.get(number, b"") for number in range(first, first + count)]
    assert (found or [b""] * count) == expected
    assert found is not None or not any(expected)


def test_a_digest_is_that_of_one_page() -> None:
    """Sixteen bytes each, in order."""
    area = Area(3)
    area.fill(noise)
    each = [digest(area.map[at : at + PAGE]) for at in range(0, 3 * PAGE, PAGE)]
    assert digests(memoryview(area.map)) == b"".join(each)
    assert {len(one) for one in each} == {SIZE}


@pytest.mark.parametrize(
    ("said", "payload"),
    [
        ({"space": "x", "runs": 0}, b""),
        ({"space": "p1", "runs": 1}, frames.pack_runs([(0, PAGE)])),
        ({"space": "p1", "runs": 1}, frames.pack_runs([(0, PAGE)]) + bytes(2 * SIZE)),
        ({"space": "p1", "runs": 2}, frames.pack_runs([(0, PAGE)]) + bytes(SIZE - 1)),
        ({"space": "p1", "runs": 1}, frames.pack_runs([(5, PAGE)]) + bytes(SIZE)),
        ({"space": "p1", "runs": 1}, frames.pack_runs([(0, 1 << 56)]) + bytes(SIZE)),
        ({"space": "p1"}, b""),
    ],
)
def test_an_offer_that_lies_is_refused(said: dict[str, object], payload: bytes) -> None:
    """Names, counts, alignment, and digests that are not as many as pages."""
    near, far = (Wire(channel) for channel in pair())
    far.send(frames.DIGESTS, said, payload)
    with pytest.raises(BrokenFrame, match=frames.DIGESTS):
        PageSender([near]).learn(5)
    near.close()
    far.close()


def test_an_offer_of_the_same_page_twice_is_refused() -> None:
    """And so is any frame that is no part of an offer."""
    payload = frames.pack_runs([(0, 2 * PAGE)]) + bytes(2 * SIZE)
    for kinds in ([frames.DIGESTS, frames.DIGESTS], [frames.TAKEN]):
        near, far = (Wire(channel) for channel in pair())
        for kind in kinds:
            far.send(kind, {"space": "p1", "runs": 1}, payload)
        with pytest.raises(BrokenFrame):
            PageSender([near]).learn(5)
        near.close()
        far.close()
