"""Facts of two hosts and a container → findings, each with its fix. Pure: reads nothing, asks nobody."""

from collections.abc import Iterator, Mapping
from typing import Any

from ocimig.migrate import inside
from ocimig.migrate.errors import PreflightRefused
from ocimig.migrate.inside import REFUSE, WARN, Finding, Wishes

__all__ = ["REFUSE", "WARN", "Finding", "Wishes", "check", "choose_images", "image_bytes", "refuse"]
RESERVE = 64 << 20  # bytes that stay free for everybody else
MEMORY_SHARE = 1.15  # the restored container, its page tables and CRIU itself
LEAST_PIPE = 1 << 20

Facts = Mapping[str, Any]


def check(
    container: Facts,
    here: Facts,
    there: Facts,
    *,
    tcp_close: bool = False,
    wishes: Wishes | None = None,
) -> list[Finding]:
    """Everything that is wrong, the hindrances first; `wishes` are the options that allow more."""
    tcp_close = tcp_close or (wishes is not None and wishes.tcp_close)
    found = [
        *_programs(here, there),
        *_machines(here, there),
        *_room(container, there),
        *_names(container, here, there),
        *_network(container, there, tcp_close),
        *inside.findings(container["objects"], wishes),
        *_inside(container),
    ]
    return sorted(found, key=lambda finding: finding.severity != REFUSE)


def refuse(findings: list[Finding]) -> None:
    """Raise PreflightRefused when anything stands in the way; its code is that of the first."""
    against = [finding for finding in findings if finding.severity == REFUSE]
    if against:
        raise PreflightRefused(
            reasons="; ".join(finding.text for finding in against),
            fixes="; ".join(finding.fix for finding in against if finding.fix),
            code=against[0].code,
        )


def choose_images(there: Facts, needed: int) -> str:
    """The first directory of the far side with room for the images, or an empty string."""
    for space in there["images"]:
        if not space["problem"] and space["directory"] and space["free"] >= needed + RESERVE:
            return str(space["path"])
    return ""


def image_bytes(container: Facts) -> int:
    """How much the images of the container may take."""
    return int(container["memory"]) + int(container["processes"]) * (1 << 20) + (8 << 20)


def _programs(here: Facts, there: Facts) -> Iterator[Finding]:
    for side, facts in (("this host", here), (there["host"], there)):
        if facts["uid"] != 0:
            fix = f"log in as root there, or let --remote-command be: sudo -n ocimig ({side})"
            yield Finding(REFUSE, "root", f"{side}: ocimig does not run as root", fix, 13)
        criu = facts["criu"]
        if criu["problem"]:
            fix = criu["fix"] or "run contrib/install-criu there"
            yield Finding(REFUSE, "criu", f"{side}: {criu['problem']}", fix)
        if facts["network_lock"]:
            text = f"{side}: network namespaces cannot be locked: {facts['network_lock']}"
            yield Finding(REFUSE, "nftables", text, "load the kernel module: modprobe nf_tables")
        if 0 < facts["pipe_max_size"] < LEAST_PIPE:
            text = f"{side}: pipes hold at most {facts['pipe_max_size']} bytes"
            yield Finding(WARN, "pipes", text, "sysctl -w fs.pipe-max-size=4194304")
    ours, theirs = here["criu"]["version"], there["criu"]["version"]
    if theirs and _version(theirs) < _version(ours):
        text = f"CRIU {theirs} on {there['host']} is older than {ours} here and may not read its images"
        same = _version(theirs)[0] == _version(ours)[0]
        yield Finding(WARN if same else REFUSE, "criu-version", text, f"install CRIU {ours} there")
    if here["ocimig"] != there["ocimig"]:
        text = f"ocimig is {here['ocimig']} here and {there['ocimig']} on {there['host']}"
        yield Finding(WARN, "ocimig-version", text, "install the same version on both")


