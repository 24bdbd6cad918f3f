"""What a transport carries from zeros here to `cat >/dev/null` there: bytes a second, one line.

    contrib/bench/raw.py TRANSPORT TARGET IDENTITY KNOWN_HOSTS MIB STREAMS

Each stream has a connection of its own, as a migration's have. The time ends when the last program there has
read everything.
"""

import sys
import threading
import time

from ocimig.migrate.transport import Channel, Target, connect

PIECE = 1 << 20


def _pour(channel: Channel, mib: int) -> None:
    zeros = memoryview(bytes(PIECE))
    for _ in range(mib):
        channel.write(zeros, timeout=60)
    channel.close_write()
    if channel.wait(60):
        raise OSError(channel.stderr_tail())


def measure(transport: str, target: Target, mib: int, streams: int) -> float:
    """Bytes a second over all streams, which carry `mib` MiB together."""
    connections = [connect(target, transport=transport) for _ in range(streams)]
    channels = [connection.open(["sh", "-c", "cat >/dev/null"]) for connection in connections]
    _pour_nothing(channels)
    threads = [
        threading.Thread(target=_pour, args=(channel, mib // streams)) for channel in channels
    ]
    begun = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.monotonic() - begun
    for connection in connections:
        connection.close()
    return mib // streams * streams * PIECE / seconds


def _pour_nothing(channels: list[Channel]) -> None:
    """A first byte each: what a connection needs to get going does not count."""
    for channel in channels:
        channel.write(b"\0", timeout=60)
    time.sleep(0.3)


if __name__ == "__main__":
    transport, host, identity, known_hosts, mib, streams = sys.argv[1:]
    there = Target.parse(host, identity=identity, known_hosts=known_hosts)
    print(round(measure(transport, there, int(mib), int(streams))))
