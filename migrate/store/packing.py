"""Blobs become frames, and frames packs. Decides nothing about which blobs; `writer` does.

Frames are compressed and sealed by threads (zstandard and AEAD let go of the interpreter), and written in
order by one more.
"""

import struct
import threading
from array import array
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import zstandard
from blake3 import blake3

from ocimig.migrate.store import head
from ocimig.migrate.store.blobs import BLOCK, LARGEST, Data
from ocimig.migrate.store.contents import CHECK, RAW, ZSTD, Contents, Frame
from ocimig.migrate.store.head import Head
from ocimig.migrate.store.place import PACKS, Making, Place
from ocimig.migrate.store.seal import LAST, Sealer

FULL = 64 << 20  # bytes of frames after which a pack is closed
# blobs after which it is: pages that shrink to nothing would else make an index of gigabytes
MOST = 1 << 20
WORTH = 0.95  # what does not shrink below this part of itself is kept as it is
TRAILER = struct.Struct("<QIIII32s8s")
END = b"\x89OCIEND\n"

_WAITING = (
    16  # frames that may be in the threads' hands, and as many in those of the one who writes
)
_Frame = tuple[Data, int, bytes]  # as it is stored, its codec, its check


class Compressors:
    """One zstandard compressor a thread: they are not safe to share."""

    def __init__(self, level: int) -> None:
        self._level = level
        self._own = threading.local()

    def shrink(self, data: Data) -> tuple[Data, int]:
        """The data, or a zstandard frame of it where that pays; and its codec."""
        found = getattr(self._own, "compressor", None)
        if found is None:
            found = self._own.compressor = zstandard.ZstdCompressor(level=self._level)
        small: bytes = found.compress(data)
        return (small, ZSTD) if len(small) < WORTH * len(data) else (data, RAW)


class Pack:
    """One pack on its way into a place."""

    def __init__(
        self,
        place: Place,
        seals: Sealer,
        threads: ThreadPoolExecutor,
        compressors: Compressors,
        start: Head | None = None,
    ) -> None:
        """`start` is the head of a pack that replaces another."""
        self.head = Head.new(sealed=seals.sealed) if start is None else start
        self.number = self.head.number
        self.entries = 0
        self._threads = threads
        self._compressors = compressors
        self._scribe = ThreadPoolExecutor(1, "scribe")  # starts no thread before there is a frame
        self._written: deque[Future[None]] = deque()
        self._making: Making = place.make(PACKS)
        self._making.__enter__()
        self._seal = seals.of(self.head, head.PACK)
        self._whole = blake3()
        self._frame = bytearray()
        self._blobs = 0  # in the frame that is being filled
        self._sizes = array("I")
        self._digests = bytearray()
        self._frames: list[Frame] = []
        self._counted = 0  # frames that were handed to threads
        self._working: deque[tuple[Future[_Frame], int, int]] = deque()
        self.stored = 0
        try:
            self._write(self.head.bytes(head.PACK))
        except BaseException:
            self.abandon()
            raise

    def put(self, blob: Data, digest: bytes) -> int:
        """Take a blob: its entry."""
        if self._frame and len(self._frame) + len(blob) > BLOCK:
            self._hand_over()
        self._frame += blob
        self._blobs += 1
        self._sizes.append(len(blob))
        self._digests += digest
        self.entries += 1
        if len(self._frame) >= BLOCK:
            self._hand_over()
        return self.entries - 1

    def put_many(self, blobs: Sequence[Data], digests: Sequence[bytes]) -> int:
        """Take blobs, all of them, as far as the pack is not full: how many of them. At least one."""
        taken = 0
        while taken < len(blobs) and not (taken and self.full):
            size = len(blobs[taken])
            count = min(len(blobs) - taken, max(1, (BLOCK - len(self._frame)) // size))
            some = blobs[taken : taken + count]
            if count == 1 or any(len(blob) != size for blob in some):
                self.put(some[0], digests[taken])
                taken += 1
                continue
            self._frame += b"".join(some)
            self._blobs += count
            self._sizes.extend([size] * count)
            self._digests += b"".join(digests[taken : taken + count])
            self.entries += count
            taken += count
            if len(self._frame) >= BLOCK:
                self._hand_over()
        return taken

    @property
    def full(self) -> bool:
        """Whether the next blob belongs into another pack."""
        return self.stored >= FULL or self.entries >= MOST

    def _hand_over(self) -> None:
        data, blobs, count = bytes(self._frame), self._blobs, self._counted
        self._frame.clear()
        self._blobs = 0
        self._counted += 1
        self._working.append((self._threads.submit(self._work, count, data), len(data), blobs))
        while self._working and (len(self._working) > _WAITING or self._working[0][0].done()):
            self._take()

    def _work(self, count: int, data: bytes) -> _Frame:
        small, codec = self._compressors.shrink(data)
        stored = self._seal.seal(count, small)
        return stored, codec, blake3(stored).digest(length=CHECK)

    def _take(self) -> None:
        future, raw, blobs = self._working.popleft()
        stored, codec, check = future.result()
        self._frames.append(Frame(len(stored), raw, blobs, codec, check))
        self._written.append(self._scribe.submit(self._write, stored))
        while len(self._written) > _WAITING or (self._written and self._written[0].done()):
            self._written.popleft().result()
        self.stored += len(stored)

    def _write(self, data: Data) -> None:
        self._whole.update(data)
        self._making.write(data)

    def close(self, runs: list[tuple[int, int]] | None = None) -> tuple[str, Contents]:
        """Write its index and give it its name; `runs` are its entries where they are not 0, 1, 2…

        Returns its name and what is in it. Durable afterwards."""
        if self._frame:
            self._hand_over()
        while self._working:
            self._take()
        while self._written:
            self._written.popleft().result()
        self._scribe.shutdown()
        contents = Contents(
            runs or [(0, self.entries)], self._frames, self._sizes, bytes(self._digests)
        )
        raw = contents.encode()
        small, codec = self._compressors.shrink(raw)
        index = self._seal.seal(LAST, small)
        digest = blake3(index).digest()
        self._write(index)
        begin = head.SIZE + contents.stored
        self._write(TRAILER.pack(begin, len(index), len(raw), codec, 0, digest, END))
        name = head.name(self.number, self._whole.digest(length=16), "pack")
        self._making.commit(name)
        self._making.__exit__(None, None, None)
        return name, contents

    def abandon(self) -> None:
        """Nothing of it stays."""
        for future, _, _ in self._working:
            future.cancel()
        self._scribe.shutdown(cancel_futures=True)  # nothing is written behind a file that is gone
        self._making.__exit__(None, None, None)


def check_sizes(blob: Data) -> None:
    """Raise ValueError unless this can be a blob."""
    if not 0 < len(blob) <= LARGEST:
        raise ValueError(f"{len(blob)} bytes are no blob")
