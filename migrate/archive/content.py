"""A checkpoint in an archive, whoever made it: podman, CRI-O, containerd, ocimig. Reads, never unpacks.

First the archive as a whole is looked at (`planning`), then the signature, then the manifest; only then is
anything that it says about itself believed to be what it says, and that is still not what it may have.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ocimig import jsonio
from ocimig.migrate.archive import manifest, planning, signature
from ocimig.migrate.archive.errors import ArchiveRefused, NoCheckpoint, NotSigned
from ocimig.migrate.archive.limits import Limits, Rules
from ocimig.migrate.archive.members import FILE
from ocimig.migrate.archive.planning import Plan

CONFIG, SPEC, NETWORK, DELETED, BINDS = (
    "config.dump", "spec.dump", "network.status", "deleted.files", "bind.mounts",
)  # fmt: skip
IMAGES, ROOTFS_DIFF, SHM = "checkpoint", "rootfs-diff.tar", "devshm-checkpoint.tar"
OUR_CONFIG, OUR_MANIFEST, STREAMS = (
    f"{IMAGES}/config.json", f"{IMAGES}/manifest.json", f"{IMAGES}/descriptors.json",
)  # fmt: skip
DOCUMENTS = (CONFIG, SPEC, NETWORK, DELETED, BINDS, OUR_CONFIG, OUR_MANIFEST, STREAMS)
_PRE_DUMP = (b"checkpoint/parent", b"../pre-checkpoint")
_MANAGER = "io.container.manager"
_CRIO_NAME = "io.kubernetes.container.name"
_DEPTH = 64


@dataclass(frozen=True, slots=True)
class Signers:
    """Whose signature is wanted: a file of allowed signers, and one of the names in it."""

    file: str
    name: str


@dataclass(slots=True)
class Contents:
    """What an archive holds and says. `maker` is podman, CRI-O, containerd or ocimig; `signed` says
    whether there is a signature, `signer` whose was verified ("" for none)."""

    plan: Plan
    maker: str
    spec: dict[str, Any]
    config: dict[str, Any]
    documents: Mapping[str, Any]
    manifest: dict[str, Any] | None = None
    signed: bool = False
    signer: str = ""
    notes: list[str] = field(default_factory=list)

    @property
    def id(self) -> str:
        """The container's name in its engine."""
        ours = (self.documents.get(OUR_MANIFEST) or {}).get("id")
        return str(ours or self.config.get("id") or "")

    @property
    def name(self) -> str:
        """What people call it."""
        annotations = self.spec.get("annotations")
        told = annotations.get(_CRIO_NAME) if isinstance(annotations, dict) else None
        return str(self.config.get("name") or told or self.id)

    @property
    def image(self) -> str:
        """The image it was made from, as its engine names it."""
        return str(self.config.get("rootfsImageName") or "")

    @property
    def created(self) -> str:
        """When the checkpoint was made, as it says."""
        ours = self.documents.get(OUR_MANIFEST) or {}
        return str(self.config.get("checkpointedTime") or ours.get("created") or "")

    @property
    def processes(self) -> int:
        """How many processes have memory in it."""
        names = [step.member.path for step in self.plan.steps]
        return sum(name.startswith(b"checkpoint/mm-") and name.endswith(b".img") for name in names)

    def holds(self, path: str) -> bool:
        """Whether there is such a file."""
        step = self.plan.step(path)
        return step is not None and step.member.type == FILE


def read(
    fd: int, shown: str, *, limits: Limits | None = None, signers: Signers | None = None
) -> Contents:
    """Look at an archive without writing anything. The same descriptor has to be unpacked from.

    Raises ArchiveRefused, ArchiveBroken, NotSigned, BadSignature, ManifestMismatch, NoCheckpoint.
    """
    rules = Rules(limits or Limits(), links=(_PRE_DUMP,))
    wanted = (*DOCUMENTS, manifest.NAME, manifest.SIGNATURE)
    plan = planning.plan(fd, rules, shown, keep=wanted)
    listed, sealed = plan.documents.get(manifest.NAME), plan.documents.get(manifest.SIGNATURE)
    if signers is not None:
        if listed is None or sealed is None:
            raise NotSigned(path=shown)
        signature.verify(listed, sealed, signers=signers.file, signer=signers.name, shown=shown)
    told = manifest.check(plan, listed) if listed is not None else None
    if plan.step(f"{IMAGES}/inventory.img") is None:
        raise NoCheckpoint(path=shown, reason=f"{IMAGES}/inventory.img is missing")
    documents = {name: _parse(plan, name) for name in DOCUMENTS if name in plan.documents}
    spec = _object(plan, documents, SPEC) or _object(plan, documents, OUR_CONFIG)
    if not spec:
        raise NoCheckpoint(path=shown, reason=f"{SPEC} is missing")
    return Contents(
        plan,
        _maker(spec, told),
        spec,
        _object(plan, documents, CONFIG),
        documents,
        told,
        listed is not None and sealed is not None,
        signers.name if signers is not None else "",
        list(plan.notes),
    )


def _maker(spec: Mapping[str, Any], told: object) -> str:
    annotations = spec.get("annotations")
    manager = annotations.get(_MANAGER) if isinstance(annotations, dict) else None
    if told is not None:
        return "ocimig"
    return {"libpod": "podman", "cri-o": "CRI-O"}.get(str(manager), "containerd")


def _parse(plan: Plan, name: str) -> Any:
    try:
        value = jsonio.loads(plan.documents[name])
    except ValueError as error:
        raise ArchiveRefused(path=plan.shown, reason=f"{name}: {error}") from None
    if _depth(value, _DEPTH) > _DEPTH:
        raise ArchiveRefused(path=plan.shown, reason=f"{name} is nested deeper than {_DEPTH}")
    return value


def _depth(value: Any, left: int) -> int:
    if left < 0 or not isinstance(value, dict | list):
        return 0 if left >= 0 else 1
    inner = value.values() if isinstance(value, dict) else value
    return 1 + max((_depth(item, left - 1) for item in inner), default=0)


def _object(plan: Plan, documents: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = documents.get(name, {})
    if not isinstance(value, dict):
        raise ArchiveRefused(path=plan.shown, reason=f"{name} is not an object")
    return value
