"""config.json from the file to a document that can be trusted. Never changes anything and never guesses.

Read, parse (`jsonio`), bring older forms up to date (`legacy`), check each field (`fields`), then what
ties fields together (`rules`). Every problem is listed with its JSON path, not only the first.
"""

import errno
import os

from ocimig import files, jsonio, log
from ocimig.errors import SystemFailure
from ocimig.runtime import fields, legacy, rules
from ocimig.runtime.errors import InvalidConfig, NoConfig

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ocimig.runtime.schema import Problems

MAX_SIZE = 16 << 20


def load(path: str) -> "dict[str, Any]":
    """The config.json at `path` in today's form, with every field checked. Raises InvalidConfig.

    Fields that are null are left out, and numbers that mean 0 when they are absent are filled in, so
    that nobody after this has to ask. Absent capabilities mean none at all, as in runc 1.1 and crun.
    """
    document = legacy.today(_parse(path))
    if problems := check(document) or _against_here(document):
        raise InvalidConfig.of(path, problems)
    for number, mount in enumerate(document.get("mounts", ())):
        if mount["destination"][:1] != "/":
            log.warning(
                f"mounts[{number}].destination: {mount['destination']} is relative, which is "
                "deprecated: it is read as relative to /"
            )
    complete(document)
    return document  # type: ignore[no-any-return]


def complete(document: "dict[str, Any]") -> None:
    """Fill in what a checked document leaves out and what means 0 or nothing."""
    _complete_process(document["process"])
    document["process"].setdefault("capabilities", {})
    linux = document["linux"]
    mapped = [linux, *(document.get("mounts") or ())]
    for holder in mapped:
        for name in ("uidMappings", "gidMappings"):
            for row in holder.get(name) or ():
                row.setdefault("containerID", 0)
                row.setdefault("hostID", 0)
    for device in linux.get("devices") or ():
        device.setdefault("major", 0)
        device.setdefault("minor", 0)


def _complete_process(process: "dict[str, Any]") -> None:
    user = process.setdefault("user", {})
    user.setdefault("uid", 0)
    user.setdefault("gid", 0)
    for limit in process.get("rlimits") or ():
        limit.setdefault("hard", 0)
        limit.setdefault("soft", 0)


def load_process(path: str) -> "dict[str, Any]":
    """A process.json for exec, checked as `process` of a config.json is."""
    process = legacy.process_today(_parse(path))
    problems: Problems = []
    fields.PROCESS("", process, problems)
    if not problems:
        rules.check_process(process, "", problems)
    if problems:
        raise InvalidConfig.of(path, problems)
    _complete_process(process)
    return process  # type: ignore[no-any-return]


def check(document: "Any") -> "Problems":
    """What is wrong with a whole document, as (JSON path, words); empty when nothing is."""
    problems: Problems = []
    fields.SPEC("", document, problems)
    return problems or rules.check(document)


def check_process(process: "Any") -> "Problems":
    """What is wrong with a process that was put together from a command line."""
    problems: Problems = []
    fields.PROCESS("process", process, problems)
    if not problems:
        rules.check_process(process, "process.", problems)
    return problems


def _parse(path: str) -> "Any":
    try:
        return jsonio.loads(files.read(path, limit=MAX_SIZE))
    except FileNotFoundError:
        raise NoConfig(path=path) from None
    except OSError as error:
        if error.errno == errno.EFBIG:
            raise InvalidConfig.of(path, [("", f"is larger than {MAX_SIZE >> 20} MiB")]) from None
        raise SystemFailure.of(f"open {path}", error) from None
    except UnicodeDecodeError as error:
        words = f"byte {error.start} is not UTF-8"
        raise InvalidConfig.of(path, [("", words)]) from None
    except ValueError as error:
        raise InvalidConfig.of(path, [("", str(error))]) from None


def _against_here(document: "dict[str, Any]") -> "Problems":
    """What only this host can tell: whether a network namespace given by path is our own."""
    linux = document.get("linux") or {}
    names = [name for name in linux.get("sysctl") or () if rules.sysctl_name(name)[:4] == "net."]
    path = next((n.get("path") for n in linux["namespaces"] if n["type"] == "network"), "")
    if not names or not path:
        return []
    try:
        ours, theirs = os.stat("/proc/self/ns/net"), os.stat(path)
    except OSError as error:
        return [("linux.namespaces", f"invalid netns path: {path}: {error.strerror}")]
    if (ours.st_dev, ours.st_ino) != (theirs.st_dev, theirs.st_ino):
        return []
    words = "not allowed in host network namespace"
    return [("linux.sysctl." + name, f'sysctl "{name}" {words}') for name in names]


def parse_user(text: str) -> "tuple[int, int | None]":
    """`uid[:gid]` of exec, in ASCII digits and nothing else. Raises ValueError with words.

    Whatever is not exactly that is refused: a runtime once read "1" as the user 0 (CVE-2026-30892).
    """
    uid, colon, gid = text.partition(":")
    return _id(uid, "uid"), _id(gid, "gid") if colon else None


def _id(text: str, what: str) -> int:
    # isdecimal() alone also takes full-width and other digits
    if not (text.isascii() and text.isdecimal()):
        raise ValueError(f"bad {what}: {text!a} is not a number")
    if len(text) > 10 or int(text) > 0xFFFFFFFE:
        raise ValueError(f"bad {what}: {text[:40]} is above 4294967294")
    return int(text)
