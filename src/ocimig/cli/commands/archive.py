"""archive show, verify, convert; and the part of checkpoint and restore that is about archives."""

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ocimig import jsonio
from ocimig.cli import context
from ocimig.cli.verbs import Call
from ocimig.errors import NoSpace, OcimigError, Usage
from ocimig.files import Fd

if TYPE_CHECKING:
    from ocimig.migrate.archive.content import Contents, Signers
    from ocimig.migrate.archive.exporting import Export
    from ocimig.migrate.archive.importing import ImportPlan
    from ocimig.migrate.checkpoint import CheckpointOptions
    from ocimig.migrate.restore_request import RestoreOptions


class CannotOpen(OcimigError):
    """A file that was named cannot be opened or made."""

    message = "{path}: {reason}"

    def __init__(self, *, path: str, reason: str) -> None:
        super().__init__(path=path, reason=reason)


def show(call: Call) -> int:
    """What an archive is; with --members all that would be unpacked."""
    with opened(call.arguments[0]) as fd:
        plan = look(call, fd, call.arguments[0])
    if call.flag("json"):
        print(jsonio.dumps(_as_json(plan), indent=2))
        return 0
    for line in plan.describe():
        print(line)
    if call.flag("members"):
        for line in plan.contents.plan.describe():
            print(line)
    return 0


def verify(call: Call) -> int:
    """Raises what does not hold; else says what was checked."""
    with opened(call.arguments[0]) as fd:
        held = look(call, fd, call.arguments[0]).contents
    if held.manifest is None:
        print(
            f"{call.arguments[0]}: readable; there is no manifest to compare it with ({held.maker})"
        )
        return 3
    by = f"signed by {held.signer}" if held.signer else (
        "signed (by whom: --allowed-signers FILE --signer NAME)" if held.signed else "not signed"
    )  # fmt: skip
    print(f"{call.arguments[0]}: as its manifest says, {by}")
    return 0


def convert(call: Call) -> int:
    """Write an archive again."""
    from ocimig.migrate.archive import content, oci, packing

    source, out = call.arguments
    if os.path.lexists(out):
        raise CannotOpen(path=out, reason="it is there already")
    how = call.text("compress") or "zstd"
    with opened(source) as fd:
        contents = content.read(fd, source)
        try:
            if call.flag("oci"):
                oci.write(fd, contents, out, compress=how)
            else:
                packing.repack(fd, out, how, contents.plan.rules.limits, source)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise NoSpace(path=out) from None
            raise CannotOpen(path=str(error.filename or out), reason=str(error.strerror)) from None
    return 0


def export(call: Call, wanted: "CheckpointOptions") -> int:
    """checkpoint --export."""
    from ocimig.migrate.archive import carry

    carry.checkpoint_to(
        context.store(call), call.arguments[0], wanted, wanted_export(call, call.text("export"))
    )
    return 0


def wanted_export(call: Call, file: str) -> "Export":
    """What the options of an export say, for that file."""
    from ocimig.migrate.archive.exporting import Export

    return Export(
        file=file,
        compress=call.text("compress") or "zstd",
        key=call.text("sign"),
        base=call.text("base"),
        image_name=call.text("image-name"),
        ignore_rootfs=call.flag("ignore-rootfs"),
    )


def bring_back(call: Call, wanted: "RestoreOptions") -> int:
    """restore --import."""
    from ocimig.cli.commands import networks
    from ocimig.migrate.archive import carry

    if not call.text("bundle") and not call.flag("plan"):
        reason = "--import needs --bundle DIR: the root file system lives there"
        raise Usage(reason=reason, verb="restore")
    id = call.arguments[0]
    with opened(call.text("import")) as fd:
        plan = look(call, fd, call.text("import"))
        if told(call, plan):
            return 0
        return carry.restore_from(
            context.store(call), id, fd, plan, wanted,
            lambda images: networks.restorer(images, id),
        )  # fmt: skip


def told(call: Call, plan: "ImportPlan") -> bool:
    """Print what would be done; whether that was all that --plan asks for."""
    only = call.flag("plan")
    for line in plan.describe():
        print(line, file=sys.stdout if only else sys.stderr)
    return only


def look(call: Call, fd: int, shown: str) -> "ImportPlan":
    """What a restore of the archive would do, by the options about who made it and what it may."""
    from ocimig.migrate.archive import carry

    granted = call.many("allow") if "allow" in call.verb.by_name else []
    return carry.look(fd, shown, signers=_signers(call), granted=granted)


def _signers(call: Call) -> "Signers | None":
    from ocimig.migrate.archive.content import Signers

    file, name = call.text("allowed-signers"), call.text("signer")
    if not file and not name:
        return None
    if not file or not name:
        reason = "--allowed-signers FILE and --signer NAME go together"
        raise Usage(reason=reason, verb=call.verb.name)
    return Signers(file, name)


@contextmanager
def opened(path: str) -> Iterator[int]:
    """The archive at a path; of an image its layer. Raises CannotOpen, and what reading an image does."""
    from ocimig.migrate.archive import oci

    try:
        fd = oci.open_archive(path)
    except OSError as error:
        raise CannotOpen(path=path, reason=str(error.strerror)) from None
    with Fd(fd) as held:
        yield held


def _as_json(plan: "ImportPlan") -> dict[str, object]:
    held: Contents = plan.contents
    return {
        "maker": held.maker, "id": held.id, "name": held.name, "image": held.image,
        "created": held.created, "processes": held.processes, "size": held.plan.size,
        "signed": held.signed, "signer": held.signer, "rootfs_whole": plan.whole,
        "asks": [{"grant": item.grant, "what": item.what, "verdict": item.verdict}
                 for item in plan.decision.asked],
        "members": [step.describe() for step in held.plan.steps],
        "left_out": held.notes,
    }  # fmt: skip
