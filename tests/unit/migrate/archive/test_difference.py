"""A container's changes as a tar over its base: whatever was changed, the tree comes out the same."""

import io
import os
import random
import socket
import stat
import subprocess
import tarfile
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ocimig.files import Fd
from ocimig.migrate.archive import applying, difference, packing, planning
from ocimig.migrate.archive.limits import Rules
from ocimig.migrate.archive.writing import Writer
from ocimig_testkit.trees import differences

pytestmark = pytest.mark.root
RULES = Rules(rootfs=True, devices=True)
NAMES = ["a", "b", "c", "longer" * 20, "with space", "bäh", ".wh.x", "new\nline"]
_PLACE = os.O_RDONLY | os.O_DIRECTORY


def diff(base: Path | None, now: Path, archive: Path, form: str = "none") -> list[str]:
    """Write the archive; the names that are deleted."""
    with (
        Fd(os.open(base or now, _PLACE)) as one,
        Fd(os.open(now, _PLACE)) as other,
        difference.Tree(one) as old,
        difference.Tree(other) as new,
        archive.open("wb") as out,
    ):
        found = difference.compare(old, new) if base else difference.whole(new)
        writer = Writer(packing.pack(out.fileno(), form), str(archive))
        difference.write(new, found, writer)
        writer.close()
        return found.documents()


def bring(target: Path, archive: Path, deleted: list[str]) -> None:
    """Apply it."""
    with archive.open("rb") as file:
        plan = planning.plan(file.fileno(), RULES, str(archive))
        names = applying.deletions(deleted, str(archive))
        applying.apply(str(target), file.fileno(), plan, names)


class Tree:
    """Random things done to a directory tree."""

    def __init__(self, root: Path, seed: random.Random) -> None:
        self.root = root
        self.seed = seed

    def directories(self) -> list[Path]:
        return [self.root, *sorted(path for path in self.root.rglob("*") if _is_directory(path))]

    def files(self) -> list[Path]:
        return sorted(p for p in self.root.rglob("*") if stat.S_ISREG(p.lstat().st_mode))

    def new_name(self) -> Path:
        return self.seed.choice(self.directories()) / self.seed.choice(NAMES)

    def step(self) -> None:
        """One random act; acts that do not apply do nothing."""
        what = self.seed.choice(
            ["file", "directory", "link", "hard", "fifo", "device", "socket", "sparse", "remove",
             "write", "mode", "owner", "xattr", "times", "swap", "capability"]
        )  # fmt: skip
        try:
            getattr(self, f"_{what}")(self.new_name())
        except (FileExistsError, IndexError, FileNotFoundError):
            return

    def _file(self, path: Path) -> None:
        with path.open("xb") as file:
            file.write(self.seed.randbytes(self.seed.choice([0, 1, 511, 512, 5000])))

    def _directory(self, path: Path) -> None:
        path.mkdir(mode=self.seed.choice([0o755, 0o700, 0o1777]))

    def _link(self, path: Path) -> None:
        path.symlink_to(self.seed.choice(["/etc/passwd", "../..", "a", "x" * 200]))

    def _hard(self, path: Path) -> None:
        os.link(self.seed.choice(self.files()), path)

    def _fifo(self, path: Path) -> None:
        os.mkfifo(path)

    def _device(self, path: Path) -> None:
        os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, self.seed.choice([3, 5])))

    def _socket(self, path: Path) -> None:
        here = os.open(path.parent, _PLACE)
        try:
            with socket.socket(socket.AF_UNIX) as made:
                made.bind(f"/proc/self/fd/{here}/{path.name}"[:107])
        except FileExistsError:
            raise
        except OSError:
            return
        finally:
            os.close(here)

    def _sparse(self, path: Path) -> None:
        with path.open("xb") as file:
            for _ in range(3):
                file.seek(self.seed.randrange(16) << 16)
                file.write(b"data")
            file.truncate(20 << 16)

    def _remove(self, path: Path) -> None:
        del path
        chosen = self.seed.choice(sorted(self.root.rglob("*")))
        if _is_directory(chosen):
            for below in sorted(chosen.rglob("*"), reverse=True):
                below.rmdir() if _is_directory(below) else below.unlink()
            chosen.rmdir()
        else:
            chosen.unlink()

    def _write(self, path: Path) -> None:
        del path
        chosen = self.seed.choice(self.files())
        before = chosen.stat()
        data = bytearray(chosen.read_bytes())
        if data:
            data[-1] ^= 1
        with chosen.open("r+b") as file:
            file.write(data)
        if self.seed.random() < 0.5:  # as if nothing had been
            os.utime(chosen, ns=(before.st_atime_ns, before.st_mtime_ns))

    def _mode(self, path: Path) -> None:
        del path
        self.seed.choice(self.files() + self.directories()).chmod(
            self.seed.choice([0o4755, 0o600, 0o2750, 0o777])
        )

    def _owner(self, path: Path) -> None:
        del path
        os.lchown(
            self.seed.choice(sorted(self.root.rglob("*"))), self.seed.choice([0, 7, 3_000_000]), 9
        )

    def _xattr(self, path: Path) -> None:
        del path
        chosen = self.seed.choice(self.files() + self.directories())
        os.setxattr(chosen, "user.some", self.seed.randbytes(9))

    def _capability(self, path: Path) -> None:
        del path
        value = bytes.fromhex("0100000200040000000000000000000000000000")
        os.setxattr(self.seed.choice(self.files()), "security.capability", value)

    def _times(self, path: Path) -> None:
        del path
        when = self.seed.choice([0, -5_500_000_000, 1_700_000_000_123_456_789])
        chosen = self.seed.choice(sorted(self.root.rglob("*")))
        os.utime(chosen, ns=(when, when), follow_symlinks=False)

    def _swap(self, path: Path) -> None:
        """A name that becomes something else."""
        self._remove(path)
        self.seed.choice([self._file, self._directory, self._link])(path)


