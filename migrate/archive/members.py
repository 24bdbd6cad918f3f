"""One member of a tar archive as a value, and its header as bytes. Pure.

POSIX ustar with PAX extended headers where ustar is too small: long or odd names, large numbers,
fractions of a second, extended attributes (SCHILY.xattr.*), holes (GNU.sparse.* 1.0). Read are also GNU's
long names. A socket, which tar has no type for, is an empty file with OCIMIG.type=socket.
"""

from collections.abc import Iterable
from dataclasses import dataclass

BLOCK = 512
FILE, HARD_LINK, SYMLINK, CHARACTER, DEVICE, DIRECTORY, FIFO, SOCKET = (
    "file", "hard link", "symbolic link", "character device", "block device", "directory", "fifo",
    "socket",
)  # fmt: skip
LETTERS = {FILE: b"0", HARD_LINK: b"1", SYMLINK: b"2", CHARACTER: b"3", DEVICE: b"4",
           DIRECTORY: b"5", FIFO: b"6", SOCKET: b"0"}  # fmt: skip
XATTR = b"SCHILY.xattr."
TYPE = b"OCIMIG.type"
_NANO = 10**9


@dataclass(frozen=True, slots=True)
class Member:
    """`path` has no slash at its ends; b"" is the directory itself. `size` is without holes filled
    away: what a reader of the file sees; `stored` is what the archive holds of it."""

    path: bytes
    type: str = FILE
    mode: int = 0o600
    uid: int = 0
    gid: int = 0
    size: int = 0
    mtime_ns: int = 0
    target: bytes = b""
    major: int = 0
    minor: int = 0
    attributes: tuple[tuple[bytes, bytes], ...] = ()
    stored: int = 0
    sparse: bool = False

    @property
    def shown(self) -> str:
        """The path for a person: one line whatever is in it."""
        return legible(self.path.decode("utf-8", "backslashreplace")) or "."


def legible(text: str) -> str:
    """Words from outside as one line that draws nothing on a terminal, of 300 letters at most."""
    text = text if text.isprintable() else repr(text)[1:-1]
    return text if len(text) <= 300 else f"{text[:300]}…"


def padding(size: int) -> bytes:
    """What fills a member up to a whole block."""
    return b"\0" * (-size % BLOCK)


def pack(member: Member) -> bytes:
    """Its header, with a PAX header before it where it needs one."""
    path = member.path + (b"/" if member.type == DIRECTORY and member.path else b"")
    path = path or b"./"
    extra: list[tuple[bytes, bytes]] = []
    name, link = path, member.target
    if member.sparse:
        extra += [(b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"),
                  (b"GNU.sparse.name", path), (b"GNU.sparse.realsize", b"%d" % member.size)]  # fmt: skip
        name = b"GNUSparseFile.0/" + path
    if _odd(name) and not member.sparse:
        extra.append((b"path", path))
    if _odd(link):
        extra.append((b"linkpath", link))
    seconds, rest = divmod(member.mtime_ns, _NANO)
    if rest or seconds < 0 or seconds >= 1 << 33:
        extra.append((b"mtime", _decimal(member.mtime_ns)))
    for key, value in ((b"uid", member.uid), (b"gid", member.gid)):
        if value >= 1 << 21:
            extra.append((key, b"%d" % value))
    if member.stored >= 1 << 33:
        extra.append((b"size", b"%d" % member.stored))
    if member.type == SOCKET:
        extra.append((TYPE, b"socket"))
    extra += [(XATTR + key, value) for key, value in member.attributes]
    before = b""
    if extra:
        if any(not _utf8(value) for key, value in extra if key in (b"path", b"linkpath")):
            extra.insert(0, (b"hdrcharset", b"BINARY"))
        records = b"".join(record(key, value) for key, value in extra)
        before = _block(b"PaxHeaders/" + _ascii(name)[:80], b"x", size=len(records))
        before += records + padding(len(records))
    return before + _block(
        _ascii(name)[:100], LETTERS[member.type], mode=member.mode & 0o7777,
        uid=member.uid, gid=member.gid, size=member.stored, seconds=seconds, link=_ascii(link)[:100],
        major=member.major, minor=member.minor,
    )  # fmt: skip


def record(key: bytes, value: bytes) -> bytes:
    """One line of a PAX header; its length counts itself."""
    rest = b" " + key + b"=" + value + b"\n"
    length = len(rest) + 1
    while len(b"%d" % length) + len(rest) != length:
        length = len(b"%d" % length) + len(rest)
    return b"%d" % length + rest


def sparse_map(runs: Iterable[tuple[int, int]]) -> bytes:
    """Offsets and lengths of what is data, as version 1.0 puts it before the data: padded."""
    pairs = list(runs)
    text = b"%d\n" % len(pairs) + b"".join(b"%d\n%d\n" % pair for pair in pairs)
    return text + padding(len(text))


def _block(
    name: bytes, letter: bytes, *, mode: int = 0o644, uid: int = 0, gid: int = 0, size: int = 0,
    seconds: int = 0, link: bytes = b"", major: int = 0, minor: int = 0,
) -> bytes:  # fmt: skip
    def octal(value: int, width: int) -> bytes:
        small = value if 0 <= value < 8 ** (width - 1) else 0  # the PAX header has the true one
        return b"%0*o\0" % (width - 1, small)

    fields = (
        name.ljust(100, b"\0"), octal(mode, 8), octal(uid, 8), octal(gid, 8), octal(size, 12),
        octal(seconds, 12), b" " * 8, letter, link.ljust(100, b"\0"), b"ustar\x0000", b"\0" * 64,
        octal(major, 8), octal(minor, 8),
    )  # fmt: skip
    head = b"".join(fields).ljust(BLOCK, b"\0")
    return head[:148] + b"%06o\0 " % sum(head) + head[156:]


def _odd(name: bytes) -> bool:
    return len(name) > 100 or not name.isascii() or b"\n" in name


def _ascii(name: bytes) -> bytes:
    return bytes(byte if 32 <= byte < 127 else 95 for byte in name)


def _utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def _decimal(nanoseconds: int) -> bytes:
    """Seconds with nine decimals at most; exact, also before 1970."""
    sign, rest = (b"-", -nanoseconds) if nanoseconds < 0 else (b"", nanoseconds)
    seconds, fraction = divmod(rest, _NANO)
    return sign + b"%d" % seconds + (b".%09d" % fraction).rstrip(b"0").rstrip(b".")
