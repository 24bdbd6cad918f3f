"""Archives that mean harm, each beside a directory that must stay empty and a target that must not be."""

import io
import os
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ocimig.errors import OcimigError
from ocimig.files import Fd
from ocimig.migrate.archive import applying, extract, members, planning
from ocimig.migrate.archive.errors import (
    ArchiveChanged,
    ArchiveRefused,
    CannotUnpack,
)
from ocimig.migrate.archive.limits import Rules
from ocimig.migrate.archive.members import Member
from ocimig_testkit.archives import PLAIN, ROOTFS, Place, file, pax, tar


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """An empty place."""
    return Place(tmp_path)


@pytest.mark.parametrize(
    "path",
    [b"/etc/evil", b"../outside/evil", b"a/../../outside/evil", b"a/..", b"a//b", b"./../x",
     b"a/./b", b"..", b"a" * 300, b"/".join([b"d"] * 300), b"x/" * 2500 + b"x"],
    ids=lambda path: path[:20].decode(),
)  # fmt: skip
def test_a_path_that_leads_elsewhere_is_refused(place: Place, path: bytes) -> None:
    """Absolute, climbing, with empty parts, too long, too deep."""
    for rules in (PLAIN, ROOTFS):
        place.refuses(tar(file(path, b"evil")), "", rules)


def test_a_nul_in_a_name_is_refused(place: Place) -> None:
    """What C sees as one name and Python as another."""
    place.refuses(tar(pax(b"path", b"a\0b"), file(b"x")), "NUL", ROOTFS)


def test_a_newline_in_a_name_cannot_draw_a_line_of_the_plan(tmp_path: Path) -> None:
    """It can be unpacked, in a root file system; it is shown in one line."""
    archive = tmp_path / "a"
    archive.write_bytes(tar(file(b"x\nmake file /etc/innocent\x1b[2J")))
    with Fd(os.open(archive, os.O_RDONLY)) as fd:
        lines = list(planning.plan(fd, ROOTFS, "a").describe())
    assert len(lines) == 1
    assert "\n" not in lines[0]
    assert "\x1b" not in lines[0]


def test_a_link_is_never_written_through(place: Place) -> None:
    """A symbolic link out, then a file below it: of one archive, refused before anything is made."""
    link = Member(b"d", members.SYMLINK, target=os.fsencode(place.outside))
    place.refuses(tar(link, file(b"d/evil", b"evil")), "below a symbolic link", ROOTFS)
    place.refuses(tar(link), "no place here")
    chain = [Member(b"a/" * n + b"l", members.SYMLINK, target=b"../" * n) for n in range(1, 20)]
    place.refuses(tar(*chain, file(b"a/l/l", b"")), "below a symbolic link", ROOTFS)


def test_a_file_over_a_link_of_the_same_archive_is_refused(place: Place) -> None:
    """The second of one name would be written through the first."""
    link = Member(b"x", members.SYMLINK, target=os.fsencode(place.outside / "evil"))
    place.refuses(tar(link, file(b"x", b"evil")), "there twice", ROOTFS)
    place.refuses(tar(file(b"x"), file(b"x", b"evil")), "there twice")


@pytest.mark.parametrize("target", [b"/etc/passwd", b"../../outside/x", b"never", b"x"])
def test_a_hard_link_leads_only_to_what_came_before(place: Place, target: bytes) -> None:
    """Else it would give the container a file of the host's."""
    member = Member(b"x", members.HARD_LINK, target=target)
    place.refuses(tar(member), "was not unpacked before", ROOTFS)


@pytest.mark.parametrize("type_", [members.CHARACTER, members.DEVICE])
def test_a_device_needs_to_be_allowed(place: Place, type_: str) -> None:
    """A node of the host's disk is the host."""
    place.refuses(tar(Member(b"sda", type_, major=8)), "allow devices", ROOTFS)
    place.refuses(tar(Member(b"sda", type_, major=8)), "allow devices", Rules(devices=True))


def test_set_user_id_is_nothing_outside_a_root_file_system(place: Place) -> None:
    """A plain member becomes a file of ours that only we read."""
    member = Member(b"su", mode=0o6777, uid=7, attributes=((b"security.capability", b"x"),))
    place.unpack(tar(member))
    status = os.stat(place.target / "su")
    assert status.st_mode & 0o7777 == 0o600
    assert status.st_uid == os.geteuid()
    assert os.listxattr(place.target / "su") == []


