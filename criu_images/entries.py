"""CRIU's image files as entries: a magic, then "u32 size, protobuf" again and again. Copies, never edits
in place."""

import os
import struct
from collections.abc import Iterator

from ocimig.criu_images import binary
from ocimig.criu_images.errors import BadImage

_LARGEST = 64 << 20  # of one entry; real ones are kilobytes
_COMMON = 0x54564319
_FLAGS_KEPT = os.O_ACCMODE | os.O_APPEND | os.O_NONBLOCK | os.O_SYNC | os.O_DSYNC | os.O_DIRECTORY


def read(path: str) -> Iterator[bytes]:
    """The head of the file (its magics) first, then each entry. Raises BadImage on a torn one."""
    with open(path, "rb") as file:
        head = file.read(8)
        if len(head) < 8 or struct.unpack_from("<I", head)[0] != _COMMON:
            raise BadImage(path=path, reason="it does not begin as an image of CRIU's")
        yield head
        while size := file.read(4):
            length = struct.unpack("<I", size)[0] if len(size) == 4 else _LARGEST + 1
            entry = file.read(length) if length <= _LARGEST else b""
            if len(entry) != length:
                raise BadImage(path=path, reason="it ends in the middle of an entry")
            yield entry


def write(path: str, head: bytes, entries: list[bytes]) -> None:
    """Replace the file."""
    temporary = f"{path}.new"
    with open(temporary, "wb") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(head)
        file.writelines(struct.pack("<I", len(entry)) + entry for entry in entries)
    os.rename(temporary, path)


def warm(program: str) -> None:
    """Load the messages beforehand: 30 ms that belong outside a freeze."""
    binary.image_messages(program, "fdinfo_pb2")


def loosen_host_files(directory: str, program: str) -> None:
    """Files of the host may grow between checkpoint and restore (a log does), or another may take their
    place: CRIU would refuse them for their size, their mode or a flag such as O_NOFOLLOW."""
    messages = binary.image_messages(program, "fdinfo_pb2")
    path = os.path.join(directory, "files.img")
    head, *entries = read(path)
    for number, data in enumerate(entries):
        entry = messages.file_entry()
        entry.ParseFromString(data)
        if entry.HasField("reg") and entry.reg.ext:
            entry.reg.ClearField("size")
            entry.reg.ClearField("mode")
            entry.reg.flags &= _FLAGS_KEPT
            entries[number] = entry.SerializeToString()
    write(path, head, entries)
