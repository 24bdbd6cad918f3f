"""Real checkpoints looked into: what CRIU wrote is what the container was."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ocimig_testkit.backup_shelf import Shelf
from ocimig_testkit.box import Box

pytestmark = [pytest.mark.root, pytest.mark.criu]


def _inspect(box: Box, *options: str) -> dict[str, Any]:
    answer = box.ocimig("inspect", box.image, "--format", "json", *options)
    found: dict[str, Any] = json.loads(answer.out)
    return found


def test_processes_files_and_memory_are_as_they_were(box: Box) -> None:
    """The parent, its dead child and its living one, with the pipe between them."""
    box.run("family")
    box.checkpoint()
    found = _inspect(box, "--all")
    root, *children = found["processes"]
    assert root["command"] == ["/bin/worker", "family"]
    assert sorted(each["state"] for each in children) == ["dead", "running"]
    assert {each["parent"] for each in children} == {1}
    assert any(each.startswith("PATH=") for each in root["environment"])
    pipes = [each for each in found["files"] if each["kind"] == "pipe"]
    assert {each["pid"] for each in pipes} > {1}
    names = {each["name"] for each in found["mappings"]}
    assert {"/bin/worker", "[heap]", "[stack]", "[vdso]"} <= names
    assert found["totals"]["saved"] == sum(
        path.stat().st_size for path in box.image.glob("pages-*.img")
    )
    assert found["statistics"]["dump"]["pages_written"] * 4096 == found["totals"]["saved"]
    assert any(each["target"] == "/proc" for each in found["mounts"])


def test_two_checkpoints_of_one_container_differ_where_it_went_on(box: Box, tmp_path: Path) -> None:
    """Memory that it counts in, and the position in its output; nothing else."""
    box.run("count", "4")
    box.checkpoint("--leave-running")
    before = box.image
    box.goes_on()
    box.image = tmp_path / "second"
    box.checkpoint()
    answer = box.ocimig("diff", before, box.image, "--format", "json", code=1)
    found = json.loads(answer.out)
    assert {each["what"] for each in found["differences"]} <= {"file"}
    changed = sum(each["changed"] for each in found["memory"])
    same = sum(each["same"] for each in found["memory"])
    assert 4096 <= changed < 1 << 20
    assert same + changed < 16 << 20


@pytest.mark.gdb
def test_gdb_reads_threads_registers_and_memory_of_a_core_file(
    box: Box, worker: Path, tmp_path: Path
) -> None:
    """Backtraces by name for every thread, and the environment through a pointer in memory."""
    box.run("threads", "3")
    box.checkpoint()
    (process,) = _inspect(box, "--env")["processes"]
    core = tmp_path / "core"
    box.ocimig("memory", box.image, "--pid", "1", "--core", core)
    done = subprocess.run(
        ["gdb", "-batch", "-nx", "-ex", "thread apply all bt", "-ex", "info registers rip",
         "-ex", "info symbol $pc", "-ex", "x/s *(char **)environ", worker, core],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    assert done.stdout.count("(LWP ") >= len(process["threads"]) == 4
    assert done.stdout.count("in keep ()") == 3
    assert "in main ()" in done.stdout
    assert "in section .text" in done.stdout
    assert f'"{process["environment"][0]}"' in done.stdout


def test_shared_memory_is_found_where_it_is_mapped(box: Box) -> None:
    """Its pages lie with the object, not with the process."""
    box.run("share", "1", "memfd")
    box.checkpoint()
    found = _inspect(box, "--memory")
    shared = [each for each in found["mappings"] if each["backing"] == "shared-object"]
    assert {each["shared_object"] for each in shared} == {
        each["number"] for each in found["shared_memory"]
    }
    assert sum(each["saved"] for each in found["shared_memory"]) >= 1 << 20


def test_a_listening_socket_is_shown_with_its_address(box: Box) -> None:
    """Ports and addresses are in the byte order that people read."""
    box.run("serve", "7001")
    box.checkpoint()
    (found,) = _inspect(box, "--sockets")["files"]
    assert (found["kind"], found["text"]) == ("inet", "tcp 0.0.0.0:7001 listening")
    assert found["details"]["family"] == "ipv4"


def test_a_snapshot_and_its_archive_say_the_same(box: Box, shelf: Shelf, tmp_path: Path) -> None:
    """Its memory is in the store for the one and in CRIU's images for the other: every fact, every page."""
    box.run("family")
    snapshot = f"{shelf.path}::{shelf.take()['id']}"
    archive = tmp_path / "out.tar.zst"
    box.ocimig("backup", "export", shelf.path, "latest", archive, *shelf.options())
    found = []
    for image in (snapshot, archive):
        answer = box.ocimig("inspect", image, "--all", "--format", "json", *shelf.options())
        found.append(json.loads(answer.out))
    place = ("kind", "path", "origin", "checkpoint")
    one, other = ({key: each[key] for key in each if key not in place} for each in found)
    assert one == other
    assert one["processes"][0]["command"] == ["/bin/worker", "family"]
    assert one["totals"]["lost"] == one["totals"]["elsewhere"] == 0
    assert one["totals"]["saved"] >= 64 << 10
    assert found[0]["checkpoint"]["id"] == found[1]["checkpoint"]["id"] == box.id
    assert box.ocimig("diff", snapshot, archive, *shelf.options()).out == ""
    assert shelf.left() == []
