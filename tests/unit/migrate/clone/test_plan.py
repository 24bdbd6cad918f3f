"""How copies of a checkpoint are called, and how they differ from it."""

from typing import Any

import pytest

from ocimig.migrate.clone import layer, plan
from ocimig.migrate.clone.errors import NotClonable
from ocimig.migrate.network import NetworkConfig
from ocimig.runtime.errors import InvalidId


def config(*namespaces: str, **linux: Any) -> dict[str, Any]:
    """One with these namespaces of its own."""
    return {
        "hostname": "web",
        "root": {"path": "rootfs", "readonly": True},
        "linux": {"namespaces": [{"type": each} for each in namespaces], **linux},
    }


def test_copies_are_numbered_after_their_source_or_as_one_wishes() -> None:
    """One name is what the numbers are added to, several are what they are."""
    assert plan.names("web", [], 2) == ["web-1", "web-2"]
    assert plan.names("web", [], 0) == ["web-1"]
    assert plan.names("web", ["warm"], 2) == ["warm-1", "warm-2"]
    assert plan.names("web", ["a", "b"], 0) == ["a", "b"]


@pytest.mark.parametrize(
    ("wanted", "count", "words"),
    [
        (["a", "b"], 3, "2 names for 3 copies"),
        (["a", "a"], 0, "given twice"),
        (["x" * 63], 1, "longer than a host name"),
    ],
)
def test_names_that_cannot_be_are_said(wanted: list[str], count: int, words: str) -> None:
    """Before any copy was started."""
    with pytest.raises(ValueError, match=words):
        plan.names("web", wanted, count)


def test_a_name_is_no_path() -> None:
    """It becomes a directory and a file."""
    with pytest.raises(InvalidId):
        plan.names("web", ["../web"], 1)


def test_addresses_are_counted_on_and_the_gateway_keeps_its_own() -> None:
    """Each copy has another one, with the same prefix."""
    first = NetworkConfig("br0", "10.0.0.4/24", gateway="10.0.0.5")
    found = plan.networks(first, 3)
    assert [each.address for each in found] == ["10.0.0.4/24", "10.0.0.6/24", "10.0.0.7/24"]
    assert {each.gateway for each in found} == {"10.0.0.5"}


def test_addresses_that_the_network_does_not_have_are_said() -> None:
    """Its last one is for all of it, and what comes after it is another network's."""
    first = NetworkConfig("br0", "10.0.0.252/24")
    assert [each.ip for each in plan.networks(first, 3)][-1] == "10.0.0.254"
    with pytest.raises(ValueError, match="has no 4 addresses"):
        plan.networks(first, 4)
    with pytest.raises(ValueError, match="one mac"):
        plan.networks(NetworkConfig("br0", "10.0.0.2/24", mac="02:00:00:00:00:05"), 2)


@pytest.mark.parametrize("missing", ["pid", "network", "mount"])
def test_what_only_one_can_have_is_not_shared(missing: str) -> None:
    """Such a container can be restored once."""
    own = {"pid", "network", "mount"} - {missing}
    with pytest.raises(NotClonable, match=f"no {missing} namespace"):
        plan.require("/image", config(*own))
    plan.require("/image", config(*own, missing))


def test_a_namespace_of_somebody_else_is_not_its_own() -> None:
    """Its sockets would meet those of its source there."""
    joined = config("pid", "mount")
    joined["linux"]["namespaces"].append({"type": "network", "path": "/run/netns/x"})
    with pytest.raises(NotClonable):
        plan.require("/image", joined)


def test_a_copy_has_its_own_host_name_cgroup_and_root() -> None:
    """Everything else is as it was; the source's configuration is not touched."""
    source = config("uts", cgroupsPath="/apps/web", resources={"pids": {"limit": 9}})
    copy = plan.configuration(source, "web-1", bundle="/b", root="/state/rootfs")
    assert copy["hostname"] == "web-1"
    assert copy["root"] == {"path": "/state/rootfs", "readonly": True}
    assert copy["linux"]["cgroupsPath"] == "/apps/web-1"
    assert copy["linux"]["resources"] == {"pids": {"limit": 9}}
    assert source["linux"]["cgroupsPath"] == "/apps/web"
    assert source["root"]["path"] == "rootfs"


def test_in_the_words_of_systemd_the_cgroup_stays_in_its_slice() -> None:
    """Limits of the slice are for the copies too."""
    source = config(cgroupsPath="apps.slice:ocimig:web")
    copy = plan.configuration(source, "web-1", bundle="/b", root="/r")
    assert copy["linux"]["cgroupsPath"] == "apps.slice:ocimig:web-1"


def test_a_host_name_that_is_not_its_own_is_left_alone() -> None:
    """It is another container's, or the host's."""
    assert plan.configuration(config(), "web-1", bundle="/b", root="/r")["hostname"] == "web"


def test_what_is_bound_from_the_bundle_is_bound_from_there() -> None:
    """The bundle of a copy is another directory."""
    source = config()
    source["mounts"] = [
        {"destination": "/data", "source": "data", "options": ["rbind"]},
        {"destination": "/log", "source": "/log", "type": "bind"},
        {"destination": "/proc", "source": "proc", "type": "proc"},
    ]
    found = plan.configuration(source, "web-1", bundle="/b", root="/r")["mounts"]
    assert [each["source"] for each in found] == ["/b/data", "/log", "proc"]


def test_signs_that_mean_something_to_overlayfs_do_not_in_a_path() -> None:
    """A directory with a colon in its name is one directory."""
    assert layer._escaped("/a:b,c\\d") == "/a\\:b\\,c\\\\d"
