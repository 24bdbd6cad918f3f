"""inspect, diff and memory of archives and snapshots: what they say is what they say of a directory."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from ocimig.cli import main
from ocimig.files import Fd
from ocimig.migrate.archive import content, images, oci
from ocimig.migrate.archive.errors import ArchiveChanged
from ocimig.migrate.backup import look
from ocimig.migrate.backup.images import whole
from ocimig.migrate.spool import Spool
from ocimig_testkit.image_kinds import kinds
from ocimig_testkit.images import HEAP, LAZY, PAGE, PARENT, PRESENT, STACK, Checkpoint, stack, vma
from ocimig_testkit.look import FAR, WORD, Family, packed

_OF_PLACE = ("kind", "path", "origin", "checkpoint")
Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where what is looked at is unpacked."""
    found = tmp_path / "room"
    found.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(found))
    return found


def say(capfd: Captured, *argv: str, code: int = 0) -> str:
    """What a command prints."""
    assert main.run(list(argv)) == code, capfd.readouterr().err
    return capfd.readouterr().out


def facts(capfd: Captured, image: str) -> dict[str, Any]:
    """Everything that inspect says but for where the checkpoint lies."""
    found: dict[str, Any] = json.loads(say(capfd, "inspect", image, "--all", "--format", "json"))
    return {name: value for name, value in found.items() if name not in _OF_PLACE}


@pytest.mark.parametrize("form", ["none", "gzip", "zstd"])
def test_an_archive_says_what_its_directory_says(
    tmp_path: Path, room: Path, capfd: Captured, form: str
) -> None:
    """Every kind of image, whatever the archive is compressed with; nothing of it stays here."""
    checkpoint = kinds(tmp_path / "image")
    archive = str(packed(checkpoint.path, tmp_path / "web.tar", form))
    assert facts(capfd, archive) == facts(capfd, str(checkpoint.path))
    for words in (["--search-regex", "[a-z]{4}"], ["--list"]):
        said = [
            say(capfd, "memory", image, "-p", "1", *words)
            for image in (archive, str(checkpoint.path))
        ]
        assert said[0] == said[1] != ""
    assert say(capfd, "diff", archive, str(checkpoint.path), code=1).count("memory") == 1
    assert os.listdir(room) == []


def test_an_image_of_an_archive_is_one_too(tmp_path: Path, capfd: Captured) -> None:
    """As a directory and as a tar: what a registry gives."""
    checkpoint = kinds(tmp_path / "image")
    archive = packed(checkpoint.path, tmp_path / "web.tar")
    wanted = facts(capfd, str(checkpoint.path))
    for out in (tmp_path / "web.oci", tmp_path / "web.oci.tar"):
        with Fd(os.open(archive, os.O_RDONLY)) as fd:
            oci.write(fd, content.read(fd, "web"), str(out), compress="zstd")
        assert facts(capfd, str(out)) == wanted


def test_podmans_pre_checkpoint_is_the_parent(tmp_path: Path, capfd: Captured) -> None:
    """Pages that are in it are found there."""
    first, second = Checkpoint(tmp_path / "first"), Checkpoint(tmp_path / "second")
    stack(first, 1, b"prog\0")
    runs = [(STACK - PAGE, 1, PARENT), (STACK, 1, PRESENT)]
    second.memory(
        1, runs, [vma(STACK - 3 * PAGE, STACK + PAGE)], mm_arg_start=STACK - 8, mm_arg_end=STACK - 3
    )
    archive = str(packed(second.path, tmp_path / "web.tar", "zstd", parent=first.path))
    found = facts(capfd, archive)
    assert found["parents"] == 1
    assert found["processes"][0]["command"] == ["prog"]
    assert found["processes"][0]["memory"]["inherited"] == PAGE
    assert "prog" in say(capfd, "memory", archive, "-p", "1", "--search", "prog")


