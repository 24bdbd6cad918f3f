"""A client that counts: INCR on one TCP connection as fast as it can, until told to stop.

    client.py HOST PORT

On its standard input a line ends it. It prints one JSON line at the end: how many replies came, whether
each was the one after the one before, and the longest time without any. It never connects twice.
"""

import json
import select
import socket
import sys
import time

PATIENCE = 60  # seconds without a reply after which the connection counts as dead


def count(host: str, port: int) -> dict[str, object]:
    """Count until standard input has something."""
    report: dict[str, object] = {"replies": 0, "first": 0, "last": 0, "stall_ms": 0.0, "error": ""}
    replies, stall = 0, 0.0
    with socket.create_connection((host, port), PATIENCE) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        lines = connection.makefile("rb")
        expected: int | None = None
        before = time.monotonic()
        while not select.select([sys.stdin], [], [], 0)[0]:
            try:
                connection.sendall(b"*2\r\n$4\r\nINCR\r\n$7\r\ncounter\r\n")
                line = lines.readline()
            except OSError as error:
                report["error"] = f"the connection broke: {error}"
                break
            now = time.monotonic()
            stall, before = max(stall, now - before), now
            if not line.startswith(b":") or not line.endswith(b"\r\n"):
                report["error"] = f"not a number but {line!r}"
                break
            value = int(line[1:])
            if expected is None:
                report["first"] = value
            elif value != expected:
                report["error"] = f"the counter jumped: {value} came instead of {expected}"
                break
            expected = value + 1
            replies += 1
        report |= {"replies": replies, "last": (expected or 1) - 1, "stall_ms": stall * 1000}
        report["local"] = "{}:{}".format(*connection.getsockname())
    return report


if __name__ == "__main__":
    print(json.dumps(count(sys.argv[1], int(sys.argv[2]))), flush=True)
