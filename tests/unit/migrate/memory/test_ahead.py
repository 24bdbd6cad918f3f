"""Loading ahead: in order, never a buffer too early, nothing running afterwards, failures where they belong."""

import threading
from collections.abc import Iterator

import pytest

from ocimig.migrate.memory.ahead import INLINE, ahead

MANY = 10 * INLINE


def _alone() -> bool:
    return not [thread for thread in threading.enumerate() if thread.name == "ahead"]


@pytest.mark.parametrize("count", [0, 1, INLINE, INLINE + 1, MANY])
def test_everything_comes_in_order(count: int) -> None:
    """Each loaded once, into a buffer that the one before it does not lie in any more."""
    buffers = [bytearray(8), bytearray(8)]

    def load(number: int, buffer: bytearray) -> tuple[int, bytearray]:
        buffer[:] = number.to_bytes(8, "big")
        return number, buffer

    came = []
    with ahead(iter(range(count)), load, buffers) as loads:
        for number, buffer in loads:
            assert int.from_bytes(buffer, "big") == number
            came.append(number)
    assert came == list(range(count))
    assert _alone()


def test_few_are_loaded_without_a_thread() -> None:
    """What is left for the freeze."""
    loaded: list[str] = []
    with ahead(
        iter(range(INLINE)), lambda _, __: loaded.append(threading.current_thread().name), [0]
    ) as loads:
        assert len(list(loads)) == INLINE
    assert set(loaded) == {threading.current_thread().name}


def test_no_more_is_taken_than_there_are_buffers() -> None:
    """What is loaded and not asked for is at most one for each."""
    taken: list[int] = []
    loaded = threading.Semaphore(0)

    def load(number: int, _: int) -> int:
        taken.append(number)
        loaded.release()
        return number

    with ahead(iter(range(MANY)), load, [0, 1]) as loads:
        for number in loads:
            if number == INLINE:
                break
        assert loaded.acquire(timeout=5)
    assert INLINE < len(taken) <= INLINE + 2
    assert taken == list(range(len(taken)))
    assert _alone()


@pytest.mark.parametrize("at", [0, INLINE, MANY - 1])
@pytest.mark.parametrize("where", ["load", "next", "caller"])
def test_a_failure_ends_it(where: str, at: int) -> None:
    """Whoever fails: the error is raised here, and nobody goes on loading."""

    def wanted() -> Iterator[int]:
        for number in range(MANY):
            if where == "next" and number == at:
                raise OSError("next")
            yield number

    def load(number: int, _: int) -> int:
        if where == "load" and number == at:
            raise OSError("load")
        return number

    came = []

    def work() -> None:
        with ahead(wanted(), load, [0, 1]) as loads:
            for number in loads:
                came.append(number)
                if where == "caller" and number == at:
                    raise OSError("caller")

    with pytest.raises(OSError, match=where):
        work()
    assert came == list(range(at + (where == "caller")))
    assert _alone()
