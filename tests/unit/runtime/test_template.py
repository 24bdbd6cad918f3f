"""The config.json of `ocimig spec` is runc's example."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from ocimig.runtime import template, validate


def test_both_templates_are_valid() -> None:
    """What the program writes it also takes."""
    assert validate.check(template.default_spec()) == []
    assert validate.check(template.default_spec(True)) == []


def test_the_rootless_one_maps_the_caller() -> None:
    """A user without privileges has one id, no network of its own, no cgroups, and /sys by bind."""
    linux = template.default_spec(True)["linux"]
    kinds = [space["type"] for space in linux["namespaces"]]
    assert kinds[-1] == "user"
    assert "network" not in kinds
    assert linux["uidMappings"] == [{"containerID": 0, "hostID": os.geteuid(), "size": 1}]
    assert "resources" not in linux
    mounts = {mount["destination"]: mount for mount in template.default_spec(True)["mounts"]}
    assert mounts["/sys"]["type"] == "none"
    assert "gid=5" not in mounts["/dev/pts"]["options"]


def test_every_call_makes_a_new_document() -> None:
    """A caller may change what it gets."""
    template.default_spec()["mounts"].clear()
    assert template.default_spec()["mounts"]


@pytest.mark.runc
@pytest.mark.parametrize("rootless", [False, True])
def test_it_is_what_runc_writes(tmp_path: Path, rootless: bool) -> None:
    """Field by field as the installed runc; only the version and old runc's ambient set differ."""
    program = shutil.which("runc", path=os.environ["PATH"] + ":/usr/sbin") or "runc"
    flags = ["--rootless"] if rootless else []
    subprocess.run([program, "spec", *flags], cwd=tmp_path, check=True)
    theirs = json.loads((tmp_path / "config.json").read_text())
    theirs["process"]["capabilities"].pop("ambient", None)
    ours = template.default_spec(rootless)
    ours["ociVersion"] = theirs["ociVersion"]
    assert ours == theirs
    assert list(ours) == list(theirs)
    assert list(ours["linux"]) == list(theirs["linux"])
