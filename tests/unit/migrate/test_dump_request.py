"""What is asked of CRIU, and what is refused before."""

import pytest

from ocimig.criu_images.errors import BadOption
from ocimig.criu_images.image import Manifest
from ocimig.migrate import dump_request, restore_request
from ocimig.migrate.dump_request import CheckpointOptions
from ocimig.migrate.restore_request import RestoreOptions
from ocimig.runtime.state import ContainerState


def _state() -> ContainerState:
    return ContainerState(
        "c1", pid=12, rootfs="/b/rootfs", cgroups={"freezer": "/f", "unified": "/u"}
    )


def test_options_have_their_names_at_criu() -> None:
    """Nothing is sent that was not asked for."""
    plain = dump_request.values(CheckpointOptions(), _state())
    assert plain["pid"] == 12
    assert plain["freeze_cgroup"] == "/f"
    assert "tcp_established" not in plain
    full = dump_request.values(
        CheckpointOptions(tcp_established=True, file_locks=True, parent_path="../one", status_fd=7),
        _state(),
    )
    assert full["tcp_established"]
    assert full["file_locks"]
    assert full["status_fd"] == 7
    assert full["parent_img"] == "../../one"  # seen from the scratch directory inside


@pytest.mark.parametrize(
    "wanted",
    [
        CheckpointOptions(parent_path="/one"),
        CheckpointOptions(network_lock="firewall"),
        CheckpointOptions(empty_ns=("pid",)),
        CheckpointOptions(page_server="host"),
        CheckpointOptions(page_server="host:99999"),
    ],
)
def test_wrong_options_are_refused(wanted: CheckpointOptions) -> None:
    """Before anything is touched."""
    with pytest.raises(BadOption):
        dump_request._refuse_options(wanted)


def test_what_the_dump_was_asked_for_holds_at_restore() -> None:
    """A caller may forget --tcp-established; the image remembers."""
    manifest = Manifest("c1", options={"tcp_established": True, "file_locks": True})
    found = restore_request.values(RestoreOptions(), manifest)
    assert found["tcp_established"]
    assert found["file_locks"]
    assert restore_request.keeps_connections(RestoreOptions(), manifest)
    assert not restore_request.keeps_connections(RestoreOptions(tcp_close=True), manifest)


def test_descriptors_are_handed_over_once() -> None:
    """Two streams into one pipe are one."""
    held = restore_request.Held()
    facts = {"streams": ["/dev/null", "pipe:[7]", "pipe:[7]"]}
    restore_request.collect(held, {}, -1, RestoreOptions(stdio=(0, 1, 2)), facts)
    assert (held.keys, held.fds) == (["pipe:[7]"], [1])
    assert restore_request.keys(facts) == {"pipe:[7]"}
