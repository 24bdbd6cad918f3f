"""memory: the memory of a process in a checkpoint, listed, searched, extracted, or as a core file."""

import re
import sys
from typing import NoReturn

from ocimig.cli.shown import amount, shown
from ocimig.cli.verbs import Call
from ocimig.criu_images import contents, corefile, mappings, tree
from ocimig.criu_images.descriptors import Files
from ocimig.criu_images.opened import Images
from ocimig.errors import SystemFailure, Usage

_ACTIONS = ("list", "search", "search-hex", "search-regex", "extract", "core")


def memory(call: Call) -> int:
    """One of the actions; 1 where a search found nothing, as grep(1) has it."""
    from ocimig.cli import inspect_source

    asked = [action for action in _ACTIONS if call.given(action)]
    if len(asked) > 1:
        _misuse(f"--{asked[0]} and --{asked[1]} exclude each other")
    if not call.number("pid"):
        _misuse("--pid is missing")
    if call.given("extract") != call.given("output"):
        _misuse("--extract and --output belong together")
    find = _finder(call)
    with inspect_source.sources(call) as opened:
        directory = opened(call.arguments[0])
        pid = tree.process(directory, call.number("pid")).pid
        files = Files(directory)
        if find is not None:
            return _search(directory, pid, files, find, call.number("context", 16))
        if call.given("extract"):
            _extract(directory, pid, files, call.text("extract"), call.text("output"))
        elif call.given("core"):
            _core(directory, pid, files, call.text("core"))
        else:
            _list(directory, pid, files)
    return 0


def _misuse(reason: str) -> NoReturn:
    raise Usage(reason=reason, verb="memory")


def _finder(call: Call) -> contents.Finder | None:
    """What is searched for. Raises Usage."""
    if call.given("search-regex"):
        try:
            pattern = re.compile(call.text("search-regex").encode("utf-8", "surrogateescape"))
        except re.error as error:
            _misuse(f"--search-regex: {error}")
        return contents.expression(pattern)
    if call.given("search-hex"):
        try:
            wanted = bytes.fromhex(call.text("search-hex"))
        except ValueError:
            _misuse("--search-hex takes pairs of hexadecimal digits")
    elif call.given("search"):
        wanted = call.text("search").encode("utf-8", "surrogateescape")
    else:
        return None
    if not 0 < len(wanted) <= contents.LONGEST:
        _misuse(f"what is searched for has 1 to {contents.LONGEST} bytes")
    return contents.literal(wanted)


def _search(directory: Images, pid: int, files: Files, find: contents.Finder, context: int) -> int:
    code = 1
    for match in contents.search(directory, pid, files, find, max(0, context)):
        code = 0
        words = f"{_plain(match.before)}[{_plain(match.data)}]{_plain(match.behind)}"
        sys.stdout.write(
            f"{match.address:#x}  {shown(match.mapping.name) or 'anonymous'}  {words}\n"
        )
    return code


def _plain(data: bytes) -> str:
    return "".join(chr(byte) if 32 <= byte < 127 else "." for byte in data[: contents.LONGEST])


def _list(directory: Images, pid: int, files: Files) -> None:
    from ocimig.cli import inspect_document, inspect_text

    if mappings.has_memory(directory, pid):
        for each in mappings.counted(directory, pid, files):
            sys.stdout.write(inspect_text.mapping_line(inspect_document.counted(each)) + "\n")


def _extract(directory: Images, pid: int, files: Files, what: str, target: str) -> None:
    chosen = _range(what)
    ranges = [chosen] if chosen else contents.named(directory, pid, files, what)
    try:
        done = contents.extract(directory, pid, files, ranges, target)
    except OSError as error:
        raise SystemFailure.of(f"write {target}", error) from None
    said = f"{amount(done.written)} written to {shown(target)}"
    if done.holes:
        said += f"; {amount(done.holes)} of it are holes: zeros, or what the mapped file has there"
    sys.stdout.write(said + "\n")


def _range(what: str) -> tuple[int, int] | None:
    """START-END in hexadecimal, with or without 0x, or nothing where it is a name."""
    match = re.fullmatch(r"(?:0x)?([0-9a-f]{1,16})-(?:0x)?([0-9a-f]{1,16})", what, re.IGNORECASE)
    if match is None:
        return None
    start, end = int(match[1], 16), int(match[2], 16)
    if start >= end:
        _misuse("--extract: the range ends before it begins")
    return start, end


def _core(directory: Images, pid: int, files: Files, target: str) -> None:
    try:
        count = corefile.write(directory, pid, files, target)
    except OSError as error:
        raise SystemFailure.of(f"write {target}", error) from None
    program = files.path(mappings.layout(directory, pid).executable)
    sys.stdout.write(f"{count} segments; open it with: gdb {shown(program)} {shown(target)}\n")
