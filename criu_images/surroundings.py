"""What the processes of a checkpoint lived in: mounts, namespaces, cgroups; and how the dump went."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ocimig.criu_images import names, tables
from ocimig.criu_images.opened import Images

MOUNTS = 1 << 17  # of one namespace; the kernel's default limit is 100,000


@dataclass(frozen=True, slots=True)
class Mount:
    """One mount of a mount namespace, as the processes saw it."""

    id: int
    parent: int
    target: str
    filesystem: str
    source: str
    root: str
    flags: tuple[str, ...]
    options: str
    external: bool = False
    shared: int = 0
    master: int = 0
    key: str = ""


@dataclass(frozen=True, slots=True)
class Cgroup:
    """Where the members of set `number` were: a path for each controller, as CRIU names them."""

    number: int
    paths: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class CgroupDirectory:
    """One cgroup that was saved, and the values of its files."""

    controllers: tuple[str, ...]
    path: str
    properties: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Inventory:
    """What CRIU says about the whole checkpoint. `namespaces` are those of the root process."""

    version: int
    lsm: str
    uptime: int  # of the host at the dump, in microseconds; 0 where it is not said
    tcp_close: bool


def inventory(directory: Images) -> Inventory:
    """Raises BadImage: a directory without inventory.img is no checkpoint."""
    entry = directory.only("inventory.img", "inventory", tables.INVENTORY)
    lsm = names.word(names.LSM, entry["lsmtype"])
    return Inventory(entry["img_version"], lsm, entry["dump_uptime"], bool(entry["tcp_close"]))


def mounts(directory: Images) -> Iterator[tuple[int, Mount]]:
    """Every mount with CRIU's number of its namespace, in CRIU's order. Raises BadImage."""
    for name in directory.names():
        number = name.removeprefix("mountpoints-").removesuffix(".img")
        if name.startswith("mountpoints-") and number.isascii() and number.isdigit():
            each = directory.each(name, "mountpoints", tables.MOUNT)
            for count, entry in enumerate(each):
                if count == MOUNTS:
                    raise directory.refusal(name, f"more than {MOUNTS} mounts")
                yield int(number), _mount(entry)


def _mount(entry: dict[str, Any]) -> Mount:
    target = entry["mountpoint"]
    return Mount(
        entry["mnt_id"], entry["parent_mnt_id"], target[1:] or "/" if target[:1] == "." else target,
        entry["fsname"] or names.word(names.FILESYSTEMS, entry["fstype"]), entry["source"],
        entry["root"], tuple(names.mount_flags(entry["flags"], entry["sb_flags"])),
        entry["options"], bool(entry["ext_mount"] or entry["ext_key"]), entry["shared_id"],
        entry["master_id"], entry["ext_key"],
    )  # fmt: skip


def cgroups(directory: Images) -> tuple[list[Cgroup], list[CgroupDirectory]]:
    """The sets that processes are members of, and what was saved of the cgroups. Raises BadImage."""
    entry = directory.maybe("cgroup.img", "cgroup", tables.CGROUP)
    if entry is None:
        return [], []
    sets = [
        Cgroup(each["id"], tuple((member["name"], member["path"]) for member in each["ctls"]))
        for each in entry["sets"]
    ]
    found = [
        saved
        for controller in entry["controllers"]
        for top in controller["dirs"]
        for saved in _below(tuple(controller["cnames"]), "", top)
    ]
    return sets, found


def _below(
    controllers: tuple[str, ...], above: str, entry: dict[str, Any]
) -> Iterator[CgroupDirectory]:
    """The depth is bounded where messages are read."""
    name = entry["dir_name"]
    path = name if not above or name.startswith(above) else f"{above}/{name}"
    properties = tuple((each["name"], each["value"]) for each in entry["properties"])
    yield CgroupDirectory(controllers, path, properties)
    for child in entry["children"]:
        yield from _below(controllers, path, child)


def namespaces(directory: Images, ids: dict[str, int]) -> Iterator[tuple[str, int, str]]:
    """Kind, CRIU's number, and what is worth saying of each that is in `ids`. Raises BadImage."""
    for kind in names.NAMESPACES:
        number = ids.get(f"{kind}_ns_id", 0)
        if number:
            yield kind, number, _said(directory, kind, number)


def _said(directory: Images, kind: str, number: int) -> str:
    if kind == "uts":
        uts = directory.maybe(f"utsns-{number}.img", "utsns", tables.UTSNS) or {}
        return str(uts.get("nodename", ""))
    if kind == "user":
        user = directory.maybe(f"userns-{number}.img", "userns", tables.USERNS) or {}
        extents = [*user.get("uid_map", ())][:16]
        return ", ".join(f"{e['first']}={e['lower_first']}+{e['count']}" for e in extents)
    if kind == "time":
        offsets = directory.maybe(f"timens-{number}.img", "timens", tables.TIMENS) or {}
        boot = offsets.get("boottime")
        seconds = (
            boot["tv_sec"] if boot else 0
        )  # unsigned in the image, negative where it was before
        return f"boottime {seconds - (seconds >> 63 << 64):+d} s" if boot else ""
    return ""


def timings(directory: Images) -> dict[str, dict[str, int]]:
    """CRIU's statistics by "dump" and "restore", under its own names: times in microseconds, else counts.

    Raises BadImage; empty where CRIU left none.
    """
    found: dict[str, dict[str, int]] = {}
    for which in ("dump", "restore"):
        entry = directory.maybe(f"stats-{which}", "stats", tables.STATS)
        if entry is not None and entry[which] is not None:
            found[which] = entry[which]
    return found
