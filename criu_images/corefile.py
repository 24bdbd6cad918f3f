"""One process of a checkpoint as an ELF core file, for debuggers. x86-64 and arm64.

Layouts are those of elf(5), <linux/elfcore.h> and <sys/user.h>. Memory is written sparse. A segment without bytes in
the file is memory that is not in the images: of a mapped file, which a debugger reads itself, or held
elsewhere, which it then cannot read.
"""

import os
import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

from ocimig.criu_images import contents, mappings, tree
from ocimig.criu_images.descriptors import Files
from ocimig.criu_images.errors import NoCore
from ocimig.criu_images.opened import Images
from ocimig.criu_images.pagemap import PAGE
from ocimig.criu_images.pages import SAVED, Piece
from ocimig.criu_images.tables import X86_REGISTERS
from ocimig.files import Fd

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_HEADER = struct.Struct("<4sBBBB8xHHIQQQIHHHHHH")
_SEGMENT = struct.Struct("<IIQQQQQQ")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_NOTE = struct.Struct("<III")
_ET_CORE, _PT_LOAD, _PT_NOTE = 4, 1, 4
_MACHINES = {"x86_64": 62, "aarch64": 183}
_PN_XNUM = 0xFFFF
_NT_PRSTATUS, _NT_FPREGSET, _NT_PRPSINFO, _NT_AUXV, _NT_FILE = 1, 2, 3, 6, 0x46494C45
_STATES = {"running": "R", "stopped": "T", "dead": "Z", "zombie": "Z"}
_FLAGS = {"r": 4, "w": 2, "x": 1}
_MAPPED_FILES = 1 << 17
_LARGEST = 1 << 62


class Segment(NamedTuple):
    """A part of a mapping; `piece` is nothing where its bytes are not in the core file or are zeros."""

    start: int
    end: int
    flags: int
    in_file: bool
    piece: Piece | None


def write(directory: Images, pid: int, files: Files, target: str) -> int:
    """Write the core file of a process, which must not exist; how many segments it has.

    Raises NoCore, FileExistsError, BadImage.
    """
    process = tree.process(directory, pid)
    detail = tree.detail(directory, pid)
    if detail.machine not in _MACHINES:
        raise NoCore(pid=pid, reason=f"registers of {detail.machine} are not known here")
    if not mappings.has_memory(directory, pid):
        raise NoCore(pid=pid, reason="it is dead")
    notes = b"".join(_notes(directory, process, detail, files))
    sizes = [0, 1]  # bytes of memory, and segments with the one of the notes
    for each in segments(directory, pid, files):
        sizes[0] += each.end - each.start
        sizes[1] += 1
    if sizes[0] > _LARGEST:
        raise NoCore(pid=pid, reason="its memory is larger than a file can be")
    with Fd(os.open(target, _NEW, 0o600)) as output:
        try:
            _fill(output, sizes[1], notes, detail.machine, segments(directory, pid, files))
        except BaseException:
            os.unlink(target)
            raise
    return sizes[1] - 1


