"""backup import on the command line: every option arrives, and a plan writes nothing."""

from pathlib import Path
from typing import Any

import pytest

from ocimig.cli import main
from ocimig.criu_images.image import CheckpointImage, Manifest
from ocimig.migrate.archive import exporting
from ocimig.migrate.backup import importing
from ocimig_testkit.lent import lent
from ocimig_testkit.shelves import shelf


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """One of ours, of a container that asks for /etc of the host."""
    (tmp_path / "image").mkdir()
    (tmp_path / "image/inventory.img").write_bytes(b"x" * 300)
    image = CheckpointImage(str(tmp_path / "image"))
    mount = {"destination": "/in", "type": "bind", "source": "/etc", "options": ["rbind"]}
    image.write_json("config.json", {"process": {}, "mounts": [mount], "linux": {}})
    image.seal(Manifest.new("web", "4.2.1"))
    wanted = exporting.Export(file=str(tmp_path / "web.tar"), ignore_rootfs=True)
    exporting.write_archive(image, exporting.Captured(), wanted)
    return tmp_path / "web.tar"


@pytest.fixture
def store(tmp_path: Path) -> list[str]:
    """A store, and the option that every call needs."""
    words = [str(tmp_path / "store"), "--cache", str(tmp_path / "cache")]
    assert main.run(["backup", "init", *words]) == 0
    return words


def test_every_option_arrives(
    archive: Path, store: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the plan that is carried out is that of the file, with what was granted."""
    seen: list[Any] = []
    made = lent(shelf(tmp_path / "lent"), tmp_path / "made")

    def import_from(*all: object) -> object:
        seen.extend(all)
        return made

    monkeypatch.setattr(importing, "import_from", import_from)
    argv = [
        "backup", "import", store[0], str(archive), *store[1:], "--as", "c7", "--bundle", "/srv/c7",
        "--base", "/srv/base", "--tag", "a", "--tag", "b", "--allow", "mounts",
    ]  # fmt: skip
    assert main.run(argv) == 0
    _, _, plan, wanted = seen
    assert wanted == importing.Wanted(bundle="/srv/c7", id="c7", base="/srv/base", tags=("a", "b"))
    assert plan.granted == {"mounts"}
    assert plan.contents.plan.shown == str(archive)


def test_a_plan_needs_no_store(
    archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It says what the archive asks for, and that is all."""
    assert main.run(["backup", "import", str(tmp_path / "none"), str(archive), "--plan"]) == 0
    assert "not granted: mounts: /etc at /in" in capsys.readouterr().out
    assert not (tmp_path / "none").exists()


def test_without_a_place_for_its_files_it_is_refused(
    archive: Path, store: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """What the archive says of where it lay on another host is nothing to go by."""
    assert main.run(["backup", "import", store[0], str(archive), *store[1:]]) != 0
    assert main.run(["backup", "list", *store, "--quiet"]) == 0
    said = capfd.readouterr()
    assert "--bundle DIR is missing" in said.err
    assert "snapshot" not in said.out
    assert not list((tmp_path / "store").glob("packs/*"))
