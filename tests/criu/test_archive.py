"""A container into one file and back from it: ours, and those of other engines."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ocimig.files import Fd
from ocimig.migrate.archive import content, oci
from ocimig_testkit import until
from ocimig_testkit.box import Box
from ocimig_testkit.podman import Podman
from ocimig_testkit.probes import criu, find

pytestmark = [pytest.mark.root, pytest.mark.criu]
# The test's bundle has no seccomp filter, and its output is a plain file of the host.
GRANTS = ("--allow", "unconfined", "--allow", "files")


def back(box: Box, archive: Path, bundle: Path, *options: str, code: int | None = 0) -> str:
    """Restore from an archive into a bundle; what it said on standard error."""
    words = ["restore", "-d", "--import", str(archive), "-b", str(bundle), *GRANTS, *options]
    return box.ocimig(*words, box.id, code=code).err


def inside(box: Box, *argv: str) -> str:
    """What a command in the container prints."""
    return box.ocimig.exec(box.id, *argv).out


def test_a_container_goes_into_a_file_and_comes_back_from_it(box: Box, tmp_path: Path) -> None:
    """Memory, files, all of it: the bundle that it had is gone when it comes back."""
    archive, bundle = tmp_path / "web.tar.zst", tmp_path / "new"
    box.run("count", "8")
    box.ocimig.exec(box.id, "/bin/sh", "-c", "echo changed > /etc/motd; chmod 4750 /etc/motd")
    box.ocimig("checkpoint", "--export", archive, box.id)
    assert box.ocimig.status(box.id) == ""
    assert not [name for name in os.listdir(tmp_path) if name.endswith((".partial", ".tmp"))]
    shutil.rmtree(box.bundle.path)
    told = back(box, archive, bundle)
    assert "not signed" in told
    box.goes_on()
    box.unbroken()
    assert inside(box, "/bin/cat", "/etc/motd") == "changed\n"
    assert (bundle / "rootfs/etc/motd").stat().st_mode & 0o7777 == 0o4750
    assert sorted(os.listdir(bundle)) == ["config.json", "rootfs"]


def test_it_is_the_same_again_from_an_image_of_it(box: Box, tmp_path: Path) -> None:
    """Signed, as an OCI image directory; the signature holds for what is in the layer."""
    key, signers = tmp_path / "key", tmp_path / "signers"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    signers.write_text("ops " + key.with_suffix(".pub").read_text())
    archive, image = tmp_path / "web.tar.gz", tmp_path / "oci"
    box.run("count")
    box.ocimig("checkpoint", "--export", archive, "--compress", "gzip", "--sign", key, box.id)
    with Fd(os.open(archive, os.O_RDONLY)) as fd:
        oci.write(fd, content.read(fd, "web"), str(image), compress="zstd")
    shutil.rmtree(box.bundle.path)
    vouched = ("--allowed-signers", str(signers), "--signer", "ops")
    assert "signed by ops" in back(box, image, tmp_path / "new", *vouched)
    box.goes_on()
    box.unbroken()


def test_a_copy_while_it_runs_on_holds_its_files_of_that_moment(box: Box, tmp_path: Path) -> None:
    """With a base only what it changed is in it; the base is brought to that state."""
    base, archive, bundle = tmp_path / "base", tmp_path / "web.tar", tmp_path / "new"
    subprocess.run(["cp", "-a", str(box.bundle.rootfs), str(base)], check=True)
    box.run("count")
    box.ocimig.exec(box.id, "/bin/sh", "-c", "echo one > /etc/one; rm -r /var")
    box.ocimig("checkpoint", "--leave-running", "--export", archive, "--base", base, box.id)
    box.goes_on()
    box.ocimig.exec(box.id, "/bin/sh", "-c", "echo two > /etc/two")
    box.ocimig("delete", "--force", box.id)
    bundle.mkdir()
    os.rename(base, bundle / "rootfs")
    back(box, archive, bundle)
    box.goes_on()
    assert inside(box, "/bin/cat", "/etc/one") == "one\n"
    assert not (bundle / "rootfs/etc/two").exists()
    assert not (bundle / "rootfs/var").exists()


def test_what_it_asks_for_has_to_be_granted(box: Box, tmp_path: Path) -> None:
    """A bind of a host's directory: refused with nothing started and nothing left, then granted."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data/file").write_text("of the host\n")
    mount = {"destination": "/data", "type": "bind", "source": str(tmp_path / "data"),
             "options": ["rbind", "ro"]}  # fmt: skip
    box.bundle.config["mounts"].append(mount)
    archive, bundle = tmp_path / "web.tar", tmp_path / "new"
    box.run("count")
    box.ocimig("checkpoint", "--export", archive, box.id)
    said = back(box, archive, bundle, code=12)
    assert f"not granted: mounts: {tmp_path / 'data'} at /data" in said
    assert "--allow mounts" in said
    assert not bundle.exists()
    assert box.ocimig.status(box.id) == ""
    back(box, archive, bundle, "--allow", "mounts")
    box.goes_on()
    assert inside(box, "/bin/cat", "/data/file") == "of the host\n"


