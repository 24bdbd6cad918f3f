"""What a restore will need of a container that still runs: mounts, descriptors, streams. Reads only."""

from collections.abc import Mapping
from typing import Any

from ocimig import files
from ocimig.migrate import descriptors, external, mountinfo
from ocimig.runtime.cgroups import layout
from ocimig.runtime.linux import proc
from ocimig.runtime.state import ContainerState


def foresee(state: ContainerState, spec: Mapping[str, Any]) -> dict[str, Any]:
    """The mounts and descriptors that a restore will need, as far as they can be known before the freeze."""
    mounts = mountinfo.read(state.pid)
    known = {mount.id for mount in mounts}
    inside = [state.pid, *proc.descendants(state.pid)]
    own = layout.own_paths(files.read(f"/proc/{state.pid}/cgroup"))
    found, _ = external.decide(mounts, mountinfo.read(), spec, own)
    given = state.descriptors or descriptors.streams(state.pid)
    return {
        "streams": given,
        "files": [file.to_json() for file in descriptors.host_files(inside, known, given)],
        "mounts": [mount.to_json() for mount in found],
        "root_slave": any(mount.slave for mount in mounts if mount.target == "/"),
    }
