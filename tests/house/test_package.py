"""What is shipped: every module of the three rooms, one top-level name, and it runs from there."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from ocimig_testkit.source import ROOMS, ROOT, sources


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_is_a_relative_link_in_the_front_hall(room: str) -> None:
    """Committed as a link, so that a clone anywhere has it."""
    link = ROOT / "src/ocimig" / room
    assert link.is_symlink()
    assert str(link.readlink()) == f"../../{room}"
    mode = subprocess.run(
        ["git", "ls-files", "-s", f"src/ocimig/{room}"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    ).stdout  # fmt: skip
    assert not mode or mode.startswith("120000 ")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built of a copy: setuptools writes beside what it reads."""
    work = tmp_path_factory.mktemp("wheel")
    copy = work / "source"
    copy.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy2(ROOT / name, copy / name)
    leave = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in (*ROOMS, "src"):
        shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=leave)
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", work, copy],
        check=True, capture_output=True, timeout=300,
    )  # fmt: skip
    (built,) = work.glob("*.whl")
    return built


def test_the_wheel_holds_every_module_and_one_top_level_name(wheel: Path) -> None:
    """The three rooms through their links; nothing called "runtime" or "tests" beside ocimig."""
    names = set(zipfile.ZipFile(wheel).namelist())
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"ocimig"}
    for source in sources():
        path = source.module.replace(".", "/")
        assert names & {f"{path}.py", f"{path}/__init__.py"}, source.module
    assert "ocimig/py.typed" in names
    assert "ocimig/runtime/init/init.c" in names


def test_the_program_runs_from_the_wheel(wheel: Path, tmp_path: Path) -> None:
    """Unpacked elsewhere, under -IS, with nothing of the source tree in sight."""
    zipfile.ZipFile(wheel).extractall(tmp_path)
    script = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); sys.argv = ['ocimig', 'state', 'nobody'];"
        " from ocimig.cli.main import main; main()"
    )
    ended = subprocess.run(
        [sys.executable, "-IS", "-c", script], capture_output=True, text=True, cwd="/", check=False
    )
    assert ended.returncode == 1
    assert "does not exist" in ended.stderr
