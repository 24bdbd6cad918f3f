"""The open files of a process: fdinfo images and what they point at in files.img. Opens none of them."""

import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ocimig.criu_images import fields, names, tables
from ocimig.criu_images.opened import Images

FILES = 1 << 20  # that one checkpoint may have open
_FILE_ENTRY = 1 << 20
_LARGE = 4096  # bytes of an entry; hardly any has more
_LARGE_BYTES = (
    256 << 20
)  # of such entries that are decoded: a descriptor costs 20 bytes to refer to one
_CLOEXEC = 1
_HIGHEST = 1 << 30


@dataclass(frozen=True, slots=True)
class Descriptor:
    """One descriptor. `text` is for people, `details` is the same for programs; `file` is CRIU's number of
    the open file, equal for descriptors that share it."""

    number: int
    kind: str
    text: str
    file: int
    flags: tuple[str, ...] = ()
    close_on_exec: bool = False
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def is_socket(self) -> bool:
        """Of whatever family."""
        return self.kind in names.SOCKETS


class Files:
    """What is open in a checkpoint. Keeps where each entry of files.img is, and decodes it when asked."""

    def __init__(self, directory: Images) -> None:
        self.directory = directory
        self._places: dict[int, int] = {}
        self._terminals: dict[int, dict[str, Any]] = {}
        self._memfds: dict[int, dict[str, Any]] = {}
        self._loaded = False
        self._large = 0

    def of(self, files_id: int) -> Iterator[Descriptor]:
        """The descriptors in fdinfo-<files_id>.img, by number as CRIU wrote them. Raises BadImage."""
        name = f"fdinfo-{files_id}.img"
        if not self.directory.exists(name):
            return
        for entry in self.directory.each(name, "fdinfo", tables.FDINFO):
            number = entry["fd"]
            if number > _HIGHEST:
                raise self.directory.refusal(name, f"there is no descriptor {number}")
            file = self.file(entry["id"])
            kind = names.word(names.FILES, entry["type"])
            if file is None:
                yield Descriptor(number, kind, "", entry["id"])
                continue
            text, flags, details = _describe(kind, file, self)
            yield Descriptor(
                number, kind, text, entry["id"], tuple(names.open_flags(flags)),
                bool(entry["flags"] & _CLOEXEC), details,
            )  # fmt: skip

    def file(self, number: int) -> dict[str, Any] | None:
        """The entry of an open file under CRIU's names, or nothing. Raises BadImage."""
        self._load()
        place = self._places.get(number)
        if place is None:
            return None
        length = place & 0xFFFFFF
        self._large += length if length > _LARGE else 0
        if self._large > _LARGE_BYTES:
            raise self.directory.refusal("files.img", "its large entries are referred to too often")
        with self.directory.open("files.img") as image:
            image.seek(place >> 24)
            record = image.read(length)
        return self.directory.decoded("files.img", record, tables.FILE)

    def path(self, number: int) -> str:
        """The path of an open file, or nothing: mappings and terminals refer to files so."""
        file = self.file(number)
        if file is None:
            return ""
        if file["memfd"] is not None:
            return f"memfd:{self.memfd(file['memfd']['inode_id']).get('name', '')}"
        return str(file["reg"]["name"]) if file["reg"] is not None else ""

    def terminal(self, number: int) -> dict[str, Any]:
        """The entry of a terminal, empty where it is not known."""
        if not self._terminals and self.directory.exists("tty-info.img"):
            each = self.directory.each("tty-info.img", "tty-info", tables.TTY_INFO)
            self._terminals = self._indexed("tty-info.img", each, "id")
        return self._terminals.get(number, {})

    def memfd(self, number: int) -> dict[str, Any]:
        """The entry of a memfd, empty where it is not known."""
        if not self._memfds and self.directory.exists("memfd.img"):
            each = self.directory.each("memfd.img", "memfd", tables.MEMFD)
            self._memfds = self._indexed("memfd.img", each, "inode_id")
        return self._memfds.get(number, {})

    def _indexed(
        self, name: str, entries: Iterator[dict[str, Any]], key: str
    ) -> dict[int, dict[str, Any]]:
        found: dict[int, dict[str, Any]] = {}
        for entry in entries:
            found[entry[key]] = entry
            if len(found) > FILES >> 4:
                raise self.directory.refusal(name, f"more than {FILES >> 4} entries")
        return found

    def _load(self) -> None:
        """A number and a place for each file; a place is where its entry begins, then its length (24 bits)."""
        if self._loaded:
            return
        self._loaded = True
        if not self.directory.exists("files.img"):
            return
        for at, record in self.directory.placed("files.img", "files", _FILE_ENTRY):
            number = self._number(record)
            self._places[number] = (at + 4) << 24 | len(record)
            if len(self._places) > FILES:
                raise self.directory.refusal("files.img", f"more than {FILES} open files")

    def _number(self, record: bytes) -> int:
        try:
            for key, value in fields.walk(record):
                if key == 2 and isinstance(value, int):
                    return value
        except ValueError as error:
            raise self.directory.refusal("files.img", error) from None
        raise self.directory.refusal("files.img", "an open file has no number")


