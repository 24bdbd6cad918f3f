"""What `ocimig backup` says of a store that somebody else wrote: no name in it does anything to a terminal."""

import dataclasses
import json
import random
from pathlib import Path

import pytest

from ocimig.cli import main
from ocimig.migrate.store.local import LocalPlace, create
from ocimig.migrate.store.snapshot import Tree
from ocimig.migrate.store.store import Store
from ocimig_testkit.shelves import some, take

EVIL = "\x1b]0;owned\x07\r\n\u202e\u2066\x9b\x7f\udcff"


@pytest.fixture
def store(tmp_path: Path) -> str:
    """Two snapshots whose every word was chosen with care."""
    place = create(str(tmp_path / "store"))
    try:
        made = Store.init(place, None, sealed="none", cache=str(tmp_path / "cache"))
        dice = random.Random(7)
        for number in range(2):
            content = some(dice)
            content.files[f"{EVIL}{number}"] = b"x"
            taken = take(
                made, content, container=EVIL, host=EVIL, tags=(EVIL,), labels={EVIL: EVIL},
                time=1.7e9 + number,
            )  # fmt: skip
            made.forget(taken.id)
            (bundle,) = taken.trees
            trees = (Tree("bundle", f"/{EVIL}", bundle.root),)
            made.add(dataclasses.replace(taken, trees=trees))
    finally:
        place.close()
    return str(tmp_path / "store")


def test_nothing_of_a_store_reaches_a_terminal_raw(
    store: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """In lists, in differences, in what is kept and why, in errors: one line stays one line."""
    place = LocalPlace(store)
    one, other = Store.open(place, None, cache=str(tmp_path)).names()
    place.close()
    for argv, owned in (
        (["list", store], 6),
        (["show", store, one], 6),
        (["show", store, one, "--files"], 8),
        (["diff", store, one, other], 4),
        (["forget", store, "--keep-tag", EVIL, "-n"], 4),
        (["restore", store, one, "-b", str(tmp_path / "b")], 1),
    ):
        main.run(["backup", *argv, "--cache", str(tmp_path / "cache")])
        said = capfd.readouterr()
        text = said.out + said.err
        assert text.count("owned") >= owned, argv
        assert all(line.isprintable() for line in text.split("\n")), argv
        # what follows the line break in a name never begins a line
        assert not any(line.startswith("\\u202e") for line in text.split("\n")), argv


def test_programs_get_the_names_as_they_are(
    store: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """JSON has escapes of its own, and is plain ASCII."""
    words = ["backup", "list", store, "--cache", str(tmp_path / "cache"), "-f", "json"]
    assert main.run(words) == 0
    text = capfd.readouterr().out
    assert text.isascii()
    assert [each["container"] for each in json.loads(text)] == [EVIL, EVIL]
