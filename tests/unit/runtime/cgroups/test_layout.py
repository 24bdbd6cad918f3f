"""Which hierarchies a machine has, from the text of /proc."""

import pytest

from ocimig.runtime import cgroups
from ocimig.runtime.cgroups import layout
from ocimig.runtime.errors import InvalidCgroupsPath, NoCgroups

TMPFS = b"31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n"
HYBRID = (
    TMPFS
    + b"32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw shared:3 - cgroup cgroup rw,cpu,cpuacct\n"
    + b"33 31 0:30 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
    + b"34 31 0:31 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n"
    + b"35 31 0:32 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate\n"
)
HYBRID_OWN = b"3:name=systemd:/user/1\n2:memory:/\n1:cpu,cpuacct:/jobs/a\n0::/user/1\n"
PURE = b"30 23 0:27 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"


def opened(here: layout.Layout, wanted: str, id: str = "c1") -> dict[str, str]:
    """The facts of the cgroup that cgroupsPath asks for."""
    name = cgroups.clean(wanted, id)
    found = cgroups.at(here, name, explicit=bool(wanted), rootless=False, resources={})
    return found.facts()


def test_a_hybrid_machine_has_v1_hierarchies_and_v2_beside_them() -> None:
    """Controllers of one mount stay together; options are no controllers."""
    here = layout.parse(HYBRID, HYBRID_OWN)
    assert here.version == 1
    found = [hierarchy.controllers for hierarchy in here.v1]
    assert found == [("cpu", "cpuacct"), ("memory",), ("name=systemd",)]
    assert here.unified is not None
    assert here.unified.own == "/user/1"


def test_by_default_a_container_is_below_its_caller_in_each_hierarchy() -> None:
    """Where the caller sits differs from hierarchy to hierarchy, and so does the container."""
    facts = opened(layout.parse(HYBRID, HYBRID_OWN), "")
    assert facts["cpu"] == facts["cpuacct"] == "/sys/fs/cgroup/cpu,cpuacct/jobs/a/c1"
    assert facts["memory"] == "/sys/fs/cgroup/memory/c1"
    assert facts["name=systemd"] == "/sys/fs/cgroup/systemd/user/1/c1"
    assert facts["unified"] == "/sys/fs/cgroup/unified/user/1/c1"


def test_an_absolute_path_starts_at_the_root_of_each_hierarchy() -> None:
    """A colon is a letter like others without systemd; dots and slashes are cleaned."""
    facts = opened(layout.parse(HYBRID, HYBRID_OWN), "/pod//x:y/./../z")
    assert facts["cpu"] == "/sys/fs/cgroup/cpu,cpuacct/pod/z"


def test_a_relative_path_starts_at_the_caller() -> None:
    """And cannot climb above it."""
    facts = opened(layout.parse(HYBRID, HYBRID_OWN), "../../a/b")
    assert facts["cpu"] == "/sys/fs/cgroup/cpu,cpuacct/jobs/a/a/b"


@pytest.mark.parametrize("wanted", ["/", "//", "/a/..", ".", "..", "a/../.."])
def test_the_root_of_a_hierarchy_is_nobodys_cgroup(wanted: str) -> None:
    """A container there would have its end kill the machine."""
    with pytest.raises(InvalidCgroupsPath):
        cgroups.clean(wanted, "c1")


def test_on_v2_a_container_is_beside_its_caller() -> None:
    """The caller's own cgroup holds a process, so no controller could be on below it."""
    here = layout.parse(PURE, b"0::/user.slice/session-1.scope\n")
    assert here.version == 2
    assert opened(here, "")["unified"] == "/sys/fs/cgroup/user.slice/c1"
    assert opened(here, "/a/b")["unified"] == "/sys/fs/cgroup/a/b"


def test_the_root_of_v2_may_have_the_caller_and_the_container() -> None:
    """The root is the one cgroup that may hold processes and controllers."""
    assert opened(layout.parse(PURE, b"0::/\n"), "")["unified"] == "/sys/fs/cgroup/c1"


def test_v2_mounted_over_v1_hides_it() -> None:
    """What is mounted last on /sys/fs/cgroup is what a path leads to."""
    here = layout.parse(HYBRID + PURE, HYBRID_OWN)
    assert here.version == 2
    assert here.unified is not None
    assert here.unified.mountpoint == "/sys/fs/cgroup"


def test_a_mount_that_shows_a_part_of_a_hierarchy_is_taken_for_that_part() -> None:
    """Inside a container without a cgroup namespace the mount's root is the container's cgroup."""
    text = TMPFS + b"33 31 0:30 /docker/f00 /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n"
    assert opened(layout.parse(text, b"2:memory:/docker/f00/x\n"), "")["memory"] == (
        "/sys/fs/cgroup/memory/x/c1"
    )
    assert opened(layout.parse(text, b"2:memory:/docker/f00x\n"), "")["memory"] == (
        "/sys/fs/cgroup/memory/c1"
    )


def test_a_machine_without_cgroups_is_named() -> None:
    """One error, not a KeyError later."""
    with pytest.raises(NoCgroups):
        layout.parse(b"23 1 8:1 / / rw - ext4 /dev/sda1 rw\n", b"")


def test_spaces_of_a_mount_point_are_unescaped() -> None:
    """mountinfo writes them in octal."""
    text = b"32 31 0:29 / /my\\040cgroups/cpu rw - cgroup cgroup rw,cpu\n"
    assert layout.parse(text, b"1:cpu:/\n").v1[0].mountpoint == "/my cgroups/cpu"


def test_facts_lead_back_to_the_same_cgroup() -> None:
    """What state.json keeps is enough."""
    for text, own in ((HYBRID, HYBRID_OWN), (PURE, b"0::/a/b\n")):
        facts = opened(layout.parse(text, own), "")
        assert cgroups.from_facts(facts).facts() == facts


def test_a_cgroup_has_any_name_without_an_end_of_line() -> None:
    """A container that may make cgroups chooses it; the kernel refuses a newline only."""
    assert layout.own_paths("0::/a\rb:cpu:/\u2028c\n".encode()) == {
        layout.UNIFIED: "/a\rb:cpu:/\u2028c"
    }
