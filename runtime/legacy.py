"""Older forms of config.json turned into today's: the 2015 pre-draft, and the 0.x and 1.0.0-rc years. Pure.

A document in today's form passes through with its nulls dropped and nothing else changed. What does not
look like the old form is left alone, so that `validate` names it.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

TODAY = "1.3.0"
_CLASSES = ("bounding", "effective", "inheritable", "permitted")
_DEVICES = {
    "null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9),
    "tty": (5, 0), "fuse": (10, 229), "tun": (10, 200),
}  # fmt: skip
_THROTTLES = {
    "blkioWeight": "weight",
    "blkioLeafWeight": "leafWeight",
    "blkioWeightDevice": "weightDevice",
    "blkioThrottleReadBpsDevice": "throttleReadBpsDevice",
    "blkioThrottleWriteBpsDevice": "throttleWriteBpsDevice",
    "blkioThrottleReadIopsDevice": "throttleReadIOPSDevice",
    "blkioThrottleWriteIopsDevice": "throttleWriteIOPSDevice",
    "blkioThrottleReadIOPSDevice": "throttleReadIOPSDevice",
    "blkioThrottleWriteIOPSDevice": "throttleWriteIOPSDevice",
}


def today(document: "Any") -> "Any":
    """The document in today's form; its input is not changed."""
    if not isinstance(document, dict):
        return document
    new: dict[str, Any] = without_nulls(document)
    pre_draft = "ociVersion" not in new and isinstance(new.get("version"), str)
    version = new.pop("version") if pre_draft else new.get("ociVersion")
    old = pre_draft or _is_old(version)
    if isinstance(new.get("process"), dict):
        new["process"] = process_today(new["process"])
    linux = new.get("linux")
    if isinstance(linux, dict):
        _linux(new, linux, zeros_unset=pre_draft)
    if not old:
        return new
    new.pop("platform", None)
    new["ociVersion"] = "1.0.0"
    process = new.get("process")
    if isinstance(process, dict) and process.get("cwd", "") == "":
        process["cwd"] = "/"
    for mount in _objects(new.get("mounts")):
        if isinstance(mount.get("options"), str):
            mount["options"] = [word for word in mount["options"].split(",") if word]
    return new


def process_today(process: "Any") -> "Any":
    """A process whose capabilities may still be one list."""
    process = without_nulls(process)
    if isinstance(process, dict) and isinstance(process.get("capabilities"), list):
        process["capabilities"] = _five_sets(process["capabilities"])
    return process


def without_nulls(value: "Any") -> "Any":
    """A copy in which a key that holds null is not there: old writers print every field they know."""
    if value.__class__ is dict:
        return {name: without_nulls(inner) for name, inner in value.items() if inner is not None}
    if value.__class__ is list:
        return [
            without_nulls(inner) if inner.__class__ in (dict, list) else inner for inner in value
        ]
    return value


def _is_old(version: "Any") -> bool:
    if not isinstance(version, str):
        return False
    return version.startswith(("0.", "v0.", "1.0.0-rc", "v1.0.0-rc")) or version == "pre-draft"


def _objects(rows: "Any") -> "list[dict[str, Any]]":
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []


def _five_sets(names: "list[Any]") -> "dict[str, Any]":
    full = [
        "CAP_" + name if isinstance(name, str) and not name.startswith("CAP_") else name
        for name in names
    ]
    return {kind: list(full) for kind in _CLASSES}


