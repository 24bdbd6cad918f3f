"""What an archive asks of the host, and that it gets none of it unless somebody said so."""

import copy
import os
from typing import Any

import pytest

from ocimig.cli.verbs_archive import GRANTS as WORDS
from ocimig.criu_images.mounts import LeftMount
from ocimig.migrate.archive import asks
from ocimig.migrate.archive.asks import DROPPED, GRANTED, GRANTS, REPLACED, WANTED, decide
from ocimig.migrate.archive.foreign import in_own_terms

QUIET: dict[str, Any] = {
    "process": {"capabilities": {"bounding": ["CAP_KILL"]}},
    "root": {"path": "/", "readonly": True},
    "linux": {
        "namespaces": [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount")],
        "seccomp": {"defaultAction": "SCMP_ACT_ERRNO"},
        "resources": {"devices": [{"allow": False, "access": "rwm"}], "memory": {"limit": 1}},
    },
}


def spec(**changes: Any) -> dict[str, Any]:
    """QUIET with `linux__x`, `process__x` and top-level names changed."""
    made = copy.deepcopy(QUIET)
    for name, value in changes.items():
        part, _, inner = name.partition("__")
        if inner:
            made.setdefault(part, {})[inner] = value
        else:
            made[name] = value
    return made


def bind(source: str, target: str) -> dict[str, Any]:
    """A bind mount."""
    return {"destination": target, "source": source, "type": "bind", "options": ["rbind", "rw"]}


_SPACES = QUIET["linux"]["namespaces"]
LOUD = [
    ("mounts", spec(mounts=[bind("/", "/host")]), WANTED),
    ("mounts", spec(mounts=[bind("/var/run/docker.sock", "/run/docker.sock")]), WANTED),
    ("mounts", spec(mounts=[bind("/run/containers/x/hosts", "/etc/hosts")]), REPLACED),
    ("mounts", spec(mounts=[{"destination": "/h", "source": "/etc", "options": ["rbind"]}]), WANTED),
    ("devices", spec(linux__devices=[{"path": "/dev/sda", "type": "b", "major": 8}]), DROPPED),
    ("devices", spec(linux__resources={"devices": [{"allow": True, "access": "rwm"}]}), DROPPED),
    ("hooks", spec(hooks={"prestart": [{"path": "/tmp/evil"}]}), DROPPED),
    ("hooks", spec(hooks={"createRuntime": [{"path": "/tmp/evil"}]}), DROPPED),
    ("sysctls", spec(linux__sysctl={"kernel.core_pattern": "|/tmp/evil"}), DROPPED),
    ("namespaces", spec(linux__namespaces=[*_SPACES, {"type": "user", "path": "/proc/1/ns/user"}]),
     WANTED),
    ("namespaces", spec(linux__namespaces=[{"type": "network", "path": "/run/netns/x"},
                                           *_SPACES[:1], *_SPACES[2:]]), REPLACED),
    ("namespaces", spec(linux__namespaces=_SPACES[1:]), WANTED),
    ("cgroup", spec(linux__cgroupsPath="/system.slice/sshd.service"), DROPPED),
    ("annotations", spec(annotations={"org.criu.config": "/tmp/evil.conf"}), DROPPED),
    ("annotations", spec(annotations={"run.oci.handler": "krun"}), DROPPED),
    ("annotations", spec(annotations={"org.ocimig.network.bridge": "br0"}), DROPPED),
    ("capabilities", spec(process__capabilities={"effective": ["CAP_SYS_ADMIN"]}), WANTED),
    ("unconfined", spec(linux__seccomp={}), WANTED),
    ("labels", spec(process__apparmorProfile="unconfined"), DROPPED),
    ("labels", spec(process__selinuxLabel="x"), DROPPED),
    ("labels", spec(linux__mountLabel="x"), DROPPED),
    ("mappings", spec(linux__uidMappings=[{"containerID": 0, "hostID": 0, "size": 9}]), WANTED),
    ("devices", spec(linux__intelRdt={"closID": "x"}), DROPPED),
]  # fmt: skip


@pytest.mark.parametrize(("grant", "document", "verdict"), LOUD)
def test_what_is_asked_for_is_found_and_not_given(
    grant: str, document: dict[str, Any], verdict: str
) -> None:
    """Each of them: named with its grant, and left out, replaced or a reason to refuse."""
    decision = decide(document, ())
    assert [(item.grant, item.verdict) for item in decision.asked] == [(grant, verdict)]
    assert decision.wanting == ([grant] if verdict == WANTED else [])
    if verdict == DROPPED:
        assert decide(decision.spec, ()).asked == []


@pytest.mark.parametrize(("grant", "document", "verdict"), LOUD)
def test_a_grant_gives_that_and_nothing_else(
    grant: str, document: dict[str, Any], verdict: str
) -> None:
    """The document stays as it was; another word grants nothing of it."""
    decision = decide(document, {grant})
    assert {item.verdict for item in decision.asked} == {GRANTED}
    assert {**decision.spec, "root": 0} == {**document, "root": 0}
    others = decide(document, set(GRANTS) - {grant})
    assert [item.verdict for item in others.asked] == [verdict]


def test_a_quiet_container_asks_for_nothing() -> None:
    """Usual capabilities, its own namespaces, a filter; the root file system is always ours."""
    decision = decide(QUIET, ())
    assert decision.asked == []
    assert decision.spec["root"] == {"path": "rootfs", "readonly": True}
    assert decision.spec["linux"] == QUIET["linux"]


def test_a_bind_that_is_granted_keeps_its_source_and_one_of_an_engine_gets_ours() -> None:
    """ "" stands for a file in the bundle."""
    document = spec(mounts=[bind("/srv/data", "/data"), bind("/x/hosts", "/etc/hosts")])
    assert decide(document, ()).binds == {"/etc/hosts": ""}
    assert decide(document, {"mounts"}).binds == {"/data": "/srv/data", "/etc/hosts": "/x/hosts"}


def test_what_ocimig_noted_is_judged_likewise() -> None:
    """The manifest beside the images names mounts, open files and a network: input, too."""
    facts = {
        "mounts": [
            {"key": "m1", "kind": "bind", "target": "/in", "source": "/etc"},
            {"key": "m2", "kind": "cgroup", "target": "/sys/fs/cgroup", "below": "../.."},
            {"key": "m3", "kind": "cgroup", "target": "/sys/fs/cgroup", "below": "/"},
            {"key": "m4", "kind": "null", "target": "/proc/kcore"},
        ],
        "files": [{"key": "f", "path": "/etc/shadow", "flags": 2, "position": 0, "mode": 0o100600}],
        "unknown": "is not handed on",
        "state": {"network": {"address": "10.0.0.2/24"}, "bundle": "/srv/x", "rootfs": "/srv/x/r"},
        "root_slave": True,
    }
    decision = decide(QUIET, ())
    kept = asks.decide_facts(facts, decision, ())
    assert sorted((item.grant, item.verdict) for item in decision.asked) == [
        ("files", WANTED), ("mounts", WANTED), ("mounts", WANTED), ("mounts", WANTED),
        ("network", DROPPED),
    ]  # fmt: skip
    assert kept["state"] == {"bundle": "", "rootfs": ""}
    assert kept["root_slave"] is False
    assert "unknown" not in kept
    everything = decide(QUIET, set(GRANTS))
    kept = asks.decide_facts(facts, everything, set(GRANTS))
    assert kept["state"]["network"] == {"address": "10.0.0.2/24"}
    assert everything.wanting == []
    assert everything.binds == {"/in": "/etc"}


def _tmpfs(*entries: tuple[str, int, dict[str, Any]]) -> dict[str, Any]:
    top = {"name": "", "mode": 0o040755, "uid": 0, "gid": 0, "mtime": 0}
    content = [top, *({**top, "name": name, "mode": mode, **more} for name, mode, more in entries)]
    mount = {"key": "m1", "kind": "tmpfs", "target": "/dev", "content": content}
    return {"mounts": [mount]}


FILE, LINK, NODE = 0o100644, 0o120777, 0o020600


@pytest.mark.parametrize(
    "facts",
    [
        _tmpfs(("l", LINK, {"target": "/etc"}), ("l/x", FILE, {})),
        _tmpfs(("/etc/x", FILE, {})),
        _tmpfs(("../x", FILE, {})),
        _tmpfs(("d/../../x", FILE, {})),
        _tmpfs(("x", LINK, {"target": "/etc/x"}), ("x", FILE, {})),
        _tmpfs(("d/x", FILE, {})),
        _tmpfs(("", FILE, {})),
        {"mounts": [{"key": "..", "kind": "null", "target": "/x"}]},
        {"mounts": [{"key": "root", "kind": "null", "target": "/x"}]},
        {"mounts": [{"key": "m1]:/", "kind": "null", "target": "/x"}]},
        {"mounts": [{"key": "m1", "kind": "overlay", "target": "/x"}]},
        {"mounts": [{"key": "m1", "kind": "bind"}]},
        {"mounts": [7]},
        {"files": [{"path": 7}]},
    ],
)
def test_notes_that_ocimig_would_not_have_made_are_refused(facts: dict[str, Any]) -> None:
    """A tmpfs whose names lead through its own links, a mount whose name is a path of ours."""
    with pytest.raises((ValueError, TypeError, AttributeError)):
        asks.decide_facts(facts, decide(QUIET, ()), GRANTS)


def test_a_disk_in_a_tmpfs_has_to_be_granted() -> None:
    """The nodes that every container has have not."""
    plain = _tmpfs(("null", NODE, {"device": os.makedev(1, 3)}), ("l", LINK, {"target": "/etc"}))
    decision = decide(QUIET, ())
    asks.decide_facts(plain, decision, ())
    assert decision.asked == []
    asks.decide_facts(_tmpfs(("sda", NODE, {"device": os.makedev(8, 0)})), decision, ())
    assert decision.wanting == ["devices"]


def test_the_command_line_knows_every_grant() -> None:
    """--allow takes these words, and `all`."""
    assert {*GRANTS, "all"} == set(WORDS)


def test_mounts_of_runc_are_known_by_their_names() -> None:
    """Its images name binds by destination, masked files by /dev/null, version 1 cgroups one by one."""
    document = {
        "mounts": [
            bind("/srv/data", "/data/"),
            {"destination": "/sys/fs/cgroup", "type": "cgroup", "options": ["ro", "nosuid"]},
            {"destination": "/tmp", "type": "tmpfs"},
        ]
    }
    left = [
        LeftMount("/data", "/data"), LeftMount("/dev/null", "/proc/kcore"),
        LeftMount("/dev/null", "/proc/keys"), LeftMount("/sys/fs/cgroup/cpu,cpuacct", "/x"),
        LeftMount("/sys/fs/cgroup/systemd", "/x"), LeftMount("/sys/fs/cgroup", "/x"),
        LeftMount("/what", "/what"), LeftMount("/tmp", "/tmp"),
    ]  # fmt: skip
    found, unknown = in_own_terms(left, document)
    told = {item.key: (item.kind, item.controller, item.attributes) for item in found}
    assert told == {
        "/data": ("bind", "", ("relatime",)),
        "/dev/null": ("null", "", ()),
        "/sys/fs/cgroup/cpu,cpuacct": ("cgroup", "cpu", ("nosuid", "relatime", "ro")),
        "/sys/fs/cgroup/systemd": ("cgroup", "name=systemd", ("nosuid", "relatime", "ro")),
        "/sys/fs/cgroup": ("cgroup", "unified", ("nosuid", "relatime", "ro")),
    }
    assert unknown == ["/what", "/tmp"]