def test_a_look_without_memory_unpacks_no_pages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Captured
) -> None:
    """But for those with the words of the command line: 8 MiB of pages take no room."""
    checkpoint = Checkpoint(tmp_path / "image")
    area = vma(STACK - (8 << 20), STACK + PAGE)
    checkpoint.memory(
        1, [(STACK - (8 << 20), 2049, PRESENT)], [area],
        mm_arg_start=STACK - 8, mm_arg_end=STACK - 3,
    )  # fmt: skip
    with open(checkpoint.path / "pages-1.img", "r+b") as file:
        file.write(b"x" * (8 << 20))
    checkpoint.fill(1, (8 << 20) - 8, b"prog\0")
    archive = str(packed(checkpoint.path, tmp_path / "web.tar", "zstd"))
    written = []
    real = Spool.write

    def write(self: Spool, at: int, data: bytes) -> None:
        written.append(len(data))
        real(self, at, data)

    monkeypatch.setattr(Spool, "write", write)
    found = facts(capfd, archive)
    assert found["processes"][0]["command"] == ["prog"]
    assert found["totals"]["saved"] == (8 << 20) + PAGE
    assert sum(written) < 64 << 10
    assert say(capfd, "memory", archive, "-p", "1", "--search", "xprog").count("\n") == 1
    assert sum(written) >= 8 << 20


def test_without_room_it_is_said_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Captured
) -> None:
    """With the place and what would name another."""
    archive = packed(kinds(tmp_path / "image").path, tmp_path / "web.tar")
    real = os.fstatvfs
    monkeypatch.setattr(
        os, "fstatvfs", lambda fd: os.statvfs_result([*real(fd)[:4], 0, *real(fd)[5:]])
    )
    assert main.run(["inspect", str(archive)]) == 15
    said = capfd.readouterr().err
    assert str(tmp_path / "room") in said
    assert "TMPDIR" in said


