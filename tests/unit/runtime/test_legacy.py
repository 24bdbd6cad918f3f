"""Older forms of config.json become today's, and today's pass through."""

import copy
from typing import Any

from ocimig.runtime import legacy, template, validate

PRE_DRAFT: dict[str, Any] = {
    "version": "pre-draft",
    "platform": {"os": "linux", "arch": "amd64"},
    "process": {
        "terminal": True,
        "user": {"uid": 0, "gid": 0, "additionalGids": None},
        "args": ["sh"],
        "env": ["PATH=/bin"],
        "cwd": "",
    },
    "root": {"path": "rootfs", "readonly": True},
    "hostname": "shell",
    "mounts": [
        {"type": "proc", "source": "proc", "destination": "/proc", "options": ""},
        {"type": "tmpfs", "source": "t", "destination": "/dev", "options": "nosuid,mode=755"},
    ],
    "linux": {
        "uidMapping": None,
        "gidMapping": None,
        "rlimits": None,
        "systemProperties": None,
        "resources": {
            "disableOOMKiller": False,
            "memory": {"limit": 0, "swap": 0, "swappiness": -1},
            "cpu": {"shares": 0, "cpus": ""},
            "blockIO": {"blkioWeight": 0, "blkioWeightDevice": ""},
            "hugepageLimits": None,
            "network": {"classId": "", "priorities": None},
        },
        "namespaces": [{"type": "process", "path": ""}, {"type": "mount", "path": ""},
                       {"type": "uts", "path": ""}],
        "capabilities": ["AUDIT_WRITE", "KILL"],
        "devices": ["null", "tty"],
    },
}  # fmt: skip


def test_the_pre_draft_of_2015_still_runs() -> None:
    """The first config.json that runc documented is a valid one after the upgrade."""
    new = legacy.today(PRE_DRAFT)
    assert validate.check(new) == []
    assert new["process"]["cwd"] == "/"
    assert new["mounts"][0]["options"] == []
    assert new["mounts"][1]["options"] == ["nosuid", "mode=755"]
    assert [space["type"] for space in new["linux"]["namespaces"]] == ["pid", "mount", "uts"]
    assert new["process"]["capabilities"]["bounding"] == ["CAP_AUDIT_WRITE", "CAP_KILL"]
    assert "ambient" not in new["process"]["capabilities"]
    assert new["linux"]["devices"][0] == {
        "path": "/dev/null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o666,
    }  # fmt: skip
    assert "platform" not in new


def test_zeros_of_the_pre_draft_mean_unset() -> None:
    """It printed every limit; a limit of 0 was never meant."""
    assert legacy.today(PRE_DRAFT)["linux"]["resources"] == {}


def test_the_release_candidates_are_brought_up_to_date() -> None:
    """Capabilities as one list, limits of the resources, one system call a rule, block names."""
    old = template.default_spec()
    old["ociVersion"] = "1.0.0-rc1"
    old["platform"] = {"os": "linux", "arch": "amd64"}
    old["process"]["capabilities"] = ["CAP_KILL"]
    old["linux"]["resources"] |= {
        "disableOOMKiller": True,
        "oomScoreAdj": 10,
        "blockIO": {"blkioWeight": 10, "blkioThrottleReadIopsDevice": [{"major": 8, "rate": 1}]},
        "network": {"classId": "0x10001"},
        "hugepageLimits": [{"pagesize": "2MB", "limit": 5}],
    }
    old["linux"]["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"name": "getcwd", "action": "SCMP_ACT_ERRNO"}],
    }
    new = legacy.today(old)
    assert validate.check(new) == []
    assert new["process"]["capabilities"]["permitted"] == ["CAP_KILL"]
    assert new["process"]["oomScoreAdj"] == 10
    resources = new["linux"]["resources"]
    assert resources["memory"] == {"disableOOMKiller": True}
    assert resources["blockIO"]["weight"] == 10
    assert resources["blockIO"]["throttleReadIOPSDevice"] == [{"major": 8, "rate": 1}]
    assert resources["network"] == {"classID": 0x10001}
    assert resources["hugepageLimits"] == [{"pageSize": "2MB", "limit": 5}]
    assert new["linux"]["seccomp"]["syscalls"][0]["names"] == ["getcwd"]


def test_todays_form_passes_through_unchanged() -> None:
    """Zeros stay zeros, names stay names, and the input itself is never touched."""
    spec = template.default_spec()
    spec["linux"]["resources"]["memory"] = {"limit": 0, "swappiness": 0}
    before = copy.deepcopy(spec)
    new = legacy.today(spec)
    assert new == before == spec
    new["process"]["args"].append("x")
    new["mounts"].clear()
    assert spec == before


def test_what_is_no_object_is_left_for_the_checks() -> None:
    """An upgrade never stumbles over a document that is wrong anyway."""
    rows: tuple[Any, ...] = (None, 5, "x", [], {"linux": 5}, {"process": []}, {"linux": {"devices": 5}},
                    {"linux": {"seccomp": [], "resources": "x", "namespaces": {"a": 1}}},
                    {"mounts": [5, None], "ociVersion": "0.1.0", "process": {"rlimits": 5}})  # fmt: skip
    for strange in rows:
        legacy.today(strange)
