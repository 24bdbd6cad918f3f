"""The features document says what was built, in the shape that callers parse."""

import json
import os
import shutil
import subprocess

import pytest

from ocimig.runtime import features, fields, validate
from ocimig.runtime.linux import seccomp
from ocimig.runtime.template import default_spec


def test_it_has_what_callers_look_for() -> None:
    """Versions, hooks, namespaces, and the annotation without which nobody offers a checkpoint."""
    document = features.document()
    assert document["ociVersionMin"] == "1.0.0"
    assert document["ociVersionMax"] == "1.3.0"
    assert len(document["hooks"]) == 6
    assert len(document["linux"]["namespaces"]) == 8
    assert document["annotations"]["org.opencontainers.runc.checkpoint.enabled"] == "true"
    assert json.loads(json.dumps(document)) == document


@pytest.mark.parametrize("name", ["intelRdt", "memoryPolicy", "netDevices"])
def test_what_it_denies_is_refused(name: str) -> None:
    """A field that is not done must not pass in silence."""
    spec = default_spec()
    spec["linux"][name] = {
        "intelRdt": {"closID": "a"},
        "memoryPolicy": {"mode": "MPOL_LOCAL"},
        "netDevices": {"eth0": {}},
    }[name]
    assert ("linux." + name, "is not supported by this runtime") in validate.check(spec)


@pytest.mark.seccomp
def test_every_flag_and_architecture_it_names_compiles() -> None:
    """What is promised is tried."""
    promised = features.document()["linux"]["seccomp"]
    assert set(promised["supportedFlags"]) <= set(promised["knownFlags"])
    for flag in promised["supportedFlags"]:
        seccomp.compile_filter({"defaultAction": "SCMP_ACT_ALLOW", "flags": [flag]})
    for action in set(promised["actions"]) - {"SCMP_ACT_NOTIFY"}:
        seccomp.compile_filter({"defaultAction": action})
    assert set(promised["archs"]) <= set(fields.SECCOMP_ARCHITECTURES)


@pytest.mark.runc
def test_it_names_every_mount_option_of_runc_but_two() -> None:
    """iversion is ext4's own word by now."""
    program = shutil.which("runc", path=os.environ["PATH"] + ":/usr/sbin") or "runc"
    ended = subprocess.run([program, "features"], capture_output=True, text=True, check=True)
    theirs = json.loads(ended.stdout)
    missing = set(theirs["mountOptions"]) - set(features.mount_options())
    assert missing <= {"iversion", "noiversion"}
