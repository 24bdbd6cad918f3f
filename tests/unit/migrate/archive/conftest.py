"""A checkpoint without CRIU, and archives of it as each engine writes them."""

import io
import json
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ocimig.criu_images.image import CheckpointImage, Manifest
from ocimig.migrate.archive import exporting
from ocimig.migrate.archive.exporting import Export

SPEC: dict[str, Any] = {
    "ociVersion": "1.0.2",
    "process": {"args": ["/bin/true"], "cwd": "/", "capabilities": {"bounding": ["CAP_KILL"]}},
    "root": {"path": "/srv/web/rootfs"},
    "hostname": "web",
    "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
    "linux": {
        "namespaces": [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount")],
        "seccomp": {"defaultAction": "SCMP_ACT_ERRNO"},
    },
}


def checkpoint(directory: Path, spec: dict[str, Any] | None = None) -> CheckpointImage:
    """A sealed checkpoint whose images CRIU never saw."""
    directory.mkdir()
    for name in ("inventory.img", "pstree.img", "mm-1.img", "mm-7.img", "pages-1.img"):
        (directory / name).write_bytes(name.encode() * 100)
    (directory / "dump.log").write_text("done\n")
    image = CheckpointImage(str(directory))
    image.write_json("config.json", spec or SPEC)
    image.write_json("descriptors.json", ["/dev/null", "pipe:[7]", "pipe:[7]"])
    manifest = Manifest.new("web", "4.2.1")
    manifest.created = "2026-01-02T03:04:05Z"
    manifest.facts = {"mounts": [], "streams": ["/dev/null", "pipe:[7]", "pipe:[7]"]}
    image.seal(manifest)
    return image


Make = Callable[..., Path]


@pytest.fixture
def archive(tmp_path: Path) -> Make:
    """Make an archive of ours: make(name, spec=…, key=…, compress=…)."""

    def make(name: str, spec: dict[str, Any] | None = None, **wanted: Any) -> Path:
        place = tmp_path / f"{name}.checkpoint"
        image = checkpoint(place, spec)
        rootfs = tmp_path / f"{name}.rootfs"
        (rootfs / "etc").mkdir(parents=True)
        (rootfs / "etc/motd").write_text("hello\n")
        export = Export(file=str(tmp_path / name), **wanted)
        captured = exporting.capture(str(rootfs), export, str(tmp_path / f"{name}.spool"))
        exporting.write_archive(image, captured, export)
        return tmp_path / name

    return make


@pytest.fixture
def foreign(tmp_path: Path) -> Make:
    """An archive as an engine writes it: foreign(name, members: path -> bytes or JSON)."""

    def make(name: str, files: dict[str, Any], directories: tuple[str, ...] = ()) -> Path:
        with tarfile.open(tmp_path / name, "w") as out:
            for directory in ("checkpoint", *directories):
                entry = tarfile.TarInfo(directory)
                entry.type, entry.mode = tarfile.DIRTYPE, 0o700
                out.addfile(entry)
            for path, value in files.items():
                data = value if isinstance(value, bytes) else json.dumps(value, indent=2).encode()
                entry = tarfile.TarInfo(path)
                entry.size, entry.mode = len(data), 0o600
                out.addfile(entry, io.BytesIO(data))
        return tmp_path / name

    return make


@pytest.fixture
def keys(tmp_path: Path) -> Callable[[str], Path]:
    """SSH keys by the name of who has them; a line for each in the file `signers`."""

    def make(name: str) -> Path:
        key = tmp_path / f"key-{name}"
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(key)]
        subprocess.run(command, check=True)
        public = key.with_suffix(".pub").read_text().split()
        with (tmp_path / "signers").open("a") as signers:
            signers.write(f'{name} namespaces="ocimig-checkpoint" {public[0]} {public[1]}\n')
        return key

    return make