_Described = tuple[str, int, dict[str, Any]]


def _describe(kind: str, file: dict[str, Any], files: Files) -> _Described:
    """Words, flags of open(2), details."""
    known = _KINDS.get(kind)
    entry = file[known[0]] if known is not None else None
    if known is None or entry is None:
        return "", 0, {}
    return known[1](entry, files)


def _regular(entry: dict[str, Any], files: Files) -> _Described:
    details = {"path": entry["name"], "position": entry["pos"], "size": entry["size"]}
    details |= {"mode": f"{entry['mode'] & 0o7777:04o}", "external": bool(entry["ext"])}
    return entry["name"], entry["flags"], details


def _pipe(entry: dict[str, Any], files: Files) -> _Described:
    return f"pipe:[{entry['pipe_id']}]", entry["flags"], {"pipe": entry["pipe_id"]}


def _fifo(entry: dict[str, Any], files: Files) -> _Described:
    path = files.path(entry["regf_id"])
    under = files.file(entry["regf_id"])
    flags = under["reg"]["flags"] if under is not None and under["reg"] is not None else 0
    return path, flags, {"path": path, "pipe": entry["pipe_id"]}


def _inet(entry: dict[str, Any], files: Files) -> _Described:
    family = "ipv6" if entry["family"] == socket.AF_INET6 else "ipv4"
    protocol = names.word(names.PROTOCOLS, entry["proto"])
    state = names.word(names.TCP_STATES, entry["state"])
    local = _address(entry["src_addr"], entry["src_port"], family)
    remote = _address(entry["dst_addr"], entry["dst_port"], family) if entry["dst_port"] else ""
    text = f"{protocol} {local}{' -> ' + remote if remote else ''} {state}"
    details = {"family": family, "protocol": protocol, "state": state, "local": local}
    return text, entry["flags"] | 2, details | {"remote": remote, "inode": entry["ino"]}


def _address(words: list[int], port: int, family: str) -> str:
    size = 4 if family == "ipv6" else 1
    packed = b"".join((word & 0xFFFFFFFF).to_bytes(4, "little") for word in words[:size])
    packed = packed.ljust(4 * size, b"\0")
    if family == "ipv6":
        return f"[{socket.inet_ntop(socket.AF_INET6, packed)}]:{port}"
    return f"{socket.inet_ntop(socket.AF_INET, packed)}:{port}"


def _unix(entry: dict[str, Any], files: Files) -> _Described:
    name = entry["name"]
    path = fields.text(b"@" + name[1:] if name[:1] == b"\0" else name.rstrip(b"\0"))
    kind = names.word(names.SOCKET_TYPES, entry["type"])
    state = names.word(names.UNIX_STATES, entry["state"])
    peer = f" peer {entry['peer']}" if entry["peer"] else ""
    details = {"type": kind, "state": state, "path": path, "inode": entry["ino"]}
    text = f"{kind} {path + ' ' if path else ''}[{entry['ino']}]{peer} {state}"
    return text, entry["flags"] | 2, details | {"peer": entry["peer"]}


def _packet(entry: dict[str, Any], files: Files) -> _Described:
    details = {key: entry[key] for key in ("protocol", "ifindex")}
    details["type"] = names.word(names.SOCKET_TYPES, entry["type"])
    text = f"{details['type']} protocol {entry['protocol']:#06x} interface {entry['ifindex']}"
    return text, entry["flags"] | 2, details


def _netlink(entry: dict[str, Any], files: Files) -> _Described:
    protocol = names.word(names.NETLINK, entry["protocol"])
    details = {"protocol": protocol, "port": entry["portid"], "groups": entry["groups"]}
    return f"{protocol} port {entry['portid']}", entry["flags"] | 2, details


