"""What a container sees at /sys/fs/cgroup, as pieces that the mount plan puts in place. Pure."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocimig.runtime.cgroups.layout import Layout

TMPFS = "tmpfs"  # a new tmpfs (mode 755), read-only in the end when the config says so
BIND = "bind"  # the container's own directory of a hierarchy, recursively
MOUNT = "mount"  # the hierarchy itself, mounted in the container's cgroup namespace
LINK = "link"  # a symbolic link, for a controller that shares a hierarchy


class Piece:
    """One thing at `destination`, which is relative to the mount's own destination ("" is that itself).

    `fallback` is bound where the kernel refuses a MOUNT (a user namespace that does not own it).
    """

    __slots__ = ("data", "destination", "fallback", "fstype", "kind", "source")

    def __init__(
        self,
        kind: str,
        destination: str,
        *,
        source: str = "",
        fstype: str = "",
        data: str = "",
        fallback: str = "",
    ) -> None:
        self.kind = kind
        self.destination = destination
        self.source = source
        self.fstype = fstype
        self.data = data
        self.fallback = fallback

    def describe(self) -> str:
        """The piece in words."""
        what = " ".join(word for word in (self.kind, self.fstype, self.source, self.data) if word)
        return f"{what} -> {self.destination or '.'}"

    __repr__ = describe


def view_v1(
    paths: "dict[str, str]", *, cgroup_namespace: bool, layout: "Layout | None" = None
) -> "list[Piece]":
    """A tmpfs with one directory for each hierarchy, named as on the host, and links for shared ones."""
    if layout is None:
        from ocimig.runtime.cgroups.layout import read

        layout = read()
    pieces = [Piece(TMPFS, "", source="tmpfs", fstype="tmpfs", data="mode=755")]
    links = []
    for hierarchy in layout.v1:
        own = _own(hierarchy.controllers, paths)
        if own is None:
            continue
        name = hierarchy.mountpoint.rpartition("/")[2]
        if cgroup_namespace:
            data = ",".join(hierarchy.controllers)
            pieces.append(
                Piece(MOUNT, name, source="cgroup", fstype="cgroup", data=data, fallback=own)
            )
        else:
            pieces.append(Piece(BIND, name, source=own))
        if len(hierarchy.controllers) > 1:
            links += [
                Piece(LINK, each, source=name) for each in hierarchy.controllers if each != name
            ]
    return pieces + links


def _own(controllers: "tuple[str, ...]", paths: "dict[str, str]") -> "str | None":
    for name in controllers:
        if name in paths:
            return paths[name]
    return None


def view_v2(path: str, *, cgroup_namespace: bool) -> "list[Piece]":
    """The v2 tree as the container's namespace shows it; without a namespace its own directory only."""
    if cgroup_namespace:
        return [Piece(MOUNT, "", source="cgroup", fstype="cgroup2", fallback=path)]
    # Mounting cgroup2 here would show, and with rw give, the whole host's tree.
    return [Piece(BIND, "", source=path)]
