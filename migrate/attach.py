"""One more connection to a migration under way, or its first one again. Never knows what travels on it.

    source                     ocimig agent --attach MIGRATION           the living agent
    (ssh) starts            →  connects to HOME/attach
                               its standard input and output  →          takes them
                               waits until its socket ends    ←  taken
    greeting                ←→                                           greeting
    attach {migration, role}                              →
                                                          ←              attached {}

From then on the agent reads and writes what ssh gave the second process; that one only keeps the
session open. The role is `stream` (beside the link that is there) or `resume` (in its place).
"""

import errno
import os
import queue
import socket
import stat
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from ocimig import log
from ocimig.errors import OcimigError, SystemFailure
from ocimig.files import Fd
from ocimig.migrate import journal
from ocimig.migrate.attach_source import (
    HANDSHAKE,
    LINGER,
    RESUME,
    STREAM,
    Resumed,
    how_many,
    resume,
    stream,
)
from ocimig.migrate.errors import (
    BrokenFrame,
    LinkLost,
    NobodyToAttach,
)
from ocimig.migrate.transport.stdio import StdioChannel
from ocimig.migrate.wire import Wire
from ocimig.runtime.store import Store

__all__ = (
    "LINGER", "Listener", "Resumed", "channel_of", "hand_over", "how_many", "resume", "stream",
)  # fmt: skip
NAME = "attach"  # the socket's name in the migration's home
_TAKEN = b"+"
_CREDENTIALS = struct.Struct("iII")  # struct ucred, unix(7)


class Interruptible(Protocol):
    """What a resume puts an end to: see StdioChannel.interrupt."""

    def interrupt(self, reason: str) -> None:
        """Make whoever reads or writes meet a LinkLost."""
        ...


# ---- the far side: the agent that carries the migration out


class AttachedChannel(StdioChannel):
    """The standard streams of another process of ours, which ends when this is closed."""

    def __init__(self, stdin: int, stdout: int, keeper: socket.socket) -> None:
        super().__init__(stdin, stdout, host="the source")
        self._keeper = keeper

    def close(self) -> None:
        """See Channel."""
        super().close()
        # Ends it even where a child of ours still has a copy of this descriptor.
        with suppress(OSError):
            self._keeper.shutdown(socket.SHUT_RDWR)
        self._keeper.close()


