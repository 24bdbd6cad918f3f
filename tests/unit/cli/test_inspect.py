"""inspect, diff, memory: what is printed, and that nothing in an image reaches a terminal or a browser raw."""

import json
import re
import tracemalloc
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from ocimig.cli import inspect_document, main, shown
from ocimig.cli.inspect_document import Document, Wanted
from ocimig.criu_images import contents, tables
from ocimig.criu_images.descriptors import Files
from ocimig.criu_images.opened import ImageDirectory
from ocimig_testkit.image_kinds import kinds
from ocimig_testkit.images import HEAP, PAGE, PRESENT, STACK, Checkpoint, stack, vma

EVIL = "\x1b]0;owned\x07<script>alert(1)</script>\u202e&\"'"


@pytest.fixture
def checkpoint(tmp_path: Path) -> Checkpoint:
    """A process that chose its words with care, and its child."""
    found = Checkpoint(tmp_path / "image")
    found.tree((1, 0), (2, 1))
    stack(found, 1, f"prog\0{EVIL}\0".encode())
    found.core(2, EVIL)
    found.files(1, {
        0: {"type": 1, "reg": {"name": EVIL, "pos": 3}},
        4: {"type": 5, "usk": {"type": 1, "state": 1, "name": EVIL.encode(), "ino": 3}},
    })  # fmt: skip
    mount = {"mountpoint": f"./{EVIL}", "source": EVIL, "fsname": EVIL}
    found.image("mountpoints-9.img", "mountpoints", tables.MOUNT, mount)
    found.image("utsns-9.img", "utsns", tables.UTSNS, {"nodename": EVIL})
    sets = [{"id": 1, "ctls": [{"name": EVIL, "path": EVIL}]}]
    found.image("cgroup.img", "cgroup", tables.CGROUP, {"sets": sets})
    found.image("stats-dump", "stats", tables.STATS, {"dump": {"frozen_time": 1500}})
    return found


def test_nothing_of_an_image_reaches_a_terminal_raw(
    checkpoint: Checkpoint, capsys: pytest.CaptureFixture[str]
) -> None:
    """No escape sequence, no change of direction, no line break but ours."""
    for argv in (
        ["inspect", "--all"],
        ["memory", "-p", "1"],
        ["memory", "-p", "1", "--search", "own"],
    ):
        assert main.run([argv[0], str(checkpoint.path), *argv[1:]]) == 0
        text = capsys.readouterr().out
        assert all(each.isprintable() for each in text.splitlines()), argv
        assert "owned" in text or argv[0] == "memory"
    assert main.run(["inspect", str(checkpoint.path), "--all"]) == 0
    assert capsys.readouterr().out.count("owned") == 11


