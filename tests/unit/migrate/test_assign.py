"""Containers and hosts as numbers: who goes where."""

from hypothesis import given
from hypothesis import strategies as st

from ocimig.migrate.assign import Candidate, Fit, Room, assign, need
from ocimig.migrate.inside import REFUSE, WARN, Finding
from ocimig.migrate.preflight import RESERVE

MIB = 1 << 20
GIB = 1 << 30
TAKEN = Finding(REFUSE, "name", "the name is taken", "delete it there", 11)
RING = Finding(REFUSE, "io_uring", "process 7 has an io_uring", "turn it off")
LATE = Finding(WARN, "clock", "the clock differs", "run NTP")


def box(id: str, memory: int = MIB, files: int = MIB, **fits: Fit) -> Candidate:
    """A container that both hosts take, unless it is said otherwise."""
    return Candidate(id, memory, files, {"h2": Fit(disk=GIB), "h3": Fit(disk=GIB), **fits})


def plan(containers: list[Candidate], **memory: int) -> dict[str, str]:
    """Container → host."""
    rooms = [Room(host, size) for host, size in memory.items()]
    return {each.id: each.host for each in assign(containers, rooms)}


def test_each_goes_where_most_memory_is_left() -> None:
    """What was given to a host counts: equal containers spread."""
    boxes = [box(name, 256 * MIB) for name in "abcd"]
    assert plan(boxes, h2=4 * GIB, h3=4 * GIB) == {"a": "h2", "b": "h3", "c": "h2", "d": "h3"}
    assert set(plan(boxes, h2=1 * GIB, h3=8 * GIB).values()) == {"h3"}


def test_the_largest_goes_first() -> None:
    """Else it would find no room between the small ones."""
    boxes = [box("a", 300 * MIB), box("b", 300 * MIB), box("large", 600 * MIB)]
    found = plan(boxes, h2=800 * MIB, h3=800 * MIB)
    assert found["large"] == "h2"
    assert {found["a"], found["b"]} == {"h3"}


def test_a_host_that_refuses_it_is_not_taken() -> None:
    """However much room it has; a warning is no refusal."""
    boxes = [box("a", h2=Fit((TAKEN,), GIB)), box("b", h3=Fit((LATE,), GIB))]
    assert plan(boxes, h2=9 * GIB, h3=GIB) == {"a": "h3", "b": "h2"}


def test_what_no_host_takes_says_why_with_its_code() -> None:
    """Its own fault is said once, the hosts' one by one."""
    own = box("a", h2=Fit((RING,), GIB), h3=Fit((RING,), GIB))
    theirs = box("b", h2=Fit((TAKEN,), GIB), h3=Fit(disk=0))
    first, second = assign([own, theirs], [Room("h2", GIB), Room("h3", GIB)])
    assert (first.host, first.reason, first.fix, first.code) == ("", RING.text, RING.fix, 14)
    assert second.reason.startswith("h2: the name is taken; h3: 0 MiB of disk")
    assert second.code == 11


def test_disk_is_counted_too() -> None:
    """Two trees that fit one at a time."""
    fits = {"h2": Fit(disk=RESERVE + 300 * MIB), "h3": Fit(disk=0)}
    boxes = [Candidate(name, MIB, 200 * MIB, fits) for name in "ab"]
    found = assign(boxes, [Room("h2", GIB), Room("h3", GIB)])
    assert [each.host for each in found] == ["h2", ""]
    assert found[1].code == 15


def test_without_hosts_nothing_is_assigned() -> None:
    """All of them are gone."""
    (found,) = assign([box("a")], [])
    assert (found.host, found.code) == ("", 14)
    assert found.fix


SIZES = st.lists(st.integers(0, 4 * GIB), max_size=12)


@given(SIZES, st.lists(st.integers(0, 8 * GIB), min_size=1, max_size=4))
def test_no_host_is_ever_filled_beyond_its_memory(sizes: list[int], rooms: list[int]) -> None:
    """Every container has one line, and what a host gets fits into it with the reserve."""
    hosts = [Room(f"h{number}", size) for number, size in enumerate(rooms)]
    boxes = [
        Candidate(f"c{number}", size, 0, {room.host: Fit(disk=GIB) for room in hosts})
        for number, size in enumerate(sizes)
    ]
    found = assign(boxes, hosts)
    assert sorted(each.id for each in found) == sorted(each.id for each in boxes)
    memory = {each.id: each.memory for each in boxes}
    for room in hosts:
        given_to = [memory[each.id] for each in found if each.host == room.host]
        assert not given_to or sum(map(need, given_to)) + RESERVE <= room.memory
    assert assign(list(reversed(boxes)), hosts) == found
