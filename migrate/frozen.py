"""A container in CRIU's post-dump, as a value. Does nothing by itself."""

from collections.abc import Callable
from dataclasses import dataclass, field

from ocimig.criu_images.image import CheckpointImage, Manifest


def nothing() -> None:
    """There is nothing to confirm."""


@dataclass(slots=True)
class Frozen:
    """The container while CRIU waits in post-dump: stopped, locked, all images written.

    Who sets `held` takes over: from then on nothing here thaws or unlocks it, whatever fails. Where
    `confirm_late` was asked for, `confirm` has to be called before the other copy may run.
    """

    id: str
    pid: int
    image: CheckpointImage
    manifest: Manifest
    pids: list[int]
    times: dict[str, float] = field(default_factory=dict)
    held: bool = False
    confirm: Callable[[], None] = field(default=nothing)
