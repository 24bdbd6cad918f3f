"""What is there: the list of containers and their processes, and how a table of them looks. Changes nothing."""

import os

from ocimig import log
from ocimig.runtime import lifecycle
from ocimig.runtime import state as facts
from ocimig.runtime.errors import NoSuchContainer, PsFailed, StateUnreadable
from ocimig.runtime.linux import process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ocimig.runtime.store import Store

_COLUMNS = ("ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER")
_NARROWEST, _GAP = 12, 3


def list_documents(store: "Store") -> "list[dict[str, Any]]":
    """The state of every container, in the order of their names; half made ones are left out."""
    documents = []
    for id in store.ids():
        try:
            state = store.load(id)
        except NoSuchContainer:  # in the making, or gone since we looked
            continue
        except StateUnreadable as error:
            log.warning(str(error))
            continue
        documents.append(lifecycle.document(store, state, owner=owner_name(state.owner)))
    return documents


def owner_name(uid: int) -> str:
    """The user's name, or #uid where the number has none."""
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"#{uid}"


def list_table(documents: "list[dict[str, Any]]") -> str:
    """The table of `list`, each column as wide as its widest entry and three spaces, twelve at least."""
    rows = [_COLUMNS] + [
        tuple(str(document[name.lower()]) for name in _COLUMNS) for document in documents
    ]
    widths = [
        max(_NARROWEST, _GAP + max(len(row[column]) for row in rows))
        for column in range(len(_COLUMNS) - 1)
    ]
    lines = (
        "".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)) + row[-1]
        for row in rows
    )
    return "".join(line + "\n" for line in lines)


def pids(store: "Store", id: str) -> "list[int]":
    """Every process of a container, by the runtime's numbers; none when it has stopped."""
    state = store.load(id)
    if not state.cgroups:
        return [state.pid] if facts.alive(state) else []
    from ocimig.runtime import cgroups

    return sorted(cgroups.from_facts(state.cgroups).pids(recursive=True))


def ps(store: "Store", id: str, args: "list[str]") -> "list[str]":
    """The header and the lines of the container's processes out of what `ps` prints with `args`."""
    wanted = set(pids(store, id))
    output = _run_ps(id, args or ["-ef"])
    return filter_ps(id, output, wanted)


def filter_ps(id: str, output: str, wanted: "set[int]") -> "list[str]":
    """The header and the lines whose PID column is one of `wanted`. Raises PsFailed without that column."""
    lines = output.splitlines()
    header = lines[0].split() if lines else []
    if "PID" not in header:
        raise PsFailed(id=id, reason="no PID column in its output")
    column = header.index("PID")
    kept = lines[:1]
    for line in lines[1:]:
        fields = line.split()
        if len(fields) <= column:
            continue
        if not fields[column].isdigit():
            raise PsFailed(id=id, reason=f"unexpected pid {fields[column]!r}")
        if int(fields[column]) in wanted:
            kept.append(line)
    return kept


def _run_ps(id: str, args: "list[str]") -> str:
    reader, writer = os.pipe2(os.O_CLOEXEC)
    try:
        try:
            pid = os.posix_spawnp(
                "ps",
                ["ps", *args],
                os.environ,
                file_actions=[(os.POSIX_SPAWN_DUP2, writer, 1)],
                setsigdef=process.IGNORED_BY_PYTHON,
            )
        except FileNotFoundError:
            raise PsFailed(id=id, reason="executable file not found in $PATH") from None
        finally:
            os.close(writer)
        chunks = []
        while chunk := os.read(reader, 65536):
            chunks.append(chunk)
    finally:
        os.close(reader)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code:
        raise PsFailed(id=id, reason=f"exit status {code}")
    return b"".join(chunks).decode("utf-8", "replace")
