"""Checkpoints made by hand: CRIU's images from the tables that read them, sparse where memory is large."""

import os
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ocimig.criu_images import tables
from ocimig.criu_images.fields import Table
from ocimig.criu_images.pagemap import LAZY, PAGE, PARENT, PRESENT
from ocimig.criu_images.tables import COMMON, MAGICS, SERVICE

Run = tuple[int, int, int]  # address, pages, flags
STACK = 0x7FFD_0000_0000
HEAP = 0x1000_0000
LIBRARY = 0x7F00_0000_0000
ANONYMOUS, FILE, SHARED = 1 | 1 << 9, 1 | 1 << 6, 1 | 1 << 8

__all__ = ["LAZY", "PAGE", "PARENT", "PRESENT", "Checkpoint", "encode", "message"]


def varint(value: int) -> bytes:
    """As protobuf has it; negative numbers take ten bytes."""
    value &= (1 << 64) - 1
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])


def message(values: dict[str, Any], table: Table) -> bytes:
    """A message from the names of its table, fields in order of their numbers."""
    parts = []
    for number, (name, kind, many, inner) in sorted(table.fields.items()):
        if name not in values:
            continue
        each = values[name] if many else [values[name]]
        parts += [encode(number, kind, value, inner) for value in each]
    return b"".join(parts)


def encode(number: int, kind: str, value: Any, inner: Table | None = None) -> bytes:
    """One field."""
    if inner is None and isinstance(value, int):
        value = (value << 1) ^ (value >> 63) if kind == "s" else value
        return varint(number << 3) + varint(value)
    if inner is not None:
        value = message(value, inner)
    data = value.encode() if isinstance(value, str) else bytes(value)
    return varint(number << 3 | 2) + varint(len(data)) + data


def framed(kind: str, records: Iterable[bytes]) -> bytes:
    """A whole image file."""
    heads = {"inventory": (MAGICS["inventory"],), "stats": (SERVICE, MAGICS["stats"])}
    head = heads.get(kind, (COMMON, MAGICS[kind]))
    return struct.pack(f"<{len(head)}I", *head) + b"".join(
        struct.pack("<I", len(record)) + record for record in records
    )


class Checkpoint:
    """A directory that grows file by file; what is written first may be written again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        self.image("inventory.img", "inventory", tables.INVENTORY, {"img_version": 2})
        self.tree((1, 0))

    def image(self, name: str, kind: str, table: Table, *entries: dict[str, Any]) -> None:
        """Write one file."""
        (self.path / name).write_bytes(framed(kind, (message(each, table) for each in entries)))

    def tree(self, *lines: tuple[int, int]) -> None:
        """Processes as (pid, parent), each with a core image and no memory."""
        processes = [
            {"pid": pid, "ppid": parent, "pgid": pid, "sid": 1, "threads": [pid]}
            for pid, parent in lines
        ]
        self.image("pstree.img", "pstree", tables.PSTREE, *processes)
        for pid, _ in lines:
            self.core(pid)

    def core(self, pid: int, name: str = "prog", **thread: Any) -> None:
        """The core image of a process that runs, with the ids that are its pid."""
        registers = {each: number for number, each in enumerate(tables.X86_REGISTERS, 1)}
        entry = {
            "mtype": 1,
            "thread_info": {"gpregs": registers, "fpregs": {"cwd": 0x37F, "xmm_space": [7] * 64}},
            "tc": {"task_state": 1, "comm": name, "rlimits": {"rlimits": [{"cur": 5, "max": 6}]}},
            "ids": {"files_id": pid, "uts_ns_id": 9},
            "thread_core": {"creds": {"uid": 7, "euid": 7, "cap_eff": [1 << 21, 0]}, **thread},
        }
        self.image(f"core-{pid}.img", "core", tables.CORE, entry)

    def memory(
        self, pid: int, runs: Iterable[Run], vmas: Iterable[dict[str, Any]], **mm: Any
    ) -> None:
        """The mappings and the list of pages of a process; pages-<pid>.img is made sparse, as long as it
        has to be, unless it is there."""
        head = {"mm_start_stack": STACK, "mm_saved_auxv": [6, PAGE, 0, 0], **mm}
        body = message(head, tables.MM) + b"".join(
            encode(tables.MM_VMAS, "b", message(vma, tables.VMA)) for vma in vmas
        )
        (self.path / f"mm-{pid}.img").write_bytes(framed("mm", [body]))
        runs = list(runs)
        write_pagemap(self.path / f"pagemap-{pid}.img", pid, runs)
        size = sum(pages for _, pages, flags in runs if flags & PRESENT) * PAGE
        with open(self.path / f"pages-{pid}.img", "ab") as file:
            os.truncate(file.fileno(), size)

    def fill(self, pid: int, offset: int, data: bytes) -> None:
        """Write into the pages of a process, at an offset in their file."""
        with open(self.path / f"pages-{pid}.img", "r+b") as file:
            file.seek(offset)
            file.write(data)

    def files(self, pid: int, entries: dict[int, dict[str, Any]]) -> None:
        """Descriptors by number, each with the entry of its open file, whose number is pid * 1000 + fd."""
        opened = [{"id": pid * 1000 + fd, **entry} for fd, entry in entries.items()]
        self.image("files.img", "files", tables.FILE, *opened)
        lines = [
            {"id": pid * 1000 + fd, "fd": fd, "type": entry["type"], "flags": fd & 1}
            for fd, entry in entries.items()
        ]
        self.image(f"fdinfo-{pid}.img", "fdinfo", tables.FDINFO, *lines)


def write_pagemap(path: Path, number: int, runs: Iterable[Run]) -> None:
    """A list of pages, written as it comes."""
    with open(path, "wb") as file:
        file.write(framed("pagemap", [encode(1, "u", number)]))
        records = pagemap_records(runs)
        file.writelines(struct.pack("<I", len(record)) + record for record in records)


def pagemap_records(runs: Iterable[Run]) -> Iterator[bytes]:
    """As CRIU 4.2 writes them."""
    for start, pages, flags in runs:
        yield b"".join(
            encode(number, "u", value)
            for number, value in ((1, start), (2, 0), (4, flags), (5, pages))
        )


def vma(
    start: int, end: int, status: int = ANONYMOUS, file: int = 0, prot: int = 3
) -> dict[str, Any]:
    """A mapping."""
    return {"start": start, "end": end, "shmid": file, "prot": prot, "flags": 2, "status": status}


def plain(start: int, end: int, status: int = ANONYMOUS) -> dict[str, Any]:
    """A mapping of private anonymous memory with the flags that the kernel gives it: it can come late."""
    return {**vma(start, end, status), "flags": 0x22}  # MAP_PRIVATE, MAP_ANONYMOUS


def stack(checkpoint: Checkpoint, pid: int, words: bytes) -> None:
    """A process with a stack of four pages, of which two are saved: `words` is its command line."""
    areas = [vma(STACK - 3 * PAGE, STACK + PAGE)]
    runs = [(STACK - PAGE, 2, PRESENT)]
    checkpoint.memory(pid, runs, areas, mm_arg_start=STACK - 8, mm_arg_end=STACK - 8 + len(words))
    checkpoint.fill(pid, PAGE - 8, words)
