"""Where the CRIU program is, and the Python messages that belong to it. Never runs it."""

import importlib
import os
import sys
from types import ModuleType

from ocimig.criu_images.errors import CriuMissing

PREFIX = "/usr/local/lib/ocimig/criu"
PRELOAD = os.path.join(os.path.dirname(os.path.abspath(__file__)), "preload", "ocimig-preload.so")
_CAP_SYS_RESOURCE = 24
_PACKAGES = "lib/python3/dist-packages"


def find() -> str:
    """The path of the program: $OCIMIG_CRIU, else the private prefix, else PATH."""
    named = os.environ.get("OCIMIG_CRIU", "")
    if named:
        if not os.access(named, os.X_OK):
            raise CriuMissing(reason=f"OCIMIG_CRIU names {named}, which cannot be executed")
        return os.path.abspath(named)
    own = os.path.join(PREFIX, "usr/sbin/criu")
    if os.access(own, os.X_OK):
        return own
    # A caller may have started us without PATH (podman does): the usual places are always looked at.
    path = [
        *os.environ.get("PATH", "").split(":"),
        "/usr/local/sbin",
        "/usr/sbin",
        "/sbin",
        "/usr/bin",
    ]
    for directory in path:
        if directory.startswith("/") and os.access(os.path.join(directory, "criu"), os.X_OK):
            return os.path.join(directory, "criu")
    raise CriuMissing(reason="no criu program in OCIMIG_CRIU, in " + PREFIX + " or in PATH")


def preload(*, dump: bool = False) -> dict[str, str]:
    """What CRIU gets in its environment so that our shared object is loaded into it, where it is compiled.

    For every dump, which it makes faster and which may leave memory out (preload/haste.c, withhold.c); for
    a restore only where CRIU could not read the limits of other users' processes (preload/limits.c).
    """
    wanted = (dump or not _has(_CAP_SYS_RESOURCE)) and os.access(PRELOAD, os.R_OK)
    return {"LD_PRELOAD": PRELOAD} if wanted else {}


def _has(capability: int) -> bool:
    with open("/proc/self/status", encoding="utf-8", errors="replace") as status:
        line = next((line for line in status if line.startswith("CapEff:")), "CapEff: 0")
    return bool(int(line.split()[1], 16) >> capability & 1)


def messages(program: str) -> ModuleType:
    """`rpc_pb2` of the pycriu beside `program`: its messages know the options that this CRIU knows."""
    return _load(program, "pycriu.rpc_pb2")


def image_messages(program: str, name: str) -> ModuleType:
    """One module of the image messages, such as "stats_pb2"."""
    return _load(program, f"pycriu.images.{name}")


def _load(program: str, name: str) -> ModuleType:
    """Import only the generated module: pycriu itself imports all of its images, which costs 50 ms."""
    root = packages(program)
    known = sys.modules.get(name)
    if known is not None:
        return known
    directory = os.path.join(root, *name.split(".")[:-1])
    # The generated modules import each other by bare name, so their directory is the import path, and
    # only as long as this takes.
    sys.path.insert(0, directory)
    try:
        module = importlib.import_module(name.rpartition(".")[2])
    except ImportError as error:
        raise CriuMissing(reason=f"the messages of pycriu do not load ({error})") from error
    finally:
        sys.path.remove(directory)
    sys.modules[name] = module
    return module


def packages(program: str) -> str:
    """The directory that pycriu, and crit beside it, are in. Raises CriuMissing."""
    beside = os.path.join(os.path.dirname(os.path.dirname(program)), _PACKAGES)
    for root in (beside, os.path.join(PREFIX, "usr", _PACKAGES), "/usr/" + _PACKAGES):
        if os.path.exists(os.path.join(root, "pycriu", "rpc_pb2.py")):
            return root
    raise CriuMissing(reason=f"python3-pycriu is missing (looked beside {program})")
