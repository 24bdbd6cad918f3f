"""config.json is checked field by field and rule by rule, and every complaint names its place."""

import copy
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ocimig import jsonio
from ocimig.runtime import template, validate
from ocimig.runtime.errors import InvalidConfig
from ocimig.runtime.legacy import today

MAPPING = [{"containerID": 0, "hostID": 100000, "size": 65536}]


def full() -> dict[str, Any]:
    """A config.json in which nearly every field is set, and right."""
    spec = template.default_spec()
    spec["domainname"] = "example.org"
    spec["annotations"] = {"org.example.key": "value", "dotted.name/with slash": ""}
    spec["process"] |= {
        "consoleSize": {"height": 24, "width": 80},
        "user": {"uid": 1, "gid": 1, "umask": 18, "additionalGids": [5, 6]},
        "oomScoreAdj": 100,
        "apparmorProfile": "docker-default",
        "selinuxLabel": "system_u:system_r:svirt_t:s0",
        "scheduler": {"policy": "SCHED_FIFO", "priority": 10, "flags": ["SCHED_FLAG_RECLAIM"]},
        "ioPriority": {"class": "IOPRIO_CLASS_IDLE", "priority": 4},
        "execCPUAffinity": {"initial": "0-1", "final": "0,2-3"},
    }
    spec["process"]["capabilities"] |= {"inheritable": ["CAP_KILL"], "ambient": ["CAP_KILL"]}
    hook = {"path": "/bin/true", "args": ["true"], "env": ["A=b"], "timeout": 5}
    spec["hooks"] = {"prestart": [hook], "createRuntime": [hook], "poststop": [hook]}
    spec["mounts"].append(
        {
            "destination": "/data",
            "type": "bind",
            "source": "/srv",
            "options": ["rbind", "ro"],
            "uidMappings": copy.deepcopy(MAPPING),
            "gidMappings": copy.deepcopy(MAPPING),
        }
    )
    linux = spec["linux"]
    linux["namespaces"] += [{"type": "user"}, {"type": "time"}]
    linux |= {
        "uidMappings": copy.deepcopy(MAPPING),
        "gidMappings": copy.deepcopy(MAPPING),
        "cgroupsPath": "/a/b",
        "sysctl": {"net.ipv4.ip_forward": "1", "kernel.msgmax": "65536"},
        "devices": [
            {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 438, "uid": 0}
        ],
        "rootfsPropagation": "rslave",
        "mountLabel": "",
        "personality": {"domain": "LINUX"},
        "timeOffsets": {"monotonic": {"secs": 5, "nanosecs": 1}, "boottime": {"secs": -5}},
        "resources": {
            "devices": [
                {"allow": True, "type": "c", "major": 10, "minor": -1, "access": "rw"},
                {"allow": False, "access": "rwm"},
            ],
            "memory": {"limit": 1 << 30, "swap": -1, "swappiness": 60, "disableOOMKiller": False},
            "cpu": {"shares": 1024, "quota": -1, "period": 100000, "cpus": "0-1", "mems": "0"},
            "pids": {"limit": 100},
            "blockIO": {
                "weight": 500,
                "weightDevice": [{"major": 8, "minor": 0, "weight": 500}],
                "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 600}],
            },
            "hugepageLimits": [{"pageSize": "2MB", "limit": 1 << 21}],
            "network": {"classID": 1, "priorities": [{"name": "eth0", "priority": 5}]},
            "rdma": {"mlx5_1": {"hcaHandles": 3}},
            "unified": {"memory.high": "1G"},
        },
        "seccomp": {
            "defaultAction": "SCMP_ACT_ERRNO",
            "defaultErrnoRet": 1,
            "architectures": ["SCMP_ARCH_X86_64"],
            "flags": ["SECCOMP_FILTER_FLAG_LOG"],
            "listenerPath": "/run/agent.sock",
            "listenerMetadata": "x",
            "syscalls": [
                {
                    "names": ["getcwd"],
                    "action": "SCMP_ACT_ERRNO",
                    "errnoRet": 22,
                    "args": [{"index": 0, "value": 1, "valueTwo": 2, "op": "SCMP_CMP_MASKED_EQ"}],
                }
            ],
        },
    }
    return spec


def complaints(spec: Any) -> dict[str, str]:
    """What `check` says, by path."""
    return dict(validate.check(spec))