def test_an_archive_that_is_killed_over_leaves_nothing(tmp_path: Path, room: Path) -> None:
    """SIGKILL asks nobody to clean up: what was unpacked never had a name."""
    archive = packed(kinds(tmp_path / "image").path, tmp_path / "web.tar")
    program = (
        "import os, sys; from ocimig.migrate.archive import images\n"
        "made = images.opened(os.open(sys.argv[1], os.O_RDONLY), 'web')\n"
        "print(len(made.names()), flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(archive)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(room)},
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert int(process.stdout.readline()) > 10
        assert os.listdir(room) == []
        process.send_signal(signal.SIGKILL)
    assert os.listdir(room) == []


def test_an_archive_that_changes_between_two_reads_is_refused(tmp_path: Path) -> None:
    """Pages that are read later are those that were planned, or none."""
    checkpoint = kinds(tmp_path / "image")
    archive = packed(checkpoint.path, tmp_path / "web.tar")
    data = archive.read_bytes()
    with Fd(os.open(archive, os.O_RDONLY)) as fd, images.opened(fd, "web") as found:
        at = data.index(b"shared".ljust(PAGE, b"\0"))
        archive.write_bytes(data[:at] + b"SHARED" + data[at + 6 :])
        with pytest.raises(ArchiveChanged, match=r"pages-12\.img differs"):
            found.pages(12).read(0, PAGE)


def test_what_is_no_archive_is_said(tmp_path: Path, capfd: Captured) -> None:
    """An empty file, a pipe, an archive of something else, a store."""
    (tmp_path / "empty").write_bytes(b"")
    os.mkfifo(tmp_path / "pipe")
    for name, words in (("empty", "cannot be read"), ("pipe", "pipe")):
        assert main.run(["inspect", str(tmp_path / name)]) not in (0, 70)
        assert words in capfd.readouterr().err
    Family(tmp_path / "image").store(tmp_path / "store")
    for where in (str(tmp_path / "store"), "ssh://host/store"):
        assert main.run(["inspect", where]) == 2
        assert f"{where}::latest" in capfd.readouterr().err


def cache(tmp_path: Path) -> list[str]:
    """What every look into a store is given."""
    return ["--cache", str(tmp_path / "cache")]


def test_a_snapshot_says_what_the_whole_checkpoint_says(
    tmp_path: Path, room: Path, capfd: Captured
) -> None:
    """With all of its memory in CRIU's images nothing is different: counts, words, matches, files made."""
    store, snapshot = Family(tmp_path / "image").store(tmp_path / "store")
    whole(store, snapshot, str(tmp_path / "whole"))
    named = f"{tmp_path / 'store'}::{snapshot.id[:6]}"
    asked = ["inspect", named, "--all", "--format", "json", *cache(tmp_path)]
    found = json.loads(say(capfd, *asked))
    assert {k: v for k, v in found.items() if k not in _OF_PLACE} == facts(
        capfd, str(tmp_path / "whole")
    )
    assert (found["kind"], found["path"]) == ("snapshot", f"{tmp_path / 'store'}::{snapshot.id}")
    assert found["checkpoint"]["id"] == found["origin"]["container"] == "web"
    assert found["processes"][0]["command"] == ["prog", "--name"]
    assert found["processes"][0]["environment"] == ["A=b", "C=d"]
    for number, words in enumerate((
        ["--search", "border"], ["--search-regex", "[a-z]{4}"], ["--search", "shared by"],
        ["--extract", f"{HEAP:x}-{HEAP + 8 * PAGE:x}"], ["--extract", f"{FAR - PAGE:x}-{FAR + 9:x}"],
        ["--core"],
    )):  # fmt: skip
        made: list[bytes | str] = []
        for image in (named, str(tmp_path / "whole")):
            target = tmp_path / f"{number}-{len(made)}"
            more = {"--extract": ["--output", str(target)], "--core": [str(target)]}.get(
                words[0], []
            )
            said = say(capfd, "memory", image, "-p", "1", *words, *more, *cache(tmp_path))
            made.append(target.read_bytes() if target.exists() else said)
        assert made[0] == made[1]
        assert made[0]
    assert say(capfd, "diff", named, str(tmp_path / "whole"), *cache(tmp_path)) == ""
    assert os.listdir(room) == []


def test_a_page_that_the_store_lacks_is_nowhere(tmp_path: Path, capfd: Captured) -> None:
    """It is counted as lost and never shown as zeros."""
    _, snapshot = Family(tmp_path / "image").store(tmp_path / "store", lost=HEAP + 2 * PAGE)
    named = f"{tmp_path / 'store'}::{snapshot.id}"
    assert "4.0 KiB nowhere" in say(capfd, "inspect", named, *cache(tmp_path))
    wanted = ["--extract", f"{HEAP:x}-{HEAP + 8 * PAGE:x}", "--output", str(tmp_path / "out")]
    assert main.run(["memory", named, "-p", "1", *wanted, *cache(tmp_path)]) != 0
    assert "no store has it" in capfd.readouterr().err
    assert not (tmp_path / "out").exists()


def test_two_snapshots_differ_where_pages_do(
    tmp_path: Path, capfd: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And no page is read that one store has once for both."""
    family = Family(tmp_path / "image")
    _, one = family.store(tmp_path / "store")
    _, other = family.store(tmp_path / "store", word=b"another word")
    read: list[int] = []
    real = look.StoredPages.read

    def note(self: look.StoredPages, offset: int, size: int) -> bytes:
        read.append(offset)
        return real(self, offset, size)

    monkeypatch.setattr(look.StoredPages, "read", note)
    names = [f"{tmp_path / 'store'}::{each.id}" for each in (one, other)]
    asked = ["--format", "json", *cache(tmp_path)]
    found = json.loads(say(capfd, "diff", *names, *asked, code=1))
    assert [each["changed"] for each in found["memory"]] == [PAGE]
    assert sum(each["same"] for each in found["memory"]) == 3 * PAGE
    words = [offset for offset in read if offset < STACK - PAGE]
    assert words == [HEAP + 2 * PAGE] * 2
    archive = packed(family.path, tmp_path / "web.tar")
    assert (
        say(capfd, "diff", names[0], str(archive), *cache(tmp_path), code=1).count("unknown") >= 3
    )
    assert say(capfd, "diff", names[0], names[0], *cache(tmp_path)) == ""


def test_latest_is_of_the_container_that_is_named(tmp_path: Path, capfd: Captured) -> None:
    """As the verbs of backup have it; who is not there is said as they say it."""
    _, snapshot = Family(tmp_path / "image").store(tmp_path / "store")
    store = str(tmp_path / "store")
    said = say(capfd, "inspect", f"{store}::latest", "--container", "web", *cache(tmp_path))
    assert f"snapshot {snapshot.id} of web on h at " in said
    for name, more in (("latest", ["--container", "other"]), ("ffff", [])):
        assert main.run(["inspect", f"{store}::{name}", *more, *cache(tmp_path)]) == 10
        assert "has no snapshot" in capfd.readouterr().err


def test_a_directory_may_have_colons(tmp_path: Path, capfd: Captured) -> None:
    """What is there by that name is what is meant."""
    checkpoint = kinds(tmp_path / "a::b")
    assert "prog" in say(capfd, "inspect", str(checkpoint.path))


def test_an_archives_words_reach_no_terminal_raw(tmp_path: Path, capfd: Captured) -> None:
    """Its names are whoever's who made it."""
    archive = packed(kinds(tmp_path / "image").path, tmp_path / "web.tar")
    said = say(capfd, "inspect", str(archive), "--all")
    assert "made by podman" in said
    assert all(line.isprintable() for line in said.splitlines())


def test_a_word_is_found_in_both(tmp_path: Path, capfd: Captured) -> None:
    """The whole way by the command line, for a person."""
    family = Family(tmp_path / "image")
    family.store(tmp_path / "store")
    named = f"{tmp_path / 'store'}::latest"
    said = say(capfd, "memory", named, "-p", "1", "--search", WORD.decode(), *cache(tmp_path))
    assert said.startswith(f"{HEAP + 2 * PAGE:#x}  ")


def test_a_segment_that_is_read_on_is_read_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Captured
) -> None:
    """Pages that changed later lie in frames of their own: each is expanded once, not once for each block."""
    family = Family(tmp_path / "image")
    family.store(tmp_path / "store")
    named = f"{tmp_path / 'store'}::latest"
    asked = ["memory", named, "-p", "1", "--search-regex", "[a-z]+ [a-z]+", *cache(tmp_path)]
    wanted = say(capfd, *asked)
    fetched: list[tuple[int, int]] = []
    real = look.StoredPages._fetched

    def note(self: look.StoredPages, start: int, end: int) -> bytearray:
        fetched.append((start, end))
        return real(self, start, end)

    monkeypatch.setattr(look.StoredPages, "_fetched", note)
    monkeypatch.setattr(look, "ONCE", PAGE)
    assert say(capfd, *asked) == wanted
    assert wanted.count("\n") >= 2
    assert [each for each in fetched if HEAP <= each[0] <= FAR] == [(HEAP, FAR), (FAR, FAR + PAGE)]


def test_a_list_of_pages_without_end_is_walked_in_no_time(tmp_path: Path, capfd: Captured) -> None:
    """2^50 pages of which the store has seven: what is not there is not looked for page by page."""
    family = Family(tmp_path / "image")
    area = vma(HEAP, 1 << 62)
    family.made.memory(1, [(HEAP, 1, PRESENT), (HEAP + PAGE, 1 << 49, LAZY)], [area])
    family.store(tmp_path / "store")
    said = say(capfd, "inspect", f"{tmp_path / 'store'}::latest", *cache(tmp_path))
    assert "TiB nowhere" in said
