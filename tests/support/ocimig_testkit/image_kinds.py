"""One small checkpoint with an image of every kind that is read. The corpus of the fuzzer begins with it."""

from pathlib import Path
from typing import Any

from ocimig.criu_images import tables
from ocimig_testkit.images import (
    FILE,
    HEAP,
    LAZY,
    LIBRARY,
    PAGE,
    PARENT,
    PRESENT,
    SHARED,
    STACK,
    Checkpoint,
    vma,
    write_pagemap,
)

_INET: dict[str, Any] = {
    "family": 2,
    "type": 1,
    "proto": 6,
    "state": 10,
    "src_port": 80,
    "src_addr": [1],
}
FILES: dict[int, dict[str, Any]] = {
    0: {"type": 1, "reg": {"name": "/a", "pos": 5, "flags": 0o2001}},
    1: {"type": 2, "pipe": {"pipe_id": 77, "flags": 1}},
    2: {"type": 3, "fifo": {"pipe_id": 78, "regf_id": 1000}},
    3: {"type": 4, "isk": _INET},
    4: {"type": 4, "isk": {**_INET, "family": 10, "src_addr": [0, 0, 0, 1], "dst_port": 9}},
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
    15: {"type": 11, "tty": {"tty_info_id": 3, "regf_id": 1000}},
    16: {"type": 12, "ffy": {"mark": [{"type": 1}]}},
    17: {"type": 14, "nsf": {"ns_id": 9}},
    18: {"type": 15, "tunf": {"netdev": "tun0"}},
    19: {"type": 16, "ext": {"id": 1}},
    20: {"type": 19, "bpf": {"map_name": "m"}},
    21: {"type": 1, "reg": {"name": "file[1:2]", "ext": 1}},
}


def kinds(path: Path) -> Checkpoint:
    """Write it; no byte of it depends on where or when."""
    found = Checkpoint(path)
    found.tree((1, 0), (7, 1))
    found.core(1, seccomp_mode=2, seccomp_filter=1)
    _memory(found)
    found.files(1, FILES)
    found.image(
        "memfd.img", "memfd", tables.MEMFD, {"name": "m", "size": 9, "shmid": 12, "inode_id": 4}
    )
    terminal = {"id": 3, "type": 1, "pty": {"index": 2}}
    found.image("tty-info.img", "tty-info", tables.TTY_INFO, terminal)
    filters = {"seccomp_filters": [{"filter": bytes(16)}, {"filter": bytes(24), "prev": 0}]}
    found.image("seccomp.img", "seccomp", tables.SECCOMP, filters)
    spaces = ("files_id", "pid_ns_id", "uts_ns_id", "mnt_ns_id", "user_ns_id", "time_ns_id")
    found.image("ids-1.img", "ids", tables.IDS, {**dict.fromkeys(spaces, 9), "files_id": 1})
    found.image("utsns-9.img", "utsns", tables.UTSNS, {"nodename": "box"})
    extents = [{"first": 0, "lower_first": 1000, "count": 1}]
    found.image("userns-9.img", "userns", tables.USERNS, {"uid_map": extents, "gid_map": extents})
    found.image("timens-9.img", "timens", tables.TIMENS, {"boottime": {"tv_sec": 5}})
    mounts = [
        {"mnt_id": 5, "mountpoint": target, "fstype": 5, "source": "t", "flags": 3, "root": "/"}
        for target in ("./", "./data", "./data")
    ]
    found.image("mountpoints-9.img", "mountpoints", tables.MOUNT, *mounts)
    inner = {"dir_name": "b", "properties": [{"name": "memory.max", "value": "9"}]}
    found.image("cgroup.img", "cgroup", tables.CGROUP, {
        "sets": [{"id": 2, "ctls": [{"name": "memory", "path": "/a"}]}],
        "controllers": [{"cnames": ["memory"], "dirs": [{"dir_name": "/a", "children": [inner]}]}],
    })  # fmt: skip
    found.image("stats-dump", "stats", tables.STATS, {"dump": {"frozen_time": 1500}})
    found.image("stats-restore", "stats", tables.STATS, {"restore": {"restore_time": 7}})
    outside = '{"files": [{"key": "file[1:2]", "path": "/var/log/out"}]}'
    manifest = f'{{"version": 1, "id": "web", "criu": "4.2", "facts": {outside}, "files": {{}}}}'
    (path / "manifest.json").write_text(manifest)
    return found


def _memory(found: Checkpoint) -> None:
    areas = [
        vma(HEAP, HEAP + 6 * PAGE),
        vma(HEAP + 6 * PAGE, HEAP + 8 * PAGE, SHARED, 12),
        vma(LIBRARY, LIBRARY + 4 * PAGE, FILE, 1000, prot=5),
        vma(LIBRARY + 5 * PAGE, LIBRARY + 6 * PAGE, SHARED | 1 << 14, 1013),
        vma(STACK - 3 * PAGE, STACK + PAGE),
    ]
    runs = [
        (HEAP, 2, PRESENT),
        (HEAP + 2 * PAGE, 1, PARENT),
        (HEAP + 3 * PAGE, 1, LAZY),
        (LIBRARY, 1, PRESENT),
        (STACK - PAGE, 2, PRESENT),
    ]
    words = b"prog\0--name\0"
    found.memory(
        1, runs, areas, exe_file_id=1000, mm_arg_start=STACK - 4, mm_arg_end=STACK - 4 + len(words),
        mm_env_start=STACK + 64, mm_env_end=STACK + 72,
    )  # fmt: skip
    found.fill(1, 4 * PAGE - 4, words)
    found.fill(1, 4 * PAGE + 64, b"A=b\0C=d\0")
    write_pagemap(found.path / "pagemap-shmem-12.img", 12, [(0, 1, PRESENT)])
    (found.path / "pages-12.img").write_bytes(b"shared".ljust(PAGE, b"\0"))
