"""The state store: one directory a container. Never starts, signals or kills anything.

    <root>/<id>/            0711, made by claim()
        state.json          0600, the facts (see state.py)
        config.json         0600, the configuration the container was made from
        exec.fifo           0622, only while the container waits to be started
        notify/             only when the caller wants to hear of READY=1
        .lock               held by whoever changes the container
    <root>/.<id>.<pid>.removed   on its way out; swept by the next remove()

A directory without state.json is a container whose maker is at work or has died. Names with a dot
in front are never containers.
"""

import errno
import os

from ocimig import files, jsonio
from ocimig.runtime.errors import ContainerExists, InvalidId, NoSuchContainer, StateUnreadable
from ocimig.runtime.linux import proc
from ocimig.runtime.state import ContainerState

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_ALLOWED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_+.-")
_LONGEST = 200


def check_id(id: str) -> None:
    """Raise InvalidId unless `id` may name a container."""
    if not id or len(id) > _LONGEST or id[0] in ".-" or not _ALLOWED.issuperset(id):
        raise InvalidId(id=id)


class Store:
    """The containers below one root directory, which need not exist before the first claim."""

    __slots__ = ("root",)

    def __init__(self, root: str) -> None:
        self.root = os.path.abspath(root)

    def path(self, id: str) -> str:
        """The directory of a container, there or not. Raises InvalidId."""
        check_id(id)
        return os.path.join(self.root, id)

    def fifo(self, id: str) -> str:
        """Where a created container waits for its start."""
        return os.path.join(self.path(id), "exec.fifo")

    def ids(self) -> "list[str]":
        """Every name that is taken, in order; none when the root does not exist."""
        try:
            names = os.listdir(self.root)
        except FileNotFoundError:
            return []
        return sorted(
            name
            for name in names
            if name[0] != "." and os.path.isdir(os.path.join(self.root, name))
        )

    def exists(self, id: str) -> bool:
        """Whether the name is taken, be it by a container that is only half made."""
        return os.path.isdir(self.path(id))

    def claim(self, id: str) -> None:
        """Take the name. Raises ContainerExists; of two at the same time one wins."""
        path = self.path(id)
        os.makedirs(self.root, mode=0o711, exist_ok=True)
        try:
            os.mkdir(path, 0o711)
        except FileExistsError:
            raise ContainerExists(id=id) from None
        os.chmod(path, 0o711)  # whatever the umask: a mapped root must reach the fifo

    def lock(self, id: str, *, wait: bool = True) -> files.Lock:
        """A lock on one container, for a `with`. Entering raises FileNotFoundError when it is gone,
        and with `wait` false BlockingIOError when somebody else holds it."""
        return files.Lock(os.path.join(self.path(id), ".lock"), wait=wait)

    def load(self, id: str) -> ContainerState:
        """The facts. Raises NoSuchContainer (also when half made) or StateUnreadable."""
        try:
            text = files.read(os.path.join(self.path(id), "state.json"))
        except (FileNotFoundError, NotADirectoryError):
            raise NoSuchContainer(id=id, root=self.root) from None
        try:
            state = ContainerState.from_json(text)
        except ValueError as error:
            raise StateUnreadable(id=id, reason=str(error)) from None
        if state.id != id:
            raise StateUnreadable(id=id, reason=f"it is the state of {state.id}")
        return state

    def save(self, state: ContainerState, *, sync: bool = True) -> None:
        """Write the facts, whole or not at all. Whoever saves a state without a process is its maker."""
        if state.pid == 0 and not state.creator_pid:
            stat = proc.stat(os.getpid())
            if stat is not None:
                state.creator_pid, state.creator_start = stat.pid, stat.start_time
        self._write(state.id, "state.json", state.to_json(), sync)

    def config(self, id: str) -> "dict[str, Any]":
        """The configuration the container was made from. Raises NoSuchContainer or StateUnreadable."""
        try:
            text = files.read(os.path.join(self.path(id), "config.json"))
        except (FileNotFoundError, NotADirectoryError):
            raise NoSuchContainer(id=id, root=self.root) from None
        try:
            spec = jsonio.loads(text)
        except ValueError as error:
            raise StateUnreadable(id=id, reason=f"config.json: {error}") from None
        if not isinstance(spec, dict):
            raise StateUnreadable(id=id, reason="config.json: not a JSON object")
        return spec

    def save_config(self, id: str, spec: "dict[str, Any]", *, sync: bool = True) -> None:
        """Keep the configuration: the bundle may change or go while the container runs."""
        self._write(id, "config.json", jsonio.dumps(spec), sync)

    def _write(self, id: str, name: str, text: str, sync: bool) -> None:
        try:
            files.write_atomic(os.path.join(self.path(id), name), text.encode(), sync=sync)
        except (FileNotFoundError, NotADirectoryError):
            raise NoSuchContainer(id=id, root=self.root) from None

    def remove(self, id: str) -> None:
        """Give the name back and remove the directory. One that is not there is fine.

        The rename makes it vanish at once: who waits for the lock finds nothing, and a crash leaves
        no half container but a directory that the next call sweeps.
        """
        gone = os.path.join(self.root, f".{id}.{os.getpid()}.removed")
        try:
            os.rename(self.path(id), gone)
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
                raise
            files.remove_tree(gone)  # an earlier process had our number and did not get to the end
            os.rename(self.path(id), gone)
        files.remove_tree(gone)
        self._sweep(id)

    def _sweep(self, id: str) -> None:
        try:
            names = os.listdir(self.root)
        except FileNotFoundError:
            return
        for name in names:
            if not name.startswith(f".{id}.") or not name.endswith(".removed"):
                continue
            owner = name.removeprefix(f".{id}.").removesuffix(".removed")
            if owner.isdigit() and proc.stat(int(owner)) is None:
                files.remove_tree(os.path.join(self.root, name))