def test_the_tree_names_processes_and_where_their_memory_is(
    checkpoint: Checkpoint, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a person sees first."""
    assert main.run(["inspect", str(checkpoint.path)]) == 0
    first, root, child, totals = capsys.readouterr().out.splitlines()
    assert first.endswith("not made by ocimig")
    assert re.match(r"1 prog .*\(uid 7, 8\.0 KiB here\)$", root)
    assert child.startswith("└─ 2 [")
    assert totals == "2 processes, memory: 8.0 KiB here"


def test_the_json_is_one_document(
    checkpoint: Checkpoint, capsys: pytest.CaptureFixture[str]
) -> None:
    """As docs/formats/inspect.md has it; each list in its place, each only when it is asked for."""
    path = str(checkpoint.path)
    assert main.run(["inspect", path, "--all", "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found) == [
        "version", "kind", "path", "origin", "checkpoint", "inventory", "parents", "processes",
        "files", "mappings", "shared_memory", "mounts", "cgroups", "totals", "statistics",
    ]  # fmt: skip
    assert found["processes"][0]["command"] == ["prog", EVIL]
    assert found["mappings"][0]["start"] == f"{STACK - 3 * PAGE:#x}"
    assert found["statistics"]["dump"]["frozen_time"] == 1500
    assert main.run(["inspect", path, "--sockets", "-p", "1", "--format=json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [each["kind"] for each in found["files"]] == ["unix"]
    assert "mounts" not in found
    assert len(found["processes"]) == 1


class _Page(HTMLParser):
    """What a browser would see."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {f"{tag} {name}" for name, _ in attrs}


def test_the_page_needs_nothing_and_runs_nothing(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """No script, no address, no attribute made of an image's words."""
    target = tmp_path / "page.html"
    assert main.run(["inspect", str(checkpoint.path), "--html", str(target)]) == 0
    text = target.read_text()
    page = _Page()
    page.feed(text)
    assert {"svg", "rect", "path", "table"} <= page.tags
    assert not page.tags & {"script", "link", "img", "iframe", "object", "use", "a"}
    assert not [each for each in page.attributes if re.search(r" (src|href|on\w+|data)$", each)]
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "url(" not in text
    assert "://" not in text
    assert text.count("owned") >= 10
    drawings = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert len(drawings) == 3
    for drawing in drawings:
        ElementTree.fromstring(drawing)  # it is whole, whatever the words in it


def test_one_process_that_is_not_there_is_said(
    checkpoint: Checkpoint, capfd: pytest.CaptureFixture[str]
) -> None:
    """By number and with what would show the others."""
    assert main.run(["inspect", str(checkpoint.path), "--pid", "77"]) == 10
    assert "there is no process 77" in capfd.readouterr().err
    assert main.run(["inspect", str(checkpoint.path / "nowhere")]) == 12


@pytest.mark.parametrize(
    "argv",
    [
        ["--pid", "1", "--search-hex", "abc"],
        ["--pid", "1", "--search", ""],
        ["--pid", "1", "--search-regex", "("],
        ["--pid", "1", "--search", "x", "--core", "y"],
        ["--pid", "1", "--extract", "20-10", "--output", "x"],
        ["--pid", "1", "--extract", "heap"],
        ["--list"],
    ],
)
def test_a_wrong_question_is_refused(checkpoint: Checkpoint, argv: list[str]) -> None:
    """With the code of a wrong command line, before anything is written."""
    assert main.run(["memory", str(checkpoint.path), *argv]) == 2


def test_a_search_says_where_and_by_its_code_whether(
    checkpoint: Checkpoint, capsys: pytest.CaptureFixture[str]
) -> None:
    """As grep does."""
    path = str(checkpoint.path)
    assert main.run(["memory", path, "-p", "1", "--search-hex", "70726f67", "-c", "3"]) == 0
    assert capsys.readouterr().out == f"{STACK - 8:#x}  [stack]  ...[prog]..]\n"
    assert main.run(["memory", path, "-p", "1", "--search", "nothing"]) == 1


def test_memory_is_extracted_by_name_and_by_range(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """The same bytes."""
    path, one, two = str(checkpoint.path), str(tmp_path / "1"), str(tmp_path / "2")
    area = f"{STACK - 3 * PAGE:x}-0x{STACK + PAGE:x}"
    assert main.run(["memory", path, "-p", "1", "--extract", "stack", "--output", one]) == 0
    assert main.run(["memory", path, "-p", "1", "--extract", area, "--output", two]) == 0
    assert Path(one).read_bytes() == Path(two).read_bytes()
    assert b"prog\0" in Path(one).read_bytes()
    assert main.run(["memory", path, "-p", "1", "--extract", area, "--output", two]) == 1


def test_diff_says_whether_anything_differs(
    checkpoint: Checkpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 1 and lines, or a document, as diff(1)."""
    other = Checkpoint(tmp_path / "other")
    stack(other, 1, f"prog\0{EVIL}\0".encode())
    other.fill(1, 0, b"new")
    assert main.run(["diff", str(checkpoint.path), str(checkpoint.path)]) == 0
    assert capsys.readouterr().out == ""
    assert main.run(["diff", str(checkpoint.path), str(other.path)]) == 1
    text = capsys.readouterr().out
    assert "- process 2" in text
    assert "4.0 KiB changed" in text
    assert all(line.isprintable() for line in text.splitlines())
    assert main.run(["diff", str(checkpoint.path), str(other.path), "--format", "json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["memory"][0]["changed"] == PAGE
    assert {each["what"] for each in found["differences"]} == {"process", "file", "mount"}


def test_what_came_from_the_host_has_its_name_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The images have only a number of a device and of an inode; ocimig's manifest has the path."""
    found = kinds(tmp_path / "image")
    assert main.run(["inspect", str(found.path), "--files"]) == 0
    text = capsys.readouterr().out
    assert "21 file      /var/log/out  r" in text
    assert text.startswith("checkpoint of web, ")


def test_a_checkpoint_without_its_parent_is_still_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With what is missing said."""
    found = kinds(tmp_path / "image")
    (found.path / "parent").symlink_to("../nowhere")
    assert main.run(["inspect", str(found.path)]) == 0
    assert "4.0 KiB nowhere" in capsys.readouterr().out


def test_sizes_are_for_people() -> None:
    """One decimal, the unit that suits."""
    said = [shown.amount(size) for size in (0, 1023, 1024, 1536 << 20, 5 << 40)]
    assert said == ["0 B", "1023 B", "1.0 KiB", "1.5 GiB", "5.0 TiB"]


@pytest.fixture
def traced() -> Iterator[None]:
    """Python's own count of what it holds."""
    tracemalloc.start()
    try:
        yield
    finally:
        tracemalloc.stop()


def _peak(path: Path, runs: int, pages: int) -> int:
    """The most memory that a whole look at a checkpoint takes, in bytes."""
    checkpoint = Checkpoint(path)
    step = (pages + 1) * PAGE
    area = vma(HEAP, HEAP + runs * step)
    checkpoint.memory(1, [(HEAP + each * step, pages, PRESENT) for each in range(runs)], [area])
    wanted = Wanted(0, True, True, True, True, True, True)
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    with ImageDirectory(str(path)) as directory:
        for _ in inspect_document.json_text(Document(directory, wanted)):
            pass
        if pages * runs < 1 << 16:
            assert not list(contents.search(directory, 1, Files(directory), contents.literal(b"x")))
    return tracemalloc.get_traced_memory()[1] - before


@pytest.mark.usefixtures("traced")
def test_a_large_checkpoint_takes_no_more_memory_than_a_small_one(tmp_path: Path) -> None:
    """16 GiB in 8,000 pieces beside 8 MiB in 20; a search through 64 MiB beside one through 8."""
    small = _peak(tmp_path / "small", 20, 100)
    searched = _peak(tmp_path / "searched", 160, 100)
    large = _peak(tmp_path / "large", 8_000, 525)
    assert searched < small + (1 << 20)
    assert large < small + (1 << 20)
    assert small < 8 << 20
