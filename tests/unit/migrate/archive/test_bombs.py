"""Archives that are more than they seem: refused in bounded time and memory, with nothing written."""

import gzip
import os
import resource
from pathlib import Path

import pytest
import zstandard

from ocimig.migrate.archive import members
from ocimig.migrate.archive.limits import Limits, Rules
from ocimig.migrate.archive.members import Member
from ocimig_testkit.archives import END, Place, file, pax, tar


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """An empty place."""
    return Place(tmp_path)


def test_a_bomb_is_refused_by_its_ratio(place: Place) -> None:
    """Ten gigabytes of zeros in a megabyte: refused after the first, in bounded memory."""
    packer = zstandard.ZstdCompressor(level=1)
    member = Member(b"zeros", size=10 << 30, stored=10 << 30)
    data = packer.compress(members.pack(member)) + packer.compress(bytes(64 << 20)) * 160
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    place.refuses(data, "200 times its size")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10  # KiB


def test_a_gzip_bomb_is_refused_by_its_ratio(place: Place) -> None:
    """The same by zlib, with a limit that is reached sooner."""
    rules = Rules(Limits(ratio_after=1 << 20))
    member = Member(b"zeros", size=64 << 20, stored=64 << 20)
    packed = gzip.compress(members.pack(member) + bytes(64 << 20) + END)
    place.refuses(packed, "200 times its size", rules)


def test_a_window_of_two_gigabytes_is_refused(place: Place) -> None:
    """Memory that the archive would have us take."""
    parameters = zstandard.ZstdCompressionParameters(
        window_log=31, enable_ldm=False, write_content_size=False
    )
    packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    data = packer.compress(tar(file(b"x", os.urandom(4096)))) + packer.flush()
    place.refuses(data, "")


def test_frames_one_after_the_other_are_one_archive(place: Place) -> None:
    """Concatenated zstd frames and gzip members count together, and may not be mixed."""
    half, rest = tar(file(b"x", b"1" * 4000))[:1000], tar(file(b"x", b"1" * 4000))[1000:]
    packer = zstandard.ZstdCompressor()
    place.unpack(packer.compress(half) + packer.compress(rest))
    assert (place.target / "x").read_bytes() == b"1" * 4000
    (place.target / "x").unlink()
    place.target.rmdir()
    place.unpack(gzip.compress(half) + gzip.compress(rest))
    (place.target / "x").unlink()
    place.target.rmdir()
    place.refuses(gzip.compress(half) + packer.compress(rest), "")
    place.refuses(packer.compress(half) + gzip.compress(rest), "")
    place.refuses(packer.compress(half + rest) + b"garbage", "")
    place.refuses(gzip.compress(half + rest)[:-20], "")


def test_too_many_members_are_refused_early(place: Place) -> None:
    """One limit each: members, one file, all together, names."""
    many = b"".join(file(b"%d" % number) for number in range(50))
    place.refuses(many + END, "more than 20 members", Rules(Limits(members=20)))
    place.refuses(tar(file(b"x", bytes(5000))), "5000 bytes", Rules(Limits(file=4000)))
    place.refuses(tar(file(b"x", bytes(999)), file(b"y", bytes(999))), "999 bytes",
                  Rules(Limits(total=1500)))  # fmt: skip
    place.refuses(tar(*[pax(b"comment", b"x" * 900)] * 20), "too many",
                  Rules(Limits(metadata=9000)))  # fmt: skip
    place.refuses(tar(pax(b"comment", b"x" * (2 << 20))), "a header has")


def test_a_header_without_end_does_not_run_for_ever(place: Place) -> None:
    """A chain of extended headers, each before the next, never a member."""
    chain = pax(b"comment", b"x" * 500) * 5000
    place.refuses(chain + END, "", Rules(Limits(metadata=1 << 20)))
    place.refuses(chain, "without the mark of an end")
