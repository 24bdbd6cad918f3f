"""Processes, their rights, their files and what surrounded them, from images made by hand."""

import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from ocimig.criu_images import descriptors, mappings, surroundings, tables, tree
from ocimig.criu_images.errors import BadImage, NoProcess
from ocimig.criu_images.opened import ImageDirectory
from ocimig_testkit.images import (
    FILE,
    HEAP,
    LAZY,
    LIBRARY,
    PAGE,
    PRESENT,
    SHARED,
    Checkpoint,
    stack,
    vma,
    write_pagemap,
)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Checkpoint:
    """One process, without memory."""
    return Checkpoint(tmp_path / "c")


@pytest.fixture
def directory(checkpoint: Checkpoint) -> Iterator[ImageDirectory]:
    """The same, opened."""
    with ImageDirectory(str(checkpoint.path)) as opened:
        yield opened


def test_the_tree_is_read_in_its_order(checkpoint: Checkpoint, directory: ImageDirectory) -> None:
    """Parents come before their children, as CRIU writes them."""
    checkpoint.tree((1, 0), (7, 1), (9, 7), (8, 1))
    found = tree.processes(directory)
    assert [(each.pid, each.parent) for each in found] == [(1, 0), (7, 1), (9, 7), (8, 1)]
    assert tree.process(directory, 9).parent == 7
    with pytest.raises(NoProcess, match="no process 5"):
        tree.process(directory, 5)


@pytest.mark.parametrize(
    "lines",
    [[], [(1, 0), (2, 3), (3, 2)], [(1, 0), (1, 1)], [(0, 0)], [(1, 0), (5, 5)], [(1 << 23, 0)]],
)
def test_a_tree_that_cannot_be_is_refused(
    checkpoint: Checkpoint, directory: ImageDirectory, lines: list[tuple[int, int]]
) -> None:
    """Nobody, cycles, one number twice, numbers that no process has."""
    checkpoint.tree(*lines)
    with pytest.raises(BadImage, match="pstree.img"):
        tree.processes(directory)


def test_the_threads_of_a_dead_process_are_not_believed(
    checkpoint: Checkpoint, directory: ImageDirectory
) -> None:
    """CRIU leaves there what was in its memory."""
    entry = {"pid": 1, "ppid": 0, "threads": [0x50B2_3456]}
    checkpoint.image("pstree.img", "pstree", tables.PSTREE, entry)
    assert tree.processes(directory)[0].threads == (1,)


def test_rights_and_limits_have_names(checkpoint: Checkpoint, directory: ImageDirectory) -> None:
    """Masks of bits are not for people."""
    checkpoint.core(1, seccomp_mode=2, seccomp_filter=1, sched_nice=-5)
    filters = {"seccomp_filters": [{"filter": bytes(16)}, {"filter": bytes(24), "prev": 0}]}
    checkpoint.image("seccomp.img", "seccomp", tables.SECCOMP, filters)
    found = tree.detail(directory, 1)
    assert found.credentials.effective == ("CAP_SYS_ADMIN",)
    assert found.credentials.uids[0] == 7
    assert found.limits == (("RLIMIT_CPU", 5, 6),)
    assert (found.seccomp, found.nice, found.state) == ("filter", -5, "running")
    assert tree.filters(directory, found.seccomp_filter) == (2, 5)


def test_filters_that_form_a_ring_are_counted_once(
    checkpoint: Checkpoint, directory: ImageDirectory
) -> None:
    """The chain is followed downwards only."""
    filters = {
        "seccomp_filters": [{"filter": bytes(8), "prev": 1}, {"filter": bytes(8), "prev": 1}]
    }
    checkpoint.image("seccomp.img", "seccomp", tables.SECCOMP, filters)
    assert tree.filters(directory, 1) == (1, 1)
    assert tree.filters(directory, 99) == (0, 0)


def test_the_command_line_is_read_from_memory(
    checkpoint: Checkpoint, directory: ImageDirectory
) -> None:
    """Across the border of two pages; bytes that are no text are escaped."""
    stack(checkpoint, 1, b"program\0--name\0\xff\x1b\0")
    assert tree.command(directory, 1) == ["program", "--name", "\\xff\x1b"]
    assert tree.environment(directory, 1) == []


