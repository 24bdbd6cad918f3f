"""clone on the command line."""

import json
from pathlib import Path
from typing import Any

import pytest

from ocimig.cli import main
from ocimig.criu_images.image import Manifest
from ocimig.migrate.clone import make, merge
from ocimig.runtime.errors import ContainerExists
from ocimig.runtime.store import Store


class Made:
    """Stands for the making: which copies were asked for, and which of them fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, network: dict[str, Any] | None) -> None:
        self.asked: list[tuple[str, str]] = []
        self.options: make.CloneOptions | None = None
        self.taken: set[str] = set()
        facts = {"state": {"network": network}}
        source = make.Source("/image", Manifest("web", facts=facts), {}, "/bundle", "/root")
        monkeypatch.setattr(make, "find", lambda image, bundle: source)
        monkeypatch.setattr(make, "clone", self._clone)

    def _clone(
        self, store: Store, source: make.Source, name: str, options: make.CloneOptions, joined: Any
    ) -> int:
        self.asked.append((name, joined.address if joined else ""))
        self.options = options
        if name in self.taken:
            raise ContainerExists(id=name)
        return 7


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Made:
    """The source had no network of ours."""
    return Made(monkeypatch, None)


def _run(tmp_path: Path, *words: str) -> int:
    return main.run(["--root", str(tmp_path), "clone", *words, "/image"])


def test_copies_are_started_and_named(
    made: Made, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A line for each as it runs."""
    assert _run(tmp_path, "-n", "2", "--net", "bridge=br0,address=10.0.0.5/24") == 0
    assert made.asked == [("web-1", "10.0.0.5/24"), ("web-2", "10.0.0.6/24")]
    assert "web-2 runs, pid 7, 10.0.0.6/24" in capfd.readouterr().out


@pytest.mark.parametrize(("taken", "code"), [(["web-1"], 3), (["web-1", "web-2"], 1)])
def test_one_that_fails_does_not_keep_the_others_from_it(
    made: Made, tmp_path: Path, capfd: pytest.CaptureFixture[str], taken: list[str], code: int
) -> None:
    """3 when some run; the error's own code when none does."""
    made.taken = set(taken)
    assert _run(tmp_path, "-n", "2", "--format", "json") == code
    found = json.loads(capfd.readouterr().out)
    assert [each["id"] for each in found if "error" in each] == taken


def test_copies_do_not_silently_lose_the_network_or_take_the_address_of_their_source(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Which addresses are free only the person knows."""
    made = Made(monkeypatch, {"address": "10.0.0.5/24", "bridge": "br0"})
    assert _run(tmp_path) == 2
    assert "--net none" in capfd.readouterr().err
    assert made.asked == []
    assert _run(tmp_path, "--net", "none") == 0
    assert made.asked == [("web-1", "")]


@pytest.mark.parametrize("words", [("-n", "0"), ("--name", "a", "--name", "b", "-n", "3")])
def test_what_cannot_be_counted_is_a_wrong_command_line(
    made: Made, tmp_path: Path, words: tuple[str, ...]
) -> None:
    """Nothing was started."""
    assert _run(tmp_path, *words) == 2
    assert made.asked == []


def _marked(made: Made, tmp_path: Path, *words: str) -> bool:
    assert _run(tmp_path, *words) == 0
    assert made.options is not None
    return made.options.merge


def test_what_is_not_merged_is_said_to_who_asked_for_it(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A switch of the host's, which is the host's to turn; by themselves copies go by it in silence."""
    monkeypatch.setattr(merge, "impossible", str)
    monkeypatch.setattr(merge, "RUN", str(tmp_path / "run"))
    assert not _marked(made, tmp_path)
    assert "KSM" not in capfd.readouterr().err
    assert _marked(made, tmp_path, "--merge", "on")
    assert "KSM is off on this host" in capfd.readouterr().err
    (tmp_path / "run").write_text("1\n")
    assert _marked(made, tmp_path)
    assert _marked(made, tmp_path, "--merge", "on")
    assert not _marked(made, tmp_path, "--merge", "off")
    assert "KSM" not in capfd.readouterr().err


def test_a_kernel_that_cannot_merge_is_no_hindrance_unless_it_has_to(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Then nothing is started."""
    monkeypatch.setattr(merge, "impossible", lambda: "it is too old")
    assert _run(tmp_path) == 0
    assert "KSM" not in capfd.readouterr().err
    assert made.options is not None
    assert not made.options.merge
    made.asked.clear()
    assert _run(tmp_path, "--merge", "on") == 14
    assert "it is too old" in capfd.readouterr().err
    assert made.asked == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--files", "/srv", "/image"), "--files is for copies of a snapshot"),
        (("--container", "web", "/image"), "--container is for copies of a snapshot"),
        (("--bundle", "/b", "/store", "latest"), "--bundle is for copies of a checkpoint"),
    ],
)
def test_an_option_that_would_have_no_effect_is_refused(
    made: Made, tmp_path: Path, capfd: pytest.CaptureFixture[str], words: tuple[str, ...], said: str
) -> None:
    """An image has its files elsewhere, a snapshot has its own."""
    assert main.run(["--root", str(tmp_path), "clone", *words]) == 2
    assert said in capfd.readouterr().err
    assert made.asked == []
