"""How much an archive may be, and what may be in it. Values only."""

from dataclasses import dataclass

JSON_BYTES = 16 << 20  # of one document in an archive


@dataclass(frozen=True, slots=True)
class Limits:
    """All sizes in bytes. `total` is what all members hold together when they are unpacked.

    `ratio` holds from `ratio_after` unpacked bytes on: a small archive of zeros is no attack.
    """

    members: int = 200_000
    path: int = 4095
    depth: int = 255
    file: int = 1 << 42
    total: int = 1 << 42
    ratio: int = 200
    ratio_after: int = 1 << 30
    window: int = 128 << 20  # of zstd: memory that the decompressor takes
    extended: int = 1 << 20  # one PAX header
    metadata: int = 64 << 20  # all names, link targets and attributes together: memory that we take
    runs: int = 100_000  # of data in one sparse file


@dataclass(frozen=True, slots=True)
class Rules:
    """What is allowed, and what becomes of it.

    `rootfs` is for the files of a container: owners, modes, set-user-id and attributes are kept, as far
    as a container may have them. Otherwise everything becomes a plain file (0600) or directory (0700) of
    ours. `links` are the only symbolic links that are then allowed, by path, with their targets.
    `devices` allows device nodes, `whiteouts` reads the names of OCI layers that remove others.
    """

    limits: Limits = Limits()
    rootfs: bool = False
    devices: bool = False
    whiteouts: bool = False
    links: tuple[tuple[bytes, bytes], ...] = ()
