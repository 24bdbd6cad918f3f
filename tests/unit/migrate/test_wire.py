"""Frames: what goes in comes out, and what breaks the rules is named."""

import struct
import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ocimig.errors import NoSpace
from ocimig.migrate.errors import (
    AgentMissing,
    BrokenFrame,
    FarFailure,
    FarSideSilent,
    LinkLost,
    NotOurProtocol,
    WireVersion,
)
from ocimig.migrate.transport.memory import MemoryChannel, pair
from ocimig.migrate.wire import MAGIC, MAX_HEADER, MAX_NOISE, MAX_PAYLOAD, Frame, Wire

GREETING = struct.pack("!8sHHI", MAGIC, 1, 1, 0)
Ends = tuple[Wire, MemoryChannel]


@pytest.fixture
def ends() -> Iterator[Ends]:
    """A wire, and the raw channel at its other end."""
    here, there = pair()
    yield Wire(here), there
    here.close()
    there.close()


@pytest.fixture
def wires() -> Iterator[tuple[Wire, Wire]]:
    """Two wires that have not greeted; frames do not need it."""
    here, there = pair()
    yield Wire(here), Wire(there)
    here.close()
    there.close()


def frame(
    kind: bytes = b"k", header: bytes = b"", payload: bytes = b"", zeros: bytes = bytes(3)
) -> bytes:
    """A frame with nothing checked."""
    sizes = struct.pack("!II", len(header), len(payload))
    return bytes([len(kind)]) + zeros + sizes + kind + header + payload


headers = st.dictionaries(
    st.text(max_size=9),
    st.none() | st.booleans() | st.integers() | st.text(max_size=30),
    max_size=5,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.lists(
        st.tuples(
            st.from_regex(r"x[a-z0-9-]{0,20}", fullmatch=True), headers, st.binary(max_size=999)
        ),
        max_size=8,
    ),
    st.booleans(),
)
def test_frames_arrive_as_they_were_sent(
    wires: tuple[Wire, Wire], frames: list[tuple[str, dict[str, object], bytes]], flush: bool
) -> None:
    """In order, whether each is sent at once or they wait for each other."""
    here, there = wires
    for kind, header, payload in frames:
        here.send(kind, header, payload, flush=flush)
    here.flush()
    assert [there.receive(5) for _ in frames] == [Frame(*parts) for parts in frames]


def test_a_payload_of_the_largest_size_passes(wires: tuple[Wire, Wire]) -> None:
    """And the bytes are counted at both ends."""
    here, there = wires
    payload = bytes(range(256)) * (MAX_PAYLOAD // 256)
    sender = threading.Thread(target=here.send, args=("big", {"a": 1}, payload))
    sender.start()
    assert there.receive(10).payload == payload
    sender.join()
    assert here.sent == there.received > MAX_PAYLOAD


def test_what_is_too_large_is_not_sent(wires: tuple[Wire, Wire]) -> None:
    """That is a mistake of ours, found before a byte is written."""
    here, _ = wires
    with pytest.raises(ValueError, match="too large"):
        here.send("big", None, bytes(MAX_PAYLOAD + 1))
    with pytest.raises(ValueError, match="too large"):
        here.send("big", {"a": "x" * MAX_HEADER})
    with pytest.raises(ValueError, match="not a kind"):
        here.send("No Kind")


@pytest.mark.parametrize(
    "raw",
    [
        frame(kind=b"UPPER"),
        frame(kind=b"\xff"),
        frame(kind=b"k" * 33),
        b"\0" * 12,
        frame(zeros=b"\1\0\0"),
        frame(header=b"[1]"),
        frame(header=b"{"),
        frame(header=b'{"a":1,"a":2}'),
        frame(header=b"\xff\xfe"),
        b"\1\0\0\0" + struct.pack("!II", MAX_HEADER + 1, 0) + b"k",
        b"\1\0\0\0" + struct.pack("!II", 0, MAX_PAYLOAD + 1) + b"k",
        b"HTTP/1.1 400 Bad Request\r\n",
    ],
)
def test_a_frame_that_breaks_the_rules_is_named(ends: Ends, raw: bytes) -> None:
    """Before anything of the length it claims is kept."""
    here, there = ends
    there.write(raw)
    with pytest.raises(BrokenFrame):
        here.receive(2)


@pytest.mark.parametrize("length", range(1, 20))
def test_an_end_in_the_middle_of_a_frame_is_a_lost_link(ends: Ends, length: int) -> None:
    """Wherever it is cut."""
    here, there = ends
    there.write(frame(b"kind", b"{}", b"payload")[:length])
    there.close()
    with pytest.raises(LinkLost, match="middle of a frame"):
        here.receive(2)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.binary(min_size=1, max_size=400))
