"""SSH packets under AES-GCM, made with few copies and sent many at a time. Opens no connection.

    length u32   padding length u8   payload   padding   tag (16)     RFC 4253 section 6
    payload of data: 94   the channel there u32   length u32   data   RFC 4254 section 5.2

All but the length is encrypted; the length is authenticated (RFC 5647 section 7).
"""

import struct
import threading
from collections.abc import Callable
from typing import Protocol

GATHERED = 1 << 18  # bytes that leave in one system call; more gained nothing
_TAG = 16
_BLOCK = 16
_HEAD = struct.Struct(">IB")
_DATA = struct.Struct(">BII")
_CHANNEL_DATA = 94  # SSH_MSG_CHANNEL_DATA
_NO_PADDING = bytes(_BLOCK + 4)  # under AES-GCM padding hides nothing, so it need not be random
_ROOM = 1 << 16  # of one packet at first; a longer one makes more


class Engine(Protocol):
    """AESGCM of `cryptography`."""

    def encrypt_into(
        self, nonce: bytes, data: memoryview, associated_data: memoryview, buf: memoryview
    ) -> int:
        """Encrypt and append the tag; the bytes written."""
        ...


class Data:
    """Bytes for one channel, on their way through paramiko to Packets.data()."""

    __slots__ = ("bytes", "channel")

    def __init__(self, channel: int, data: memoryview) -> None:
        self.channel = channel
        self.bytes = data


class Packets:
    """What leaves under one key. Any thread may call.

    `write` sends all it is given; `iv` is the nonce of the first packet (12 bytes, of which the
    last 8 count packets).
    """

    def __init__(self, engine: Engine, iv: bytes, write: Callable[[memoryview], None]) -> None:
        self.sent = 0  # bytes under this key
        self._engine = engine
        self._fixed = iv[:4]
        self._count = int.from_bytes(iv[4:], "big")
        self._write = write
        self._lock = threading.RLock()
        self._plain = memoryview(bytearray(_ROOM))
        self._out = memoryview(bytearray(GATHERED + _ROOM))
        self._size = 0  # of what is gathered in _out

    def message(self, payload: bytes) -> None:
        """Send a message, and all data before it, now."""
        with self._lock:
            self._reserve(len(payload))
            self._plain[_HEAD.size : _HEAD.size + len(payload)] = payload
            self._seal(len(payload))
            self.flush()

    def data(self, data: Data) -> None:
        """Gather data; it leaves with more of it, with the next message or by flush()."""
        with self._lock:
            length = len(data.bytes)
            self._reserve(_DATA.size + length)
            _DATA.pack_into(self._plain, _HEAD.size, _CHANNEL_DATA, data.channel, length)
            start = _HEAD.size + _DATA.size
            self._plain[start : start + length] = data.bytes
            self._seal(_DATA.size + length)
            if self._size >= GATHERED:
                self.flush()

    def flush(self) -> None:
        """Send what is gathered."""
        with self._lock:
            size, self._size = self._size, 0
            if size:
                self._write(self._out[:size])

    def _reserve(self, payload: int) -> None:
        """Room for a packet with a payload of that length."""
        whole = payload + _HEAD.size + 2 * _BLOCK + _TAG
        if whole > len(self._plain):
            self._plain = memoryview(bytearray(whole))
        if self._size + whole > len(self._out):
            self.flush()
            if whole > len(self._out):
                self._out = memoryview(bytearray(whole))

    def _seal(self, payload: int) -> None:
        """Encrypt the packet whose payload is in place."""
        padding = _BLOCK - (payload + 1) % _BLOCK
        if padding < 4:
            padding += _BLOCK
        end = _HEAD.size + payload + padding
        _HEAD.pack_into(self._plain, 0, 1 + payload + padding, padding)
        self._plain[end - padding : end] = _NO_PADDING[:padding]
        length = self._plain[:4]
        start = self._size
        self._size += end + _TAG
        self._out[start : start + 4] = length
        nonce = self._fixed + self._count.to_bytes(8, "big")
        self._count = (self._count + 1) & 0xFFFFFFFFFFFFFFFF
        self._engine.encrypt_into(
            nonce, self._plain[4:end], length, self._out[start + 4 : self._size]
        )
        self.sent += end + _TAG
