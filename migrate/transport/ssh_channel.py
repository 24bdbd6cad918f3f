"""One channel of paramiko's and how its packets are made. Connects to nothing and lets nobody in."""

import threading
import time
from typing import Any

import paramiko

from ocimig.migrate.errors import LinkLost
from ocimig.migrate.transport import gcm
from ocimig.migrate.transport.process import Tail

REKEY = 1 << 35  # bytes under one key: half of what OpenSSH allows itself, 64 times paramiko's own
_STEP = 0.25  # seconds between two looks at the clock
_CHUNK = 1 << 15  # what one SSH packet carries


class Packetizer(paramiko.packet.Packetizer):
    """paramiko's, which leaves the packets that it would seal by AES-GCM to gcm.Packets."""

    REKEY_BYTES = REKEY

    def __init__(self, socket: Any) -> None:
        super().__init__(socket)
        self.quick: gcm.Packets | None = None

    def set_outbound_cipher(self, *values: Any, **named: Any) -> None:
        """Under this key from the next packet on."""
        super().set_outbound_cipher(*values, **named)
        engine: Any = named.get("block_engine") if named.get("aead") else None
        quick = hasattr(engine, "encrypt_into")  # cryptography learned it late
        self.quick = gcm.Packets(engine, named["iv_out"], self.write_all) if quick else None

    def send_message(self, data: Any) -> None:
        """Send a message, or gather gcm.Data."""
        quick = self.quick
        if quick is None:
            super().send_message(data)
            return
        if isinstance(data, gcm.Data):
            quick.data(data)
        else:
            quick.message(data.asbytes())
        if quick.sent > REKEY:
            self._trigger_rekey()  # type: ignore[attr-defined]


class SshChannel:
    """One session channel."""

    def __init__(
        self, channel: paramiko.Channel, *, host: str, own: paramiko.Transport | None
    ) -> None:
        self.host = host
        self._channel = channel
        self._transport = channel.get_transport()
        self._own = own
        self._tail = Tail()
        # A channel has one timeout for both directions: this is the step of ours, not its length.
        channel.settimeout(_STEP)
        # Unread stderr would fill the window that stdout shares with it.
        self._listener = threading.Thread(target=self._listen, name="stderr", daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        while True:
            try:
                data = self._channel.recv_stderr(1 << 16)
            except TimeoutError:
                continue
            if not data:
                return
            self._tail.add(data)

    def read(self, size: int, timeout: float | None = None) -> bytes:
        """See Channel."""
        end = _end(timeout)
        while True:
            if timeout == 0 and not self._has_news():
                raise TimeoutError("no progress")
            try:
                data = self._channel.recv(size)
            except TimeoutError:
                _check(end)
                continue
            if not data and not self._channel.eof_received:
                raise self._lost()
            return data

    def _has_news(self) -> bool:
        channel = self._channel
        return bool(channel.recv_ready() or channel.eof_received or channel.closed)

    def write(self, data: bytes | memoryview, timeout: float | None = None) -> None:
        """See Channel."""
        view = memoryview(data).cast("B")
        end = _end(timeout)
        try:
            while view:
                try:
                    sent = self._send(view[:_CHUNK])
                except TimeoutError:
                    _check(end)
                    continue
                # paramiko drops what it is given once the connection is over
                if not sent or not self._transport.is_active():
                    raise self._lost()
                view = view[sent:]
                end = _end(timeout)
            self._flush()
        except TimeoutError:
            raise
        except (OSError, EOFError, paramiko.SSHException):
            raise self._lost() from None

    def _send(self, data: memoryview) -> int:
        """Some of the data, once the window there is open; what is sent may wait for _flush()."""
        channel = self._channel
        packets = self._transport.packetizer
        if not isinstance(packets, Packetizer) or packets.quick is None:
            return channel.send(bytes(data))
        if not channel.out_window_size:  # what shall open it must not wait here
            packets.quick.flush()
        with channel.lock:
            size: int = channel._wait_for_send_window(len(data))  # type: ignore[attr-defined]
        if size:
            self._transport._send_user_message(gcm.Data(channel.remote_chanid, data[:size]))  # type: ignore[attr-defined]
        return size

    def _flush(self) -> None:
        packets = self._transport.packetizer
        if isinstance(packets, Packetizer) and packets.quick is not None:
            packets.quick.flush()

    def close_write(self) -> None:
        """See Channel."""
        try:
            self._channel.shutdown_write()
        except (OSError, EOFError, paramiko.SSHException):  # gone already: reading will say so
            pass

    def wait(self, timeout: float | None = None) -> int:
        """See Channel. A program ended by a signal counts as 255, as with the OpenSSH program."""
        if not self._channel.status_event.wait(timeout):
            raise TimeoutError("the program still runs")
        self._listener.join(1.0)  # what it said last belongs to the answer
        status = self._channel.recv_exit_status()
        if status < 0 and not self._transport.is_active():
            raise self._lost()
        return status if status >= 0 else 255

    def stderr_tail(self) -> str:
        """See Channel."""
        return self._tail.text()

    def close(self) -> None:
        """See Channel."""
        self._channel.close()
        self._listener.join(1.0)
        if self._own is not None:
            self._own.close()

    def _lost(self) -> LinkLost:
        if self._transport.is_active():
            reason = self._tail.text().rpartition("\n")[2] or "the channel is closed"
        else:
            cause = self._transport.get_exception()
            reason = str(cause or "the other host hung up").rstrip(".")
        return LinkLost(host=self.host, reason=reason)


def _end(timeout: float | None) -> float | None:
    return None if timeout is None else time.monotonic() + timeout


def _check(end: float | None) -> None:
    if end is not None and time.monotonic() >= end:
        raise TimeoutError("no progress")
