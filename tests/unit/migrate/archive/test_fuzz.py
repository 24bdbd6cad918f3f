"""Archives and documents with random faults: an answer or a refusal in words, never a traceback, and
nothing outside."""

import copy
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ocimig.errors import OcimigError
from ocimig.files import Fd
from ocimig.migrate.archive import extract, importing, members, planning
from ocimig.migrate.archive.content import OUR_MANIFEST, Contents
from ocimig.migrate.archive.limits import Rules
from ocimig.migrate.archive.members import Member
from ocimig.migrate.archive.planning import Plan
from ocimig_testkit.archives import file, pax, tar

VALID = tar(
    Member(b"d", members.DIRECTORY, mtime_ns=5),
    file(b"d/f", b"x" * 700),
    pax(b"path", b"d/" + b"long" * 40) + file(b"short", b"y"),
    Member(b"d/l", members.SYMLINK, target=b"f"),
    Member(b"d/h", members.HARD_LINK, target=b"d/f"),
    members.pack(Member(b"s", size=4096, stored=512 + 512, sparse=True))
    + members.sparse_map([(512, 512)]) + bytes(512),
)  # fmt: skip


@settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    faults=st.lists(
        st.tuples(st.integers(0, len(VALID) - 1), st.integers(0, 255)), min_size=1, max_size=6
    ),
    right=st.booleans(),
)
def test_any_byte_may_be_wrong(
    tmp_path_factory: pytest.TempPathFactory, faults: list[tuple[int, int]], right: bool
) -> None:
    """Also where the check sums of the headers were made right again afterwards."""
    place = tmp_path_factory.mktemp("fuzz")
    data = bytearray(VALID)
    for position, value in faults:
        data[position] = value
    if right:
        for start in range(0, len(data) - 1024, 512):
            if VALID[start + 257 : start + 262] == b"ustar":
                data[start + 148 : start + 156] = b" " * 8
                data[start + 148 : start + 156] = b"%06o\0 " % sum(data[start : start + 512])
    (place / "a").write_bytes(data)
    with Fd(os.open(place / "a", os.O_RDONLY)) as fd:
        try:
            plan = planning.plan(fd, Rules(rootfs=True), "a")
            assert all(line.isprintable() for line in plan.describe())
            extract.extract(fd, plan, str(place / "t"))
        except OcimigError:
            assert not (place / "t").exists()
    assert set(os.listdir(place)) <= {"a", "t"}


SPEC: dict[str, Any] = {
    "process": {"args": ["x"], "capabilities": {"bounding": ["CAP_KILL"]}, "apparmorProfile": "x"},
    "root": {"path": "x", "readonly": True}, "hostname": "h", "annotations": {"a": "b"},
    "mounts": [{"destination": "/d", "type": "bind", "source": "/s", "options": ["rbind"]}],
    "hooks": {"prestart": [{"path": "/x"}]},
    "linux": {"namespaces": [{"type": "pid", "path": "/x"}], "seccomp": {"defaultAction": "x"},
              "resources": {"devices": [{"allow": True, "type": "c", "major": 1}]},
              "devices": [{"path": "/dev/x"}], "sysctl": {"a": "b"}, "cgroupsPath": "/x",
              "uidMappings": [{"containerID": 0, "hostID": 1, "size": 1}]},
}  # fmt: skip
FACTS: dict[str, Any] = {
    "mounts": [
        {"key": "m1", "kind": "bind", "target": "/d", "source": "/s", "attributes": ["ro"]},
        {"key": "m2", "kind": "tmpfs", "target": "/t", "options": ["size=1"],
         "content": [{"name": "", "mode": 16877, "uid": 0, "gid": 0, "mtime": 0},
                     {"name": "n", "mode": 8576, "uid": 0, "gid": 0, "mtime": 0, "device": 259}]},
        {"key": "m3", "kind": "cgroup", "target": "/c", "below": "", "controller": "unified"},
    ],
    "files": [{"key": "f", "path": "/p", "flags": 0, "position": 0, "mode": 33188, "streams": [1]}],
    "streams": ["/dev/null"], "state": {"network": {"address": "10.0.0.2/24"}}, "root_slave": True,
}  # fmt: skip
ODD = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.text(max_size=8), st.floats(),
    st.lists(st.integers(), max_size=2), st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)  # fmt: skip


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    inner = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, below in inner:
        yield from _places(below, (*path, key))


def _with(document: dict[str, Any], path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    made: Any = copy.deepcopy(document)
    holder = made
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = value
    return made  # type: ignore[no-any-return]


def _look(spec: dict[str, Any], facts: dict[str, Any]) -> None:
    documents = {OUR_MANIFEST: {"id": "x", "facts": facts, "options": {}}}
    held = Contents(Plan("a", Rules()), "ocimig", spec, {}, documents)
    try:
        plan = importing.plan_import(held, ())
    except OcimigError:
        return
    assert all(line.isprintable() for line in plan.describe())
    assert plan.decision.spec["root"]["path"] == "rootfs"


@settings(max_examples=400, deadline=None)
@given(path=st.sampled_from(list(_places(SPEC))), value=ODD)
@example(path=("annotations",), value={"org.criu.config": 7})
def test_any_field_of_config_json_may_be_odd(path: tuple[Any, ...], value: Any) -> None:
    """Of any type, in any place."""
    _look(_with(SPEC, path, value), FACTS)


@settings(max_examples=400, deadline=None)
@given(path=st.sampled_from(list(_places(FACTS))), value=ODD)
def test_any_note_may_be_odd(path: tuple[Any, ...], value: Any) -> None:
    """Likewise."""
    _look(SPEC, _with(FACTS, path, value))


def test_what_is_not_odd_is_taken(tmp_path: Path) -> None:
    """Else the tests above would prove nothing."""
    held = Contents(
        Plan("a", Rules()), "ocimig", SPEC, {}, {OUR_MANIFEST: {"facts": FACTS, "options": {}}}
    )
    assert len(importing.plan_import(held, ()).decision.asked) == 15
    (tmp_path / "a").write_bytes(VALID)
    with Fd(os.open(tmp_path / "a", os.O_RDONLY)) as fd:
        plan = planning.plan(fd, Rules(rootfs=True), "a")
        extract.extract(fd, plan, str(tmp_path / "t"))
    assert (tmp_path / "t/s").stat().st_size == 4096
