"""The next is loaded while the caller works on what it got. Knows neither pages nor wires."""

import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import islice
from queue import SimpleQueue
from typing import TypeVar

# So few are loaded when they are asked for: a thread for them would cost more than it spares.
INLINE = 8

T = TypeVar("T")
L = TypeVar("L")
B = TypeVar("B")


@contextmanager
def ahead(
    wanted: Iterator[T], load: Callable[[T, B], L], buffers: Sequence[B]
) -> Iterator[Iterator[L]]:
    """A `with` block with an iterator of load(each, buffer), in order; from the ninth on by a thread.

    A buffer belongs to the caller until it asks for the next one. What load() raises is raised here. After
    the block nothing is being loaded; what was loaded and not asked for is the caller's to remember.
    """
    with closing(_loaded(wanted, load, buffers)) as found:
        yield found


def _loaded(wanted: Iterator[T], load: Callable[[T, B], L], buffers: Sequence[B]) -> Generator[L]:
    for each in islice(wanted, INLINE):
        yield load(each, buffers[0])
    free: SimpleQueue[B | None] = SimpleQueue()
    done: SimpleQueue[tuple[L, B] | BaseException | None] = SimpleQueue()
    for buffer in buffers:
        free.put(buffer)
    thread = threading.Thread(
        target=_work, args=(wanted, load, free, done), name="ahead", daemon=True
    )
    thread.start()
    try:
        while (got := done.get()) is not None:
            if isinstance(got, BaseException):
                raise got
            yield got[0]
            free.put(got[1])
    finally:
        free.put(None)
        thread.join()


def _work(
    wanted: Iterator[T],
    load: Callable[[T, B], L],
    free: "SimpleQueue[B | None]",
    done: "SimpleQueue[tuple[L, B] | BaseException | None]",
) -> None:
    try:
        while (buffer := free.get()) is not None:  # first: what is taken is loaded in any case
            each = next(wanted)
            done.put((load(each, buffer), buffer))
    except StopIteration:
        done.put(None)
    except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
        done.put(error)