def test_a_command_line_that_was_left_out_is_not_made_up(
    checkpoint: Checkpoint, directory: ImageDirectory
) -> None:
    """Zeros would be empty words."""
    stack(checkpoint, 1, b"program\0")
    runs = [(0x7FFD_0000_0000 - PAGE, 2, LAZY)]
    write_pagemap(checkpoint.path / "pagemap-1.img", 1, runs)
    assert tree.command(directory, 1) == []


def test_every_kind_of_descriptor_is_named(
    checkpoint: Checkpoint, directory: ImageDirectory
) -> None:
    """With what is worth knowing of it."""
    ipv4 = struct.unpack("<I", socket.inet_aton("10.0.0.1"))[0]
    v6 = list(struct.unpack("<4I", socket.inet_pton(socket.AF_INET6, "::1")))
    inet = {"family": 2, "type": 1, "proto": 6, "state": 10, "src_port": 80, "src_addr": [ipv4]}
    checkpoint.files(1, {
        0: {"type": 1, "reg": {"name": "/a", "pos": 5, "flags": 0o2001}},
        1: {"type": 2, "pipe": {"pipe_id": 77, "flags": 1}},
        2: {"type": 3, "fifo": {"pipe_id": 78, "regf_id": 1000}},
        3: {"type": 4, "isk": inet},
        4: {"type": 4, "isk": {**inet, "family": 10, "src_addr": v6, "dst_port": 9, "dst_addr": v6}},
        5: {"type": 5, "usk": {"type": 1, "state": 1, "name": b"\0abs", "ino": 3, "peer": 4}},
        6: {"type": 6, "efd": {"counter": 2}},
        7: {"type": 7, "epfd": {"tfd": [{"tfd": 3}, {"tfd": 4}]}},
        8: {"type": 8, "ify": {"wd": [{"wd": 1, "f_handle": {"path": "/w"}}]}},
        9: {"type": 9, "sgfd": {"sigmask": 1 << 14}},
        10: {"type": 10, "psk": {"type": 3, "protocol": 3, "ifindex": 2}},
        11: {"type": 13, "nlsk": {"protocol": 0, "portid": 5}},
        12: {"type": 17, "tfd": {"clockid": 1, "vsec": 2, "isec": 1}},
        13: {"type": 18, "memfd": {"inode_id": 4}},
        14: {"type": 20, "pidfd": {"nspid": 7}},
        15: {"type": 11, "tty": {"tty_info_id": 3}},
        16: {"type": 99},
    })  # fmt: skip
    checkpoint.image("memfd.img", "memfd", tables.MEMFD, {"name": "m", "size": 9, "inode_id": 4})
    checkpoint.image(
        "tty-info.img", "tty-info", tables.TTY_INFO, {"id": 3, "type": 1, "pty": {"index": 2}}
    )
    found = list(descriptors.Files(directory).of(1))
    assert [(each.kind, each.text) for each in found] == [
        ("file", "/a"), ("pipe", "pipe:[77]"), ("fifo", "/a"),
        ("inet", "tcp 10.0.0.1:80 listening"),
        ("inet", "tcp [::1]:80 -> [::1]:9 listening"),
        ("unix", "stream @abs [3] peer 4 established"), ("eventfd", "count 2"),
        ("epoll", "watches 3, 4"), ("inotify", "1 watches: /w"), ("signalfd", "signals 15"),
        ("packet", "raw protocol 0x0003 interface 2"), ("netlink", "route port 5"),
        ("timerfd", "monotonic in 2 s, every 1 s"), ("memfd", "m (9 bytes)"),
        ("pidfd", "process 7"), ("tty", "pty 2"), ("99", ""),
    ]  # fmt: skip
    assert found[0].flags == ("w", "append")
    assert found[0].details["position"] == 5
    assert [each.is_socket for each in found].count(True) == 5
    assert found[1].close_on_exec
    assert not found[2].close_on_exec


