"""Where the kernel itself writes into a process that is being restored. Reads images, nothing else."""

import os
import re

from ocimig.criu_images import binary, entries
from ocimig.criu_images.errors import BadImage

_CORE = re.compile(r"core-[0-9]+\.img")
_LEAST = 32  # bytes of struct rseq (include/uapi/linux/rseq.h)


def areas(directory: str, program: str) -> list[tuple[int, int]]:
    """(address, bytes) of the areas for restartable sequences (rseq(2)) of all threads: the kernel notes the
    processor there whenever a thread returns to its program. Raises BadImage."""
    messages = binary.image_messages(program, "core_pb2")
    found = []
    for name in sorted(os.listdir(directory)):
        if not _CORE.fullmatch(name):
            continue
        path = os.path.join(directory, name)
        for data in list(entries.read(path))[1:]:
            core = messages.core_entry()
            try:
                core.ParseFromString(data)
            except ValueError as error:
                raise BadImage(path=path, reason=str(error)) from None
            area = core.thread_core.rseq_entry
            if area.rseq_abi_pointer:
                found.append((area.rseq_abi_pointer, max(_LEAST, area.rseq_abi_size)))
    return sorted(found)
