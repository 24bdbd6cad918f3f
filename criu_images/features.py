"""What this CRIU can do on this kernel. Asks CRIU, never guesses from version numbers."""

import os
from dataclasses import dataclass

from ocimig.criu_images import binary, rpc
from ocimig.criu_images.errors import BadOption


@dataclass(frozen=True, slots=True)
class Features:
    """The answers of VERSION and FEATURE_CHECK."""

    program: str
    version: str
    memory_tracking: bool  # soft-dirty: what pre-dump needs
    lazy_pages: bool
    pidfd_store: bool
    withholds: bool = False  # it loads our shared object, so memory can be left out of a dump


def ask(session: rpc.Session) -> Features:
    """Ask on an open session and keep it open; this also fills CRIU's cache of kernel facts."""
    request = session.request("VERSION")
    request.keep_open = True
    version = session.call(request).version
    request = session.request("FEATURE_CHECK")
    request.keep_open = True
    request.features.mem_track = True
    request.features.lazy_pages = True
    request.features.pidfd_store = True
    found = session.call(request).features
    numbers = [version.major_number, version.minor_number]
    if version.sublevel:
        numbers.append(version.sublevel)
    return Features(
        session.program,
        ".".join(map(str, numbers)),
        bool(found.mem_track),
        bool(found.lazy_pages),
        bool(found.pidfd_store),
        _is_loaded(session.pid),
    )


def _is_loaded(pid: int) -> bool:
    """A CRIU that is linked statically, or has capabilities of its own, loads nothing; it says so nowhere."""
    path = os.path.realpath(binary.PRELOAD)
    with open(f"/proc/{pid}/maps", encoding="utf-8", errors="replace") as maps:
        return any(line.rstrip().endswith(path) for line in maps)


def probe(program: str = "") -> Features:
    """Start CRIU only to ask."""
    with rpc.Session(program) as session:
        session.start(environment=binary.preload(dump=True))
        return ask(session)


def require_memory_tracking(features: Features) -> None:
    """CRIU aborts (SIGABRT, BUG at criu/mem.c) in a pre-dump where it cannot track: never let it try."""
    if not features.memory_tracking:
        raise BadOption(
            option="pre-dump",
            reason="this kernel has no soft-dirty tracking (CONFIG_MEM_SOFT_DIRTY, "
            f"Linux {os.uname().release}), and criu aborts without it",
            remedy="take a full checkpoint",
        )


def require_lazy_pages(features: Features) -> None:
    """--lazy-pages needs userfaultfd with its event features."""
    if not features.lazy_pages:
        raise BadOption(
            option="lazy-pages",
            reason="this kernel has no userfaultfd that CRIU can use",
            remedy="leave --lazy-pages out",
        )
