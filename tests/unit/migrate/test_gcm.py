"""SSH packets under AES-GCM: what leaves can be read by the rules of the RFCs, in order and whole."""

import os
import struct

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ocimig.migrate.transport import gcm

KEY = bytes(range(16))


class Reader:
    """The other side: takes packets apart as RFC 4253 and RFC 5647 say, counting for itself."""

    def __init__(self, iv: bytes) -> None:
        self.iv = iv
        self.calls: list[int] = []
        self.packets: list[bytes] = []
        self._rest = b""

    def write(self, data: memoryview) -> None:
        """What the socket would take."""
        self.calls.append(len(data))
        self._rest += bytes(data)
        while len(self._rest) >= 4:
            (length,) = struct.unpack_from(">I", self._rest)
            whole = 4 + length + 16
            assert length % 16 == 0
            if len(self._rest) < whole:
                return
            sealed, self._rest = self._rest[:whole], self._rest[whole:]
            plain = AESGCM(KEY).decrypt(self.iv, sealed[4:], sealed[:4])
            padding = plain[0]
            assert padding >= 4
            assert plain[-padding:] == bytes(padding)
            self.packets.append(plain[1:-padding])
            count = (int.from_bytes(self.iv[4:], "big") + 1) % (1 << 64)
            self.iv = self.iv[:4] + count.to_bytes(8, "big")


def ends(iv: bytes = bytes(12)) -> tuple[gcm.Packets, Reader]:
    """A sender and the reader of what it sends."""
    reader = Reader(iv)
    return gcm.Packets(AESGCM(KEY), iv, reader.write), reader


def data(packets: gcm.Packets, content: bytes, channel: int = 7) -> None:
    """Data for a channel."""
    packets.data(gcm.Data(channel, memoryview(content)))


@pytest.mark.parametrize("size", [*range(1, 34), 32704, 65535, 300_000])
def test_a_message_of_any_length_leaves_at_once(size: int) -> None:
    """Padding fills the block whatever is left of it, and nothing of a longer packet shows in it."""
    packets, reader = ends()
    first, second = os.urandom(size + 40), os.urandom(size)
    packets.message(first)
    packets.message(second)
    assert reader.packets == [first, second]
    assert len(reader.calls) == 2
    assert packets.sent == sum(reader.calls)


def test_data_is_gathered_until_it_is_enough() -> None:
    """Packets of 32 KiB leave eight at a time; flush() sends what is left."""
    packets, reader = ends()
    content = [os.urandom(32704) for _ in range(20)]
    for piece in content:
        data(packets, piece)
    packets.flush()
    packets.flush()
    head = struct.Struct(">BII")
    for packet, piece in zip(reader.packets, content, strict=True):
        assert head.unpack_from(packet) == (94, 7, len(piece))
        assert packet[head.size :] == piece
    assert len(reader.calls) == 3


def test_a_message_does_not_overtake_data() -> None:
    """And takes it along."""
    packets, reader = ends()
    data(packets, b"first")
    assert reader.calls == []
    packets.message(b"second")
    assert [packet[-6:] for packet in reader.packets] == [b"\x05first", b"second"]
    assert len(reader.calls) == 1


def test_the_count_of_packets_goes_round() -> None:
    """It has eight bytes, and begins where the key exchange says (RFC 5647 section 7.1)."""
    packets, reader = ends(b"abcd" + b"\xff" * 8)
    packets.message(b"one")
    packets.message(b"two")
    assert reader.packets == [b"one", b"two"]
    assert reader.iv == b"abcd" + (1).to_bytes(8, "big")


def test_what_could_not_leave_is_not_sent_twice() -> None:
    """A connection that broke in the middle is over; nothing goes out again under other counts."""
    sent: list[bytes] = []

    def write(content: memoryview) -> None:
        sent.append(bytes(content))
        raise EOFError

    packets = gcm.Packets(AESGCM(KEY), bytes(12), write)
    with pytest.raises(EOFError):
        packets.message(b"lost")
    packets.flush()
    assert len(sent) == 1
