"""Facts of two hosts and a container, and what preflight says of them."""

from typing import Any

import pytest

from ocimig.migrate import facts, preflight
from ocimig.migrate.errors import PreflightRefused
from ocimig_testkit.migration import container_facts, host_facts

GIB = 1 << 30
NET = {"bridge": "br0", "address": "10.0.0.5/24", "mac": "02:00:00:00:00:05", "mtu": 1500}
BRIDGE = {"name": "br0", "kind": "bridge", "up": True, "mtu": 1500, "addresses": [], "holder": ""}


def findings(
    *, container: dict[str, Any] | None = None, here: dict[str, Any] | None = None, **there: Any
) -> list[preflight.Finding]:
    """What is said when these facts differ from a world in order."""
    near = host_facts(host="here", host_id="a", boot_id="1", **(here or {}))
    return preflight.check(container_facts(**(container or {})), near, host_facts(**there))


def test_two_hosts_in_order_have_no_findings() -> None:
    """Nothing is said where nothing is wrong."""
    assert findings() == []
    assert findings(container={"network": NET}, network=BRIDGE) == []


def test_what_is_mounted_from_the_host_is_named() -> None:
    """It exists over there too, but nobody knows whether it holds the same."""
    (found,) = findings(container={"binds": ["/volume"]})
    assert (found.severity, found.name) == (preflight.WARN, "mounts")
    assert "/volume" in found.text


def test_only_mounts_from_outside_the_bundle_stay_behind() -> None:
    """A relative source is the bundle's, and travels with it."""
    mounts = [
        {"type": "bind", "source": "volume", "destination": "/a"},
        {"type": "none", "options": ["rbind"], "source": "/b/c/volume", "destination": "/b"},
        {"type": "bind", "source": "/b/cc", "destination": "/c"},
        {"type": "tmpfs", "source": "tmpfs", "destination": "/d"},
    ]
    assert facts.bind_sources({"mounts": mounts}, "/b/c") == ["/b/cc"]


def changed(name: str, **changes: Any) -> dict[str, Any]:
    """One fact of the far host, changed inside."""
    return {name: {**host_facts()[name], **changes}}


@pytest.mark.parametrize(
    ("there", "name", "code"),
    [
        ({"uid": 1000}, "root", 13),
        ({"criu": {"version": "", "problem": "criu is not there", "fix": "x"}}, "criu", 14),
        ({"criu": {"version": "3.17.1", "problem": "", "fix": ""}}, "criu-version", 14),
        ({"network_lock": "operation not supported"}, "nftables", 14),
        ({"machine": "aarch64"}, "architecture", 14),
        ({"page_size": 16384}, "page-size", 14),
        ({"cpu_flags": ["sse"]}, "processor", 14),
        ({"memory": {"available": 1 << 20, "swap": 0}}, "memory", 15),
        ({"images": [{**host_facts()["images"][0], "free": 1000}]}, "image-space", 15),
        (changed("bundle", problem="read-only file system"), "bundle", 14),
        (changed("bundle", free=1000), "disk-space", 15),
        (changed("bundle", inodes=3), "inodes", 15),
        (changed("bundle", exists=True, empty=False), "bundle", 11),
        (changed("bundle", directory=False), "bundle", 11),
        ({"taken": "container"}, "name", 11),
        ({"missing": ["/data"]}, "mounts", 14),
    ],
)
def test_what_makes_it_impossible_is_refused(there: dict[str, Any], name: str, code: int) -> None:
    """Each has its name, a fix and the exit code it leads to."""
    found = findings(**there)
    against = [finding for finding in found if finding.severity == preflight.REFUSE]
    assert [finding.name for finding in against] == [name]
    assert against[0].fix
    with pytest.raises(PreflightRefused) as caught:
        preflight.refuse(found)
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("there", "name"),
    [
        ({"criu": {"version": "4.1.1", "problem": "", "fix": ""}}, "criu-version"),
        ({"ocimig": "2"}, "ocimig-version"),
        ({"kernel": "5.10.0"}, "kernel"),
        ({"cgroup": "v1"}, "cgroup"),
        ({"lsm": []}, "lsm"),
        ({"clock": 3600.0}, "clock"),
        ({"pipe_max_size": 65536}, "pipes"),
    ],
)
def test_what_is_worth_knowing_does_not_hinder(there: dict[str, Any], name: str) -> None:
    """A warning with a fix; the migration goes on."""
    found = findings(**there)
    assert [(finding.severity, finding.name) for finding in found] == [(preflight.WARN, name)]
    assert found[0].fix
    preflight.refuse(found)


