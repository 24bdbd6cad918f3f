"""Hooks: their order, where they run, what they read, and what happens when they fail or hang."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ocimig_testkit import Bundle, Ocimig, until

pytestmark = [pytest.mark.root, pytest.mark.busybox]
own = pytest.mark.skipif("OCIMIG_RUNTIME" in os.environ, reason="another runtime does otherwise")
OUTSIDE = ("prestart", "createRuntime", "poststart", "poststop")
INSIDE = ("createContainer", "startContainer")
ALL = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
Record = Callable[[], list[dict[str, Any]]]


def hook(script: str, **more: Any) -> dict[str, Any]:
    """A hook that runs a script of the shell."""
    return {"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"], **more}


@pytest.fixture
def record(bundle: Bundle, tmp_path: Path) -> Record:
    """All six hooks write down what they see; call it for what they wrote, in order."""
    out = tmp_path / "out"
    out.mkdir()
    bundle.config["mounts"].append(
        {"destination": str(out), "type": "bind", "source": str(out), "options": ["bind"]}
    )
    for name in ALL:
        # startContainer runs in the container: what it needs is there under the same names
        script = (
            f"state=$(cat); n=$(ls {out} | wc -l); "
            f"spaces=$(for s in mnt net pid uts; do readlink /proc/self/ns/$s; done); "
            f'printf \'{{"hook": "{name}", "state": %s, "spaces": "%s", "cwd": "%s", "root": "%s"}}\''
            f' "$state" "$(echo $spaces)" "$(pwd)" "$(ls / | tr \'\\n\' \' \')" >{out}/$n'
        )
        bundle.config.setdefault("hooks", {})[name] = [hook(script)]
    bundle.write()

    def read() -> list[dict[str, Any]]:
        names = sorted(os.listdir(out), key=int)
        return [json.loads((out / name).read_text()) for name in names]

    return read


@own
def test_all_six_run_once_in_their_order(ocimig: Ocimig, bundle: Bundle, record: Record) -> None:
    """Three at create, two at start, one at delete."""
    id = ocimig.create(bundle)
    assert [entry["hook"] for entry in record()] == list(ALL[:3])
    ocimig.start(id)
    until(lambda: len(record()) == 5, "the hooks of start")
    assert sorted(entry["hook"] for entry in record()[3:]) == sorted(ALL[3:5])
    ocimig.kill(id)
    ocimig.wait(id, "stopped")
    ocimig.delete(id)
    assert record()[-1]["hook"] == "poststop"
    assert len(record()) == 6


def test_run_runs_them_all_too(ocimig: Ocimig, bundle: Bundle, record: Record) -> None:
    """In one command."""
    ocimig.run(bundle.argv("/bin/sleep", "0.3"), code=0)
    assert sorted(entry["hook"] for entry in record()) == sorted(ALL)


@own
def test_each_reads_the_state_of_its_moment(ocimig: Ocimig, bundle: Bundle, record: Record) -> None:
    """id, status, bundle, annotations; the pid as seen from where the hook runs."""
    bundle.config["annotations"] = {"a.b": "c"}
    id = ocimig.create(bundle.write())
    pid = ocimig.pid(id)
    ocimig.start(id)
    until(lambda: len(record()) == 5, "the hooks of start")
    ocimig.delete(id, force=True)
    seen = {entry["hook"]: entry["state"] for entry in record()}
    for state in seen.values():
        assert state["id"] == id
        assert state["bundle"] == str(bundle.path)
        assert state["annotations"]["a.b"] == "c"
        assert state["ociVersion"]
    assert {name: state["status"] for name, state in seen.items()} == {
        "prestart": "creating", "createRuntime": "creating", "createContainer": "creating",
        "startContainer": "created", "poststart": "running", "poststop": "stopped",
    }  # fmt: skip
    assert [seen[name]["pid"] for name in ("prestart", "createRuntime", "poststart")] == [pid] * 3
    assert [seen[name]["pid"] for name in INSIDE] == [1, 1]
    assert not seen["poststop"].get("pid")


def test_each_runs_in_its_namespaces(ocimig: Ocimig, bundle: Bundle, record: Record) -> None:
    """Those of the runtime, or the container's; only startContainer has the container's root."""
    id = ocimig.launch(bundle)
    pid = ocimig.pid(id)
    until(lambda: len(record()) == 5, "the hooks of start")
    theirs = " ".join(
        os.readlink(f"/proc/{pid}/ns/{name}") for name in ("mnt", "net", "pid", "uts")
    )
    ours = " ".join(os.readlink(f"/proc/self/ns/{name}") for name in ("mnt", "net", "pid", "uts"))
    ocimig.delete(id, force=True)
    seen = {entry["hook"]: entry for entry in record()}
    for name in OUTSIDE:
        assert seen[name]["spaces"] == ours, name
    assert seen["startContainer"]["spaces"] == theirs
    # before pivot_root(2) /proc is still the host's: only the kernel's own names are looked at
    assert seen["createContainer"]["spaces"].split()[1:2] == theirs.split()[1:2]
    host = set(seen["createRuntime"]["root"].split())
    assert host >= {name for name in os.listdir("/") if name[0] != "."}
    assert set(seen["startContainer"]["root"].split()) != host


def test_the_root_is_mounted_when_the_hooks_of_create_run(
    ocimig: Ocimig, bundle: Bundle, tmp_path: Path
) -> None:
    """createRuntime can enter the container's mount and network namespaces by its pid."""
    out = tmp_path / "out"
    script = (
        "pid=$(sed 's/.*\"pid\": *\\([0-9]*\\).*/\\1/' | head -1); "
        f"(readlink /proc/$pid/ns/net; nsenter -t $pid -n ip -o link show lo | wc -l) >{out} 2>&1"
    )
    bundle.config["hooks"] = {"createRuntime": [hook(script)]}
    bundle.config["hooks"]["createRuntime"][0]["env"] = ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]
    id = ocimig.create(bundle.write())
    assert out.read_text().split() == [os.readlink(f"/proc/{ocimig.pid(id)}/ns/net"), "1"]


