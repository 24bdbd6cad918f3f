"""Snapshots out of a store into archives, and back from those without the store."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from ocimig.migrate.failpoints import VARIABLE as FAILPOINT
from ocimig_testkit import until
from ocimig_testkit.backup_shelf import Shelf
from ocimig_testkit.box import Box
from ocimig_testkit.podman import Podman

pytestmark = [pytest.mark.root, pytest.mark.criu]
# The test's bundle has no seccomp filter, and its output is a plain file of the host.
GRANTS = ("--allow", "unconfined", "--allow", "files")


def test_a_snapshot_comes_back_from_a_file(box: Box, shelf: Shelf, tmp_path: Path) -> None:
    """All of its memory is in the file, and the files of that moment: the store is not needed."""
    archive, bundle = tmp_path / "web.tar.zst", tmp_path / "new"
    box.run("count", "8")
    (box.bundle.rootfs / "kept").write_text("before")
    taken = shelf.take()
    (box.bundle.rootfs / "kept").write_text("after")
    words = ["backup", "export", str(shelf.path), taken["id"], str(archive), *shelf.options()]
    box.ocimig(*words)
    assert not [name for name in os.listdir(tmp_path) if name.endswith((".partial", ".tmp"))]
    assert archive.stat().st_mode & 0o777 == 0o600
    assert "as its manifest says" in box.ocimig("archive", "verify", archive).out
    assert "root file system is made from the archive" in box.ocimig("archive", "show", archive).out
    shelf.lose()
    shutil.rmtree(shelf.path)
    count = len(box.lines())
    box.ocimig("restore", "-d", "--import", archive, "-b", bundle, *GRANTS, box.id)
    box.goes_on()
    assert len({checksum for _, checksum in box.lines()}) == 1
    assert len(box.lines()) > count
    assert (bundle / "rootfs/kept").read_text() == "before"


def test_a_snapshot_goes_in_a_file_to_another_store(box: Box, shelf: Shelf, tmp_path: Path) -> None:
    """Of the file one more snapshot is made, like any other, or none at all: its memory is in the store page
    by page, it is proven by a restore, and it comes back with every process and what they share."""
    archive, bundle = tmp_path / "web.tar.zst", tmp_path / "new"
    (tmp_path / "other").mkdir()
    other = Shelf(box, tmp_path / "other")
    box.run("share", "8")
    (box.bundle.rootfs / "kept").write_text("before")
    taken = shelf.take()
    (box.bundle.rootfs / "kept").write_text("after")
    box.ocimig("backup", "export", str(shelf.path), taken["id"], str(archive), *shelf.options())
    words = ["import", str(archive), "-b", str(bundle), *GRANTS]
    killed = {FAILPOINT: "store:SNAPSHOTS-RENAME-1:before"}
    box.ocimig("backup", words[0], other.path, *words[1:], *other.options(), env=killed, code=-9)
    assert other("list") == []
    made = other(*words)
    assert made["container"] == box.id
    assert made["memory_bytes"] >= taken["memory_bytes"]
    assert not bundle.exists()
    again = other(*words)
    # the packs of the one that was killed are used again
    assert max(made["stored_bytes"], again["stored_bytes"]) < 8 << 10
    assert {line["same"] > 0 and line["changed"] == 0 for line in
            other("diff", made["id"], again["id"])["memory"]} == {True}  # fmt: skip
    other("prune")
    proven = other("verify", "--read-data", "--restore", made["id"])
    assert proven["problems"] == []
    assert other.left() == []
    shelf.lose()
    shutil.rmtree(shelf.path)
    archive.unlink()
    other.bring_back(made["id"])
    box.goes_on()
    assert len({checksum for _, checksum in box.lines()}) == 1
    assert (bundle / "rootfs/kept").read_text() == "before"
    assert other.left() == []


@pytest.mark.userns
def test_a_container_with_mapped_users_goes_through_a_file(
    box: Box, shelf: Shelf, tmp_path: Path
) -> None:
    """Its memory is in CRIU's images all the way, its files have the owners that they have on the host."""
    archive, bundle = tmp_path / "web.tar.zst", tmp_path / "new"
    box.map_users()
    box.run("count", "8")
    taken = shelf.take()
    box.ocimig("backup", "export", str(shelf.path), taken["id"], str(archive), *shelf.options())
    shelf.lose()
    # the nodes in /dev are binds of the host's there
    grants = (*GRANTS, "--allow", "mappings", "--allow", "mounts")
    made = shelf("import", str(archive), "-b", str(bundle), *grants)
    assert made["memory_bytes"] == 0
    shelf.bring_back(made["id"])
    box.goes_on()
    assert len({checksum for _, checksum in box.lines()}) == 1
    assert "100000" in Path(f"/proc/{box.ocimig.pid(box.id)}/uid_map").read_text()
    assert (bundle / "rootfs/bin/worker").stat().st_uid == 100000


