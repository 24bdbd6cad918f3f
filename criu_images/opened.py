"""Images, opened: their entries, their parents; and a directory of them. Believes nothing; writes nothing.

Files are opened below the descriptor of their directory and without following links; the only link that is
followed is `parent`, and only to a place below `within`.
"""

import os
import stat
import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, BinaryIO, Self

from ocimig.criu_images import fields
from ocimig.criu_images.errors import BadImage
from ocimig.criu_images.fields import Table
from ocimig.criu_images.tables import COMMON, MAGICS, SERVICE
from ocimig.files import Fd

if TYPE_CHECKING:
    from ocimig.criu_images.pages import Lent, PageFile

ENTRY = 4 << 20  # the largest entry in bytes; real ones are kilobytes
_LONGEST_CHAIN = 64
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class Images:
    """The images of one checkpoint, wherever they lie; a `with` block closes them.

    Where that is says who derives from this: `names`, `exists`, `open`, `parent` and `close`, and what is to
    be told of memory that lies in no plain file. `kind` and `origin` are for whoever describes them.
    """

    kind = "directory"

    def __init__(self, path: str) -> None:
        self.path = path  # what people call it

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def origin(self) -> dict[str, Any]:
        """What the place where they lie says of them; plain values."""
        return {}

    def names(self) -> list[str]:
        """The names of the images, sorted."""
        raise NotImplementedError

    def exists(self, name: str) -> bool:
        """Whether there is anything of that name."""
        raise NotImplementedError

    def open(self, name: str) -> BinaryIO:
        """One of them, to be closed by the caller. Raises BadImage."""
        raise NotImplementedError

    def parent(self) -> "Images | None":
        """The images that these are based on, closed with these. Raises BadImage."""
        raise NotImplementedError

    def close(self) -> None:
        """Give back what is held."""
        raise NotImplementedError

    def pages(self, number: int) -> "PageFile | None":
        """The pages of that number, where they are not simply a file that open() opens."""
        return None

    def lent(self, name: str) -> "Lent | None":
        """Who has what was left out of the list of pages `name`; nobody, as far as images know."""
        return None

    def refusal(self, name: str, reason: object) -> BadImage:
        """The error that says what is wrong with one of its files."""
        return BadImage(path=os.path.join(self.path, name), reason=reason)

    def read(self, name: str, limit: int) -> bytes:
        """A whole file of at most `limit` bytes. Raises BadImage."""
        with self.open(name) as file:
            data = file.read(limit + 1)
        if len(data) > limit:
            raise self.refusal(name, f"it is larger than {limit} bytes")
        return data

    def records(self, name: str, kind: str, limit: int = ENTRY) -> Iterator[bytes]:
        """Every entry of an image, undecoded, none larger than `limit` bytes. Raises BadImage."""
        for _, record in self.placed(name, kind, limit):
            yield record

    def placed(self, name: str, kind: str, limit: int = ENTRY) -> Iterator[tuple[int, bytes]]:
        """The same with where in the file each begins (its size comes first)."""
        with self.open(name) as file:
            head = {"inventory": (MAGICS[kind],), "stats": (SERVICE, MAGICS[kind])}
            wanted = head.get(kind, (COMMON, MAGICS[kind]))
            if file.read(4 * len(wanted)) != struct.pack(f"<{len(wanted)}I", *wanted):
                raise self.refusal(name, f"it does not begin as CRIU's {kind} image")
            at = 4 * len(wanted)
            while size := file.read(4):
                length = int.from_bytes(size, "little")
                if len(size) < 4:
                    raise self.refusal(name, "it ends in the middle of an entry")
                if length > limit:
                    raise self.refusal(name, f"an entry of {length} bytes, more than {limit}")
                record = file.read(length)
                if len(record) != length:
                    raise self.refusal(name, "it ends in the middle of an entry")
                yield at, record
                at += 4 + length

    def each(self, name: str, kind: str, table: Table) -> Iterator[dict[str, Any]]:
        """Every entry of an image, decoded. Raises BadImage."""
        for record in self.records(name, kind):
            yield self.decoded(name, record, table)

    def only(self, name: str, kind: str, table: Table) -> dict[str, Any]:
        """The entry of an image that has one. Raises BadImage."""
        for entry in self.each(name, kind, table):
            return entry
        raise self.refusal(name, "it is empty")

    def maybe(self, name: str, kind: str, table: Table) -> dict[str, Any] | None:
        """The same, or nothing where there is no such file."""
        return self.only(name, kind, table) if self.exists(name) else None

    def decoded(self, name: str, record: bytes, table: Table) -> dict[str, Any]:
        """One entry. Raises BadImage."""
        try:
            return fields.parse(record, table)
        except ValueError as error:
            raise self.refusal(name, error) from None