def _machines(here: Facts, there: Facts) -> Iterator[Finding]:
    if here["machine"] != there["machine"]:
        text = f"{there['host']} is {there['machine']}, this host {here['machine']}"
        yield Finding(REFUSE, "architecture", text, f"choose a host of type {here['machine']}")
        return
    if here["page_size"] != there["page_size"]:
        text = f"pages are {there['page_size']} bytes there, {here['page_size']} here"
        yield Finding(REFUSE, "page-size", text, "boot a kernel with the same page size")
    missing = sorted(set(here["cpu_flags"]) - set(there["cpu_flags"]) - _HARMLESS)
    if missing:
        shown = " ".join(missing[:12]) + (" …" if len(missing) > 12 else "")
        text = f"the processor of {there['host']} lacks: {shown}"
        fix = "choose a host with the same processor or a newer one; a program may use any of them"
        yield Finding(REFUSE, "processor", text, fix)
    if _version(there["kernel"])[:2] < _version(here["kernel"])[:2]:
        text = f"the kernel of {there['host']} is older: {there['kernel']}, here {here['kernel']}"
        yield Finding(WARN, "kernel", text, "boot the same kernel there, or a newer one")
    if here["cgroup"] != there["cgroup"]:
        text = f"cgroups are {there['cgroup']} on {there['host']}, {here['cgroup']} here"
        yield Finding(
            WARN, "cgroup", text, "limits are set anew from config.json; check them there"
        )
    for name in ("apparmor", "selinux"):
        if name in here["lsm"] and name not in there["lsm"]:
            yield Finding(
                WARN, "lsm", f"{name} is not active on {there['host']}", "turn it on there"
            )
    if abs(here["clock"] - there["clock"]) > 5:
        off = there["clock"] - here["clock"]
        text = f"the clock of {there['host']} differs by {off:+.0f} seconds"
        yield Finding(WARN, "clock", text, "run an NTP client on both; nothing here depends on it")


# Set by the kernel's choice of mitigations or the hypervisor, not used by programs.
_HARMLESS = frozenset(
    (
        "arch_capabilities arch_perfmon arat bts constant_tsc cpuid dts ept est flexpriority flush_l1d "
        "hypervisor ibpb ibrs ibrs_enhanced md_clear mtrr nonstop_tsc nopl pebs pti rep_good ssbd stibp "
        "tsc_adjust tsc_known_freq tsc_reliable vnmi vpid tpr_shadow xtopology"
    ).split()
)


def _version(text: str) -> tuple[int, ...]:
    """The numbers at the beginning: 6.18.44-generic as (6, 18, 44)."""
    numbers = []
    for part in text.split("-", 1)[0].split("."):
        digits = "".join(char for char in part if char.isdigit())
        numbers.append(int(digits or 0))
    return tuple(numbers)


def _room(container: Facts, there: Facts) -> Iterator[Finding]:
    host = there["host"]
    memory, files = int(container["memory"]), container["files"]
    needed = int(memory * MEMORY_SHARE) + RESERVE
    if there["memory"]["available"] < needed:
        text = (
            f"{host} has {_size(there['memory']['available'])} of memory free, "
            f"{container['id']} needs {_size(needed)}"
        )
        yield Finding(REFUSE, "memory", text, f"free memory on {host}, or choose another host", 15)
    huge, free = int(container.get("huge", 0)), int(there.get("huge_free", 0))
    if huge > free:  # of what several share nobody knows how much there is; this much at least
        text = f"{container['id']} has {_size(huge)} in huge pages, {host} has {_size(free)} of them free"
        fix = "there: sysctl -w vm.nr_hugepages=N, or start the program without huge pages"
        yield Finding(REFUSE, "huge-pages", text, fix, 15)
    if not choose_images(there, image_bytes(container)):
        places = ", ".join(f"{space['path']} ({_size(space['free'])})" for space in there["images"])
        text = f"the images need {_size(image_bytes(container))} on {host}, free are: {places}"
        yield Finding(REFUSE, "image-space", text, f"free space in one of them on {host}", 15)
    bundle = there["bundle"]
    if bundle["problem"]:
        text = f"{host}: cannot write to {bundle['parent']}: {bundle['problem']}"
        yield Finding(REFUSE, "bundle", text, "make it writable there", 14)
    elif bundle["free"] < files["bytes"] + RESERVE:
        text = (
            f"the files need {_size(files['bytes'])} on {host}, "
            f"{bundle['parent']} has {_size(bundle['free'])}"
        )
        yield Finding(REFUSE, "disk-space", text, f"free space there: df {bundle['parent']}", 15)
    elif 0 <= bundle["inodes"] < files["inodes"] + 100:
        text = f"the files need {files['inodes']} inodes on {host}, {bundle['inodes']} are free"
        yield Finding(REFUSE, "inodes", text, f"free some there: df -i {bundle['parent']}", 15)


