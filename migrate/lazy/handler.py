"""The page handler as its owner holds it: CRIU's server of lazy pages, in a process of our own.

    handler = PageHandler(directory, lost=end_the_container)   before the freeze: warm
    handler.serve({7: [held(memfd, runs)]})                    before the restore
    … CRIU restores with lazy_pages and `directory` as its work directory …
    handler.fill()                                             in post-restore: nothing runs yet
    handler.filled()                                           everything is there: CRIU may dump it again
    handler.close()

Faults are answered from the moment CRIU has handed over a process, filling ahead begins with `fill`: unless
all is to come only when it is touched (clones).
"""

import os
import socket
from collections.abc import Callable, Mapping, Sequence

from ocimig.files import Fd
from ocimig.migrate.closing import Closing
from ocimig.migrate.lazy.guard import Guard, Outcome, Source
from ocimig.migrate.memory.runs import Run

SOCKET = "lazy-pages.socket"  # criu/uffd.c: LAZY_PAGES_SOCK_NAME, in the work directory

__all__ = ["Outcome", "PageHandler", "Source", "held"]


def held(
    fd: int, runs: Sequence[Run], *, punch: bool = True, holes: Sequence[Run] | None = None
) -> Source:
    """Pages in a file at the offset of their address. `holes`, if known, are those that are zeros and stay
    so: what comes later (serve) is in none of them. They are filled without a look at the file."""
    return Source(fd, [(start, end, start) for start, end in runs], punch, holes)


class PageHandler(Closing):
    """Serves one restore.

    `lost(reason)` has to kill the container; `want(pid, run)` has to have pages sent that somebody waits for.
    Both are called from another thread.
    """

    def __init__(
        self,
        directory: str,
        *,
        lost: Callable[[str], None],
        want: Callable[[int, Run], None] | None = None,
    ) -> None:
        os.makedirs(directory, mode=0o700, exist_ok=True)
        self._guard = Guard(_listen(directory), lost, want)
        self._closed = False

    def serve(
        self,
        spaces: Mapping[int, Sequence[Source]],
        hot: Mapping[int, Sequence[Run]] | None = None,
        later: Mapping[int, Sequence[Run]] | None = None,
    ) -> None:
        """Where the lazy pages of each process lie, by its pid in the container; `hot` come first.

        `later` are those that have not come from another host yet (post-copy), in a file that is `held`.
        """
        self._guard.serve(spaces, hot or {}, later or {})

    def arrived(self, pid: int, runs: Sequence[Run]) -> None:
        """Pages that were to come later are in their file now."""
        self._guard.arrived(pid, runs)

    def fail(self, reason: str) -> None:
        """Pages that were to come later will never come: `lost` is called, unless all have come."""
        self._guard.fail(reason)

    def mark(self, directory: str) -> None:
        """Say in the container's state directory, until it is filled, that it is not (see mark.py)."""
        self._guard.mark(directory)

    def fill(self, *, ahead: bool = True) -> None:
        """Begin to fill ahead of the faults; with `ahead` false only what is touched comes, until another call.

        Not before CRIU is in post-restore: earlier the memory is not where it will be.
        """
        self._guard.fill(ahead=ahead)

    def filled(self, timeout: float | None = None) -> bool:
        """Wait until all memory is in place (or the container has ended); False when time is up."""
        return self._guard.outcome.ended.wait(timeout)

    @property
    def outcome(self) -> Outcome:
        """What became of it, whole when `filled`."""
        return self._guard.outcome

    @property
    def pid(self) -> int:
        """Of the handler's process; 0 when it has ended."""
        return self._guard.pid

    def close(self) -> None:
        """End it. Only when it is filled, or the container is dead: what has not come would be zeros."""
        if not self._closed:
            self._closed = True
            self._guard.close()


def _listen(directory: str) -> socket.socket:
    """Named by way of a descriptor: the path may be longer than such a name can be."""
    path = os.path.join(directory, SOCKET)
    if os.path.lexists(path):
        os.unlink(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    with Fd(os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) as fd:
        listener.bind(f"/proc/self/fd/{fd}/{SOCKET}")
        os.chmod(SOCKET, 0o600, dir_fd=fd)
    listener.listen(1)
    return listener