def _linux(document: "dict[str, Any]", linux: "dict[str, Any]", *, zeros_unset: bool) -> None:
    for before, after in (
        ("uidMapping", "uidMappings"),
        ("gidMapping", "gidMappings"),
        ("systemProperties", "sysctl"),
    ):
        _rename(linux, before, after)
    for space in _objects(linux.get("namespaces")):
        if space.get("type") == "process":
            space["type"] = "pid"
    process = document.get("process")
    if isinstance(process, dict):
        for name in ("rlimits", "apparmorProfile", "selinuxProcessLabel", "noNewPrivileges"):
            if name in linux:
                modern = "selinuxLabel" if name == "selinuxProcessLabel" else name
                process.setdefault(modern, linux.pop(name))
        if isinstance(linux.get("capabilities"), list):
            process.setdefault("capabilities", _five_sets(linux.pop("capabilities")))
        for limit in _objects(process.get("rlimits")):
            _rlimit_name(limit)
    if isinstance(linux.get("devices"), list):
        linux["devices"] = [_device(device) for device in linux["devices"]]
    resources = linux.get("resources")
    if isinstance(resources, dict):
        _resources(document, resources, zeros_unset)
    _seccomp(linux.get("seccomp"))


def _rename(holder: "dict[str, Any]", before: str, after: str) -> None:
    if before in holder:
        value = holder.pop(before)
        holder.setdefault(after, value)


def _rlimit_name(limit: "dict[str, Any]") -> None:
    # the first drafts had the number of <asm-generic/resource.h>
    names = (
        "CPU", "FSIZE", "DATA", "STACK", "CORE", "RSS", "NPROC", "NOFILE", "MEMLOCK", "AS",
        "LOCKS", "SIGPENDING", "MSGQUEUE", "NICE", "RTPRIO", "RTTIME",
    )  # fmt: skip
    number = limit.get("type")
    if number.__class__ is int and 0 <= number < len(names):
        limit["type"] = "RLIMIT_" + names[number]


def _device(device: "Any") -> "Any":
    if isinstance(device, str) and device in _DEVICES:
        major, minor = _DEVICES[device]
        where = "/dev/net/tun" if device == "tun" else "/dev/" + device
        return {"path": where, "type": "c", "major": major, "minor": minor, "fileMode": 0o666}
    if isinstance(device, dict) and device.get("type").__class__ is int:
        # a Go rune was printed as its number
        letter = {98: "b", 99: "c", 117: "u", 112: "p"}.get(device["type"])
        return {**device, "type": letter} if letter else device
    return device


def _resources(document: "dict[str, Any]", resources: "dict[str, Any]", zeros_unset: bool) -> None:
    if "disableOOMKiller" in resources:
        disable = resources.pop("disableOOMKiller")
        memory = resources.setdefault("memory", {})
        if isinstance(memory, dict):
            memory.setdefault("disableOOMKiller", disable)
    process = document.get("process")
    if "oomScoreAdj" in resources and isinstance(process, dict):
        process.setdefault("oomScoreAdj", resources.pop("oomScoreAdj"))
    block = resources.get("blockIO")
    if isinstance(block, dict):
        for before, after in _THROTTLES.items():
            _rename(block, before, after)
    network = resources.get("network")
    if isinstance(network, dict):
        _rename(network, "classId", "classID")
        if isinstance(network.get("classID"), str):
            network["classID"] = _class_id(network["classID"])
    for page in _objects(resources.get("hugepageLimits")):
        _rename(page, "pagesize", "pageSize")
    for rule in _objects(resources.get("devices")):
        if rule.get("type") == "*":
            rule["type"] = "a"
    if zeros_unset:
        for name in ("memory", "cpu", "blockIO", "network", "pids"):
            if isinstance(resources.get(name), dict):
                resources[name] = _set_ones(resources[name])
                if not resources[name]:
                    del resources[name]


def _class_id(text: str) -> "Any":
    if not text.strip():
        return 0
    try:
        return int(text, 0)
    except ValueError:
        return text


def _set_ones(group: "dict[str, Any]") -> "dict[str, Any]":
    return {
        name: value
        for name, value in group.items()
        if value not in (0, "", False) and not (name == "swappiness" and value == -1)
    }


def _seccomp(seccomp: "Any") -> None:
    """One name a rule became a list of names; `architecture` and the like were never released."""
    if not isinstance(seccomp, dict):
        return
    for call in _objects(seccomp.get("syscalls")):
        if "names" not in call and isinstance(call.get("name"), str):
            call["names"] = [call.pop("name")]
