"""From a configuration to steps: what is planned, and in which order. No root is needed."""

import struct
from typing import Any

import pytest

from ocimig.runtime import mounts, plan, steps, template
from ocimig.runtime.steps import Encoder, Source


def planned(**changes: Any) -> list[str]:
    """The plan of the default configuration with some of its keys replaced, in words."""
    spec = template.default_spec()
    spec["process"]["terminal"] = False
    spec |= changes
    facts = plan.Facts("/bundle", "/bundle/rootfs")
    return [step.describe() for step in plan.plan(spec, facts)]


def position(words: list[str], beginning: str) -> int:
    """Where the step is that begins so."""
    return next(index for index, word in enumerate(words) if word.startswith(beginning))


def test_the_order_is_namespaces_files_root_user_program() -> None:
    """Each stage needs what the one before it made."""
    words = planned()
    order = [
        position(words, start)
        for start in ("make new", "fork", "take /bundle/rootfs", "mount proc", "the limits of the cgroup", "make device",
                      "network and hooks", "mask", "pivot_root", "become 0:0", "look up sh", "ready",
                      "wait for", "execute")
    ]  # fmt: skip
    assert order == sorted(order)


def test_a_user_namespace_comes_before_the_others() -> None:
    """What is made after it belongs to it."""
    spaces = [{"type": kind} for kind in ("mount", "pid", "user", "network")]
    words = planned(linux={"namespaces": spaces})
    assert position(words, "make new namespaces: user") < position(words, "become root")
    assert position(words, "become root") < position(
        words, "make new namespaces: mount network pid"
    )


def test_a_namespace_with_a_path_is_joined_not_made() -> None:
    """Only the others are unshared."""
    spaces = [{"type": "mount"}, {"type": "network", "path": "/run/netns/x"}]
    words = planned(linux={"namespaces": spaces})
    assert "join the network namespace /run/netns/x" in words
    assert "make new namespaces: mount" in words
    assert "bring up lo" not in words


def test_without_a_mount_namespace_the_root_is_only_changed() -> None:
    """chroot, and no device is made in the host's tree."""
    words = planned(linux={"namespaces": [{"type": "pid"}]}, mounts=[])
    assert "chroot" in words
    assert not [word for word in words if word.startswith(("pivot", "make device"))]


def test_a_filter_needs_no_new_privs_or_comes_before_the_user() -> None:
    """seccomp(2) wants CAP_SYS_ADMIN or no_new_privs."""
    spec = template.default_spec()
    facts = plan.Facts("/b", "/b/rootfs")
    facts.seccomp = b"\0" * 8
    for quiet in (False, True):
        spec["process"] |= {"noNewPrivileges": quiet, "terminal": False}
        words = [step.describe() for step in plan.plan(spec, facts)]
        before = position(words, "install a seccomp") < position(words, "become 0:0")
        assert before is not quiet
        assert position(words, "install a seccomp") < position(words, "execute")


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("net.ipv4.ip_forward", "net/ipv4/ip_forward"),
        ("net/ipv4/ip_forward", "net/ipv4/ip_forward"),
        ("net/ipv4/conf/eth0.100/rp_filter", "net/ipv4/conf/eth0.100/rp_filter"),
        ("net.ipv4.conf.eth0/100.rp_filter", "net/ipv4/conf/eth0.100/rp_filter"),
    ],
)
def test_sysctl_names_may_be_written_both_ways(name: str, path: str) -> None:
    """As sysctl(8): the first separator says which is which."""
    assert plan.sysctl_path(name) == path


@pytest.mark.parametrize(
    ("text", "path"),
    [("/a/../../b", "/b"), ("a//b/./c", "/a/b/c"), ("/", "/"), ("..", "/"), ("", "/")],
)
def test_a_destination_stays_inside(text: str, path: str) -> None:
    """No number of ".." leads out of the root."""
    assert mounts.destination(text) == path


def test_option_words_become_attributes_and_data() -> None:
    """What the kernel's mount takes, and what the file system takes."""
    options = mounts.Options(["rbind", "ro", "nosuid", "rnodev", "rslave", "size=5m", "defaults"])
    assert options.bind
    assert options.recursive
    assert options.set == mounts.MOUNT_ATTR_RDONLY | mounts.MOUNT_ATTR_NOSUID
    assert options.tree_set == mounts.MOUNT_ATTR_NODEV
    assert options.propagation == mounts.MS_SLAVE | mounts.MS_REC
    assert options.data == ["size=5m"]


def test_a_later_word_wins_over_an_earlier_one() -> None:
    """ "ro,rw" is writable, "rw,ro" is not."""
    assert mounts.Options(["ro", "rw"]).set == 0
    assert mounts.Options(["rw", "ro"]).set == mounts.MOUNT_ATTR_RDONLY
    assert mounts.Options(["noatime", "strictatime"]).set == mounts.MOUNT_ATTR_STRICTATIME


def test_of_a_variable_given_twice_the_last_counts() -> None:
    """An empty HOME is for init to look up."""
    facts = plan.Facts("/b", "/r")
    env = plan.environment({"env": ["A=1", "B=2", "A=3"]}, facts)
    assert env == ["B=2", "A=3", "HOME="]


def test_device_numbers_are_makedevs() -> None:
    """Also large ones."""
    import os

    for major, minor in ((1, 3), (259, 70000), (4095, 1 << 19)):
        assert mounts.makedev(major, minor) == os.makedev(major, minor)


def test_what_the_launcher_has_is_sent_before_what_init_opens() -> None:
    """Places count the sent ones first; a tree is never shared, a null device always."""
    fifo, null = Source("fd", "exec.fifo"), Source("null", "/dev/null")
    tree = Source("tree", "/a", recursive=True)
    encoder = Encoder(
        [steps.mask("/x", null), steps.mask("/y", null), steps.wait_fifo(fifo),
         steps.bind(tree, "/t", (0, 0, 0, 0), 0)]
    )  # fmt: skip
    assert [source.name for source in encoder.given] == ["exec.fifo"]
    assert [source.name for source in encoder.opened] == ["/dev/null", "/a"]
    assert encoder.places[id(fifo)] == 0
    assert encoder.places[id(null)] == 1
    assert encoder.places[id(tree)] == 2


def test_a_step_is_its_number_its_length_and_its_fields() -> None:
    """The bytes that init.c reads."""
    body = Encoder([steps.hostname("box")]).plan()
    op, length = struct.unpack_from("=QQ", body)
    assert (op, length) == (9, len(body) - 16)
    assert body[16:] == struct.pack("=QQ", 0, 3) + b"box\0"
