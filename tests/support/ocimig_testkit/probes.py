"""What this machine can do, found by trying it once a session. Never asks for a version or for root."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]  # of the project
CRIU_PREFIX = Path("/usr/local/lib/ocimig/criu")
_SBIN = "/usr/local/sbin:/usr/sbin:/sbin"


def find(name: str) -> str:
    """The path of a program, looking where root's PATH looks too; "" without it."""
    return shutil.which(name, path=os.environ.get("PATH", "") + ":" + _SBIN) or ""


def _try(*argv: str) -> str:
    """ "" when the command succeeds, else what it said."""
    program = find(argv[0])
    if not program:
        return f"{argv[0]} is not installed"
    ended = subprocess.run(
        [program, *argv[1:]],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PATH": os.environ.get("PATH", "") + ":" + _SBIN},
    )
    if ended.returncode == 0:
        return ""
    said = (ended.stderr or ended.stdout).strip().splitlines()
    return f"{' '.join(argv[:4])}: {said[-1] if said else f'exit {ended.returncode}'}"


def criu() -> str:
    """The CRIU that the program would use; "" without one."""
    named = os.environ.get("OCIMIG_CRIU")
    if named:
        return named
    private = CRIU_PREFIX / "usr/sbin/criu"
    return str(private) if private.exists() else find("criu")


def _criu() -> str:
    program = criu()
    return _try(program, "check") if program else "CRIU is not installed: contrib/install-criu"


def _mounts(kind: str) -> list[tuple[Path, str]]:
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        if right.split()[0] == kind:
            found.append((Path(left.split()[4]), right.split()[2]))
    return found


def _make_cgroup(where: Path) -> str:
    try:
        os.rmdir(tempfile.mkdtemp(prefix="ocimig-probe-", dir=where))
    except OSError as error:
        return f"{where}: {error.strerror}"
    return ""


def _cgroup1() -> str:
    mounts = [path for path, options in _mounts("cgroup") if "memory" in options]
    return _make_cgroup(mounts[0]) if mounts else "no cgroup v1 hierarchy is mounted"


def _cgroup2() -> str:
    for path, _ in _mounts("cgroup2"):
        if str(path) == "/sys/fs/cgroup":
            return _make_cgroup(path)
    return "/sys/fs/cgroup is not cgroup v2"


def _userns() -> str:
    return _try("unshare", "--user", "--map-root-user", "true")


def _overlay() -> str:
    script = (
        "mount -t tmpfs t /tmp && mkdir /tmp/l /tmp/u /tmp/w /tmp/m &&"
        " mount -t overlay -o lowerdir=/tmp/l,upperdir=/tmp/u,workdir=/tmp/w o /tmp/m"
    )
    return _try("unshare", "--mount", "sh", "-c", script)


def _netns() -> str:
    script = "ip link add name v0 type veth peer name v1 && ip link add name v2 type bridge"
    return _try("unshare", "--net", "sh", "-c", script)


def _seccomp() -> str:
    if not os.path.exists("/proc/sys/kernel/seccomp/actions_avail"):
        return "the kernel has no seccomp filters"
    listed = subprocess.run(
        [find("ldconfig") or "true", "-p"], capture_output=True, text=True, check=False
    )
    return "" if "libseccomp.so.2" in listed.stdout else "libseccomp.so.2 is not installed"


def _xattr() -> str:
    with tempfile.NamedTemporaryFile() as file:
        try:
            os.setxattr(file.name, "user.ocimig", b"1")
        except OSError as error:
            return f"{tempfile.gettempdir()}: {error.strerror}"
    return ""


def _init() -> str:
    program = ROOT / "runtime/init/ocimig-init"
    return "" if os.access(program, os.X_OK) else f"{program} is not compiled: make init"


def _systemd() -> str:
    # in a chroot systemctl(1) ignores what it is told and ends well
    if not os.path.isdir("/run/systemd/system"):
        return "systemd does not run here"
    return _try("systemctl", "show", "--property=Version")


def _has(*names: str) -> Callable[[], str]:
    missing = [name for name in names if not find(name)]
    return lambda: f"not installed: {', '.join(missing)}" if missing else ""


MARKERS: dict[str, Callable[[], str]] = {
    "root": lambda: _try("unshare", "--mount", "true") if os.geteuid() == 0 else "not root",
    "criu": _criu,
    "netns": _netns,
    "nft": lambda: _try("unshare", "--net", "nft", "add table inet probe"),
    "userns": _userns,
    "timens": lambda: _try("unshare", "--time", "true"),
    "cgroup1": _cgroup1,
    "cgroup2": _cgroup2,
    "systemd": _systemd,
    "seccomp": _seccomp,
    "overlay": _overlay,
    "xattr": _xattr,
    "ssh": lambda: _has("sshd", "ssh", "ssh-keygen")(),
    "busybox": lambda: _has("busybox")(),
    "redis": lambda: _has("redis-server")(),
    "gdb": lambda: _has("gdb")(),
    "runc": lambda: _try("runc", "--version"),
    "crun": lambda: _try("crun", "--version"),
    "skopeo": lambda: _try("skopeo", "--version"),
    "podman": lambda: _try("podman", "info") if os.geteuid() == 0 else "not root",
    "init": _init,
}


@cache
def refusal(marker: str) -> str:
    """Why tests with this marker cannot run here; "" when they can. Tried once a session."""
    try:
        return MARKERS[marker]()
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{marker}: {error}"


def required() -> Sequence[str]:
    """The markers that must not be skipped: OCIMIG_REQUIRE=root,criu,…"""
    return [
        name for name in os.environ.get("OCIMIG_REQUIRE", "").replace(" ", ",").split(",") if name
    ]