def test_attributes_that_steer_the_host_are_left_out(tmp_path: Path) -> None:
    """Overlay's redirections, labels of a security module: not a container's to choose."""
    named = ((b"trusted.overlay.redirect", b"/etc"), (b"user.overlay.opaque", b"y"),
             (b"security.selinux", b"x"), (b"user.kept", b"1"))  # fmt: skip
    archive = tmp_path / "a"
    archive.write_bytes(tar(Member(b"f", attributes=named)))
    with Fd(os.open(archive, os.O_RDONLY)) as fd:
        plan = planning.plan(fd, ROOTFS, "a")
        extract.extract(fd, plan, str(tmp_path / "t"))
    assert os.listxattr(tmp_path / "t/f") == ["user.kept"]
    assert len(plan.notes) == 3


def _number(field: slice, value: bytes) -> bytes:
    """A header with one field replaced and its check sum right again."""
    head = bytearray(members.pack(Member(b"x")))
    head[field] = value
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head)


@pytest.mark.parametrize(
    "data",
    [
        _number(slice(124, 136), b"\xff" * 12),  # size -1
        _number(slice(124, 136), b"\x80" + b"\x7f" * 11),  # size 2^93
        _number(slice(100, 108), b"\xff" * 8),  # mode -1
        _number(slice(108, 116), b"-7      "),
        pax(b"size", b"-5") + file(b"x"),
        pax(b"size", b"9" * 30) + file(b"x"),
        pax(b"mtime", b"nan") + file(b"x"),
        pax(b"path", b"y", b"g") + file(b"x"),
    ],
    ids=["size-1", "size2^93", "mode-1", "uid-7", "pax-5", "pax9", "nan", "global"],
)
def test_numbers_that_cannot_be_are_refused(place: Place, data: bytes) -> None:
    """CVE-2025-8194 and its kind: an offset below zero once made a reader read for ever."""
    place.refuses(tar(data), "")


def _holes(table: bytes, data: bytes, size: int) -> bytes:
    member = Member(b"holes", size=size, stored=len(table) + len(data), sparse=True)
    return members.pack(member) + table + data + members.padding(len(data))


@pytest.mark.parametrize(
    "table",
    [
        members.sparse_map([(0, 512), (100, 512)]),
        members.sparse_map([(1 << 20, 512)]),
        members.sparse_map([(0, 512)] * 3),
        b"-1\n".ljust(512, b"\0"),
        b"9" * 512,
        b"99999999\n".ljust(512, b"\0"),
    ],
    ids=["overlap", "outside", "same", "negative", "endless", "many"],
)
def test_a_map_of_holes_is_sane(place: Place, table: bytes) -> None:
    """Rising, inside the file, as long as its data, not longer than a map."""
    place.refuses(tar(_holes(table, bytes(512), 4096)), "", ROOTFS)


def test_a_sparse_file_of_a_petabyte_is_refused(place: Place) -> None:
    """What it unpacks to counts, not what it takes."""
    table = members.sparse_map([])
    place.refuses(tar(_holes(table, b"", 1 << 50)), "bytes", ROOTFS)


def test_a_hole_of_four_terabytes_costs_nothing(place: Place) -> None:
    """A hole is neither read nor written nor hashed; and only a root file system has any."""
    data = tar(_holes(members.sparse_map([(1 << 40, 512)]), b"x" * 512, 1 << 41))
    place.refuses(data, "holes has no place here")
    begin = time.monotonic()
    place.unpack(data, ROOTFS)
    status = os.stat(place.target / "holes")
    assert (status.st_size, status.st_blocks < 100) == (1 << 41, True)
    assert time.monotonic() - begin < 10


@pytest.mark.parametrize("cut", [1, 100, 511, 512, 700, 1024, 1500, 2047])
def test_a_torn_archive_is_refused_wherever_it_ends(place: Place, cut: int) -> None:
    """In a header, in data, in the mark of the end."""
    whole = tar(file(b"x", b"y" * 600))
    place.refuses(whole[: cut if cut < 2047 else len(whole) - 513], "")


def test_what_follows_the_end_is_refused(place: Place) -> None:
    """A second archive behind the first: two readers would see two things."""
    place.refuses(tar(file(b"x")) + file(b"y", b"z"), "follows its end")
    place.unpack(tar(file(b"x")) + bytes(10240))


def test_an_archive_in_an_archive_is_a_file(place: Place) -> None:
    """Nothing is unpacked that nobody asked to be."""
    place.unpack(tar(file(b"inner.tar", tar(file(b"evil")))))
    assert os.listdir(place.target) == ["inner.tar"]