def test_any_noise_gives_one_of_our_errors(noise: bytes) -> None:
    """Never a traceback of another kind, never a hang."""
    here, there = pair()
    there.write(noise)
    there.close()
    with pytest.raises((BrokenFrame, LinkLost, FarFailure)):
        Wire(here).expect("never-this-kind", timeout=2)
    here.close()


def test_both_sides_greet(wires: tuple[Wire, Wire]) -> None:
    """At the same time, and agree on a version."""
    here, there = wires
    thread = threading.Thread(target=there.greet)
    thread.start()
    here.greet(5)
    thread.join()
    assert here.version == there.version == 1
    assert here.noise == ""


def test_noise_before_the_greeting_is_kept(ends: Ends) -> None:
    """A motd does no harm; the caller can warn of it."""
    here, there = ends
    there.write("Welcome, visitör!\n".encode() + GREETING + frame(b"hello"))
    here.greet(5)
    assert here.noise == "Welcome, visitör!"
    assert here.receive(5).kind == "hello"


def test_a_far_side_that_prints_without_end_is_named(ends: Ends) -> None:
    """After 64 KiB."""
    here, there = ends
    there.write(b"y\n" * MAX_NOISE)
    with pytest.raises(NotOurProtocol, match="without end"):
        here.greet(5)


def test_a_far_side_that_says_nothing_is_named(ends: Ends) -> None:
    """After the timeout, with what it printed."""
    here, there = ends
    there.write(b"Password: ")
    with pytest.raises(NotOurProtocol, match=r"in time.*Password:"):
        here.greet(0.1)


@pytest.mark.parametrize(
    ("status", "stderr", "error"),
    [
        (127, b"bash: line 1: ocimig: command not found\n", AgentMissing),
        (126, b"sh: ocimig: Permission denied\n", AgentMissing),
        (1, b"ocimig: Command not found.\n", AgentMissing),  # csh
        (127, b"", AgentMissing),
        (1, b"sudo: a password is required\n", NotOurProtocol),
        (1, b"", NotOurProtocol),  # /bin/false
        (2, b"ocimig: no such verb: agent\n", NotOurProtocol),
    ],
)
def test_a_far_side_that_ends_instead_of_greeting_is_explained(
    ends: Ends, status: int, stderr: bytes, error: type[Exception]
) -> None:
    """Its status and its last words tell a missing program from another trouble."""
    here, there = ends
    assert isinstance(here.channel, MemoryChannel)
    here.channel.complain(stderr)
    here.channel.end(status)
    there.close()
    with pytest.raises(error) as caught:
        here.greet(5)
    assert stderr.decode().strip() in str(caught.value)


@pytest.mark.parametrize(("newest", "oldest"), [(0, 0), (9, 2)])
def test_versions_that_do_not_meet_are_named(ends: Ends, newest: int, oldest: int) -> None:
    """Both ranges are shown."""
    here, there = ends
    there.write(struct.pack("!8sHHI", MAGIC, newest, oldest, 0))
    with pytest.raises(WireVersion, match=f"{oldest} to {newest}.*1 to 1"):
        here.greet(5)


def test_a_newer_side_that_still_speaks_ours_is_fine(ends: Ends) -> None:
    """The older of the two newest versions is spoken."""
    here, there = ends
    there.write(struct.pack("!8sHHI", MAGIC, 7, 1, 0))
    here.greet(5)
    assert here.version == 1


def test_an_error_keeps_its_words_its_hint_and_its_code(wires: tuple[Wire, Wire]) -> None:
    """What the far side knows reaches the person here."""
    here, there = wires
    there.send_error(NoSpace(path="/var {lib}"))
    with pytest.raises(FarFailure) as caught:
        here.receive(5)
    assert caught.value.name == "NoSpace"
    assert caught.value.code == 15
    assert "no space left on /var {lib}" in str(caught.value)
    assert caught.value.advice == "free space there, or name another directory"


def test_an_error_nobody_expected_travels_too(wires: tuple[Wire, Wire]) -> None:
    """With its class and code 1."""
    here, there = wires
    there.send_error(ZeroDivisionError("division by zero"))
    with pytest.raises(FarFailure, match="ZeroDivisionError: division by zero") as caught:
        here.receive(5)
    assert caught.value.code == 1