@own
@pytest.mark.parametrize("name", ["prestart", "createRuntime", "createContainer"])
@pytest.mark.parametrize("verb", ["create", "run"])
def test_one_that_fails_at_create_leaves_nothing(
    ocimig: Ocimig, bundle: Bundle, tmp_path: Path, name: str, verb: str
) -> None:
    """The next does not run, the program neither; poststop does not find a container."""
    marker = tmp_path / "second"
    bundle.config["hooks"] = {name: [hook("echo 'bad luck' >&2; exit 3"), hook(f"touch {marker}")]}
    id = ocimig.new_id()
    answer = ocimig(verb, "--bundle", bundle.shell("touch /ran").path, id, code=1)
    assert name in answer.err
    assert "exit status 3" in answer.err
    assert not marker.exists()
    assert not (bundle.rootfs / "ran").exists()
    assert ocimig.status(id) == ""
    assert not (ocimig.root / id).exists()


@own
def test_a_start_container_hook_that_fails_stops_the_container(
    ocimig: Ocimig, bundle: Bundle
) -> None:
    """The program never runs."""
    bundle.config["hooks"] = {"startContainer": [hook("exit 3")]}
    answer = ocimig.run(bundle.shell("touch /ran"), code=1)
    assert "startContainer" in answer.err
    id = ocimig.create(bundle)
    ocimig("start", id, code=None)
    ocimig.wait(id, "stopped")
    assert not (bundle.rootfs / "ran").exists()


@own
@pytest.mark.parametrize("name", ["poststart", "poststop"])
def test_one_that_fails_afterwards_is_a_warning(ocimig: Ocimig, bundle: Bundle, name: str) -> None:
    """The container is not touched, and the next hook runs."""
    marker = bundle.path / "second"
    bundle.config["hooks"] = {name: [hook("exit 3"), hook(f"touch {marker}")]}
    answer = ocimig.run(bundle.shell("sleep 0.2; echo ran"), code=0)
    assert answer.out == "ran\n"
    assert "exit status 3" in answer.err
    assert marker.exists()


@own
@pytest.mark.parametrize("name", ["createRuntime", "createContainer", "startContainer"])
def test_one_that_hangs_is_ended_with_its_children(
    ocimig: Ocimig, bundle: Bundle, tmp_path: Path, name: str
) -> None:
    """At its timeout, and the container with it."""
    script = "sh -c 'while :; do sleep 1; done' & while :; do sleep 1; done"
    bundle.config["hooks"] = {name: [hook(script, timeout=1)]}
    started = time.monotonic()
    answer = ocimig.run(bundle.shell("touch /ran"), code=1, timeout=30)
    assert 0.9 < time.monotonic() - started < 12
    assert name in answer.err
    assert "timeout" in answer.err or "timed out" in answer.err
    assert not (bundle.rootfs / "ran").exists()


