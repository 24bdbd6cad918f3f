"""Archives that mean harm, and the place they are unpacked at: beside it a directory that stays empty."""

import os
from pathlib import Path

import pytest

from ocimig.files import Fd
from ocimig.migrate.archive import extract, members, planning
from ocimig.migrate.archive.errors import ArchiveBroken, ArchiveRefused
from ocimig.migrate.archive.limits import Rules
from ocimig.migrate.archive.members import Member

PLAIN = Rules()
ROOTFS = Rules(rootfs=True)
END = bytes(1024)


def tar(*parts: Member | bytes) -> bytes:
    """Members without data, or raw bytes, and the end."""
    return b"".join(members.pack(p) if isinstance(p, Member) else p for p in parts) + END


def file(path: bytes, data: bytes = b"") -> bytes:
    """A file with its data."""
    member = Member(path, size=len(data), stored=len(data))
    return members.pack(member) + data + members.padding(len(data))


class Place:
    """Where it is unpacked, and a directory outside that nothing may touch."""

    def __init__(self, path: Path) -> None:
        self.archive = path / "archive"
        self.target = path / "here/target"
        self.outside = path / "outside"
        self.outside.mkdir()
        self.target.parent.mkdir()

    def unpack(self, data: bytes, rules: Rules = PLAIN) -> None:
        """Plan and extract."""
        self.archive.write_bytes(data)
        with Fd(os.open(self.archive, os.O_RDONLY)) as fd:
            plan = planning.plan(fd, rules, "the archive")
            extract.extract(fd, plan, str(self.target))

    def refuses(self, data: bytes, words: str, rules: Rules = PLAIN) -> None:
        """It is refused in these words, and nothing is anywhere."""
        with pytest.raises((ArchiveRefused, ArchiveBroken), match=words or "the archive"):
            self.unpack(data, rules)
        self.clean()

    def clean(self) -> None:
        """Nothing was made, inside or outside."""
        assert os.listdir(self.outside) == []
        assert os.listdir(self.target.parent) == []
        assert sorted(os.listdir(self.outside.parent)) == ["archive", "here", "outside"]


def pax(key: bytes, value: bytes, letter: bytes = b"x") -> bytes:
    """An extended header of one record, as it is written before a member."""
    record = members.record(key, value)
    head = members._block(b"pax", letter, size=len(record))
    return head + record + members.padding(len(record))