def test_an_export_that_fails_leaves_it_running(box: Box, small_disk: Path) -> None:
    """A full disk, a key that is none: it goes on, and no part of a file is left."""
    box.run("count", "32")
    box.ocimig("checkpoint", "--export", small_disk / "web.tar", box.id, code=15)
    box.goes_on()
    key = ("--sign", "/no/such/key")
    place = box.output.parent / "archives"
    place.mkdir()
    box.ocimig("checkpoint", "--export", place / "web.tar", *key, box.id, code=12)
    box.goes_on()
    assert not box.locked()
    assert not (place / "web.tar").exists()
    assert not (small_disk / "web.tar").exists()


def test_a_restore_that_fails_leaves_nothing(box: Box, tmp_path: Path) -> None:
    """The name is taken: the bundle that was made for it is gone again."""
    archive, bundle = tmp_path / "web.tar", tmp_path / "new"
    box.run("count")
    box.ocimig("checkpoint", "--leave-running", "--export", archive, box.id)
    assert "already exists" in back(box, archive, bundle, code=None)
    assert not bundle.exists()
    box.goes_on()


LIMITS = ("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024")
COUNT = "n=0; while true; do n=$((n+1)); echo $n > /count; sleep 0.1; done"


@pytest.mark.podman
@pytest.mark.runc
@pytest.mark.parametrize("podman", ["runc"], indirect=True)
def test_a_checkpoint_of_podman_comes_back_here(box: Box, podman: Podman, tmp_path: Path) -> None:
    """`podman container checkpoint --export`, then ours: it counts on in a bundle of ours, and of the
    paths of this host that podman had bound into it none is there any more."""
    rootfs, archive, bundle = tmp_path / "rootfs", tmp_path / "podman.tar", tmp_path / "new"
    subprocess.run(["cp", "-a", str(box.bundle.rootfs), str(rootfs)], check=True)
    words = ("--name", podman.name, "--network", "none", "--rootfs", rootfs)
    podman("run", "-d", *LIMITS, *words, "/bin/sh", "-c", COUNT)
    until(lambda: (rootfs / "count").exists(), "the container of podman to count")
    podman("container", "checkpoint", "--export", archive, podman.name)
    podman.close()
    before = int((rootfs / "count").read_text())
    bundle.mkdir()
    os.rename(rootfs, bundle / "rootfs")
    told = back(box, archive, bundle)
    assert "made by podman" in told
    assert "replaced: mounts:" in told
    until(lambda: int((bundle / "rootfs/count").read_text() or 0) > before, "it to count on")
    assert "/tmp/ocimig-podman" not in inside(box, "/bin/cat", "/proc/self/mountinfo")
    assert "localhost" in inside(box, "/bin/cat", "/etc/hosts")