@pytest.mark.parametrize("name", ["createRuntime", "createContainer", "startContainer"])
def test_one_that_never_reads_or_prints_much_hinders_nobody(
    ocimig: Ocimig, bundle: Bundle, name: str
) -> None:
    """A state larger than a pipe, stdin closed at once, megabytes of output."""
    bundle.config["annotations"] = {f"a{number}": "x" * 30000 for number in range(6)}
    bundle.config["hooks"] = {
        name: [
            hook("exec <&-; exit 0"),
            hook("sleep 0.2"),
            hook("i=0; while [ $i -lt 20000 ]; do echo 0123456789012345678901234567890; i=$((i+1)); done"),
        ]
    }  # fmt: skip
    ocimig.run(bundle.shell("true"), code=0, timeout=30)


@own
@pytest.mark.parametrize("name", ALL[:4])
def test_one_that_is_missing_or_no_program_is_named(
    ocimig: Ocimig, bundle: Bundle, name: str
) -> None:
    """With its path."""
    for path, words in (("/no/such/hook", "no such file"), ("/etc/passwd", "")):
        bundle.config["hooks"] = {name: [{"path": path}]}
        answer = ocimig.run(bundle.shell("touch /ran"), code=1)
        assert path in answer.err
        assert words in answer.err
        assert not (bundle.rootfs / "ran").exists()


def test_start_container_runs_what_is_in_the_container(ocimig: Ocimig, bundle: Bundle) -> None:
    """Its path is one of the container's root, its user that of the process."""
    tool = bundle.rootfs / "usr/bin/inside-only"
    tool.write_text("#!/bin/sh\nid -u >/tmp/who; umask >>/tmp/who\n")
    tool.chmod(0o755)
    bundle.config["hooks"] = {"startContainer": [{"path": "/usr/bin/inside-only"}]}
    bundle.process["user"] = {"uid": 1000, "gid": 1000}
    ocimig.run(bundle.shell("true"), code=0)
    assert (bundle.rootfs / "tmp/who").read_text().split()[0] == "1000"


@pytest.mark.parametrize("name", ["createRuntime", "createContainer"])
def test_files_of_a_hook_have_a_usual_mode(
    ocimig: Ocimig, bundle: Bundle, tmp_path: Path, name: str
) -> None:
    """No umask of 0 is handed on to programs of the host."""
    out = tmp_path / "made"
    bundle.config["hooks"] = {name: [hook(f"touch {out}")]}
    ocimig.run(bundle.shell("true"), code=0)
    assert out.stat().st_mode & 0o777 == 0o644


@own
def test_poststop_finds_the_container_gone(ocimig: Ocimig, bundle: Bundle, tmp_path: Path) -> None:
    """ "After the container is deleted": its name is free, its cgroups are gone."""
    out = tmp_path / "out"
    id = ocimig.new_id()
    script = (
        f"ls {ocimig.root}/{id} >{out} 2>&1; find /sys/fs/cgroup -maxdepth 3 -name '*{id}*' >>{out}"
    )
    bundle.config["hooks"] = {"poststop": [hook(script)]}
    ocimig.run(bundle.shell("true"), id=id, code=0)
    assert "No such file" in out.read_text()
    assert "/sys/fs/cgroup" not in out.read_text()


@own
def test_args_and_environment_are_the_hooks_own(
    ocimig: Ocimig, bundle: Bundle, tmp_path: Path
) -> None:
    """argv[0] as given, only its variables; nothing of the runtime's descriptors."""
    out = tmp_path / "out"
    script = f"(echo $0; env | sort; ls /proc/self/fd | tr '\\n' ' ') >{out}; cp /proc/self/stat /dev/null"
    bundle.config["hooks"] = {
        "createRuntime": [{"path": "/bin/sh", "args": ["zero", "-c", script, "first"],
                           "env": ["PATH=/bin", "X=1"]}]
    }  # fmt: skip
    ocimig.run(bundle.shell("true"), code=0, env={"LEAK": "1"})
    lines = out.read_text().splitlines()
    assert lines[0] == "first"
    assert not [line for line in lines if line.startswith("LEAK")]
    assert "X=1" in lines
    assert lines[-1].split() == ["0", "1", "2", "3"]  # 3 is that of ls
