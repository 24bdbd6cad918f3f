"""ocimig/manifest.json: what an archive holds, member by member. What is signed is this document.

    {"version": 1, "id", "created", "tool", "kernel", "architecture", "criu",
     "members": {path: {"type", "size", "sha256"} | {"type", "target"} | {"type"}}}

It names every member but itself and its signature.
"""

from collections.abc import Mapping
from typing import Any

from ocimig import jsonio
from ocimig.migrate.archive.errors import ManifestMismatch
from ocimig.migrate.archive.members import FILE, Member
from ocimig.migrate.archive.planning import Plan

VERSION = 1
NAME = "ocimig/manifest.json"
SIGNATURE = "ocimig/manifest.sig"
DIRECTORY = "ocimig"
_NOT_LISTED = {NAME, SIGNATURE, DIRECTORY}


def document(members: Mapping[str, tuple[Member, str]], facts: Mapping[str, Any]) -> bytes:
    """The manifest of what was written; `facts` are its other names."""
    listed = {
        path: _entry(member, digest)
        for path, (member, digest) in sorted(members.items())
        if path not in _NOT_LISTED
    }
    return jsonio.dumps({"version": VERSION, **facts, "members": listed}, 1).encode()


def check(plan: Plan, raw: bytes) -> dict[str, Any]:
    """The manifest, when the members are those it names. Raises ManifestMismatch."""

    def refusal(reason: str) -> ManifestMismatch:
        return ManifestMismatch(path=plan.shown, reason=reason)

    try:
        found = jsonio.loads(raw)
    except ValueError as error:
        raise refusal(f"{NAME}: {error}") from None
    if not isinstance(found, dict) or not isinstance(found.get("members"), dict):
        raise refusal(f"{NAME} is not one of ours")
    if found.get("version") != VERSION:
        raise refusal(f"its version is {found.get('version')}, this is a reader of {VERSION}")
    there = {
        step.member.path.decode("utf-8", "surrogateescape"): _entry(step.member, step.digest)
        for step in plan.steps
        if step.act == "make"
    }
    wanted = found["members"]
    for path in sorted(set(there) - set(wanted) - _NOT_LISTED):
        raise refusal(f"{path} was added")
    for path in sorted(set(wanted) - set(there)):
        raise refusal(f"{path} is missing")
    for path in sorted(wanted):
        if there[path] != wanted[path]:
            raise refusal(f"{path} is another than it was")
    return found


def _entry(member: Member, digest: str) -> dict[str, Any]:
    if member.type == FILE:
        return {"type": FILE, "size": member.size, "sha256": digest}
    if member.target:
        target = member.target.decode("utf-8", "surrogateescape")
        return {"type": member.type, "target": target}
    return {"type": member.type}
