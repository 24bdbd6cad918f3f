"""Namespaces of a container: new ones, joined ones, and what a user namespace maps."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ocimig_testkit import TOKEN, Bundle, Ocimig

pytestmark = [pytest.mark.root, pytest.mark.busybox]
own = pytest.mark.skipif("OCIMIG_RUNTIME" in os.environ, reason="another runtime does otherwise")
FILES = {"pid": "pid", "network": "net", "mount": "mnt", "ipc": "ipc", "uts": "uts",
         "user": "user", "cgroup": "cgroup", "time": "time"}  # fmt: skip
READ = "for n in pid net mnt ipc uts user cgroup time; do readlink /proc/self/ns/$n; done"


def spaces(ocimig: Ocimig, bundle: Bundle) -> dict[str, str]:
    """The namespaces of a process in the container."""
    out = ocimig.run(bundle.shell(READ), code=0).out.split()
    return {line.partition(":")[0]: line for line in out}


def here() -> dict[str, str]:
    """Our own."""
    return {name: os.readlink(f"/proc/self/ns/{name}") for name in FILES.values()}


@pytest.fixture
def network() -> Iterator[Path]:
    """A network namespace with a name."""
    name = f"{TOKEN}-join"
    subprocess.run(["ip", "netns", "add", name], check=True)
    yield Path("/run/netns") / name
    subprocess.run(["ip", "netns", "del", name], check=True)


def test_each_listed_namespace_is_new_and_the_others_are_the_hosts(
    ocimig: Ocimig, bundle: Bundle
) -> None:
    """The five of the usual config."""
    inside, outside = spaces(ocimig, bundle), here()
    for name in ("pid", "net", "mnt", "ipc", "uts"):
        assert inside[name] != outside[name]
    for name in ("user", "cgroup", "time"):
        assert inside[name] == outside[name]


@pytest.mark.parametrize("kind", ["pid", "network", "ipc", "uts"])
def test_a_namespace_that_is_left_out_is_shared(ocimig: Ocimig, bundle: Bundle, kind: str) -> None:
    """The container then is in the host's."""
    if kind == "uts":
        del bundle.config["hostname"]
    bundle.without_namespace(kind)
    if kind == "network":
        # sysfs of a network namespace that is not ours alone
        mounts = bundle.config["mounts"]
        bundle.config["mounts"] = [
            row for row in mounts if not row["destination"].startswith("/sys")
        ]
    assert spaces(ocimig, bundle)[FILES[kind]] == here()[FILES[kind]]


def test_a_cgroup_namespace_hides_where_it_is(ocimig: Ocimig, bundle: Bundle) -> None:
    """Its own cgroup is the root of what it sees."""
    bundle.linux["namespaces"].append({"type": "cgroup"})
    answer = ocimig.run(bundle.shell("cat /proc/self/cgroup"), code=0)
    assert all(line.endswith(":/") for line in answer.out.splitlines()), answer.out


@pytest.mark.netns
def test_a_network_namespace_is_joined_by_path(
    ocimig: Ocimig, bundle: Bundle, network: Path
) -> None:
    """And left as it is at the end."""
    for space in bundle.linux["namespaces"]:
        if space["type"] == "network":
            space["path"] = str(network)
    inode = network.stat().st_ino
    assert spaces(ocimig, bundle)["net"] == f"net:[{inode}]"
    assert network.stat().st_ino == inode


def test_the_loopback_of_a_new_network_is_up(ocimig: Ocimig, bundle: Bundle) -> None:
    """As runc leaves it."""
    answer = ocimig.run(bundle.shell("ip -o link show lo; ip -o -4 addr show lo"), code=0)
    assert "UP" in answer.out.split("mtu")[0]
    assert "127.0.0.1/8" in answer.out


def test_two_containers_share_the_namespaces_of_the_first(ocimig: Ocimig, bundle: Bundle) -> None:
    """A pod: the second joins by /proc/PID/ns."""
    first = ocimig.launch(bundle)
    pid = ocimig.pid(first)
    theirs = {name: os.readlink(f"/proc/{pid}/ns/{name}") for name in ("net", "ipc", "uts", "pid")}
    for space in bundle.linux["namespaces"]:
        if space["type"] in ("network", "ipc", "uts", "pid"):
            space["path"] = f"/proc/{pid}/ns/{FILES[space['type']]}"
    del bundle.config["hostname"]
    inside = spaces(ocimig, bundle)
    assert {name: inside[name] for name in theirs} == theirs