@pytest.mark.parametrize(
    ("network", "name"),
    [
        ({"kind": ""}, "bridge"),
        ({"kind": "veth"}, "bridge"),
        ({"up": False}, "bridge"),
        ({"addresses": ["10.0.0.5"]}, "address"),
        ({"holder": "02:00:00:00:00:99"}, "address"),
    ],
)
def test_a_network_that_cannot_follow_is_refused(network: dict[str, Any], name: str) -> None:
    """The bridge must be there and up, and nobody else may answer for the address."""
    found = findings(container={"network": NET}, network={**BRIDGE, **network})
    assert [(finding.severity, finding.name) for finding in found] == [(preflight.REFUSE, name)]


def test_the_container_itself_may_answer_for_its_address() -> None:
    """Before the move its own MAC answers, seen from the far side."""
    assert findings(container={"network": NET}, network={**BRIDGE, "holder": NET["mac"]}) == []


def test_connections_without_a_network_of_ours_are_refused() -> None:
    """Unless the person wants them closed."""
    container = container_facts(connections=3)
    hosts = host_facts(host="here", host_id="a"), host_facts()
    assert [found.name for found in preflight.check(container, *hosts)] == ["connections"]
    assert preflight.check(container, *hosts, tcp_close=True) == []


def test_what_criu_cannot_save_is_named_with_its_process() -> None:
    """Process, descriptor, what it is, what to do."""
    thing = {"pid": 7, "fd": 9, "kind": "io_uring", "name": "anon_inode:[io_uring]"}
    found = findings(container={"objects": [thing]})
    assert found[0].severity == preflight.REFUSE
    assert "process 7" in found[0].text
    assert "descriptor 9" in found[0].text
    assert "io_uring" in found[0].fix


@pytest.mark.parametrize(
    ("container", "name"),
    [({"pid_namespace": False}, "pid-namespace"), ({"terminal": True}, "terminal"),
     ({"pipes": [1, 2]}, "pipes")],
)  # fmt: skip
def test_what_will_be_different_is_said(container: dict[str, Any], name: str) -> None:
    """Warnings about the container."""
    assert [finding.name for finding in findings(container=container)] == [name]


def test_hindrances_come_first_and_all_of_them() -> None:
    """One run shows everything that has to be done."""
    found = findings(taken="container", machine="aarch64", ocimig="2")
    assert [finding.severity for finding in found] == ["refused", "refused", "warning"]
    with pytest.raises(PreflightRefused) as caught:
        preflight.refuse(found)
    assert "aarch64" in str(caught.value)
    assert "is taken" in str(caught.value)


def test_images_go_where_they_fit() -> None:
    """The first directory with room, none that cannot be written."""
    base = host_facts()["images"][0]
    spaces = [
        {**base, "path": "/run", "free": GIB // 2},
        {**base, "path": "/ro", "problem": "read-only file system"},
        {**base, "path": "/var", "free": 4 * GIB},
    ]
    facts = host_facts(images=spaces)
    assert preflight.choose_images(facts, GIB // 4) == "/run"
    assert preflight.choose_images(facts, GIB) == "/var"
    assert preflight.choose_images(facts, 8 * GIB) == ""


def test_huge_pages_have_to_be_there() -> None:
    """CRIU saves them, and cannot make them: the restore would fail."""
    huge = {"huge": 4 << 20}
    assert findings(container=huge, huge_free=4 << 20) == []
    (found,) = findings(container=huge, huge_free=2 << 20)
    assert (found.severity, found.name, found.code) == (preflight.REFUSE, "huge-pages", 15)
    assert "nr_hugepages" in found.fix


def test_both_on_one_host_is_recognised() -> None:
    """Migrating to oneself: the bundle in the way is the container's own."""
    same = {"host_id": "a", "boot_id": "1", **changed("bundle", exists=True, empty=False)}
    assert "the container's own" in findings(**same)[0].text
