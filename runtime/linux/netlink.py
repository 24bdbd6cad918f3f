"""The few netlink messages that are needed where time counts: a network lock, and `lo` up.

The lock is one nftables table of ours, `inet ocimig`, in the network namespace of a container: three
chains (input, forward, output) that drop everything but packets with CRIU's mark, which it sets on the
sockets it repairs. Deleting the table unlocks everything at once. Nothing but this table is touched.
Never decides when to lock.
"""

import _socket
import errno
import os
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

TABLE = "ocimig"
SOCCR_MARK = (
    0xC114  # criu/include/net.h: the mark of packets that CRIU itself must send and receive
)

NETLINK_ROUTE = 0
NETLINK_NETFILTER = 12

NLM_F_REQUEST = 0x1
NLM_F_ACK = 0x4
NLM_F_EXCL = 0x200
NLM_F_CREATE = 0x400
NLMSG_ERROR = 2
NLA_F_NESTED = 0x8000

RTM_SETLINK = 19
IFF_UP = 0x1
LOOPBACK = 1  # `lo` is the first interface of every network namespace

NFPROTO_INET = 1
NFNL_SUBSYS_NFTABLES = 10
NFNL_MSG_BATCH_BEGIN = 0x10
NFNL_MSG_BATCH_END = 0x11
NFT_MSG_NEWTABLE = 0
NFT_MSG_DELTABLE = 2
NFT_MSG_NEWCHAIN = 3
NFT_MSG_NEWRULE = 6

NFTA_TABLE_NAME = 1
NFTA_CHAIN_TABLE = 1
NFTA_CHAIN_NAME = 3
NFTA_CHAIN_HOOK = 4
NFTA_CHAIN_POLICY = 5
NFTA_CHAIN_TYPE = 7
NFTA_HOOK_HOOKNUM = 1
NFTA_HOOK_PRIORITY = 2
NFTA_RULE_TABLE = 1
NFTA_RULE_CHAIN = 2
NFTA_RULE_EXPRESSIONS = 4
NFTA_LIST_ELEM = 1
NFTA_EXPR_NAME = 1
NFTA_EXPR_DATA = 2
NFTA_META_DREG = 1
NFTA_META_KEY = 2
NFT_META_MARK = 3
NFTA_CMP_SREG = 1
NFTA_CMP_OP = 2
NFTA_CMP_DATA = 3
NFT_CMP_EQ = 0
NFTA_DATA_VALUE = 1
NFTA_DATA_VERDICT = 2
NFTA_IMMEDIATE_DREG = 1
NFTA_IMMEDIATE_DATA = 2
NFTA_VERDICT_CODE = 1
NFT_REG_VERDICT = 0
NFT_REG_1 = 1
NF_DROP = 0
NF_ACCEPT = 1

# chain -> hook number of <linux/netfilter.h>
_CHAINS = {"input": 1, "forward": 2, "output": 3}
# Before connection tracking (-200) and before anything a container may have made: what is dropped
# here leaves no trace anywhere.
_PRIORITY = -400

CLONE_NEWNET = 0x40000000


class Inside:
    """Act in another network namespace for the length of a `with` block, this thread only."""

    __slots__ = ("back", "namespace")

    def __init__(self, namespace: int) -> None:
        self.namespace = namespace
        self.back = -1

    def __enter__(self) -> None:
        from ocimig.runtime.linux import namespaces

        self.back = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            namespaces.setns(self.namespace, CLONE_NEWNET)
        except BaseException:
            os.close(self.back)
            raise

    def __exit__(
        self,
        kind: "type[BaseException] | None",
        error: "BaseException | None",
        trace: "TracebackType | None",
    ) -> None:
        from ocimig.runtime.linux import namespaces

        try:
            namespaces.setns(self.back, CLONE_NEWNET)
        finally:
            os.close(self.back)


def lock(namespace: int) -> None:
    """Drop every packet of the namespace but CRIU's own. Raises FileExistsError when it is locked."""
    create = NLM_F_CREATE | NLM_F_EXCL
    messages = [_nft(NFT_MSG_NEWTABLE, create, _string(NFTA_TABLE_NAME, TABLE))]
    for chain, hook in _CHAINS.items():
        messages.append(_nft(NFT_MSG_NEWCHAIN, create, _chain(chain, hook)))
        messages.append(_nft(NFT_MSG_NEWRULE, create, _rule(chain)))
    _transact(namespace, messages)


def release(namespace: int) -> None:
    """Let packets pass, in 0.2 ms; `unlock` later removes what is left.

    Deleting the table waits for an RCU grace period (7 to 20 ms), one more rule does not.
    """
    accept = [_nft(NFT_MSG_NEWRULE, NLM_F_CREATE, _rule(chain, any_mark=True)) for chain in _CHAINS]
    _transact(namespace, accept)


def unlock(namespace: int) -> bool:
    """Remove the table: packets pass again. False when the namespace was not locked."""
    try:
        _transact(namespace, [_nft(NFT_MSG_DELTABLE, 0, _string(NFTA_TABLE_NAME, TABLE))])
    except FileNotFoundError:
        return False
    return True