def test_memory_is_counted_by_mapping(checkpoint: Checkpoint, directory: ImageDirectory) -> None:
    """A piece that crosses from one mapping into the next belongs to both."""
    checkpoint.files(1, {3: {"type": 1, "reg": {"name": "/lib/l.so"}}})
    areas = [
        vma(HEAP, HEAP + 4 * PAGE),
        vma(HEAP + 4 * PAGE, HEAP + 6 * PAGE, SHARED, 12),
        vma(LIBRARY, LIBRARY + 4 * PAGE, FILE, 1003, prot=5),
    ]
    runs = [(HEAP + PAGE, 4, PRESENT), (LIBRARY, 1, PRESENT), (LIBRARY + PAGE, 1, LAZY)]
    checkpoint.memory(1, runs, areas)
    write_pagemap(checkpoint.path / "pagemap-shmem-12.img", 40, [(0, 2, PRESENT)])
    heap, shared, library = mappings.counted(directory, 1, descriptors.Files(directory))
    assert (heap.saved, heap.untouched, heap.mapping.backing) == (3 * PAGE, PAGE, "anonymous")
    assert (shared.saved, shared.mapping.shared_object) == (PAGE, 12)
    assert (library.saved, library.elsewhere, library.untouched) == (PAGE, PAGE, 2 * PAGE)
    assert (library.changed, library.mapping.name) == (2 * PAGE, "/lib/l.so")
    assert library.mapping.protection == "r-x"
    assert [(each.number, each.saved) for each in mappings.shared_objects(directory)] == [
        (12, 2 * PAGE)
    ]


@pytest.mark.parametrize(
    ("areas", "runs"),
    [
        ([vma(HEAP, HEAP + PAGE)], [(HEAP + PAGE, 1, PRESENT)]),
        ([vma(HEAP, HEAP + PAGE)], [(HEAP - PAGE, 1, PRESENT)]),
        ([vma(HEAP, HEAP)], []),
        ([vma(HEAP, HEAP + 2 * PAGE), vma(HEAP + PAGE, HEAP + 3 * PAGE)], []),
        ([vma(HEAP + 1, HEAP + PAGE)], []),
        ([vma(1 << 63, (1 << 63) + PAGE)], []),
    ],
)
def test_memory_that_cannot_be_is_refused(
    checkpoint: Checkpoint, directory: ImageDirectory, areas: list[dict[str, int]],
    runs: list[tuple[int, int, int]],
) -> None:  # fmt: skip
    """Pages outside of every mapping, mappings that overlap, are empty, or lie nowhere."""
    checkpoint.memory(1, runs, areas)
    with pytest.raises(BadImage):
        list(mappings.counted(directory, 1, descriptors.Files(directory)))


def test_mounts_namespaces_and_cgroups(checkpoint: Checkpoint, directory: ImageDirectory) -> None:
    """Mount points as the processes saw them; cgroups with the values of their files."""
    mount = {
        "mnt_id": 5,
        "mountpoint": "./data",
        "fstype": 5,
        "source": "t",
        "flags": 3,
        "root": "/",
    }
    checkpoint.image("mountpoints-9.img", "mountpoints", tables.MOUNT, mount)
    checkpoint.image("utsns-9.img", "utsns", tables.UTSNS, {"nodename": "box"})
    properties = [{"name": "memory.max", "value": "9"}]
    inner = {"dir_name": "b", "properties": properties}
    checkpoint.image("cgroup.img", "cgroup", tables.CGROUP, {
        "sets": [{"id": 2, "ctls": [{"name": "memory", "path": "/a"}]}],
        "controllers": [{"cnames": ["memory"], "dirs": [{"dir_name": "/a", "children": [inner]}]}],
    })  # fmt: skip
    ((namespace, found),) = surroundings.mounts(directory)
    assert (namespace, found.target, found.filesystem) == (9, "/data", "tmpfs")
    assert found.flags == ("ro", "nosuid")
    ids = tree.detail(directory, 1).id_of
    assert list(surroundings.namespaces(directory, ids)) == [("uts", 9, "box")]
    sets, saved = surroundings.cgroups(directory)
    assert sets[0].paths == (("memory", "/a"),)
    assert [each.path for each in saved] == ["/a", "/a/b"]
    assert saved[1].properties == (("memory.max", "9"),)