def test_other_types_are_refused(place: Place) -> None:
    """GNU's volume labels, old sparse files, multi-volume parts."""
    for letter in (b"V", b"S", b"M", b"D", b"Z"):
        place.refuses(tar(members._block(b"x", letter)), "the type")


def test_an_archive_that_changes_between_the_looks_is_refused(place: Place) -> None:
    """The plan was of other bytes: what was unpacked is removed."""
    place.archive.write_bytes(tar(file(b"a", b"1"), file(b"b", b"good")))
    with Fd(os.open(place.archive, os.O_RDONLY)) as fd:
        plan = planning.plan(fd, PLAIN, "the archive")
        for data in (
            tar(file(b"a", b"1"), file(b"b", b"evil")),
            tar(file(b"a", b"1"), file(b"c", b"good")),
            tar(file(b"a", b"1")),
            tar(file(b"a", b"1"), file(b"b", b"good"), file(b"c")),
        ):
            place.archive.write_bytes(data)
            with pytest.raises(ArchiveChanged):
                extract.extract(fd, plan, str(place.target))
            place.clean()


def test_a_link_planted_meanwhile_is_not_followed(tmp_path: Path) -> None:
    """Somebody swaps a directory of the root file system for a link out of it: refused by the kernel."""
    rootfs, outside, archive = tmp_path / "r", tmp_path / "outside", tmp_path / "a"
    outside.mkdir()
    rootfs.mkdir()
    (rootfs / "etc").symlink_to(outside)
    archive.write_bytes(tar(file(b"etc/evil", b"evil")))
    with Fd(os.open(archive, os.O_RDONLY)) as fd:
        plan = planning.plan(fd, ROOTFS, "a")
        with pytest.raises(CannotUnpack, match="through, a link"):
            applying.apply(str(rootfs), fd, plan)
        with pytest.raises(CannotUnpack, match="cannot delete"):
            applying.apply(str(rootfs), fd, plan, ["etc/evil"])
    assert os.listdir(outside) == []


@pytest.mark.parametrize("name", ["/../outside/x", "..", "", "/", "a//b", "a/\0", 7])
def test_a_deletion_that_leads_elsewhere_is_refused(name: object) -> None:
    """podman needed that fix too."""
    with pytest.raises(ArchiveRefused, match="deleted.files"):
        applying.deletions([name], "a")


def test_whiteouts_remove_below_the_root_only(tmp_path: Path) -> None:
    """As in OCI layers; and a whiteout of `..` is no way out."""
    rootfs = tmp_path / "r"
    (rootfs / "d/e").mkdir(parents=True)
    (rootfs / "d/f").write_text("x")
    (rootfs / "gone").write_text("x")
    archive = tmp_path / "a"
    rules = Rules(rootfs=True, whiteouts=True)
    archive.write_bytes(tar(file(b".wh.gone"), file(b"d/.wh..wh..opq"), file(b"d/new", b"n")))
    with Fd(os.open(archive, os.O_RDONLY)) as fd:
        applying.apply(str(rootfs), fd, planning.plan(fd, rules, "a"))
    assert sorted(os.listdir(rootfs)) == ["d"]
    assert os.listdir(rootfs / "d") == ["new"]
    for name in (b".wh..", b".wh...", b".wh."):
        archive.write_bytes(tar(file(name)))
        with Fd(os.open(archive, os.O_RDONLY)) as fd, pytest.raises(ArchiveRefused):
            planning.plan(fd, rules, "a")


Build = Callable[[tarfile.TarFile], None]


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
def test_what_other_programs_write_is_read(place: Place, form: int) -> None:
    """GNU's long names, PAX, plain ustar: as podman (Go) and tar(1) write them."""
    buffer = io.BytesIO()
    name = "a" * 60 + "/" + "b" * (80 if form == tarfile.USTAR_FORMAT else 180)
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        entry = tarfile.TarInfo(name)
        entry.size, entry.mtime = 3, 1_234_567
        archive.addfile(entry, io.BytesIO(b"abc"))
        linked = tarfile.TarInfo("link")
        linked.type, linked.linkname = tarfile.LNKTYPE, name
        if form == tarfile.USTAR_FORMAT:  # which has no room for a long target
            entry.name = linked.linkname = "short"
            archive.addfile(entry, io.BytesIO(b"abc"))
        archive.addfile(linked)
    place.unpack(buffer.getvalue())
    assert (place.target / name).read_bytes() == b"abc"
    assert os.stat(place.target / "link").st_nlink == 2


def test_a_full_disk_leaves_nothing(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the place; the directory is gone."""

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OcimigError, match="no space left"):
        place.unpack(tar(file(b"x", b"y")))
    place.clean()