def loopback_up(namespace: int) -> None:
    """Bring `lo` up: 127.0.0.1 and ::1 exist from then on."""
    _request(
        namespace,
        NETLINK_ROUTE,
        RTM_SETLINK,
        struct.pack("=BxHiII", 0, 0, LOOPBACK, IFF_UP, IFF_UP),
    )


def _attribute(kind: int, value: bytes) -> bytes:
    padding = -len(value) % 4
    return struct.pack("=HH", 4 + len(value), kind) + value + b"\0" * padding


def _string(kind: int, text: str) -> bytes:
    return _attribute(kind, text.encode() + b"\0")


def _number(kind: int, value: int) -> bytes:
    return _attribute(kind, struct.pack(">I", value & 0xFFFFFFFF))


def _nested(kind: int, *parts: bytes) -> bytes:
    return _attribute(kind | NLA_F_NESTED, b"".join(parts))


def _chain(name: str, hook: int) -> bytes:
    place = _nested(
        NFTA_CHAIN_HOOK, _number(NFTA_HOOK_HOOKNUM, hook), _number(NFTA_HOOK_PRIORITY, _PRIORITY)
    )
    return (
        _string(NFTA_CHAIN_TABLE, TABLE)
        + _string(NFTA_CHAIN_NAME, name)
        + place
        + _number(NFTA_CHAIN_POLICY, NF_DROP)
        + _string(NFTA_CHAIN_TYPE, "filter")
    )


def _rule(chain: str, *, any_mark: bool = False) -> bytes:
    """`meta mark 0xc114 accept`, or with `any_mark` only `accept`; it goes to the head of the chain."""
    meta = _expression(
        "meta", _number(NFTA_META_DREG, NFT_REG_1) + _number(NFTA_META_KEY, NFT_META_MARK)
    )
    mark = _attribute(NFTA_DATA_VALUE, struct.pack("=I", SOCCR_MARK))
    compare = _expression(
        "cmp",
        _number(NFTA_CMP_SREG, NFT_REG_1)
        + _number(NFTA_CMP_OP, NFT_CMP_EQ)
        + _nested(NFTA_CMP_DATA, mark),
    )
    verdict = _nested(NFTA_DATA_VERDICT, _number(NFTA_VERDICT_CODE, NF_ACCEPT))
    accept = _expression(
        "immediate",
        _number(NFTA_IMMEDIATE_DREG, NFT_REG_VERDICT) + _nested(NFTA_IMMEDIATE_DATA, verdict),
    )
    return (
        _string(NFTA_RULE_TABLE, TABLE)
        + _string(NFTA_RULE_CHAIN, chain)
        + _nested(NFTA_RULE_EXPRESSIONS, *(() if any_mark else (meta, compare)), accept)
    )


def _expression(name: str, data: bytes) -> bytes:
    return _nested(NFTA_LIST_ELEM, _string(NFTA_EXPR_NAME, name), _nested(NFTA_EXPR_DATA, data))


def _nft(kind: int, flags: int, body: bytes) -> "tuple[int, int, bytes]":
    family = struct.pack("=BBH", NFPROTO_INET, 0, 0)
    return (NFNL_SUBSYS_NFTABLES << 8) | kind, flags, family + body


def _message(kind: int, flags: int, sequence: int, body: bytes) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, flags, sequence, 0) + body


def _transact(namespace: int, messages: "list[tuple[int, int, bytes]]") -> None:
    """One nftables batch: all of it or nothing."""
    edge = struct.pack("=BB", 0, 0) + struct.pack(">H", NFNL_SUBSYS_NFTABLES)
    batch = [_message(NFNL_MSG_BATCH_BEGIN, NLM_F_REQUEST, 0, edge)]
    for number, (kind, flags, body) in enumerate(messages, 1):
        batch.append(_message(kind, NLM_F_REQUEST | NLM_F_ACK | flags, number, body))
    batch.append(_message(NFNL_MSG_BATCH_END, NLM_F_REQUEST, len(messages) + 1, edge))
    _exchange(namespace, NETLINK_NETFILTER, b"".join(batch), len(messages))


def _request(namespace: int, protocol: int, kind: int, body: bytes) -> None:
    _exchange(namespace, protocol, _message(kind, NLM_F_REQUEST | NLM_F_ACK, 1, body), 1)


def _exchange(namespace: int, protocol: int, data: bytes, answers: int) -> None:
    """Send and wait until the kernel has acknowledged every message, or refused one."""
    raw = _socket.SOCK_RAW | _socket.SOCK_CLOEXEC
    with Inside(namespace):  # a socket belongs for ever to the namespace it was made in
        channel = _socket.socket(_socket.AF_NETLINK, raw, protocol)
    try:
        channel.settimeout(10)
        channel.sendto(data, (0, 0))
        while answers > 0:
            answers -= _acknowledged(channel.recv(1 << 16))
    finally:
        channel.close()


def _acknowledged(data: bytes) -> int:
    count = 0
    while len(data) >= 16:
        length, kind = struct.unpack_from("=IH", data)
        if length < 16 or length > len(data):
            raise OSError(errno.EBADMSG, os.strerror(errno.EBADMSG), "netlink")
        if kind == NLMSG_ERROR:
            (code,) = struct.unpack_from("=i", data, 16)
            if code:
                raise OSError(-code, os.strerror(-code), "netlink")
            count += 1
        data = data[(length + 3) & ~3 :]
    return count
