"""The far side of a migration: a conversation on standard input and output. Never speaks first.

    source                      agent (journal)
    facts {about}            →  facts {…}
    status {migration}       →  status {phase, live, boot_id}
    reserve {…}              →  reserved {images}              RESERVED
    files {tree, path, pass} →                                 then what rootfs says, as often as needed
    warm {config, …}         →  warmed {memory}                CRIU waits, nothing is restored yet
    pages …                  →  pages-taken …                  memory (docs/formats/pages.md), on any stream
    images … images-end      →  shipped {bytes}                SHIPPED
    prepare {…}              →  prepared {pid, steps}          PREPARED; the restore waits in post-restore
    go {epoch}               →  running {pid, steps}           GO, RUNNING
                                settled {}                     announced, files on disk
      after --post-copy    ←    released {steps} goes before running, which means that all memory is there
    abort {reason}           →  aborted {}                     ABORTED
    bye                      →  (end)

A link that ends while the container runs there (RESERVED) may come again over `agent --attach`; one
that ends later, but before `go`, aborts; one that ends after it changes nothing. Without `go` for the
time that `reserve` named, the agent writes ABORTED by itself and refuses a later `go`.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from ocimig import log
from ocimig.errors import OcimigError
from ocimig.files import Lock
from ocimig.migrate import (
    attach,
    facts,
    group,
    images,
    journal,
    phases,
    predict,
    reserve,
    settling,
    words,
)
from ocimig.migrate.errors import BrokenFrame, GoRefused, LinkLost, MigrationFailed
from ocimig.migrate.hands import Destination
from ocimig.migrate.journal import Journal
from ocimig.migrate.lazy import push
from ocimig.migrate.memory import frames
from ocimig.migrate.memory.errors import MemoryLost
from ocimig.migrate.wire import Frame, Wire
from ocimig.runtime.linux import proc
from ocimig.runtime.store import Store

PATIENCE = 30.0  # seconds that a prepared container waits for `go`
LINGER = attach.LINGER
COMPLAINT = 5.0  # seconds that a source may take to let itself be told what went wrong
QUIET = attach.LINGER  # seconds without a frame or a sign of life


class Agent:
    """One conversation; it carries out at most one migration."""

    def __init__(self, wire: Wire, store: Store, deeds: Destination) -> None:
        self.wire = wire
        wire.side = "destination"
        self.store = store
        self.hands = deeds
        self.journal: Journal | None = None
        self.lock: Lock | None = None
        self.receiver: images.Receiver | None = None
        self.listener: attach.Listener | None = None
        self.warmed: dict[str, Any] | None = None
        self.steps: list[dict[str, Any]] = []
        self.began = time.monotonic()

    def serve(self) -> None:
        """Answer until the source says bye or the link ends; what is not decided by then is aborted."""
        handlers: dict[str, Callable[[Frame], None]] = {
            "facts": self._facts,
            "status": self._status,
            "reserve": self._reserve,
            "files": self._files,
            "image": self._image,
            "image-data": self._image,
            "image-end": self._image,
            "images-end": self._image,
            "warm": self._warm,
            **dict.fromkeys(frames.KINDS, self._pages),
            "prepare": self._prepare,
            "go": self._late_go,
            "abort": self._abort,
        }
        try:
            self.wire.greet()
            while self._step_of(handlers):
                pass
        except LinkLost as error:
            self._undo(f"the link ended: {error}")
        except OcimigError as error:
            self._turn_back(str(error), error)
        except OSError as error:
            self._turn_back(str(error), words.of(error))
        except BaseException as error:
            self._turn_back(f"{type(error).__name__}: {error}", error)
            raise
        finally:
            if self.listener is not None:
                self.listener.close()
            self.wire.close()
            if self.lock is not None:
                self.lock.__exit__(None, None, None)

    def _step_of(self, handlers: dict[str, Callable[[Frame], None]]) -> bool:
        """Answer one frame; false at the end. A link that breaks while that hurts nobody may come again."""
        try:
            frame = self._next()
            if frame is None:
                return False
            handler = handlers.get(frame.kind)
            if handler is None:
                raise BrokenFrame(host=self.wire.host, reason=f"{frame.kind!r} is unknown here")
            handler(frame)
        except LinkLost as error:
            if self.listener is None or self.journal is None or self.journal.phase != "RESERVED":
                raise
            log.debug(f"the link ended: {error}; waiting for the source to come again")
            wire = self.listener.resumed(LINGER)
            if wire is None:
                raise
            self.wire.close()
            self.wire = wire
            wire.side = "destination"
        return True

    def _turn_back(self, reason: str, error: BaseException) -> None:
        """Say so, and only then remove what came: a frozen container waits for the word, nobody for the rest.

        The word permits nothing that was not permitted: up to its COMMIT-INTENT the source owns the container,
        and beyond that it goes by our journal alone. Nothing is let go here once we are on this way.
        """
        with suppress(LinkLost, OSError):
            self.wire.send_error(error, timeout=COMPLAINT)
        self._undo(reason)

    def _next(self) -> Frame | None:
        """The next frame; None for bye, and for an end or a silence while nothing is reserved."""
        reserved = self.journal is not None and not self.journal.ended
        try:
            frame = self.wire.receive(QUIET)
        except LinkLost:
            if reserved:
                raise
            return None
        return None if frame.kind == "bye" else frame

    # ---- questions

    def _facts(self, frame: Frame) -> None:
        with self.wire.beating():
            if self.journal is None:
                reserve.settle_dead(self.store, str(frame.header.get("id")), self.hands)
            found = facts.host(self.store, frame.header)
        self.wire.send("facts", found)

    def _status(self, frame: Frame) -> None:
        """What became of a migration; one that nobody carries out any more is settled first."""
        found = journal.find(self.store, str(frame.header.get("migration")))
        live = False
        if found is not None and not found.ended:
            live = not settling.settle_there(self.store, found, self.hands)
        self.wire.send(
            "status",
            {
                "phase": phases.UNKNOWN if found is None else found.phase,
                "live": live,
                "boot_id": proc.boot_id(),
                "host": facts.host_name(),
            },
        )

    # ---- the migration

    def _reserve(self, frame: Frame) -> None:
        if self.journal is not None:
            raise BrokenFrame(host=self.wire.host, reason="a second reservation")
        wanted = frame.header
        created, self.lock = reserve.reserve(self.store, wanted, self.hands, self.wire.host)
        self.journal = created
        self.reservation = wanted
        group.form(self.store, created, wanted)
        self.hands.reserve(self.store, created, wanted)
        self.listener = attach.Listener(
            created.home, link=attach.channel_of(self.wire), on_stream=self._stream
        )
        answer = {"images": created.facts["images"], "group": created.facts.get("group", "")}
        self.wire.send("reserved", answer)

    def _held(self, record: str) -> Journal:
        """The journal, which must stand at this record."""
        if self.journal is None or self.journal.phase != record:
            there = self.journal.phase if self.journal else "nothing reserved"
            raise BrokenFrame(host=self.wire.host, reason=f"{there}, expected {record}")
        return self.journal

    def _files(self, frame: Frame) -> None:
        held = self._held("RESERVED")
        began = time.monotonic()
        self.hands.receive_files(self.wire, held, frame.header)
        self._step(f"files, pass {frame.header.get('pass')}", began)

    def _warm(self, frame: Frame) -> None:
        held = self._held("RESERVED")
        began = time.monotonic()
        if self.warmed is None:  # else the link broke before the answer arrived
            with self.wire.beating():
                self.warmed = self.hands.warm(self.store, held, words.document(frame))
                self.warmed["strain"] = predict.strain()
            self._step("warm", began)
        self.wire.send("warmed", self.warmed)

    def _pages(self, frame: Frame) -> None:
        self._held("RESERVED")
        self.hands.pages(self.wire, frame)

    def _stream(self, wire: Wire) -> None:
        """A further stream: it carries memory and nothing else."""
        try:
            while True:
                frame = wire.receive(None)
                if frame.kind == "bye":
                    return
                if frame.kind in (push.LEFT, push.FOLLOW):
                    self.hands.follow(wire, frame)
                    continue
                self._held("RESERVED")
                self.hands.pages(wire, frame)
        except LinkLost as error:
            log.debug(f"a stream of memory ended: {error}")
        except (OcimigError, OSError) as error:
            with suppress(OcimigError, OSError):
                wire.send_error(error if isinstance(error, OcimigError) else words.of(error))
        finally:
            wire.close()

    def _image(self, frame: Frame) -> None:
        held = self._held("RESERVED")
        if self.receiver is None:
            self.image_began = time.monotonic()
            if self.listener is not None:
                # It is frozen by now: a link that breaks means back.
                self.listener.resumable = False
            limit = int(self.reservation["image_limit"])
            self.receiver = images.Receiver(held.facts["images"], limit=limit, host=self.wire.host)
        self.receiver.handle(frame)
        if self.receiver.done:
            held.write("SHIPPED", sync=False, bytes=self.receiver.bytes)
            self._step("images received", self.image_began)
            self.wire.send("shipped", {"bytes": self.receiver.bytes})

    def _prepare(self, frame: Frame) -> None:
        """Restore up to the point where one word lets it run; then wait for that word."""
        held = self._held("SHIPPED")
        assert self.receiver is not None
        began = time.monotonic()
        request = words.document(frame)
        follows = bool(request.get("post_copy"))
        beat = self.wire.beating()
        beat.__enter__()
        beating = True

        def on_restored(pid: int) -> None:
            nonlocal beating, began
            beat.__exit__(None, None, None)
            beating = False
            self.hands.restored(pid)
            self._step("restore", began)
            self._await_go(held, pid, follows)
            began = time.monotonic()
            self.hands.release()
            self._step("network attached", began)
            began = time.monotonic()

        try:
            pid = self.hands.restore(self.store, held, request, self.receiver, on_restored)
        except BaseException as error:
            if lost := self.hands.lost():
                self._lost(held, lost)
            if held.phase != "GO":
                raise
            if not self.hands.runs(self.store, held):
                # The restored tasks died after they were let go: nothing runs here any more.
                self._failed(held, str(error))
                raise
            log.warning(f"{held.facts['id']} runs, but not everything after it went well: {error}")
            pid = int(held.facts["pid"])
        finally:
            if beating:
                beat.__exit__(None, None, None)
        self._step("released", began)
        if follows:
            with suppress(LinkLost, OSError):  # the blackout is over, the migration is not
                self.wire.send("released", {"steps": self.steps, "now": self._now()})
            self.steps.clear()
            with self.wire.beating():
                lost = self.hands.followed()
            if lost:
                self._lost(held, lost)
        held.write("RUNNING", pid=pid)
        with suppress(LinkLost, OSError):  # it runs here, whether anybody hears of it or not
            self.wire.send("running", {"pid": pid, "steps": self.steps, "now": self._now()})
        with self.wire.beating():
            self.hands.settled(held)
        with suppress(LinkLost, OSError):
            self.wire.send("settled")
        self.hands.finish(held)
        held.clear()

    def _await_go(self, held: Journal, pid: int, follows: bool) -> None:
        stat = proc.stat(pid)
        held.write("PREPARED", sync=False, pid=pid, start_time=stat.start_time if stat else 0)
        self.wire.send("prepared", {"pid": pid, "steps": self.steps, "now": self._now()})
        self.steps.clear()
        deadline = time.monotonic() + float(self.reservation.get("patience", PATIENCE))
        more = {"follows": True} if follows else {}
        try:
            frame = self.wire.receive(deadline=deadline)
            lost = self.hands.lost()
            if lost or frame.kind != "go" or frame.header.get("epoch") != held.facts["epoch"]:
                reason = lost or str(frame.header.get("reason", frame.kind))
                raise MigrationFailed(id=held.facts["id"], phase="PREPARED", reason=reason, fix="")
        except BaseException as error:
            if not group.let_go(self.store, held, str(error) or type(error).__name__, **more):
                raise
        else:
            if not group.let_go(self.store, held, **more):
                raise MigrationFailed(
                    id=held.facts["id"], phase="PREPARED", reason="its group", fix=""
                )

    def _lost(self, held: Journal, reason: str) -> None:
        """Some of its memory is gone. After GO it may have run: only a person may run it anywhere."""
        if held.phase == "GO":
            self.hands.discard(self.store, held)
            held.write("LOST", reason=reason)
            held.clear(keep="criu")
        raise MemoryLost(id=held.facts["id"], reason=reason)

    def _failed(self, held: Journal, reason: str) -> None:
        self.hands.discard(self.store, held)
        held.write("FAILED", reason=reason)
        held.clear(keep="criu")

    def _late_go(self, frame: Frame) -> None:
        entry = journal.find(self.store, str(frame.header.get("migration")))
        there = entry.phase if entry else phases.UNKNOWN
        raise GoRefused(migration=str(frame.header.get("migration")), phase=there)

    def _abort(self, frame: Frame) -> None:
        self._undo(str(frame.header.get("reason", "the source gave up")))
        self.wire.send("aborted")

    def _undo(self, reason: str) -> None:
        """Leave nothing of a migration that did not get to GO."""
        held = self.journal
        if held is None or held.phase in ("GO", "RUNNING", "FAILED", "LOST"):
            return
        if self.receiver is not None:
            self.receiver.close()
        if held.phase == "PREPARED":
            with suppress(OcimigError, OSError):  # then whoever decides finds that it is not here
                group.decide(self.store, held, group.ABORTED)  # nor is what moves with it let go
        try:
            self.hands.discard(self.store, held)
        finally:
            if held.phase != "ABORTED":
                held.write("ABORTED", reason=reason)
            held.clear(keep="criu")  # its log says why

    def _now(self) -> float:
        """On the clock of the steps."""
        return time.monotonic() - self.began

    def _step(self, name: str, began: float) -> None:
        now = time.monotonic()
        self.steps.append({"name": name, "begin": began - self.began, "seconds": now - began})