def at(spec: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy of the full config with one place changed; a path like process.args.0."""
    changed = copy.deepcopy(spec)
    holder: Any = changed
    *steps, last = path.split("/")
    for step in steps:
        holder = holder[int(step)] if isinstance(holder, list) else holder.setdefault(step, {})
    key: Any = int(last) if isinstance(holder, list) else last
    if value is ...:
        del holder[key]
    elif isinstance(holder, list):
        holder[key] = value
    else:
        holder[last] = value
    return changed


def test_a_full_config_has_nothing_wrong() -> None:
    """Every field of the specification in its right form is accepted."""
    assert validate.check(full()) == []


@pytest.mark.parametrize(
    ("place", "value", "path", "words"),
    [
        ("process/args/0", 5, "process.args[0]", "must be a string, is a number"),
        ("process/args", [], "process.args", "must not be empty"),
        ("process/args", "sh", "process.args", "must be a list, is a string"),
        ("process/args/0", "a\0b", "process.args[0]", "NUL"),
        ("process/args/0", "\ud800", "process.args[0]", "surrogate"),
        ("process/args/0", "x" * 200000, "process.args[0]", "200000 bytes long"),
        ("process/env/0", "PATH", "process.env[0]", "NAME=value"),
        ("process/cwd", "tmp", "process.cwd", "absolute path"),
        ("process/cwd", ..., "process.cwd", "is missing"),
        ("process/terminal", "yes", "process.terminal", "must be true or false, is a string"),
        ("process/user/uid", -1, "process.user.uid", "from 0 to 4294967294, is -1"),
        ("process/user/uid", 1 << 32, "process.user.uid", "is 4294967296"),
        ("process/user/uid", 1 << 400, "process.user.uid", "from 0 to"),
        ("process/user/uid", 1.0, "process.user.uid", "whole number, is 1.0"),
        ("process/user/uid", True, "process.user.uid", "is true or false"),
        ("process/user/uid", 70000, "process.user.uid", "is not mapped"),
        ("process/rlimits/0/type", "RLIMIT_X", "process.rlimits[0].type", "must be one of"),
        ("process/rlimits/0/soft", 2048, "process.rlimits[0].soft", "above the hard limit"),
        ("process/oomScoreAdj", 1001, "process.oomScoreAdj", "-1000 to 1000"),
        (
            "process/capabilities",
            ["CAP_KILL"],
            "",
            "",
        ),  # the rc form, upgraded before it is checked
        ("process/scheduler/policy", "SCHED_OTHER", "process.scheduler.priority", "SCHED_FIFO"),
        ("process/execCPUAffinity/final", "3-1", "process.execCPUAffinity.final", "list of CPUs"),
        ("root", ..., "root", "is missing"),
        ("root/path", "", "root.path", "must not be empty"),
        ("ociVersion", "2.0.0", "ociVersion", "supported are 1.0.0 to 1.3.x"),
        ("ociVersion", "one", "ociVersion", "not a version"),
        ("hostname", "h" * 65, "hostname", "at most 64"),
        ("mounts/0/destination", ..., "mounts[0].destination", "is missing"),
        ("mounts/0/options", "ro", "mounts[0].options", "must be a list"),
        ("mounts/1/options/0", "x" * 4096, "mounts[1].options[0]", "at most 4095"),
        ("mounts/7/gidMappings", [], "mounts[7].uidMappings", "both uid and gid"),
        ("hooks/prestart/0/path", "true", "hooks.prestart[0].path", "absolute"),
        ("hooks/prestart/0/timeout", 0, "hooks.prestart[0].timeout", "from 1"),
        ("annotations/k", 5, "annotations.k", "must be a string, is a number"),
        ("linux/namespaces/0/type", "process", "linux.namespaces[0].type", "must be one of"),
        ("linux/namespaces/1/type", "pid", "linux.namespaces[1].type", "duplicated ns pid"),
        ("linux/namespaces/1/path", "x", "linux.namespaces[1].path", "absolute"),
        ("linux/namespaces", [{"type": "pid"}], "linux.namespaces", "no mount namespace"),
        ("linux/uidMappings", ..., "linux.uidMappings", "is missing"),
        ("linux/uidMappings/0/size", 0, "linux.uidMappings[0].size", "from 1"),
        ("linux/uidMappings/0/hostID", 4294967295, "linux.uidMappings[0]", "beyond hostID"),
        ("linux/cgroupsPath", "/a/../../b", "linux.cgroupsPath", "must not climb"),
        ("linux/devices/0/type", "x", "linux.devices[0].type", "must be one of"),
        ("linux/devices/0/major", 4096, "linux.devices[0].major", "0 to 4095"),
        ("linux/devices/0/path", "fuse", "linux.devices[0].path", "absolute"),
        ("linux/resources/devices/0/access", "x", "linux.resources.devices[0].access", "letters"),
        ("linux/resources/memory/limit", 1 << 63, "linux.resources.memory.limit", "from -"),
        ("linux/sysctl/vm.swappiness", "1", "linux.sysctl['vm.swappiness']", "separate kernel"),
        ("linux/sysctl/kernel.hostname", "x", "linux.sysctl['kernel.hostname']", "conflicts"),
        ("linux/sysctl/net.\u2028..x", "1", "linux.sysctl['net.\\u2028..x']", "not the name"),
        ("linux/seccomp/defaultAction", "SCMP_ACT_NO", "linux.seccomp.defaultAction", "one of"),
        (
            "linux/seccomp/defaultAction",
            "SCMP_ACT_NOTIFY",
            "linux.seccomp.defaultAction",
            "default",
        ),
        ("linux/seccomp/architectures/0", "VAX", "linux.seccomp.architectures[0]", "one of"),
        ("linux/seccomp/flags/0", "X", "linux.seccomp.flags[0]", "one of"),
        (
            "linux/seccomp/syscalls/0/action",
            "SCMP_ACT_ALLOW",
            "linux.seccomp.syscalls[0].errnoRet",
            "SCMP_ACT_ALLOW has no errno",
        ),
        (
            "linux/seccomp/syscalls/0/args/0/index",
            6,
            "linux.seccomp.syscalls[0].args[0].index",
            "from 0 to 5",
        ),
        (
            "linux/seccomp/syscalls/0/args/0/op",
            "==",
            "linux.seccomp.syscalls[0].args[0].op",
            "must be one of",
        ),
        ("linux/timeOffsets/realtime", {}, "linux.timeOffsets.realtime", "not a clock"),
        (
            "linux/timeOffsets/monotonic/nanosecs",
            10**9,
            "linux.timeOffsets.monotonic.nanosecs",
            "to",
        ),
        ("linux/intelRdt", {"closID": "a"}, "linux.intelRdt", "not supported"),
        ("linux", [], "linux", "must be an object, is a list"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(
    place: str, value: Any, path: str, words: str
) -> None:
    """One wrong field gives one complaint that names the field and says what it should be."""
    found = complaints(at(full(), place, value))
    if path:
        assert words in found[path], found


@pytest.mark.parametrize(
    ("kind", "field", "words"),
    [
        ("uts", "hostname", "unable to set hostname without a private UTS namespace"),
        ("time", "linux.timeOffsets", "time namespace isn't enabled"),
        ("user", "linux.uidMappings", "user namespace isn't enabled"),
        ("ipc", "linux.sysctl['kernel.msgmax']", "hosts ipc namespace"),
        ("network", "linux.sysctl['net.ipv4.ip_forward']", "host network namespace"),
    ],
)
def test_a_setting_needs_its_namespace(kind: str, field: str, words: str) -> None:
    """What would change the host is refused when the container shares the host's namespace."""
    spec = full()
    spaces = spec["linux"]["namespaces"]
    spec["linux"]["namespaces"] = [space for space in spaces if space["type"] != kind]
    assert words in complaints(spec)[field]


def test_notify_needs_a_listener_and_leaves_write_alone() -> None:
    """The process could never tell its own runtime about the descriptor otherwise."""
    spec = full()
    seccomp = spec["linux"]["seccomp"]
    seccomp["syscalls"] = [{"names": ["write"], "action": "SCMP_ACT_NOTIFY"}]
    del seccomp["listenerPath"], seccomp["listenerMetadata"]
    found = complaints(spec)
    assert "needs a listener" in found["linux.seccomp.listenerPath"]
    assert "write syscall" in found["linux.seccomp.syscalls[0].names"]


def test_rlimits_and_mappings_may_not_repeat() -> None:
    """The same limit twice and id ranges that overlap have no one meaning."""
    spec = full()
    spec["process"]["rlimits"] *= 2
    spec["linux"]["uidMappings"].append({"containerID": 100, "hostID": 9, "size": 10})
    found = complaints(spec)
    assert "there twice" in found["process.rlimits[1].type"]
    assert "overlaps row 0" in found["linux.uidMappings[1]"]


def test_unknown_fields_and_nulls_are_ignored(tmp_path: Path) -> None:
    """The specification asks for both: extensions pass, and a null is an absent field."""
    spec = full() | {"x-extra": {"a": [1]}, "solaris": None}
    spec["process"]["user"]["additionalGids"] = None
    spec["linux"]["seccomp"] = None
    (tmp_path / "config.json").write_text(jsonio.dumps(spec))
    loaded = validate.load(str(tmp_path / "config.json"))
    assert "additionalGids" not in loaded["process"]["user"]
    assert "seccomp" not in loaded["linux"]
    assert loaded["x-extra"] == {"a": [1]}


def test_huge_input_of_every_kind_is_bounded() -> None:
    """A megabyte of mount options and a hundred thousand mounts are refused, not truncated."""
    spec = full()
    spec["mounts"][1]["options"] = ["x" * (1 << 20)]
    assert "at most 4095" in complaints(spec)["mounts[1].options[0]"]
    spec["mounts"][1]["options"] = ["x" * 4000, "y" * 4000]
    assert "4096 bytes" in complaints(spec)["mounts[1].options"]
    spec["mounts"] = [{"destination": "/a"}] * 100_000
    assert "at most 10000" in complaints(spec)["mounts"]


def places(value: Any, path: str = "") -> Iterator[str]:
    """Every place of a document, as test paths."""
    rows = value.items() if isinstance(value, dict) else enumerate(value)
    for name, inner in rows:
        here = f"{path}/{name}" if path else str(name)
        if "/" not in str(name):
            yield here
            if isinstance(inner, dict | list):
                yield from places(inner, here)


PLACES = sorted(places(full()))
STRANGE = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(), max_size=20)
    | st.sampled_from([..., -1, 1 << 31, 1 << 32, 1 << 63, 1 << 64, 10**30, "", "/", "..", "a\0b"])
    | st.lists(st.none() | st.integers() | st.text(max_size=3), max_size=3)
    | st.dictionaries(
        st.text(max_size=5), st.none() | st.integers() | st.text(max_size=3), max_size=3
    )
)


