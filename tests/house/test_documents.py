"""Documents are part of the program: their links lead somewhere and their commands exist."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

import ocimig
from ocimig_testkit.probes import MARKERS
from ocimig_testkit.source import ROOT

PAGES = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "contrib/**/*.md", "tests/**/*.md")
    for path in ROOT.glob(pattern)
    if ".venv" not in path.parts
)
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    """Relative links name files of the project."""
    targets = [link for link in LINK.findall(page.read_text()) if "://" not in link]
    missing = [target for target in targets if not (page.parent / target).exists()]
    assert not missing


def test_the_commands_of_the_readme_exist() -> None:
    """Every `make X` that a document names is a target."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        named = set(re.findall(r"`make ([a-z-]+)", page.read_text()))
        named |= set(re.findall(r"^\s*(?:\$ |# )?make ([a-z-]+)", page.read_text(), re.MULTILINE))
        assert named <= targets, page


def test_make_alone_explains_every_target() -> None:
    """The help is the table of contents."""
    shown = subprocess.run(
        ["make", "-s"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    phony = re.search(
        r"^\.PHONY: (.*?)(?<!\\)$", (ROOT / "Makefile").read_text(), re.MULTILINE | re.DOTALL
    )
    assert phony is not None
    for target in phony.group(1).replace("\\", " ").split():
        assert re.search(rf"^  {target} ", shown, re.MULTILINE), target


def test_the_version_stands_in_one_place_and_in_the_changelog() -> None:
    """pyproject.toml reads it from the package; the changelog has a section for it or for what comes."""
    with open(ROOT / "pyproject.toml", "rb") as file:
        project = tomllib.load(file)["project"]
    assert "version" in project["dynamic"]
    changes = (ROOT / "CHANGELOG.md").read_text()
    assert f"## [{ocimig.__version__}]" in changes or "## [Unreleased]" in changes


def test_decisions_are_numbered_without_gaps() -> None:
    """docs/adr/NNNN-title.md, each with its context, decision and consequences."""
    pages = sorted((ROOT / "docs/adr").glob("*.md"))
    assert [int(page.name[:4]) for page in pages] == list(range(1, len(pages) + 1))
    for page in pages:
        text = page.read_text()
        for part in (
            "## Context",
            "## Decision",
            "## Consequences",
            "## What would change our mind",
        ):
            assert part in text, page


def test_every_marker_has_a_probe_and_every_probe_a_marker() -> None:
    """No test is skipped for a reason that nobody tries."""
    with open(ROOT / "pyproject.toml", "rb") as file:
        options = tomllib.load(file)["tool"]["pytest"]["ini_options"]
    declared = {line.partition(":")[0] for line in options["markers"]} - {"slow"}
    assert declared == set(MARKERS)
