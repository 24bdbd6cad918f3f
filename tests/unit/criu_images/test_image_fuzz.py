"""Damaged images: only errors of ours come out. `make fuzz` goes on for longer."""

import random
from pathlib import Path

import pytest

from ocimig_testkit.image_fuzz import Fuzzer, Opener, limited
from ocimig_testkit.image_kinds import kinds
from ocimig_testkit.look import archived, stored

CORPUS = Path(__file__).with_name("corpus")


@pytest.fixture
def fuzzer(tmp_path: Path) -> Fuzzer:
    """With the same dice each time."""
    return Fuzzer(CORPUS, tmp_path, random.Random(20260101))


def test_undamaged_images_are_read_by_every_way(fuzzer: Fuzzer) -> None:
    """Or the campaign would damage what nobody reads."""
    fuzzer.fresh()
    assert fuzzer.look() == 0


def test_the_corpus_is_what_the_kit_writes(tmp_path: Path) -> None:
    """`contrib/fuzz-images.py --rebuild` when a kind was added."""
    kinds(tmp_path / "kinds")
    made = {each.name: each.read_bytes() for each in (tmp_path / "kinds").iterdir()}
    assert made == {each.name: each.read_bytes() for each in (CORPUS / "kinds").iterdir()}
    assert sum(each.stat().st_size for each in CORPUS.rglob("*")) < 1 << 20


@pytest.mark.parametrize("overlay", sorted(each.name for each in CORPUS.iterdir()))
def test_what_once_was_strange_stays_harmless(fuzzer: Fuzzer, overlay: str) -> None:
    """One directory a find, or a shape that real images have."""
    fuzzer.fresh(CORPUS / overlay)
    with limited(10.0):
        fuzzer.look()


def test_a_few_damaged_images_do_no_harm(fuzzer: Fuzzer) -> None:
    """A short slice of the campaign."""
    refused = 0
    for _ in range(40):
        fuzzer.next()
        with limited(10.0):
            refused += fuzzer.look() > 0
    assert 0 < refused < 40


@pytest.mark.parametrize("opened", [archived, stored])
def test_damaged_images_do_no_harm_wherever_they_lie(fuzzer: Fuzzer, opened: Opener) -> None:
    """In an archive, or in a store that somebody else can write to."""
    fuzzer.fresh()
    assert fuzzer.look(opened) == 0
    refused = 0
    for _ in range(10):
        fuzzer.next()
        with limited(10.0):
            refused += fuzzer.look(opened) > 0
    assert refused > 0