@settings(max_examples=1500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.sampled_from(PLACES), STRANGE), min_size=1, max_size=3))
def test_any_change_is_accepted_or_named(tmp_path_factory: Any, changes: Any) -> None:
    """Whatever stands in a field, the answer is a document or InvalidConfig with a place in it."""
    spec = full()
    for place, value in changes:
        try:
            spec = at(spec, place, value)
        except (AttributeError, KeyError, IndexError, TypeError, ValueError):
            continue  # an earlier change took this place away
    path = tmp_path_factory.getbasetemp() / "fuzzed.json"
    path.write_text(jsonio.dumps(spec))
    loaded, refused = None, None
    try:
        loaded = validate.load(str(path))
    except InvalidConfig as error:
        refused = error
    if refused is None:
        assert validate.check(loaded) == []
        return
    assert str(refused).isprintable()
    assert refused.problems
    for where, words in refused.problems:
        assert words
        _resolve(today(spec), where)


def _resolve(spec: Any, where: str) -> None:
    """Walk a JSON path; a place that is not there must at least have its parent there."""
    if where == "the document":
        return
    holder, rest = spec, where
    while rest:
        if rest[0] == "[":
            end = rest.index("]") if rest[1] not in "'\"" else rest.index(rest[1] + "]") + 1
            inside, rest = rest[1:end], rest[end + 1 :].removeprefix(".")
            if inside[0] in "'\"":
                return  # a free key, shown shortened
            step: Any = int(inside)
            assert isinstance(holder, list), (where, holder)
        else:
            cut = min((rest.index(c) for c in ".[" if c in rest), default=len(rest))
            step, rest = rest[:cut], rest[cut:].removeprefix(".")
            assert isinstance(holder, dict), (where, holder)
            if step not in holder or holder[step] is None:
                assert rest == "" or step in ("user", "linux"), where
                return
        holder = holder[step]


def test_the_default_config_is_checked_in_less_than_a_millisecond() -> None:
    """`create` pays this each time; best of many runs, so that a busy machine does not fail it."""
    spec = template.default_spec()
    best = 1.0
    for _ in range(50):
        started = time.perf_counter()
        assert validate.check(spec) == []
        best = min(best, time.perf_counter() - started)
    assert best < 0.001
