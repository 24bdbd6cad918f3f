"""What the options before the verb mean: the store, and who makes cgroups. Hot."""

import os

from ocimig.cli.verbs import InvalidSetting
from ocimig.runtime.store import Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocimig.cli.verbs import Call


def root(call: "Call") -> str:
    """The directory of the state of containers: --root, or the one of this user."""
    if call.given("root"):
        path = call.text("root")
        # As runc: an empty variable in a script must not make the whole file system the state.
        if not path or not os.path.abspath(path).strip("/"):
            raise InvalidSetting(reason="Option --root argument should not be set to /")
        return os.path.abspath(path)
    if os.geteuid() == 0 and not _mapped_root():
        return "/run/ocimig"
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    return os.path.join(runtime, "ocimig") if os.path.isabs(runtime) else "/run/ocimig"


def store(call: "Call") -> Store:
    """The containers that this command line is about."""
    return Store(root(call))


def systemd_cgroup(call: "Call") -> bool:
    """Whether systemd makes the cgroups, in runc's words or in crun's."""
    return call.flag("systemd-cgroup") or call.text("cgroup-manager") == "systemd"


def rootless(call: "Call") -> bool:
    """Whether cgroups that may not be changed are no error."""
    wish = call.text("rootless", "auto")
    if call.text("cgroup-manager") == "disabled":
        return True
    return wish == "true" or (wish == "auto" and (os.geteuid() != 0 or _mapped_root()))


def _mapped_root() -> bool:
    """Whether this root is somebody else outside: the first user namespace maps all ids to themselves."""
    try:
        with open("/proc/self/uid_map", "rb") as file:
            return file.read(64).split() != [b"0", b"0", b"4294967295"]
    except OSError:  # a kernel without user namespaces
        return False