def _fill(output: int, count: int, notes: bytes, machine: str, found: Iterator[Segment]) -> None:
    table = _HEADER.size
    behind = table + count * _SEGMENT.size
    extended = count >= _PN_XNUM
    section = behind if extended else 0
    at_notes = behind + (_SECTION.size if extended else 0)
    offset = -(-(at_notes + len(notes)) // PAGE) * PAGE
    header = _HEADER.pack(
        b"\x7fELF", 2, 1, 1, 0, _ET_CORE, _MACHINES[machine], 1, 0, table, section, 0,
        _HEADER.size, _SEGMENT.size, min(count, _PN_XNUM), _SECTION.size, int(extended), 0,
    )  # fmt: skip
    os.pwrite(output, header, 0)
    if extended:  # more segments than the header can count: the first section says how many
        os.pwrite(output, _SECTION.pack(0, 0, 0, 0, 0, 0, 0, count, 0, 0), section)
    os.pwrite(output, notes, at_notes)
    lines = [_SEGMENT.pack(_PT_NOTE, 0, at_notes, 0, 0, len(notes), 0, 4)]
    for each in found:
        size = each.end - each.start
        kept = size if each.in_file else 0
        lines.append(_SEGMENT.pack(_PT_LOAD, each.flags, offset, each.start, 0, kept, size, PAGE))
        if each.piece is not None:
            contents.put(output, each.piece, offset)
        offset += kept
        if len(lines) == 1 << 10:
            os.pwrite(output, b"".join(lines), table)
            table += len(lines) * _SEGMENT.size
            lines.clear()
    os.pwrite(output, b"".join(lines), table)
    os.ftruncate(output, offset)


def segments(directory: Images, pid: int, files: Files) -> Iterator[Segment]:
    """The memory of the process, every byte of every mapping in one segment. Raises BadImage."""
    each = mappings.contents(directory, pid, files)
    waiting = next(each, None)
    for mapping in mappings.of(directory, pid, files):
        flags = sum(_FLAGS.get(letter, 0) for letter in mapping.protection)
        anonymous = mapping.backing in ("anonymous", "shared-object")
        at = mapping.start
        while waiting is not None and waiting[0].start == mapping.start:
            piece = waiting[1]
            if at < piece.start:
                yield Segment(at, piece.start, flags, anonymous, None)
            saved = piece.where == SAVED
            yield Segment(piece.start, piece.end, flags, saved, piece if saved else None)
            at = piece.end
            waiting = next(each, None)
        if at < mapping.end and mapping.name != "[vsyscall]":
            yield Segment(at, mapping.end, flags, anonymous, None)


# ---- notes


def _notes(
    directory: Images, process: tree.Process, detail: tree.Detail, files: Files
) -> Iterator[bytes]:
    threads = [process.pid, *(each for each in process.threads if each != process.pid)]
    for number, thread in enumerate(threads):
        core = tree.core(directory, thread)
        yield _note(_NT_PRSTATUS, _status(process, thread, core, detail.machine))
        if number == 0:
            yield _note(_NT_PRPSINFO, _about(directory, process, detail))
            auxv = mappings.layout(directory, process.pid).auxv
            yield _note(_NT_AUXV, struct.pack(f"<{len(auxv)}Q", *auxv))
            yield _note(_NT_FILE, _mapped(directory, process.pid, files))
        floating = core["thread_info"]["fpregs"] if core["thread_info"] else None
        if floating is not None:
            yield _note(_NT_FPREGSET, _floating(floating))


def _note(kind: int, data: bytes) -> bytes:
    name = b"CORE\0"
    padded = name.ljust(-(-len(name) // 4) * 4, b"\0") + data.ljust(-(-len(data) // 4) * 4, b"\0")
    return _NOTE.pack(len(name), len(data), kind) + padded


def _status(process: tree.Process, thread: int, core: dict[str, Any], machine: str) -> bytes:
    """struct elf_prstatus: no signal, no times."""
    group, session = process.group & 0x7FFFFFFF, process.session & 0x7FFFFFFF
    ids = struct.pack("<4i", thread, process.parent, group, session)
    return b"\0" * 32 + ids + b"\0" * 64 + _registers(process.pid, core, machine) + b"\0" * 8


def _registers(pid: int, core: dict[str, Any], machine: str) -> bytes:
    info = core["thread_info"] if machine == "x86_64" else core["ti_aarch64"]
    registers = info["gpregs"] if info is not None else None
    if registers is None:
        raise NoCore(pid=pid, reason="a thread has no registers in the images")
    if machine == "x86_64":
        if registers["mode"] == 2:
            raise NoCore(pid=pid, reason="it is a 32-bit program")
        return struct.pack("<27Q", *(registers[name] for name in X86_REGISTERS))
    general = (*registers["regs"], *[0] * 31)[:31]
    return struct.pack("<34Q", *general, registers["sp"], registers["pc"], registers["pstate"])


def _floating(found: dict[str, Any]) -> bytes:
    """struct user_fpregs_struct, which is what FXSAVE writes."""
    words = [each & 0xFFFFFFFF for each in (*found["st_space"], *[0] * 32)[:32]]
    words += [each & 0xFFFFFFFF for each in (*found["xmm_space"], *[0] * 64)[:64]]
    head = [found[name] & 0xFFFF for name in ("cwd", "swd", "twd", "fop")]
    masks = [found[name] & 0xFFFFFFFF for name in ("mxcsr", "mxcsr_mask")]
    return struct.pack("<4H2Q2I96I96x", *head, found["rip"], found["rdp"], *masks, *words)


def _about(directory: Images, process: tree.Process, detail: tree.Detail) -> bytes:
    """struct elf_prpsinfo."""
    rights = detail.credentials
    command = " ".join(tree.command(directory, process.pid)).encode("utf-8", "replace")
    letter = _STATES.get(detail.state, "R").encode()
    return struct.pack(
        "<bcbbxxxxQIIiiii16s80s", 0, letter, letter == b"Z", max(-20, min(19, detail.nice)), 0,
        rights.uids[0] & 0xFFFFFFFF, rights.gids[0] & 0xFFFFFFFF, process.pid, process.parent,
        process.group & 0x7FFFFFFF, process.session & 0x7FFFFFFF,
        detail.name.encode("utf-8", "replace")[:15], command[:79],
    )  # fmt: skip


def _mapped(directory: Images, pid: int, files: Files) -> bytes:
    """Which files are mapped where: counts, then start, end and offset in pages, then the names."""
    lines: list[bytes] = []
    names: list[bytes] = []
    for each in mappings.of(directory, pid, files):
        if each.backing == "file" and len(lines) < _MAPPED_FILES:
            lines.append(struct.pack("<3Q", each.start, each.end, each.offset // PAGE))
            names.append(each.name.encode("utf-8", "replace").replace(b"\0", b"?") + b"\0")
    return struct.pack("<2Q", len(lines), PAGE) + b"".join(lines) + b"".join(names)