COUNT = "n=0; while true; do n=$((n+1)); echo $n > /count; sleep 0.1; done"


def _counting(box: Box) -> Path:
    """A container of a shell that counts into the file, which is there."""
    box.bundle.argv("/bin/sh", "-c", COUNT)
    command = box.ocimig.command("run", "-d", "-b", box.bundle.path, box.id)
    null = subprocess.DEVNULL
    subprocess.run(command, stdin=null, stdout=null, stderr=null, check=True)
    counted = box.bundle.rootfs / "count"
    until(counted.exists, "it to count")
    return counted


@pytest.mark.podman
@pytest.mark.parametrize("podman", ["ocimig"], indirect=True)
def test_podman_takes_a_snapshot_of_ours(
    box: Box, shelf: Shelf, podman: Podman, tmp_path: Path
) -> None:
    """`podman container restore --import` of a file that `backup export --base` wrote: memory that was in the
    store, and over podman's image what changed since that. It counts on where the snapshot was."""
    base, archive = tmp_path / "base", tmp_path / "web.tar"
    subprocess.run(["cp", "-a", str(box.bundle.rootfs), str(base)], check=True)
    subprocess.run(["tar", "-C", str(base), "-cf", str(tmp_path / "base.tar"), "."], check=True)
    podman("import", tmp_path / "base.tar", "base")
    image = podman("images", "-q", "--no-trunc", "base").strip()
    counted = _counting(box)
    (box.bundle.rootfs / "kept").write_text("before")
    taken = shelf.take()
    before = int(counted.read_text() or 0)
    (box.bundle.rootfs / "kept").write_text("after")
    wanted = ("--base", base, "--image-name", f"localhost/base:latest@{image}")
    box.ocimig("backup", "export", shelf.path, taken["id"], archive, *wanted, *shelf.options())
    box.ocimig("delete", "--force", box.id)
    podman.name = box.id
    podman("container", "restore", "--import", archive)

    def inside(name: str) -> str:
        return podman("exec", box.id, "/bin/cat", name)

    until(lambda: int(inside("/count") or 0) > before, "it to count on")
    assert inside("/kept") == "before"


@pytest.mark.podman
@pytest.mark.runc
@pytest.mark.parametrize("podman", ["runc"], indirect=True)
def test_a_checkpoint_of_podman_becomes_a_snapshot(
    box: Box, shelf: Shelf, podman: Podman, tmp_path: Path
) -> None:
    """Over a base that stays as it is; it is restored where the restore says, with files of ours in the place
    of those that podman had bound into it, and counts on."""
    rootfs, archive, bundle = tmp_path / "rootfs", tmp_path / "podman.tar", tmp_path / "other"
    subprocess.run(["cp", "-a", str(box.bundle.rootfs), str(rootfs)], check=True)
    limits = ("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024")
    named = ("--name", podman.name, "--network", "none", "--rootfs", rootfs)
    podman("run", "-d", *limits, *named, "/bin/sh", "-c", COUNT)
    until(lambda: (rootfs / "count").exists(), "the container of podman to count")
    podman("container", "checkpoint", "--export", archive, podman.name)
    podman.close()
    before = int((rootfs / "count").read_text())
    words = ["import", str(archive), "-b", str(tmp_path / "new"), "--as", box.id, *GRANTS]
    made = shelf(*words, "--base", str(rootfs))
    assert made["memory_bytes"] > 0
    assert shelf("verify", "--restore", made["id"])["problems"] == []
    assert int((rootfs / "count").read_text()) == before
    shelf.bring_back(made["id"], "-b", str(bundle))
    until(lambda: int((bundle / "rootfs/count").read_text() or 0) > before, "it to count on")
    mounted = box.ocimig.exec(box.id, "/bin/cat", "/proc/self/mountinfo").out
    assert "/tmp/ocimig-podman" not in mounted
    assert f"{bundle}/engine/etc-hosts /etc/hosts" in mounted
    assert "localhost" in box.ocimig.exec(box.id, "/bin/cat", "/etc/hosts").out
    assert not (tmp_path / "new").exists()
