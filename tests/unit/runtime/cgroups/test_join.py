"""exec --cgroup and what a container sees at /sys/fs/cgroup."""

import pytest

from ocimig.runtime.cgroups import layout, mounts
from ocimig.runtime.cgroups.join import inside, subgroups
from ocimig.runtime.cgroups.v1 import CgroupV1
from ocimig.runtime.errors import NoSubCgroup

COMOUNTED = (
    b"32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
    b"34 31 0:31 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n"
)
OWN = b"2:name=systemd:/\n1:cpu,cpuacct:/\n"
PATHS = {
    "cpu": "/sys/fs/cgroup/cpu,cpuacct/c1",
    "cpuacct": "/sys/fs/cgroup/cpu,cpuacct/c1",
    "name=systemd": "/sys/fs/cgroup/systemd/c1",
}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], {}),
        (["sub"], {"": "sub"}),
        (["cpu,memory:a", "pids:/b"], {"cpu": "a", "memory": "a", "pids": "/b"}),
    ],
)
def test_places_of_exec(arguments: list[str], expected: dict[str, str]) -> None:
    """[CONTROLLER[,CONTROLLER]:]PATH."""
    assert subgroups(arguments) == expected


@pytest.mark.parametrize("arguments", [["a", "b"], [":x"], ["cpu,:x"], ["cpu:a", "cpu:b"]])
def test_places_that_contradict_are_refused(arguments: list[str]) -> None:
    """One place a controller."""
    with pytest.raises(NoSubCgroup):
        subgroups(arguments)


def test_a_place_stays_below_the_container() -> None:
    """Dots that lead out are refused, not cleaned."""
    assert inside("/c1", "/a//./b/") == "/c1/a/b"
    assert inside("/c1", "") == "/c1"
    with pytest.raises(NoSubCgroup):
        inside("/c1", "a/../../c2")


def test_the_view_of_v1_has_a_directory_a_hierarchy_and_links_for_shared_ones() -> None:
    """As runc: a tmpfs, the container's own directories, cpu -> cpu,cpuacct."""
    here = layout.parse(COMOUNTED, OWN)
    view = [
        piece.describe() for piece in mounts.view_v1(PATHS, cgroup_namespace=False, layout=here)
    ]
    assert view == [
        "tmpfs tmpfs tmpfs mode=755 -> .",
        "bind /sys/fs/cgroup/cpu,cpuacct/c1 -> cpu,cpuacct",
        "bind /sys/fs/cgroup/systemd/c1 -> systemd",
        "link cpu,cpuacct -> cpu",
        "link cpu,cpuacct -> cpuacct",
    ]


def test_with_a_cgroup_namespace_the_hierarchies_themselves_are_mounted() -> None:
    """The namespace makes the container's own directory their root; a bind is the fallback."""
    here = layout.parse(COMOUNTED, OWN)
    pieces = mounts.view_v1(PATHS, cgroup_namespace=True, layout=here)
    assert [(piece.kind, piece.data) for piece in pieces[1:3]] == [
        ("mount", "cpu,cpuacct"),
        ("mount", "name=systemd"),
    ]
    assert pieces[1].fallback == PATHS["cpu"]


def test_without_a_namespace_v2_shows_the_own_cgroup_only() -> None:
    """Mounting cgroup2 would show the host's whole tree."""
    assert [piece.kind for piece in mounts.view_v2("/c", cgroup_namespace=False)] == ["bind"]
    assert [piece.kind for piece in mounts.view_v2("/c", cgroup_namespace=True)] == ["mount"]


def test_a_process_joins_each_directory_once_and_v2_not_by_a_file() -> None:
    """Shared hierarchies have one directory; v2's is entered by clone3."""
    cgroup = CgroupV1({**PATHS, "unified": "/sys/fs/cgroup/unified/c1"})
    assert cgroup.joins() == [
        ("/sys/fs/cgroup/cpu,cpuacct/c1/tasks", "0"),
        ("/sys/fs/cgroup/systemd/c1/tasks", "0"),
    ]
    assert cgroup.fork_into() == "/sys/fs/cgroup/unified/c1"
