"""TCP sockets that are brought back from repair mode, among all the others that a process may have."""

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from ocimig.migrate import netlock

# family, type, protocol; some have no address, some refuse every option
OTHERS = [
    (44, socket.SOCK_RAW, 0),  # AF_XDP
    (socket.AF_PACKET, socket.SOCK_RAW, 0),
    (socket.AF_NETLINK, socket.SOCK_RAW, 0),
    (socket.AF_ALG, socket.SOCK_SEQPACKET, 0),
    (socket.AF_VSOCK, socket.SOCK_STREAM, 0),
    (socket.AF_UNIX, socket.SOCK_DGRAM, 0),
    (socket.AF_INET, socket.SOCK_DGRAM, 0),
    (socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6),
    (socket.AF_INET, socket.SOCK_STREAM, 262),  # MPTCP
    (socket.AF_INET, socket.SOCK_STREAM, 132),  # SCTP
]


@pytest.fixture
def others() -> Iterator[list[socket.socket]]:
    """As many sockets that are not TCP as this kernel and user can have."""
    with ExitStack() as opened:
        made = []
        for family, kind, protocol in OTHERS:
            try:
                made.append(opened.enter_context(socket.socket(family, kind, protocol)))
            except OSError:
                continue  # not in this kernel, or not for this user
        yield made


def test_sockets_that_are_not_tcp_are_passed_over(others: list[socket.socket]) -> None:
    """Not one of them raises, and none is left open by the look at it."""
    assert others
    before = len(os.listdir("/proc/self/fd"))
    assert netlock.clear_repair([os.getpid()]) == 0
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.root
def test_a_tcp_socket_leaves_repair_mode_among_others(others: list[socket.socket]) -> None:
    """It is found behind sockets that know no such option."""
    with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as stream:
        stream.setsockopt(socket.IPPROTO_TCP, netlock.TCP_REPAIR, 1)
        assert netlock.clear_repair([os.getpid()]) == 1
        assert stream.getsockopt(socket.IPPROTO_TCP, netlock.TCP_REPAIR) == 0