def _is_directory(path: Path) -> bool:
    return stat.S_ISDIR(path.lstat().st_mode)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 1 << 32), form=st.sampled_from(packing.FORMS))
def test_base_and_difference_are_the_changed_tree(
    tmp_path_factory: pytest.TempPathFactory, seed: int, form: str
) -> None:
    """Modes, owners, times, attributes, links, holes, devices: of every name, whatever was done."""
    place = tmp_path_factory.mktemp("diff")
    base, now, copy = place / "base", place / "now", place / "copy"
    base.mkdir()
    tree = Tree(base, random.Random(seed))
    for _ in range(25):
        tree.step()
    for target in (now, copy):
        subprocess.run(["cp", "-a", base, target], check=True)
    changing = Tree(now, random.Random(seed + 1))
    for _ in range(12):
        changing.step()
    deleted = diff(base, now, place / "diff.tar", form)
    bring(copy, place / "diff.tar", deleted)
    assert [line for line in differences(now, copy) if not _of_a_small_file(copy, line)] == []


def _of_a_small_file(root: Path, line: str) -> bool:
    """Blocks of what was just written are counted when the kernel finds the time."""
    name, _, told = line.partition(": ")
    return told.startswith("sparse") and (root / name).lstat().st_size < 1 << 20


def test_without_a_base_all_of_it_is_there(tmp_path: Path) -> None:
    """Into an empty directory, when nobody knows what the container was made from."""
    now, copy = tmp_path / "now", tmp_path / "copy"
    now.mkdir()
    copy.mkdir()
    tree = Tree(now, random.Random(5))
    for _ in range(60):
        tree.step()
    assert diff(None, now, tmp_path / "all.tar") == []
    bring(copy, tmp_path / "all.tar", [])
    assert [line for line in differences(now, copy) if not _of_a_small_file(copy, line)] == []


def test_nothing_changed_is_an_empty_archive(tmp_path: Path) -> None:
    """Content is compared: a copy made at another inode is no change."""
    base, now = tmp_path / "base", tmp_path / "now"
    base.mkdir()
    tree = Tree(base, random.Random(9))
    for _ in range(40):
        tree.step()
    subprocess.run(["cp", "-a", base, now], check=True)
    assert diff(base, now, tmp_path / "none.tar") == []
    with tarfile.open(tmp_path / "none.tar") as archive:
        assert archive.getnames() == []


def test_other_programs_read_it(tmp_path: Path) -> None:
    """Python's tarfile sees the same names, holes, links and numbers: podman's reader is of one form
    with it."""
    now = tmp_path / "now"
    now.mkdir()
    (now / ("n" * 180)).write_bytes(b"long")
    (now / "ünï").write_bytes(b"odd")
    os.link(now / "ünï", now / "zz")
    with (now / "holes").open("wb") as file:
        file.seek(1 << 20)
        file.write(b"end")
    os.utime(now / "holes", ns=(1, 1_500_000_000_250_000_000))
    diff(None, now, tmp_path / "all.tar.gz", "gzip")
    with tarfile.open(tmp_path / "all.tar.gz") as archive:
        found = {member.name: member for member in archive.getmembers()}
        assert found["holes"].mtime == 1_500_000_000.25
        taken = archive.extractfile(found["holes"])
        assert isinstance(taken, io.BufferedReader)
        assert taken.read() == bytes(1 << 20) + b"end"
        assert found["ünï"].islnk()
        assert found["ünï"].linkname == "zz"
        assert found["n" * 180].size == 4


def test_the_same_tree_gives_the_same_bytes(tmp_path: Path) -> None:
    """Two exports of one state can be compared by their digest."""
    now = tmp_path / "now"
    now.mkdir()
    tree = Tree(now, random.Random(3))
    for _ in range(40):
        tree.step()
    for form in packing.FORMS:
        diff(None, now, tmp_path / "one", form)
        diff(None, now, tmp_path / "two", form)
        assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_a_sparse_terabyte_is_compared_and_written_by_what_it_holds(tmp_path: Path) -> None:
    """/var/log/lastlog of a host with large user ids: one changed block, and a hole against zeros."""
    base, now, archive = tmp_path / "base", tmp_path / "now", tmp_path / "a"
    for place, word in ((base, b"one"), (now, b"two")):
        place.mkdir()
        for name, data in (("changed", word), ("same", b"one")):
            with (place / name).open("wb") as file:
                file.seek(1 << 39)
                file.write(data)
                file.truncate(1 << 40)
    with (now / "same").open("r+b") as file:
        file.write(bytes(4096))
    for place in (base, now):
        for path in (*place.iterdir(), place):
            os.utime(path, ns=(1, 1))
    begin = time.monotonic()
    assert diff(base, now, archive) == []
    with tarfile.open(archive) as opened:
        assert sorted(opened.getnames()) == [".", "changed"]
    bring(base, archive, [])
    assert time.monotonic() - begin < 20
    with (base / "changed").open("rb") as file:
        file.seek(1 << 39)
        assert file.read(4) == b"two\0"
    assert archive.stat().st_size < 1 << 20