class ImageDirectory(Images):
    """One directory with images; a `with` block closes it and the parents that were opened.

    `within` is the directory that parents have to lie in; by default the one that this one lies in.
    """

    def __init__(self, path: str, within: str = "") -> None:
        super().__init__(path)
        self._real = os.path.realpath(path)
        self._within = os.path.realpath(within) if within else os.path.dirname(self._real)
        self._depth = 0
        self._parent: ImageDirectory | None = None
        try:
            self.fd = Fd(os.open(path, _DIRECTORY))
        except OSError as error:
            reason = "there is no such directory"
            if not isinstance(error, FileNotFoundError):
                reason = (error.strerror or str(error)).lower()
            raise BadImage(path=path, reason=reason) from None

    def close(self) -> None:
        """Close it and its parents."""
        self.fd.close()
        if self._parent is not None:
            self._parent.close()

    def names(self) -> list[str]:
        """The names of its images, sorted."""
        with os.scandir(self.fd.number) as found:
            return sorted(entry.name for entry in found if entry.name.endswith(".img"))

    def exists(self, name: str) -> bool:
        """Whether there is anything of that name."""
        try:
            os.stat(name, dir_fd=self.fd.number, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True

    def open(self, name: str) -> BinaryIO:
        """A regular file of the directory. Raises BadImage."""
        try:
            fd = Fd(os.open(name, _FILE, dir_fd=self.fd.number))
        except FileNotFoundError:
            raise self.refusal(name, "it is missing") from None
        except OSError as error:
            raise self.refusal(name, (error.strerror or str(error)).lower()) from None
        if not stat.S_ISREG(os.fstat(fd.number).st_mode):
            fd.close()
            raise self.refusal(name, "it is no regular file")
        return open(fd.release(), "rb")

    def parent(self) -> "ImageDirectory | None":
        """What `parent` leads to, opened once; nothing where there is no such link or it leads to nothing.
        Raises BadImage where it is absolute, leads out of `within`, or the chain has more than 64 links."""
        if self._parent is not None:
            return self._parent
        try:
            link = os.readlink("parent", dir_fd=self.fd.number)
        except FileNotFoundError:
            return None
        except OSError:
            raise self.refusal("parent", "it is no link") from None
        if os.path.isabs(link):
            raise self.refusal("parent", "it is an absolute link")
        target = os.path.normpath(os.path.join(self._real, link))
        if os.path.commonpath([target, self._within]) != self._within:
            reason = f"it leads out of {self._within}; --within can name a directory around both"
            raise self.refusal("parent", reason)
        if self._depth + 1 > _LONGEST_CHAIN:
            raise self.refusal("parent", "its parents form a ring, or are too many")
        self._parent = self._opened(target)
        return self._parent

    def _opened(self, target: str) -> "ImageDirectory | None":
        """Every part of the way below `within` is a directory, none a link."""
        flags = _DIRECTORY | os.O_PATH  # who may pass through a directory may not be let to list it
        fd = Fd(-1)
        try:
            fd = Fd(os.open(self._within, flags))
            for part in os.path.relpath(target, self._within).split("/"):
                inner = os.open(part, flags | os.O_NOFOLLOW, dir_fd=fd.number)
                fd.close()
                fd = Fd(inner)
        except FileNotFoundError:
            fd.close()
            return None
        except OSError as error:
            fd.close()
            raise self.refusal("parent", f"{target!r}: {(error.strerror or '').lower()}") from None
        found = ImageDirectory.__new__(ImageDirectory)
        found.path, found._real, found._within = target, target, self._within
        found._depth, found._parent, found.fd = self._depth + 1, None, fd
        return found
