"""Seccomp filters that were made are found again by content, and a harmed one is made again."""

import os
import stat
import struct
from pathlib import Path
from typing import Any

import pytest

from ocimig.runtime import seccomp

pytestmark = pytest.mark.seccomp


def profile(value: int = 0) -> dict[str, Any]:
    """A profile; another one for another value."""
    condition = {"index": 0, "op": "SCMP_CMP_EQ", "value": value}
    rule = {"names": ["umask"], "action": "SCMP_ACT_ERRNO", "args": [condition]}
    return {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}


def test_what_was_made_once_is_found_again(tmp_path: Path) -> None:
    """By content: the same profile is not compiled twice, another one is not mistaken for it."""
    cache = tmp_path / "cache"
    first = seccomp.plan(profile(), cache=str(cache))
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700
    assert len(list(cache.iterdir())) == 1
    again = seccomp.plan(profile(), cache=str(cache))
    assert (again.bpf, again.flags, again.notify) == (first.bpf, first.flags, first.notify)
    other = seccomp.plan(profile(1), cache=str(cache))
    assert other.bpf != first.bpf


@pytest.mark.parametrize("harm", ["truncate", "flip", "empty", "writable", "older", "link"])
def test_a_harmed_entry_is_made_again(tmp_path: Path, harm: str) -> None:
    """A torn, changed, foreign or outdated file is never a filter."""
    first = seccomp.plan(profile(), cache=str(tmp_path))
    (entry,) = tmp_path.iterdir()
    content = entry.read_bytes()
    if harm == "truncate":
        entry.write_bytes(content[:-8])
    elif harm == "flip":
        entry.write_bytes(content[:-5] + bytes([content[-5] ^ 1]) + content[-4:])
    elif harm == "empty":
        entry.write_bytes(b"")
    elif harm == "older":
        entry.write_bytes(content.replace(os.uname().release.encode(), b"0.0"))
    elif harm == "writable":
        entry.write_bytes(content[:-8] + struct.pack("=HBBI", 6, 0, 0, 0x7FFF0000))
        entry.chmod(0o666)
    else:
        entry.rename(tmp_path / "elsewhere")
        entry.symlink_to("elsewhere")
    assert seccomp._cached(str(entry)) is None
    assert seccomp.plan(profile(), cache=str(tmp_path)).bpf == first.bpf


def test_the_cache_does_not_grow_for_ever(tmp_path: Path) -> None:
    """Sixty-four profiles, then it starts anew."""
    for value in range(seccomp.MAX_ENTRIES + 3):
        seccomp.plan(profile(value), cache=str(tmp_path))
    assert len(list(tmp_path.iterdir())) == 3


def test_a_cache_that_cannot_be_written_only_costs_time(tmp_path: Path) -> None:
    """A file where the directory should be."""
    (tmp_path / "file").write_text("")
    assert seccomp.plan(profile(), cache=str(tmp_path / "file")).bpf
