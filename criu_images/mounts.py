"""The mounts of a checkpoint that CRIU left to whoever restores it, as its images name them. Reads only."""

import os
import re
from dataclasses import dataclass

from ocimig.criu_images import binary, entries
from ocimig.criu_images.errors import BadImage

_FILE = re.compile(r"mountpoints-\d+\.img")
_MOST = 100_000
_BAD = ("]", "\0", "\n")


@dataclass(frozen=True, slots=True)
class LeftMount:
    """`key` is the name that CRIU asks for, `target` the place inside the container."""

    key: str
    target: str


def left_to_us(directory: str, program: str) -> list[LeftMount]:
    """Every external mount of the images in `directory`, each key and target once, in their order.

    Raises BadImage for a name that cannot be one: it would become an option of CRIU's.
    """
    messages = binary.image_messages(program, "mnt_pb2")
    found: dict[LeftMount, None] = {}
    for name in sorted(filter(_FILE.fullmatch, os.listdir(directory))):
        path = os.path.join(directory, name)
        _, *read = entries.read(path)
        if len(read) > _MOST:
            raise BadImage(path=path, reason=f"it has {len(read)} mounts")
        for data in read:
            entry = messages.mnt_entry()
            try:
                entry.ParseFromString(data)
            except ValueError as error:
                raise BadImage(path=path, reason=str(error)) from None
            key, target = entry.ext_key, os.path.normpath("/" + entry.mountpoint.lstrip("./"))
            if any(bad in key for bad in _BAD) or not key.isprintable():
                raise BadImage(path=path, reason=f"a mount is named {key!r}")
            if key and key != "/":
                found[LeftMount(key, target)] = None
    return list(found)