@pytest.mark.podman
@pytest.mark.parametrize("podman", ["ocimig"], indirect=True)
def test_podman_takes_a_checkpoint_of_ours(box: Box, podman: Podman, tmp_path: Path) -> None:
    """`podman container restore --import` of a container that podman never saw, with ocimig as its
    runtime: it counts on in podman's storage."""
    base = tmp_path / "base.tar"
    subprocess.run(["tar", "-C", str(box.bundle.rootfs), "-cf", str(base), "."], check=True)
    podman("import", base, "base")
    image = podman("images", "-q", "--no-trunc", "base").strip()
    archive = tmp_path / "web.tar"
    box.bundle.argv("/bin/sh", "-c", COUNT)
    command = box.ocimig.command("run", "-d", "-b", box.bundle.path, box.id)
    null = subprocess.DEVNULL
    subprocess.run(command, stdin=null, stdout=null, stderr=null, check=True)
    counted = box.bundle.rootfs / "count"
    until(counted.exists, "it to count")
    wanted = ("--export", archive, "--image-name", f"localhost/base:latest@{image}")
    box.ocimig("checkpoint", *wanted, box.id)
    before = int(counted.read_text())
    podman.name = box.id
    podman("container", "restore", "--import", archive)

    def now() -> int:
        return int(podman("exec", box.id, "/bin/cat", "/count") or 0)

    until(lambda: now() > before, "it to count on")
    assert counted.read_text() == f"{before}\n"


@pytest.mark.runc
def test_an_archive_of_cri_o_comes_back_here(box: Box, tmp_path: Path) -> None:
    """Its layout, uncompressed, around images that runc made: changes and deletions of the root file
    system, a bind of the host that is granted, a network namespace by path that is not."""
    (tmp_path / "data").mkdir()
    mount = {"destination": "/data", "type": "bind", "source": str(tmp_path / "data"),
             "options": ["rbind", "rw"]}  # fmt: skip
    box.bundle.config["mounts"].append(mount)
    box.bundle.argv("/bin/sh", "-c", COUNT.replace("/count", "/data/count"))
    base, images = tmp_path / "base", tmp_path / "image/checkpoint"
    subprocess.run(["cp", "-a", str(box.bundle.rootfs), str(base)], check=True)
    runc = [find("runc"), "--root", str(tmp_path / "runc")]
    environment = {**os.environ, "PATH": f"{os.environ['PATH']}:{os.path.dirname(criu())}"}
    null = subprocess.DEVNULL
    try:
        start = [*runc, "run", "-d", "-b", str(box.bundle.path), box.id]
        subprocess.run(start, check=True, stdin=null, stdout=null, stderr=null)
        until((tmp_path / "data/count").exists, "the container of runc to count")
        command = [*runc, "checkpoint", "--image-path", str(images), "--work-path", str(tmp_path)]
        subprocess.run([*command, box.id], check=True, capture_output=True, env=environment)
    finally:
        subprocess.run([*runc, "delete", "-f", box.id], check=False, capture_output=True)
    before = int((tmp_path / "data/count").read_text())
    archive = tmp_path / "cri-o.tar"
    _as_cri_o(archive, images, box.bundle.config)
    bundle = tmp_path / "new"
    bundle.mkdir()
    os.rename(base, bundle / "rootfs")
    assert "made by CRI-O" in back(box, archive, bundle, "--allow", "mounts")
    until(lambda: int((tmp_path / "data/count").read_text() or 0) > before, "it to count on")
    assert (bundle / "rootfs/etc/new").read_text() == "new\n"
    assert not (bundle / "rootfs/var").exists()


def _as_cri_o(archive: Path, images: Path, config: dict[str, Any]) -> None:
    """Pack runc's images as CRI-O does."""
    place = images.parent
    spec = {**config, "annotations": {"io.container.manager": "cri-o",
                                      "io.kubernetes.container.name": "counter"}}  # fmt: skip
    for space in spec["linux"]["namespaces"]:
        if space["type"] == "network":
            space["path"] = "/var/run/netns/of-the-pod"
    (place / "spec.dump").write_text(json.dumps(spec))
    (place / "config.dump").write_text(json.dumps({"rootfsImageName": "quay.io/counter"}))
    (place / "deleted.files").write_text(json.dumps(["/var"]))
    binds = [{"source": "/x", "destination": "/data", "file_type": "directory", "permissions": 493}]
    (place / "bind.mounts").write_text(json.dumps(binds))
    (place / "io.kubernetes.cri-o.LogPath").write_text("log\n")
    (place / "diff/etc").mkdir(parents=True)
    (place / "diff/etc/new").write_text("new\n")
    tar = ["tar", "-C"]
    subprocess.run([*tar, place / "diff", "-cf", place / "rootfs-diff.tar", "etc/new"], check=True)
    shutil.rmtree(place / "diff")
    subprocess.run([*tar, place, "-cf", archive, *sorted(os.listdir(place))], check=True)