def _size(count: int) -> str:
    return f"{count / (1 << 20):.0f} MiB"


def _names(container: Facts, here: Facts, there: Facts) -> Iterator[Finding]:
    host, id = there["host"], container["id"]
    if there["taken"]:
        text = f"the name {id} is taken on {host} by a {there['taken']}"
        yield Finding(REFUSE, "name", text, f"there: ocimig delete {id}, or ocimig recover", 11)
    same_host = here["host_id"] == there["host_id"] and here["boot_id"] == there["boot_id"]
    bundle = there["bundle"]
    if not bundle["directory"]:
        text = f"{host}: {bundle['parent']} is not a directory"
        yield Finding(REFUSE, "bundle", text, "move it out of the way there", 11)
    elif bundle["exists"] and not bundle["empty"]:
        reason = (
            "both are this host, and the files are the container's own" if same_host else "in use"
        )
        text = f"the bundle directory {bundle['path']} exists on {host} and is not empty ({reason})"
        fix = f"there: remove {bundle['path']}" if not same_host else "migrate to another host"
        yield Finding(REFUSE, "bundle", text, fix, 11)
    if there["missing"]:
        text = f"{host} lacks what the container has mounted: {', '.join(there['missing'])}"
        yield Finding(REFUSE, "mounts", text, "copy or mount them there; they do not travel")
    elif container["binds"]:
        text = f"mounted from the host, does not travel: {', '.join(sorted(container['binds']))}"
        yield Finding(
            WARN, "mounts", text, f"it finds what {host} has in the same places: check it"
        )


def _network(container: Facts, there: Facts, tcp_close: bool) -> Iterator[Finding]:
    config, host = container["network"], there["host"]
    if config is None:
        if container["connections"] and not tcp_close:
            text = (
                f"{container['connections']} TCP connections cannot follow: the network of "
                f"{container['id']} was not made by ocimig"
            )
            fix = "give it one with ocimig run --net, or close them with --tcp-close"
            yield Finding(REFUSE, "connections", text, fix)
        return
    found = there["network"]
    if not found["kind"]:
        fix = "there: ip link add {0} type bridge && ip link set {0} up".format(found["name"])
        yield Finding(REFUSE, "bridge", f"{host} has no bridge {found['name']}", fix)
    elif found["kind"] != "bridge":
        text = f"{found['name']} on {host} is a {found['kind']}, not a bridge"
        yield Finding(REFUSE, "bridge", text, "rename it there, and make a bridge of that name")
    elif not found["up"]:
        text = f"the bridge {found['name']} on {host} is down"
        yield Finding(REFUSE, "bridge", text, f"there: ip link set {found['name']} up")
    elif found["mtu"] < int(config.get("mtu") or 0):
        text = f"the MTU of {found['name']} on {host} is {found['mtu']}, the container's {config['mtu']}"
        yield Finding(WARN, "mtu", text, f"there: ip link set {found['name']} mtu {config['mtu']}")
    ip = str(config["address"]).partition("/")[0]
    if ip in found["addresses"]:
        text = f"the address {ip} is {host}'s own"
        yield Finding(REFUSE, "address", text, "give the container another address", 11)
    elif found["holder"] and found["holder"].lower() != str(config["mac"]).lower():
        text = f"the address {ip} is in use by {found['holder']} on the network of {host}"
        yield Finding(REFUSE, "address", text, "stop what holds it, or change the address", 11)


def _inside(container: Facts) -> Iterator[Finding]:
    if not container["pid_namespace"]:
        text = "the container shares the host's process numbers, which may be taken over there"
        yield Finding(WARN, "pid-namespace", text, "add a pid namespace to config.json")
    if container["terminal"]:
        text = "the container has a terminal, whose other end stays on this host"
        yield Finding(WARN, "terminal", text, "run it without a terminal")
    if container["pipes"]:
        names = [("input", "output", "error output")[number] for number in container["pipes"]]
        text = f"its standard {' and '.join(names)} ends on this host and becomes /dev/null there"
        yield Finding(
            WARN, "pipes", text, "start it with its output in a file, or let it log by itself"
        )
