"""Archives on the command line: every option arrives, and what the archive says decides nothing."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ocimig.cli import main
from ocimig.cli.commands import archive as commands
from ocimig.cli.verbs import Call
from ocimig.cli.verbs_archive import ARCHIVE, EXPORT
from ocimig.errors import OcimigError
from ocimig.migrate.archive import carry
from ocimig.migrate.archive.errors import NotSigned
from ocimig.migrate.archive.exporting import Export

BY_NAME = {verb.name: verb for verb in ARCHIVE}


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """One of ours, of a container that asks for /etc of the host."""
    from ocimig.criu_images.image import CheckpointImage, Manifest
    from ocimig.migrate.archive import exporting

    (tmp_path / "image").mkdir()
    (tmp_path / "image/inventory.img").write_bytes(b"x" * 300)
    image = CheckpointImage(str(tmp_path / "image"))
    mount = {"destination": "/in", "type": "bind", "source": "/etc", "options": ["rbind"]}
    image.write_json("config.json", {"process": {}, "mounts": [mount], "linux": {}})
    image.seal(Manifest.new("web", "4.2.1"))
    wanted = Export(file=str(tmp_path / "web.tar"), ignore_rootfs=True)
    exporting.write_archive(image, exporting.Captured(), wanted)
    return tmp_path / "web.tar"


def run(name: str, *arguments: object, **options: Any) -> int:
    """One of the verbs of two words."""
    given = {key.replace("_", "-"): value for key, value in options.items()}
    call = Call(BY_NAME[name], {}, given, [str(argument) for argument in arguments])
    function: Callable[[Call], int] = getattr(commands, BY_NAME[name].target.partition(":")[2])
    return function(call)


def test_every_option_of_export_arrives(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Beside those of the checkpoint itself."""
    seen: list[Any] = []
    monkeypatch.setattr(carry, "checkpoint_to", lambda *all: seen.extend(all))
    words = [
        f"--{option.key}" if option.kind == "flag"
        else f"--{option.key}={(option.choices or ('value',))[-1]}"
        for option in EXPORT
    ]  # fmt: skip
    argv = ["--root", str(tmp_path), "checkpoint", *words, "--leave-running", "c1"]
    assert main.run(argv) == 0
    _, id, options, wanted = seen
    assert (id, options.leave_running, options.image_path) == ("c1", True, "")
    usual = Export("")
    assert [n for n in Export.__slots__ if getattr(wanted, n) == getattr(usual, n)] == []


def test_every_option_of_import_arrives(
    monkeypatch: pytest.MonkeyPatch, archive: Path, tmp_path: Path
) -> None:
    """Grants, the bundle, and what restore takes besides."""
    seen: list[Any] = []

    def restore_from(*all: object) -> int:
        seen.extend(all)
        return 7

    monkeypatch.setattr(carry, "restore_from", restore_from)
    argv = [
        "--root", str(tmp_path), "restore", "--import", str(archive), "--allow", "mounts",
        "--allow", "unconfined", "--allow", "namespaces", "--bundle", "b", "-d", "c1",
    ]  # fmt: skip
    assert main.run(argv) == 7
    _, id, _, plan, options, _ = seen
    assert (id, options.bundle, options.detach) == ("c1", "b", True)
    assert plan.granted == {"mounts", "unconfined", "namespaces"}
    assert plan.decision.wanting == []


def test_a_plan_is_shown_and_nothing_is_done(
    archive: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """No bundle is needed to look."""
    before = sorted(tmp_path.iterdir())
    argv = ["--root", str(tmp_path / "r"), "restore", "--plan", "--import", str(archive), "c1"]
    assert main.run(argv) == 0
    assert "not granted: mounts: /etc at /in" in capfd.readouterr().out
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--bundle", "b"], 12, "--allow mounts"),
        ([], 2, "--bundle DIR"),
        (["--bundle", "b", "--signer", "x"], 2, "go together"),
        (["--bundle", "b", "--signer", "x", "--allowed-signers", "/none"], 12, "is not signed"),
        (["--bundle", "b", "--allow", "everything"], 1, "everything"),
    ],
)
def test_an_import_that_may_not_be_is_refused(
    archive: Path, tmp_path: Path, words: list[str], code: int, said: str,
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """With the words that would make it possible, and nothing on disk."""
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    argv = ["--root", str(tmp_path / "r"), "restore", "--import", str(archive), *words, "c1"]
    assert main.run(argv) == code
    assert said in capfd.readouterr().err
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    "option", ["--pre-dump", "--lazy-pages", "--parent-path=p", "--page-server=a:1"]
)
def test_an_archive_holds_all_of_the_memory(
    option: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Half a checkpoint cannot be carried away."""
    argv = ["--root", str(tmp_path), "checkpoint", option, "--export", str(tmp_path / "x"), "c1"]
    assert main.run(argv) == 2
    assert "all of the memory" in capfd.readouterr().err


def test_show_says_what_it_is(archive: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """For people, with every member, and for programs."""
    assert run("archive show", archive, members=True) == 0
    told = capfd.readouterr().out
    assert "checkpoint of web" in told
    assert "make file checkpoint/inventory.img, 300 bytes" in told
    assert run("archive show", archive, json=True) == 0
    document = json.loads(capfd.readouterr().out)
    assert document["maker"] == "ocimig"
    assert {"grant": "mounts", "what": "/etc at /in", "verdict": "not granted"} in document["asks"]


def test_verify_tells_whole_from_vouched_for(
    archive: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A manifest that matches is no signature."""
    assert run("archive verify", archive) == 0
    assert "not signed" in capfd.readouterr().out
    with pytest.raises(NotSigned):
        run("archive verify", archive, allowed_signers="/none", signer="x")


def test_convert_changes_the_form_and_nothing_else(archive: Path, tmp_path: Path) -> None:
    """To no compression, to an image, and back; never over a file that is there."""
    plain, image, back = (str(tmp_path / name) for name in ("plain.tar", "oci", "back.tar"))
    assert run("archive convert", archive, plain, compress="none") == 0
    assert run("archive convert", plain, image, oci=True) == 0
    assert run("archive convert", image, back, compress="none") == 0
    assert Path(plain).read_bytes() == Path(back).read_bytes()
    with pytest.raises(OcimigError, match="there already"):
        run("archive convert", archive, plain)
    with pytest.raises(OcimigError, match="no/such"):
        run("archive convert", archive, "/no/such/place")
    with pytest.raises(OcimigError, match="missing.tar"):
        run("archive show", tmp_path / "missing.tar")
