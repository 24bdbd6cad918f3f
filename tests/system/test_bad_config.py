"""A config.json that cannot be used: one clear line with the JSON path, exit code 1, and nothing left behind."""

import json
import os
from pathlib import Path

import pytest

from ocimig_testkit import Bundle, Ocimig

pytestmark = [pytest.mark.root, pytest.mark.busybox]
own = pytest.mark.skipif("OCIMIG_RUNTIME" in os.environ, reason="another runtime says it otherwise")


def refused(ocimig: Ocimig, bundle: Bundle, verb: str = "create") -> str:
    """What it says; that it changed nothing is checked here."""
    id = ocimig.new_id()
    answer = ocimig(verb, "--bundle", bundle.path, id, code=1)
    assert answer.out == ""
    assert "Traceback" not in answer.err
    assert not (ocimig.root / id).exists()
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        assert str(bundle.rootfs) not in line
    return answer.err


@own
@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"process": {"args": [1], "cwd": "/"}}, "process.args[0]: must be a string, is a number"),
        ({"process": {"args": ["sh"], "cwd": "tmp"}}, "process.cwd: must be an absolute path"),
        ({"process": None}, "process: is missing"),
        ({"root": {}}, "root.path: is missing"),
        ({"ociVersion": "9.0.0"}, "ociVersion: is '9.0.0'"),
        ({"mounts": {}}, "mounts: must be a list, is an object"),
        ({"hooks": {"prestart": [{"path": "x"}]}}, "hooks.prestart[0].path: must be an absolute"),
        ({"annotations": {"a.b": 1}}, "annotations['a.b']: must be a string"),
        ({"hostname": "x" * 70}, "hostname: is 70 bytes long"),
    ],
)
@pytest.mark.parametrize("verb", ["create", "run"])
def test_a_wrong_field_is_named_by_its_path(
    ocimig: Ocimig, bundle: Bundle, verb: str, change: dict[str, object], path: str
) -> None:
    """What it is, and what it should be."""
    bundle.config |= change
    assert path in refused(ocimig, bundle.write(), verb)


@own
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "line 1, column 1"),
        ("{", "line 1, column 2"),
        ('{"a": 1,\n "b": }', "line 2, column"),
        ('{"process": {"cwd": NaN}}', "NaN is not JSON"),
        ('{"a": 1, "a": 2}', "the key 'a' is there twice"),
        ("[" * 20000, "nested deeper"),
        ("[]", "must be an object, is a list"),
        ('{"ociVersion": "\\ud800"}', "surrogate"),
    ],
)
def test_what_is_no_config_at_all_is_said_in_one_line(
    ocimig: Ocimig, bundle: Bundle, text: str, words: str
) -> None:
    """Line and column where it stops being JSON."""
    said = refused(ocimig, bundle.text(text))
    assert words in said
    assert "config.json" in said


@own
def test_fifty_megabytes_are_refused_at_once(ocimig: Ocimig, bundle: Bundle) -> None:
    """Before they are read."""
    with (bundle.path / "config.json").open("wb") as file:
        file.truncate(50 << 20)
    assert "larger than 16 MiB" in refused(ocimig, bundle)


def test_a_bundle_without_a_config_is_named(ocimig: Ocimig, bundle: Bundle) -> None:
    """runc's words."""
    (bundle.path / "config.json").unlink()
    said = refused(ocimig, bundle)
    assert "JSON specification file" in said
    assert "config.json not found" in said


def test_a_root_file_system_that_is_missing_is_named(ocimig: Ocimig, bundle: Bundle) -> None:
    """By its path."""
    bundle.config["root"]["path"] = "nosuch"
    assert "nosuch" in refused(ocimig, bundle.write())


@own
def test_the_log_gets_one_record_for_the_caller(
    ocimig: Ocimig, bundle: Bundle, tmp_path: Path
) -> None:
    """podman parses the whole file as one JSON object."""
    log = tmp_path / "log.json"
    ocimig.globals = ("--log", str(log), "--log-format", "json")
    bundle.config["hostname"] = 5
    refused(ocimig, bundle.write())
    record = json.loads(log.read_text())
    assert record["level"] == "error"
    assert "hostname: must be a string, is a number" in record["msg"]


@own
def test_the_pre_draft_of_2015_runs(ocimig: Ocimig, bundle: Bundle) -> None:
    """The config.json of runc's first README, with the command that was its test."""
    bundle.config = {
        "version": "pre-draft",
        "platform": {"os": "linux", "arch": "amd64"},
        "process": {
            "terminal": False,
            "user": {"uid": 0, "gid": 0, "additionalGids": None},
            "args": ["/bin/sh", "-c", "ps; hostname; ls -l /dev/null; grep CapEff /proc/self/status"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            "cwd": "",
        },
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "shell",
        "mounts": [
            {"type": "proc", "source": "proc", "destination": "/proc", "options": ""},
            {"type": "tmpfs", "source": "tmpfs", "destination": "/dev",
             "options": "nosuid,strictatime,mode=755,size=65536k"},
            {"type": "devpts", "source": "devpts", "destination": "/dev/pts",
             "options": "nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5"},
            {"type": "sysfs", "source": "sysfs", "destination": "/sys", "options": "nosuid,noexec"},
        ],
        "linux": {
            "uidMapping": None,
            "gidMapping": None,
            "rlimits": None,
            "systemProperties": None,
            "resources": {
                "disableOOMKiller": False,
                "memory": {"limit": 0, "reservation": 0, "swap": 0, "kernel": 0, "swappiness": -1},
                "cpu": {"shares": 0, "quota": 0, "period": 0, "cpus": "", "mems": ""},
                "blockIO": {"blkioWeight": 0, "blkioWeightDevice": ""},
                "hugepageLimits": None,
                "network": {"classId": "", "priorities": None},
            },
            "namespaces": [
                {"type": kind, "path": ""} for kind in ("process", "network", "ipc", "uts", "mount")
            ],
            "capabilities": ["AUDIT_WRITE", "KILL", "NET_BIND_SERVICE"],
            "devices": ["null", "random", "full", "tty", "zero", "urandom"],
        },
    }  # fmt: skip
    out = ocimig.run(bundle.write(), code=0).out
    assert "    1 root" in out
    assert "shell\n" in out
    assert "CapEff:\t0000000020000420" in out
