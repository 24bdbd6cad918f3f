"""Which mounts are left to us."""

from ocimig.migrate import external, mountinfo

ROOT = "100 50 8:1 /var/c/rootfs / rw,relatime - ext4 /dev/sda1 rw\n"
OWN = """101 100 0:40 / /proc rw - proc proc rw
102 101 0:40 /sys /proc/sys ro - proc proc rw
103 100 0:41 / /dev rw,nosuid - tmpfs tmpfs rw,size=65536k,mode=755
104 103 0:42 / /dev/pts rw - devpts devpts rw
"""
HOST = mountinfo.parse(
    b"""20 1 8:1 / / rw - ext4 /dev/sda1 rw
21 20 0:5 / /dev rw - devtmpfs devtmpfs rw
22 20 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu
23 20 0:60 / /run rw - tmpfs tmpfs rw
24 20 8:2 / /srv rw - ext4 /dev/sdb1 rw
"""
)
CGROUPS = {"cpu": "/c1", "unified": "/c1"}


def _decide(
    text: str, spec: dict[str, object] | None = None
) -> tuple[dict[str, external.External], list[str]]:
    found, undecided = external.decide(
        mountinfo.parse((ROOT + OWN + text).encode()), HOST, spec or {}, CGROUPS
    )
    return {item.target: item for item in found}, [mount.target for mount in undecided]


def test_what_criu_makes_anew_is_left_to_it() -> None:
    """proc, devpts, binds of the root; a tmpfs of its own is decided by its content."""
    found, undecided = _decide("110 100 8:1 /var/c/rootfs/etc /etc ro - ext4 /dev/sda1 rw\n")
    assert found == {}
    assert undecided == ["/dev"]


def test_binds_of_config_come_from_where_config_says() -> None:
    """Also below a recursive one, and with their own attributes."""
    spec: dict[str, object] = {
        "mounts": [{"destination": "/data", "source": "/srv/data", "options": ["rbind", "ro"]}]
    }
    found, _ = _decide(
        "110 100 8:2 /data /data ro,nosuid master:4 - ext4 /dev/sdb1 rw\n"
        "111 110 8:3 / /data/inner rw - ext4 /dev/sdc1 rw\n",
        spec,
    )
    assert found["/data"].source == "/srv/data"
    assert found["/data"].attributes == ("ro", "nosuid")
    assert found["/data"].slave
    assert found["/data/inner"].source == "/srv/data/inner"


def test_masks_cgroups_and_what_hooks_made() -> None:
    """Each from its own place at restore."""
    found, undecided = _decide(
        "110 101 0:5 /null /proc/keys rw - devtmpfs devtmpfs rw\n"
        "111 100 0:29 /c1/sub /sys/fs/cgroup/cpu ro - cgroup cgroup rw,cpu\n"
        "112 100 8:2 /hook /hook rw - ext4 /dev/sdb1 rw\n"
        "113 100 0:60 /shared /shared rw - tmpfs tmpfs rw\n"
    )
    assert found["/proc/keys"].kind == "null"
    assert (found["/sys/fs/cgroup/cpu"].controller, found["/sys/fs/cgroup/cpu"].below) == (
        "cpu",
        "sub",
    )
    assert found["/hook"].source == "/srv/hook"
    assert found["/shared"].source == "/run/shared"
    assert undecided == ["/dev"]


def test_a_tmpfs_seen_at_two_places_stays_one() -> None:
    """Unless nobody can write to it."""
    _, undecided = _decide(
        "110 100 0:70 / /a rw - tmpfs tmpfs rw\n111 100 0:70 / /b rw - tmpfs tmpfs rw\n"
        "112 100 0:71 / /m ro - tmpfs tmpfs rw\n113 100 0:71 / /n ro - tmpfs tmpfs rw\n"
    )
    assert undecided == ["/dev", "/m", "/n"]


def test_it_survives_the_manifest() -> None:
    """And a reader ignores what it does not know."""
    item = external.External("m1", "tmpfs", "/x", options=("size=1m",), attributes=("ro",))
    assert external.External.from_json({**item.to_json(), "new": 1}) == item
