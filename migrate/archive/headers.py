"""A tar archive read member by member, each bounded, from a stream of bytes. Writes nothing.

Nothing a header says is believed: numbers may not be negative, names are bounded, and a member that
cannot be told apart from an attack is refused with the whole archive.
"""

from collections.abc import Iterator

from ocimig.migrate.archive.errors import ArchiveBroken, ArchiveRefused
from ocimig.migrate.archive.limits import Limits
from ocimig.migrate.archive.members import (
    BLOCK,
    DIRECTORY,
    FILE,
    HARD_LINK,
    LETTERS,
    SOCKET,
    TYPE,
    XATTR,
    Member,
)
from ocimig.migrate.archive.packing import Unpacked

_TYPES = {letter: type_ for type_, letter in LETTERS.items() if type_ != SOCKET}
_TYPES |= {b"\0": FILE, b"7": FILE}
_PAX, _GLOBAL, _LONG_NAME, _LONG_LINK = b"x", b"g", b"L", b"K"
_SPARSE = b"GNU.sparse."
_PIECE = 1 << 17
_ZERO = b"\0" * BLOCK
_PADDING = 1 << 20  # zeros that may follow the end


class Reader:
    """Members in order. Each has to be asked for its data before the next, or it is passed over."""

    def __init__(self, stream: Unpacked, limits: Limits, shown: str) -> None:
        self._stream = stream
        self._limits = limits
        self._shown = shown
        self._left = 0  # bytes of the current member that were not read, without padding
        self._pad = 0
        self._member = Member(b"")
        self._metadata = 0
        self._seen = 0
        self._held = 0

    def refusal(self, reason: str) -> ArchiveRefused:
        """An error about this archive."""
        return ArchiveRefused(path=self._shown, reason=reason)

    def members(self) -> Iterator[Member]:
        """Every member. Raises ArchiveRefused, ArchiveBroken."""
        while True:
            member = self._next()
            if member is None:
                return
            self._seen += 1
            if self._seen > self._limits.members:
                raise self.refusal(f"it has more than {self._limits.members} members")
            self._held += member.size
            if member.size > self._limits.file or self._held > self._limits.total:
                raise self.refusal(f"{member.shown} says it has {member.size} bytes")
            self._member = member
            yield member
            self._skip()

    def data(self) -> Iterator[tuple[int, bytes]]:
        """The data of the current member: (offset, bytes) in rising order; holes are left out."""
        member = self._member
        if not member.sparse:
            offset = 0
            while self._left:
                piece = self._take(min(self._left, _PIECE))
                yield offset, piece
                offset += len(piece)
            return
        for start, length in self._map(member):
            end = start + length
            while start < end:
                piece = self._take(min(end - start, _PIECE))
                yield start, piece
                start += len(piece)
        if self._left:
            raise self.refusal(f"{member.shown} holds more than its map of holes says")

    # -- one header ------------------------------------------------------------------------------------

    def _next(self) -> Member | None:
        extended: dict[bytes, bytes] = {}
        while True:
            head = self._stream.read(BLOCK)
            if len(head) < BLOCK:
                raise self._broken("it ends without the mark of an end")
            if head == _ZERO:
                self._end()
                return None
            letter = self._checked(head)
            if letter not in (_PAX, _GLOBAL, _LONG_NAME, _LONG_LINK):
                return self._made(head, letter, extended)
            size = self._number(head[124:136], "a size")
            if size > self._limits.extended:
                raise self.refusal(f"a header has {size} bytes")
            self._metadata += size
            if self._metadata > self._limits.metadata:
                raise self.refusal("its names and attributes are too many")
            raw = self._exactly(size)
            self._exactly(-size % BLOCK)
            if letter == _LONG_NAME:
                extended[b"path"] = raw.rstrip(b"\0")
            elif letter == _LONG_LINK:
                extended[b"linkpath"] = raw.rstrip(b"\0")
            elif letter == _PAX:
                extended.update(self._records(raw))
            elif set(self._records(raw)) - {b"comment"}:
                raise self.refusal("a global header changes every member after it")

    def _checked(self, head: bytes) -> bytes:
        told = self._number(head[148:156], "a check sum")
        if told != sum(head) - sum(head[148:156]) + 8 * 32:
            raise self._broken("a header has a wrong check sum")
        return head[156:157]

    def _made(self, head: bytes, letter: bytes, extended: dict[bytes, bytes]) -> Member:
        type_ = _TYPES.get(letter)
        if type_ is None:
            raise self.refusal(f"a member has the type {letter!r}")
        raw = _text(head[0:100])
        if head[257:263] == b"ustar\0" and (prefix := _text(head[345:500])):
            raw = prefix + b"/" + raw
        path = extended.get(b"path", raw)
        stored = self._value(extended, b"size", self._number(head[124:136], "a size"))
        if type_ != FILE:
            if stored and type_ not in (DIRECTORY, HARD_LINK):
                raise self.refusal(f"a {type_} has {stored} bytes of data")
            if stored and type_ == DIRECTORY:
                raise self.refusal("a directory has data")
        size, sparse = stored, False
        if any(key.startswith(_SPARSE) for key in extended):
            path, size = self._sparse(extended, type_)
            sparse = True
        if type_ == FILE and path.endswith(b"/"):
            type_ = DIRECTORY
        if extended.get(TYPE) == b"socket" and not stored:
            type_ = SOCKET
        self._left, self._pad = stored, -stored % BLOCK
        return Member(
            _plain(path),
            type_,
            self._number(head[100:108], "a mode") & 0o7777,
            self._value(extended, b"uid", self._number(head[108:116], "an owner")),
            self._value(extended, b"gid", self._number(head[116:124], "a group")),
            0 if type_ == HARD_LINK else size,
            self._time(head, extended),
            extended.get(b"linkpath", _text(head[157:257])),
            self._number(head[329:337], "a device"),
            self._number(head[337:345], "a device"),
            tuple(
                (key[len(XATTR) :], value)
                for key, value in sorted(extended.items())
                if key.startswith(XATTR)
            ),
            stored,
            sparse,
        )

    def _sparse(self, extended: dict[bytes, bytes], type_: str) -> tuple[bytes, int]:
        version = (extended.get(_SPARSE + b"major"), extended.get(_SPARSE + b"minor"))
        name = extended.get(_SPARSE + b"name")
        if version != (b"1", b"0") or name is None or type_ != FILE:
            raise self.refusal("a sparse member is of a form that is not read here (only 1.0 is)")
        return name, self._value(extended, _SPARSE + b"realsize", -1)

    def _map(self, member: Member) -> list[tuple[int, int]]:
        """The map before the data of a sparse member: where data is, rising, inside the file."""
        text = b""

        def line() -> int:
            nonlocal text
            while b"\n" not in text:
                if len(text) > 40 or self._left < BLOCK:
                    raise self.refusal(f"the map of holes of {member.shown} is not one")
                text += self._take(BLOCK)
            number, _, text = text.partition(b"\n")
            return self._decimal(number, "a map of holes")

        count = line()
        if count > self._limits.runs:
            raise self.refusal(f"{member.shown} has {count} runs of data")
        runs: list[tuple[int, int]] = []
        end = 0
        for _ in range(count):
            start, length = line(), line()
            if start < end or start + length > member.size:
                raise self.refusal(f"the map of holes of {member.shown} leads outside it")
            end = start + length
            if length:
                runs.append((start, length))
        if sum(length for _, length in runs) != self._left:
            raise self.refusal(f"the map of holes of {member.shown} and its data differ")
        return runs

    # -- pieces ----------------------------------------------------------------------------------------

    def _records(self, raw: bytes) -> dict[bytes, bytes]:
        found: dict[bytes, bytes] = {}
        position = 0
        while position < len(raw):
            space = raw.find(b" ", position, position + 8)
            if space < 0:
                raise self._broken("an extended header is torn")
            length = self._decimal(raw[position:space], "an extended header")
            end = position + length
            key, equals, value = raw[space + 1 : end - 1].partition(b"=")
            if end > len(raw) or raw[end - 1 : end] != b"\n" or not equals or space >= end:
                raise self._broken("an extended header is torn")
            if not key or b"\0" in key or (b"\0" in value and not key.startswith(XATTR)):
                raise self.refusal("an extended header holds a NUL")
            found[key] = value
            position = end
        return found

    def _time(self, head: bytes, extended: dict[bytes, bytes]) -> int:
        text = extended.get(b"mtime")
        if text is None:
            return self._number(head[136:148], "a time", negative=True) * 10**9
        negative = text.startswith(b"-")
        seconds, _, fraction = text.removeprefix(b"-").partition(b".")
        value = self._decimal(seconds, "a time") * 10**9
        value += self._decimal(fraction[:9].ljust(9, b"0"), "a time")
        if value >= 1 << 62:
            raise self.refusal("a time is beyond what can be")
        return -value if negative else value

    def _value(self, extended: dict[bytes, bytes], key: bytes, usual: int) -> int:
        value = usual if key not in extended else self._decimal(extended[key], key.decode())
        if not 0 <= value < 1 << 62:
            raise self.refusal(f"{key.decode()} of a member is not a number that can be")
        return value

    def _decimal(self, text: bytes, what: str) -> int:
        if not text.isdigit() or len(text) > 19:
            raise self.refusal(f"{what} is {text[:20]!r}")
        return int(text)

    def _number(self, field: bytes, what: str, *, negative: bool = False) -> int:
        if field[0] & 0x80:  # GNU: a binary number, in two's complement
            value = int.from_bytes(field, "big", signed=False) - (1 << (len(field) * 8 - 1))
            if field[0] & 0x40:
                value -= 1 << (len(field) * 8 - 1)
            if not (-(1 << 33) if negative else 0) <= value < 1 << 62:
                raise self.refusal(f"{what} is {value}")
            return value
        text = field.strip(b" \0")
        if not text:
            return 0
        if any(byte not in b"01234567" for byte in text):
            raise self._broken(f"{what} is {text!r}")
        return int(text, 8)

    def _take(self, size: int) -> bytes:
        self._left -= size
        return self._exactly(size)

    def _skip(self) -> None:
        while self._left:
            self._take(min(self._left, _PIECE))
        self._exactly(self._pad)
        self._pad = 0

    def _exactly(self, size: int) -> bytes:
        data = self._stream.read(size) if size else b""
        if len(data) != size:
            raise self._broken("it ends early")
        return data

    def _end(self) -> None:
        """After the mark of the end come zeros, if anything."""
        seen = 0
        while data := self._stream.read(_PIECE):
            seen += len(data)
            if data.count(0) != len(data) or seen > _PADDING:
                raise self.refusal("something follows its end")
        if seen < BLOCK:
            raise self._broken("the mark of its end is torn")

    def _broken(self, reason: str) -> ArchiveBroken:
        return ArchiveBroken(path=self._shown, reason=reason)


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _plain(path: bytes) -> bytes:
    """Without the "./" before and the slash behind that tar programs add; the rest is not touched."""
    while path.startswith(b"./"):
        path = path[2:].lstrip(b"/") if path[2:3] == b"/" else path[2:]
    path = path[:-1] if path.endswith(b"/") and path != b"/" else path
    return b"" if path == b"." else path