class Listener:
    """Takes what attaches to one migration, from threads of its own.

    `on_stream` is called in such a thread with each further stream, and serves it until it ends.
    `link` is interrupted when the source comes again: it may not look broken from here. `resumable`
    may be set to False at any time: then a resume is refused.
    """

    def __init__(
        self, home: str, *, on_stream: Callable[[Wire], None], link: Interruptible | None = None
    ) -> None:
        self.migration = os.path.basename(home)
        self.link = link
        self.resumable = True
        self._on_stream = on_stream
        self._serving: dict[AttachedChannel, threading.Event] = {}  # set when it is served no more
        self._resumed: queue.Queue[Wire] = queue.Queue()
        self._lock = threading.Lock()
        self._closed = False
        self._home = Fd(os.open(home, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
        try:
            self._socket = _listen(self._home.number)
        except BaseException:
            self._home.close()
            raise
        self._thread = threading.Thread(target=self._run, name="attach", daemon=True)
        self._thread.start()

    def resumed(self, timeout: float = LINGER) -> Wire | None:
        """The link that replaces a broken one; None when none comes within `timeout` seconds.

        The source hears that it may go on from in here: when the caller reads nothing of the old
        link any more, and no stream beside it is served any more. So nothing old comes after new.
        """
        end = time.monotonic() + timeout
        while True:
            try:
                wire = self._resumed.get(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                return None
            try:
                wire.send("attached", timeout=HANDSHAKE)
            except LinkLost as error:
                log.debug(f"the source came again and was gone: {error}")
                wire.close()
                continue
            return wire

    def close(self) -> None:
        """Take nothing more, remove the socket. Wires that were handed out are their owners'."""
        if self._closed:
            return
        self._closed = True
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes accept(2)
        self._thread.join()
        self._socket.close()
        with suppress(OSError):
            os.unlink(NAME, dir_fd=self._home.number)
        self._home.close()
        with suppress(queue.Empty):
            while True:
                self._resumed.get_nowait().close()

    def _run(self) -> None:
        while not self._closed:
            try:
                peer, _ = self._socket.accept()
            except OSError as error:
                if not self._closed:
                    log.warning(f"nothing attaches to {self.migration} any more: {error}")
                return
            # A peer that says nothing must not keep the others waiting.
            threading.Thread(target=self._take, args=(peer,), name="attach", daemon=True).start()

    def _take(self, peer: socket.socket) -> None:
        try:
            channel = _receive(peer)
        except (OcimigError, OSError) as error:
            log.warning(f"something that would attach to {self.migration} was sent away: {error}")
            peer.close()
            return
        wire = Wire(channel)
        try:
            if self._welcome(wire) == RESUME:
                self._replace(channel)
                self._resumed.put(wire)
            else:
                self._serve(wire, channel)
        except (OcimigError, OSError) as error:
            log.warning(f"a connection to {self.migration} was not taken: {error}")
            with suppress(OcimigError, OSError):
                wire.send_error(error)
            wire.close()

    def _welcome(self, wire: Wire) -> str:
        """The role it wants."""
        wire.greet(HANDSHAKE)
        wanted = wire.expect("attach", timeout=HANDSHAKE).header
        role = wanted.get("role")
        if wanted.get("migration") != self.migration or role not in (STREAM, RESUME):
            raise BrokenFrame(host=wire.host, reason=f"{role!r} of {wanted.get('migration')!r}")
        if self._closed or (role == RESUME and not self.resumable):
            raise NobodyToAttach(migration=self.migration, reason=f"it is too late for a {role}")
        return str(role)

    def _serve(self, wire: Wire, channel: AttachedChannel) -> None:
        with self._lock:
            over = self._serving[channel] = threading.Event()
        try:
            wire.send("attached", timeout=HANDSHAKE)
            self._on_stream(wire)
        finally:
            over.set()
            with self._lock:
                del self._serving[channel]

    def _replace(self, channel: AttachedChannel) -> None:
        """End the link that was there and the streams beside it; they are served to their end first."""
        with self._lock:
            link, self.link = self.link, channel
            streams = dict(self._serving)
        for old in (*streams, link):
            if old is not None:
                old.interrupt("the source came again over another connection")
        for over in streams.values():
            if not over.wait(HANDSHAKE):
                reason = "a stream of the broken link does not end"
                raise NobodyToAttach(migration=self.migration, reason=reason)


def channel_of(wire: Wire) -> Interruptible | None:
    """The wire's channel, if waiting for it can be interrupted."""
    return wire.channel if isinstance(wire.channel, StdioChannel) else None


def _listen(home: int) -> socket.socket:
    """The socket in the migration's home; whatever an agent that died left there is replaced."""
    path = _path(home)
    with suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            reason = "something that is not a socket is there"
            raise SystemFailure(what=f"listen at {NAME}", reason=reason)
        os.unlink(path)
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        made.bind(path)
        os.chmod(path, 0o600)  # before listen(2): until then nobody can connect
        made.listen(16)
    except BaseException:
        made.close()
        raise
    return made


def _path(home: int) -> str:
    """Short, because an address has 108 bytes and a state root may be anywhere (unix(7))."""
    return f"/proc/self/fd/{home}/{NAME}"


def _check_peer(peer: socket.socket) -> None:
    """Only root and ourselves hand over descriptors, or get them."""
    raw = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, uid, _ = _CREDENTIALS.unpack(raw)
    if uid not in (0, os.geteuid()):
        raise PermissionError(f"user {uid} may not attach")


def _receive(peer: socket.socket) -> AttachedChannel:
    _check_peer(peer)
    peer.settimeout(HANDSHAKE)
    data, descriptors, _, _ = socket.recv_fds(peer, 1, 2, socket.MSG_CMSG_CLOEXEC)
    try:
        if not data or len(descriptors) != 2:
            raise OSError(errno.EBADMSG, "it hands over no descriptors")
        peer.sendall(_TAKEN)
    except BaseException:
        for fd in descriptors:
            os.close(fd)
        raise
    peer.settimeout(None)
    return AttachedChannel(descriptors[0], descriptors[1], peer)


# ---- the far side: the process that ssh starts


def hand_over(stdin: int, stdout: int, store: Store, migration: str) -> None:
    """Give our standard streams to the agent of a migration; returns when it has no more use for them.

    Raises NobodyToAttach, and the source has then heard it as an error frame.
    """
    try:
        keeper = _call_agent(stdin, stdout, store, migration)
    except OcimigError as error:
        wire = Wire(StdioChannel(stdin, stdout))
        with suppress(OcimigError, OSError):
            wire.greet(HANDSHAKE)
            wire.send_error(error)
        raise
    with keeper:
        # Ours are not the last copies: what the agent closes must look closed from there.
        _forget(stdin, stdout)
        with suppress(ConnectionResetError):  # it was killed: the same end
            keeper.recv(1)


def _call_agent(stdin: int, stdout: int, store: Store, migration: str) -> socket.socket:
    entry = journal.find(store, migration)
    if entry is None:
        raise NobodyToAttach(migration=migration, reason="it is not known")
    if entry.ended:
        raise NobodyToAttach(migration=migration, reason=f"it is {entry.phase}")
    caller = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        caller.settimeout(HANDSHAKE)
        with Fd(os.open(entry.home, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as home:
            caller.connect(_path(home))
        _check_peer(caller)
        socket.send_fds(caller, [b"a"], [stdin, stdout])
        if caller.recv(1) != _TAKEN:
            raise NobodyToAttach(migration=migration, reason="its agent does not take it")
        caller.settimeout(None)
    except OSError as error:
        caller.close()
        reason = f"no agent answers ({error.strerror or error})"
        raise NobodyToAttach(migration=migration, reason=reason) from None
    except BaseException:
        caller.close()
        raise
    return caller


def _forget(stdin: int, stdout: int) -> None:
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    for fd in (stdin, stdout):
        os.dup2(null, fd)
    os.close(null)