@pytest.mark.parametrize("code", ['"x"', "0", "-1", "256", "true", "null", "[]"])
def test_an_error_with_a_wild_code_counts_as_one(ends: Ends, code: str) -> None:
    """The far side does not choose an exit status of success."""
    here, there = ends
    there.write(frame(b"error", f'{{"code":{code}}}'.encode()))
    with pytest.raises(FarFailure) as caught:
        here.receive(5)
    assert caught.value.code == 1


def test_silence_ends(wires: tuple[Wire, Wire]) -> None:
    """After the timeout, as FarSideSilent, which is a LinkLost."""
    here, _ = wires
    with pytest.raises(FarSideSilent):
        here.receive(0.1)


def test_signs_of_life_start_the_time_anew(wires: tuple[Wire, Wire]) -> None:
    """A busy far side is not a dead one."""
    here, there = wires

    def busy() -> None:
        with there.beating(0.05):
            time.sleep(0.6)
        there.send("done")

    thread = threading.Thread(target=busy)
    thread.start()
    assert here.receive(0.3).kind == "done"
    thread.join()


def test_a_deadline_holds_against_signs_of_life(wires: tuple[Wire, Wire]) -> None:
    """Alive is not the same as ready."""
    here, there = wires
    before = time.monotonic()
    with there.beating(0.05), pytest.raises(FarSideSilent):
        here.receive(5, deadline=time.monotonic() + 0.3)
    assert time.monotonic() - before < 2


def test_a_ping_is_answered_by_who_receives(wires: tuple[Wire, Wire]) -> None:
    """And nobody else sees it."""
    here, there = wires
    thread = threading.Thread(target=there.receive, args=(5,))
    thread.start()
    assert here.ping(5) < 5
    here.send("over")
    thread.join()


def test_what_is_not_here_yet_is_not_waited_for(ends: Ends) -> None:
    """receive_now() gives a whole frame or None, and loses no part of one."""
    here, there = ends
    assert here.receive_now() is None
    raw = frame(b"kind", b'{"a":1}', b"payload")
    for byte in raw[:-1]:
        there.write(bytes([byte]))
        assert here.receive_now() is None
    there.write(raw[-1:])
    assert here.receive_now() == Frame("kind", {"a": 1}, b"payload")
    there.write(frame(b"alive"))
    assert here.receive_now() is None


def test_the_wrong_kind_is_named(wires: tuple[Wire, Wire]) -> None:
    """expect() says what came and what should have."""
    here, there = wires
    there.send("that")
    with pytest.raises(BrokenFrame, match="'that' came where this or those belongs"):
        here.expect("this", "those", timeout=5)


def test_many_threads_can_send(wires: tuple[Wire, Wire]) -> None:
    """Frames never interleave."""
    here, there = wires
    payload = bytes(300_000)
    threads = [
        threading.Thread(target=here.send, args=("part", {"n": n}, payload)) for n in range(8)
    ]
    for thread in threads:
        thread.start()
    found = {there.receive(10).header["n"] for _ in threads}
    for thread in threads:
        thread.join()
    assert found == set(range(8))


def test_nobody_reading_is_silence(wires: tuple[Wire, Wire]) -> None:
    """A far side that takes no data is as bad as one that sends none."""
    here, _ = wires
    with pytest.raises(FarSideSilent, match="no more data"):
        here.send("data", None, bytes(MAX_PAYLOAD), timeout=0.1)


@pytest.mark.parametrize("filling", [True, False])
def test_lent_payloads_lie_where_the_next_one_will(
    wires: tuple[Wire, Wire], monkeypatch: pytest.MonkeyPatch, filling: bool
) -> None:
    """Small and large ones, in a buffer of the wire's own; other kinds beside them are as ever."""
    here, there = wires
    if not filling:
        monkeypatch.setattr(there, "_filling", None)
    there.lent.add("bulk")
    payloads = [b"", b"small", bytes(range(256)) * 4096, b"x" * MAX_PAYLOAD, b"y" * 5000]

    def send() -> None:
        for payload in payloads:
            here.send("bulk", {"size": len(payload)}, payload)
            here.send("plain", None, payload)

    thread = threading.Thread(target=send)
    thread.start()
    for payload in payloads:
        frame = there.receive(10)
        assert (frame.header, frame.payload) == ({"size": len(payload)}, b"")
        assert frame.lent is not None
        assert bytes(frame.lent) == payload
        assert there.receive(10) == Frame("plain", {}, payload)
    thread.join()
    assert there.received == here.sent
