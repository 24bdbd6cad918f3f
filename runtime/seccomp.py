"""linux.seccomp as the filter that a container's process gets. Installs nothing: `init` does.

Making the filter of a usual profile takes libseccomp 20 ms, more than all the rest of `create`; so what it
made is kept by content, in `<cache>/<digest of the profile>`. An entry says which libseccomp and which
kernel it was made with, and is not used with another; a torn or foreign file is made again.
"""

import os
from _blake2 import blake2b

from ocimig import files, jsonio, log
from ocimig.runtime.errors import SeccompFailed, SocketFailed
from ocimig.runtime.linux.seccomp_prelude import Filter  # not from `seccomp`, which loads ctypes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

CACHE_NAME = ".seccomp"
MAX_ENTRIES = 64
FORMAT = 1


def plan(seccomp: "dict[str, Any]", *, cache: str = "") -> "Filter":
    """The filter for a checked profile, from the directory `cache` where it is there already."""
    name = _digest(seccomp)
    if cache and (found := _cached(os.path.join(cache, name))):
        return found
    from ocimig.runtime.linux import seccomp as libseccomp

    try:
        made = libseccomp.compile_filter(seccomp)
    except OSError as error:
        advice = "install libseccomp2" if error.filename else ""
        raise SeccompFailed(reason=error.strerror or str(error), advice=advice) from None
    if made.unknown:
        # a profile names calls of every kernel and machine: for a warning this is too usual
        log.debug(f"linux.seccomp: ignoring unknown system calls: {' '.join(made.unknown)}")
    if cache:
        _keep(cache, name, made)
    return made


def send_listener(spec: "dict[str, Any]", fd: int, state: "dict[str, Any]", pid: int) -> None:
    """Give the descriptor of SCMP_ACT_NOTIFY to the agent that the profile names, and close it here."""
    from ocimig.runtime import sockets

    seccomp = spec["linux"]["seccomp"]
    path = seccomp["listenerPath"]
    document: dict[str, Any] = {"ociVersion": "1.3.0", "fds": ["seccompFd"], "pid": pid}
    if seccomp.get("listenerMetadata"):
        document["metadata"] = seccomp["listenerMetadata"]
    document["state"] = state
    try:
        with files.Fd(fd):
            sock = sockets.connect(path)
            try:
                sockets.send(sock, jsonio.dumps(document).encode(), [fd])
            finally:
                sock.close()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise SocketFailed(what="seccomp descriptor", path=path, reason=reason) from None


def _digest(seccomp: "dict[str, Any]") -> str:
    text = jsonio.dumps([FORMAT, seccomp], sort_keys=True)
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=20).hexdigest()


def _library_facts(path: str) -> "list[Any]":
    facts = os.stat(path)
    return [path, facts.st_size, facts.st_mtime_ns, os.uname().release]


def _cached(path: str) -> "Filter | None":
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        facts = os.fstat(fd)
        if facts.st_uid != os.geteuid() or facts.st_mode & 0o022 or facts.st_size > 1 << 20:
            return None
        head, _, program = os.read(fd, 1 << 20).partition(b"\n")
        entry = jsonio.loads(head)
        if entry["digest"] != blake2b(program, digest_size=20).hexdigest():
            return None
        if entry["made_with"] != _library_facts(entry["made_with"][0]):
            return None
        return Filter(program, entry["flags"], notify=entry["notify"], unknown=entry["unknown"])
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return None
    finally:
        os.close(fd)


def _keep(cache: str, name: str, made: "Filter") -> None:
    """Keep a filter; a cache that cannot be written costs time and nothing else."""
    library = _loaded_library()
    if not library:
        return
    try:
        os.makedirs(cache, mode=0o700, exist_ok=True)
        names = os.listdir(cache)
        if len(names) >= MAX_ENTRIES:
            for old in names:
                os.unlink(os.path.join(cache, old))
        entry = {
            "digest": blake2b(made.bpf, digest_size=20).hexdigest(),
            "flags": made.flags,
            "made_with": _library_facts(library),
            "notify": made.notify,
            "unknown": made.unknown,
        }
        head = jsonio.dumps(entry).encode()
        files.write_atomic(os.path.join(cache, name), head + b"\n" + made.bpf, sync=False)
    except OSError as error:
        log.debug(f"the seccomp filter was not kept in {cache}: {error.strerror}")


def _loaded_library() -> str:
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:
        for line in maps:
            if "/libseccomp.so" in line:
                return line[line.index("/") :].rstrip("\n")
    return ""
