"""The budget of the hot verbs is a set of modules, not a stopwatch: deterministic, so it can be a test."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from ocimig_testkit import TOKEN, Bundle, make_bundle
from ocimig_testkit.source import ROOT

# What a hot verb may load beside ocimig's own modules; each costs less than a millisecond, ctypes 2.5.
ALLOWED = set(
    """
    _collections_abc abc _abc os os.path types posixpath genericpath stat _stat
    errno fcntl time struct _struct select resource math grp pwd atexit termios
    ctypes ctypes._endian _ctypes _json _socket _signal _posixsubprocess
    """.split()
)
OWN = (
    "ocimig.runtime",
    "ocimig.cli",
    "ocimig.errors",
    "ocimig.files",
    "ocimig.jsonio",
    "ocimig.log",
)
# The click application reads the same table for everything that is not hot.
COLD = ("ocimig.cli.app", "ocimig.cli.verbs_cold", "ocimig.cli.manual")

# Ends where the program ends, and tells on descriptor 9 which modules are there then.
PROBE = """
import sys
sys.path.insert(0, {source!r})
sys.argv = ["ocimig"] + {argv!r}
import posix
own, leave = posix.getpid(), posix._exit
def tell(code):
    if posix.getpid() == own:
        posix.write({fd}, " ".join(sorted(sys.modules)).encode())
    leave(code)
posix._exit = tell
from ocimig.cli.main import main
import os
os._exit = tell
main()
"""


def _modules(argv: list[str], code: int) -> set[str]:
    read, write = os.pipe()
    # stderr is a file: a container that stays behind would hold a pipe open for ever
    with open(read, "rb") as told, tempfile.TemporaryFile() as err:
        try:
            script = PROBE.format(source=str(ROOT / "src"), argv=argv, fd=write)
            ended = subprocess.run(
                [sys.executable, "-IS", "-c", script],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=err,
                pass_fds=[write],
                timeout=60,
                check=False,
            )
        finally:
            os.close(write)
        err.seek(0)
        assert ended.returncode == code, f"{argv}: exit {ended.returncode}: {err.read().decode()}"
        return set(told.read().decode().split())


def _bare() -> set[str]:
    script = "import sys; print(*sys.modules)"
    listed = subprocess.run(
        [sys.executable, "-IS", "-c", script], capture_output=True, text=True, check=True
    )
    return set(listed.stdout.split())


def _newcomers(argv: list[str], code: int = 0) -> list[str]:
    loaded = _modules(argv, code) - _bare() - ALLOWED
    assert "ocimig.cli.main" in loaded, "the probe saw nothing"
    return sorted(
        name
        for name in loaded
        if name != "ocimig" and (not name.startswith(OWN) or name.startswith(COLD))
    )


@pytest.mark.parametrize(
    ("verb", "code"),
    [
        (["list"], 0),
        (["list", "-q"], 0),
        (["ps", "nobody"], 1),
        (["state", "nobody"], 1),
        (["start", "nobody"], 1),
        (["kill", "nobody", "TERM"], 1),
        (["pause", "nobody"], 1),
        (["resume", "nobody"], 1),
        (["delete", "nobody"], 1),
        (["delete", "--force", "nobody"], 0),
        (["exec", "nobody", "true"], 255),
        (["create", "--bundle", "/nowhere", "nobody"], 1),
        (["run", "--bundle", "/nowhere", "nobody"], 1),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_hot_verb_loads_only_what_it_needs(tmp_path: Path, verb: list[str], code: int) -> None:
    """Without privileges: up to the container that is not there."""
    assert _newcomers(["--root", str(tmp_path), *verb], code) == []


@pytest.mark.root
@pytest.mark.init
@pytest.mark.busybox
def test_the_whole_life_of_a_container_loads_only_what_it_needs(tmp_path: Path) -> None:
    """create, start, state, ps, exec, pause, resume, kill, delete, run: each to its good end."""
    bundle: Bundle = make_bundle(tmp_path / "bundle")
    quick: Bundle = make_bundle(tmp_path / "quick", "/bin/true")
    root, id = ["--root", str(tmp_path / "root")], f"{TOKEN}-startup"
    life = [
        ["create", "--bundle", str(bundle.path), id],
        ["start", id],
        ["state", id],
        ["list"],
        ["ps", id],
        ["exec", id, "/bin/true"],
        ["pause", id],
        ["resume", id],
        ["kill", id, "KILL"],
        ["delete", "--force", id],
        ["run", "--bundle", str(quick.path), id],
    ]
    try:
        found = {verb[0]: _newcomers([*root, *verb]) for verb in life}
    finally:
        subprocess.run(
            [str(Path(sys.executable).parent / "ocimig"), *root, "delete", "--force", id],
            capture_output=True,
            check=False,
        )
    assert found == {verb[0]: [] for verb in life}
