"""Every cgroup driver as a fixture, on real cgroups with real processes.

v1: this machine's v1 hierarchies (hybrid included). v2: a v2 machine. bare: v2 without controllers,
below a cgroup of this test in any v2 mount, so that a hybrid machine runs v2's code too. systemd: a
scope of a running systemd.
"""

import contextlib
import itertools
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ocimig.runtime import cgroups
from ocimig.runtime.cgroups import layout
from ocimig_testkit.cgroups import Open, Spawn, directories
from ocimig_testkit.session import TOKEN

if TYPE_CHECKING:
    from ocimig.runtime.cgroups import Cgroup

DRIVERS = [
    pytest.param("v1", marks=[pytest.mark.root, pytest.mark.cgroup1]),
    pytest.param("v2", marks=[pytest.mark.root, pytest.mark.cgroup2]),
    pytest.param("bare", marks=[pytest.mark.root]),
    pytest.param("systemd", marks=[pytest.mark.root, pytest.mark.systemd]),
]
_numbers = itertools.count(1)


@pytest.fixture(params=DRIVERS)
def driver(request: pytest.FixtureRequest) -> str:
    """The driver under test."""
    return str(request.param)


@pytest.fixture
def name() -> str:
    """A name that nothing else has, which the leak sweep knows."""
    return f"{TOKEN}-cg{next(_numbers)}"


@pytest.fixture
def open_it(driver: str, name: str) -> Iterator[Open]:
    """Opens the cgroup of the test, and removes it at the end."""
    with contextlib.ExitStack() as stack:
        parent = stack.enter_context(_own_v2_root(name)) if driver == "bare" else ""

        def opened(resources: dict[str, Any] | None = None) -> "Cgroup":
            if driver == "bare":
                hierarchy = layout.Hierarchy(("unified",), parent, "/", "/")
                here = layout.Layout(2, [], hierarchy)
                found: Cgroup = cgroups.at(
                    here, "/c", explicit=True, rootless=False, resources=resources or {}
                )
            else:
                path = f"system.slice:ocimig:{name}" if driver == "systemd" else f"/{name}"
                linux = {"cgroupsPath": path, "resources": resources or {}}
                found = cgroups.open_cgroup(linux, name, systemd=driver == "systemd")
            stack.callback(_clean, found)
            return found

        yield opened


@contextlib.contextmanager
def _own_v2_root(name: str) -> Iterator[str]:
    here = layout.read()
    if here.unified is None:
        pytest.skip("no cgroup v2 is mounted")
    path = Path(here.unified.mountpoint) / f"{name}-root"
    path.mkdir()
    try:
        yield str(path)
    finally:
        path.rmdir()


def _clean(cgroup: "Cgroup") -> None:
    if any(os.path.isdir(path) for path in directories(cgroup)):
        cgroup.kill_all(signal.SIGKILL)
        cgroup.delete()


@pytest.fixture
def spawn() -> Iterator[Spawn]:
    """Starts a process that waits; all are ended afterwards."""
    started: list[subprocess.Popen[bytes]] = []

    def one(*argv: str) -> int:
        started.append(subprocess.Popen(argv or ("sleep", "1000")))
        return started[-1].pid

    yield one
    for process in started:
        process.kill()
        process.wait()