def _eventfd(entry: dict[str, Any], files: Files) -> _Described:
    return f"count {entry['counter']}", entry["flags"], {"count": entry["counter"]}


def _epoll(entry: dict[str, Any], files: Files) -> _Described:
    watched = [each["tfd"] for each in entry["tfd"]]
    shown = ", ".join(map(str, watched[:16])) + (", …" if len(watched) > 16 else "")
    return f"watches {shown}" if watched else "", entry["flags"], {"watches": watched}


def _signalfd(entry: dict[str, Any], files: Files) -> _Described:
    signals = [bit + 1 for bit in range(64) if entry["sigmask"] >> bit & 1]
    return f"signals {', '.join(map(str, signals))}", entry["flags"], {"signals": signals}


def _timerfd(entry: dict[str, Any], files: Files) -> _Described:
    clock = names.word(names.CLOCKS, entry["clockid"])
    value = entry["vsec"] + entry["vnsec"] / 1e9
    interval = entry["isec"] + entry["insec"] / 1e9
    details = {"clock": clock, "value": value, "interval": interval, "ticks": entry["ticks"]}
    return f"{clock} in {value:g} s, every {interval:g} s", entry["flags"], details


def _inotify(entry: dict[str, Any], files: Files) -> _Described:
    watches = [
        {"watch": each["wd"], "inode": each["i_ino"], "device": each["s_dev"],
         "path": each["f_handle"]["path"] if each["f_handle"] else ""}
        for each in entry["wd"]
    ]  # fmt: skip
    shown = ", ".join(str(each["path"] or each["inode"]) for each in watches[:8])
    return f"{len(watches)} watches: {shown}", entry["flags"], {"watches": watches}


def _fanotify(entry: dict[str, Any], files: Files) -> _Described:
    return f"{len(entry['mark'])} marks", entry["flags"], {"marks": len(entry["mark"])}


def _namespace(entry: dict[str, Any], files: Files) -> _Described:
    return f"namespace {entry['ns_id']}", entry["flags"], {"namespace": entry["ns_id"]}


def _tun(entry: dict[str, Any], files: Files) -> _Described:
    return entry["netdev"], 2, {"device": entry["netdev"]}


def _external(entry: dict[str, Any], files: Files) -> _Described:
    return "kept by a plugin", 0, {}


def _tty(entry: dict[str, Any], files: Files) -> _Described:
    info = files.terminal(entry["tty_info_id"])
    kind = names.word(names.TERMINALS, info.get("type", 0))
    index = info["pty"]["index"] if info.get("pty") else None
    path = files.path(entry["regf_id"])
    text = " ".join(filter(None, (kind, "" if index is None else str(index), path)))
    return text, entry["flags"], {"type": kind, "index": index, "path": path}


def _memfd(entry: dict[str, Any], files: Files) -> _Described:
    inode = files.memfd(entry["inode_id"])
    details = {"name": inode.get("name", ""), "position": entry["pos"]}
    details |= {"size": inode.get("size", 0), "shared": inode.get("shmid", 0)}
    return f"{details['name']} ({details['size']} bytes)", entry["flags"], details


def _bpf(entry: dict[str, Any], files: Files) -> _Described:
    details = {"name": entry["map_name"], "type": entry["map_type"], "map": entry["map_id"]}
    return f"map {entry['map_name']}", entry["flags"], details


def _pidfd(entry: dict[str, Any], files: Files) -> _Described:
    return f"process {entry['nspid']}", entry["flags"], {"pid": entry["nspid"]}


_KINDS = {
    "file": ("reg", _regular), "pipe": ("pipe", _pipe), "fifo": ("fifo", _fifo),
    "inet": ("isk", _inet), "unix": ("usk", _unix), "packet": ("psk", _packet),
    "netlink": ("nlsk", _netlink), "eventfd": ("efd", _eventfd), "epoll": ("epfd", _epoll),
    "signalfd": ("sgfd", _signalfd), "timerfd": ("tfd", _timerfd), "inotify": ("ify", _inotify),
    "fanotify": ("ffy", _fanotify), "namespace": ("nsf", _namespace), "tun": ("tunf", _tun),
    "external": ("ext", _external), "tty": ("tty", _tty), "memfd": ("memfd", _memfd),
    "bpf": ("bpf", _bpf), "pidfd": ("pidfd", _pidfd),
}  # fmt: skip