@pytest.mark.parametrize("path", ["/no/such/path", "/proc/self/ns/uts"])
def test_a_path_that_is_no_such_namespace_is_refused(
    ocimig: Ocimig, bundle: Bundle, path: str
) -> None:
    """Missing, or of another kind."""
    for space in bundle.linux["namespaces"]:
        if space["type"] == "network":
            space["path"] = path
    answer = ocimig.run(bundle.shell("true"), code=1)
    assert any(word in answer.err for word in (path, "network", "net namespace"))
    assert ocimig.status(ocimig.ids[-1]) == ""


def mapped(bundle: Bundle, host: int = 100000, size: int = 65536) -> Bundle:
    """A user namespace of its own, and a root file system that belongs to it."""
    bundle.linux["namespaces"].append({"type": "user"})
    mapping = [{"containerID": 0, "hostID": host, "size": size}]
    bundle.linux["uidMappings"] = bundle.linux["gidMappings"] = mapping
    subprocess.run(["chown", "-hR", f"{host}:{host}", bundle.rootfs], check=True)
    # the way to the root file system must be open to the mapped user
    for directory in bundle.rootfs.parents:
        if directory != Path("/tmp") and directory.is_relative_to("/tmp"):
            directory.chmod(0o755)
    return bundle.write()


@pytest.mark.userns
def test_a_user_namespace_maps_its_ids(ocimig: Ocimig, bundle: Bundle) -> None:
    """Root inside is nobody outside."""
    mapped(bundle).shell("id -u; cat /proc/self/uid_map; touch /made; stat -c %u /made")
    lines = ocimig.run(bundle, code=0).out.split()
    assert lines[0] == "0"
    assert lines[1:4] == ["0", "100000", "65536"]
    assert lines[4] == "0"
    assert (bundle.rootfs / "made").stat().st_uid == 100000


@pytest.mark.userns
def test_a_user_of_a_user_namespace(ocimig: Ocimig, bundle: Bundle) -> None:
    """Another id than root, with groups, seen from both sides."""
    bundle.process["user"] = {"uid": 1000, "gid": 1000, "additionalGids": [2000]}
    id = ocimig.launch(mapped(bundle))
    assert Path(f"/proc/{ocimig.pid(id)}").stat().st_uid == 101000
    answer = ocimig.exec(id, "/bin/id", "-G", code=0)
    assert set(answer.out.split()) == {"1000", "2000"}


@pytest.mark.userns
def test_devices_in_a_user_namespace_are_bound(ocimig: Ocimig, bundle: Bundle) -> None:
    """mknod is not possible there: the host's nodes are bound instead."""
    mapped(bundle).shell("echo x > /dev/null && head -c 4 /dev/zero | wc -c")
    assert ocimig.run(bundle, code=0).out.strip() == "4"


@pytest.mark.userns
@own
def test_an_unmapped_user_is_named(ocimig: Ocimig, bundle: Bundle) -> None:
    """Before anything is made."""
    bundle.process["user"] = {"uid": 1000, "gid": 0}
    answer = ocimig.run(mapped(bundle, size=1000), code=1)
    assert "process.user.uid: 1000 is not mapped in linux.uidMappings" in answer.err


@pytest.mark.timens
@own
def test_a_time_namespace_shifts_its_clocks(ocimig: Ocimig, bundle: Bundle) -> None:
    """The container's uptime is an hour ahead."""
    bundle.linux["namespaces"].append({"type": "time"})
    bundle.linux["timeOffsets"] = {"boottime": {"secs": 3600}, "monotonic": {"secs": 3600}}
    answer = ocimig.run(bundle.shell("cat /proc/uptime"), code=0)
    ahead = float(answer.out.split()[0]) - float(Path("/proc/uptime").read_text().split()[0])
    assert 3590 < ahead < 3605
