"""An archive as a snapshot: all of it, in a store, or nothing."""

import errno
import io
import json
import os
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ocimig.criu_images import binary, mounts, screening
from ocimig.criu_images.emptying import Emptying
from ocimig.criu_images.mounts import LeftMount
from ocimig.errors import NoSpace, OcimigError
from ocimig.files import Fd
from ocimig.migrate.archive import carry
from ocimig.migrate.archive.content import Signers
from ocimig.migrate.archive.exporting import Export
from ocimig.migrate.backup import restore, walk
from ocimig.migrate.backup.export import export
from ocimig.migrate.backup.importing import HOME, Wanted, import_from
from ocimig.migrate.store import verify
from ocimig.migrate.store.snapshot import Snapshot
from ocimig.migrate.store.store import Store
from ocimig_testkit.images import HEAP, LAZY, PAGE, PRESENT, Checkpoint, plain, write_pagemap
from ocimig_testkit.lent import KEPT, SAVED, WORDS, ZERO, lent
from ocimig_testkit.places import MemoryPlace, PowerCut
from ocimig_testkit.shelves import again, content_of, shelf

pytestmark = pytest.mark.root
SPEC: dict[str, Any] = {
    "annotations": {"io.container.manager": "libpod"},
    "process": {"args": ["/bin/true"]},
    "root": {"path": "/var/lib/containers/storage/overlay/1/merged"},
    "hostname": "web",
    "mounts": [
        {"destination": "/etc/hosts", "type": "bind", "source": "/run/x/hosts", "options": ["bind"]}
    ],
    "linux": {
        "namespaces": [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount")],
        "seccomp": {"defaultAction": "SCMP_ACT_ERRNO"},
    },
}


@pytest.fixture(autouse=True)
def _images_that_criu_never_saw(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the archives here were made by hand; tests/criu/test_screening.py looks at true ones."""
    monkeypatch.setattr(binary, "find", lambda: "criu")
    monkeypatch.setattr(screening, "screen", lambda *_: screening.Screened(tasks=1))
    left = [LeftMount("/etc/hosts", "/etc/hosts")]
    monkeypatch.setattr(mounts, "left_to_us", lambda *_: left)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty one, in memory."""
    return shelf(tmp_path / "cache")


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """What an image was unpacked to."""
    root = tmp_path / "base"
    (root / "etc").mkdir(parents=True)
    (root / "etc/gone").write_text("gone\n")
    (root / "etc/kept").write_text("kept\n")
    os.chown(root / "etc/kept", 7, 8)
    os.setxattr(root / "etc/kept", "user.note", b"of the base")
    os.mknod(root / "etc/null", 0o020666, os.makedev(1, 3))
    return root


Pack = Callable[..., Path]


@pytest.fixture
def podman(tmp_path: Path) -> Pack:
    """An archive as podman writes it; podman(change=…) may do something to the images before."""

    def make(
        spec: dict[str, Any] = SPEC, change: Callable[[Checkpoint], object] = lambda _: None,
        created: str = "2026-01-02T03:04:05.123456789+01:00", name: str = "web",
    ) -> Path:  # fmt: skip
        images = Checkpoint(Path(tempfile.mkdtemp(dir=tmp_path)))
        images.memory(1, [(HEAP, 3, PRESENT | LAZY)], [plain(HEAP, HEAP + 8 * PAGE)])
        images.fill(1, 0, WORDS)
        (images.path / "pages-9.img").write_bytes(b"shared".ljust(PAGE, b"."))
        write_pagemap(images.path / "pagemap-shmem-55.img", 9, [(4 * PAGE, 1, PRESENT)])
        change(images)
        documents = {
            "config.dump": {"id": "c" * 64, "name": name, "checkpointedTime": created},
            "spec.dump": spec, "network.status": {}, "deleted.files": ["/etc/gone"],
            "checkpoint/descriptors.json": ["/dev/null", "pipe:[7]", "pipe:[7]"],
        }  # fmt: skip
        inner = io.BytesIO()
        with tarfile.open(fileobj=inner, mode="w") as changes:
            _add(changes, "etc/new", b"new\n")
        with tarfile.open(tmp_path / "podman.tar", "w") as out:
            for path, value in documents.items():
                _add(out, path, json.dumps(value).encode())
            _add(out, "rootfs-diff.tar", inner.getvalue())
            for image in sorted(images.path.iterdir()):
                _add(out, f"checkpoint/{image.name}", image.read_bytes())
        return tmp_path / "podman.tar"

    return make


def _add(out: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), 0o600
    out.addfile(entry, io.BytesIO(data))


def take_in(store: Store, archive: Path, *granted: str, **wanted: Any) -> Snapshot:
    """Import it, as the command does."""
    with Fd(os.open(archive, os.O_RDONLY)) as fd:
        plan = carry.look(fd, archive.name, granted=granted)
        return import_from(store, fd, plan, Wanted(**{"bundle": "/srv/web", **wanted}))


def untouched(store: Store) -> bool:
    """Whether no snapshot is in it, and nothing of an import is left."""
    rooms = Path(store.cache, HOME)
    return store.names() == {} and not (rooms.exists() and os.listdir(rooms))


def names_of(store: Store, snapshot: Snapshot) -> dict[str, Any]:
    """Its files by path."""
    (tree,) = snapshot.trees
    return dict(walk.walk(store.packs, tree.node()))


def test_what_was_exported_comes_in_again(store: Store, tmp_path: Path) -> None:
    """Page by page, and the files of that moment; where the images had memory, no byte of it is left."""
    first, file = shelf(tmp_path / "first"), tmp_path / "web.tar"
    config = {**SPEC, "root": {"path": "rootfs"}, "mounts": []}
    snapshot = lent(first, tmp_path / "lent", config=config)
    export(first, snapshot, Export(file=str(file)))
    made = take_in(store, file, tags=("moved",))
    assert store.find(made.id) == made
    held = content_of(store, made)
    assert sorted(held.pages["p1"]) == [SAVED, KEPT, ZERO]
    assert held.pages["p1"][SAVED].startswith(b"saved by CRIU")
    assert held.pages["p1"][KEPT].startswith(WORDS)
    assert not any(held.pages["p1"][ZERO])
    assert held.images["pages-1.img"] == b""
    assert held.files["rootfs/motd"] == b"hello\n"
    assert (made.container, made.pages, made.tags) == ("web", 3, ("moved",))
    assert made.time == 1767323045  # as the archive says: 2026-01-02T03:04:05Z
    assert made.trees[0].path == "/srv/web"
    assert verify.verify(store, read_data=1.0, tell=lambda _: None).problems == []
    assert not list(Path(store.cache, HOME).iterdir())


def test_the_same_archive_again_adds_next_to_nothing(
    store: Store, podman: Pack, base: Path
) -> None:
    """Pages and blocks that are there are not stored again."""
    first = take_in(store, podman(), base=str(base))
    second = take_in(again(store, Path(store.cache).parent), podman(), base=str(base))
    assert second.spaces == first.spaces
    assert second.stored_bytes < first.stored_bytes


def test_what_podman_made_comes_in_over_its_base(store: Store, podman: Pack, base: Path) -> None:
    """The base is read and stays as it is, with all that belongs to it; what CRIU saved of shared memory is
    in the store, too."""
    (base.parent / "current").symlink_to(base)  # as people name the one that is in use
    made = take_in(store, podman(), base=str(base.parent / "current"))
    found = names_of(store, made)
    assert {path for path in found if path.startswith("rootfs/etc/")} == {
        "rootfs/etc/kept", "rootfs/etc/null", "rootfs/etc/new"
    }  # fmt: skip
    kept = found["rootfs/etc/kept"]
    assert (kept.uid, kept.gid, dict(kept.attributes)) == (7, 8, {b"user.note": b"of the base"})
    assert found["rootfs/etc/null"].device == (1, 3)
    assert sorted(os.listdir(base / "etc")) == ["gone", "kept", "null"]
    held = content_of(store, made)
    assert held.pages["s55"][4 * PAGE].startswith(b"shared")
    assert made.shared == {"s55": 5 * PAGE}
    assert made.container == "web"
    assert made.time == pytest.approx(1767319445.123456)
    assert made.manifest["options"]["tcp_established"] is True


def test_what_engines_bind_goes_where_the_bundle_goes(
    store: Store, podman: Pack, base: Path
) -> None:
    """The file that took the place of podman's is in the bundle, and is named from there: no path of this
    host, nor of the place where it was unpacked, is in the snapshot."""
    made = take_in(store, podman(), base=str(base))
    assert made.config["mounts"][0]["source"] == "engine/etc-hosts"
    assert made.manifest["facts"]["mounts"][0]["source"] == "engine/etc-hosts"
    held = content_of(store, made)
    assert json.loads(held.files["config.json"])["mounts"][0]["source"] == "engine/etc-hosts"
    assert b"localhost" in held.files["engine/etc-hosts"]
    everything = made.encode() + b"".join([*held.files.values(), *held.images.values()])
    assert store.cache.encode() not in everything
    assert restore.connector(made, "web") is None


@pytest.mark.parametrize("base_given", [False, True])
def test_a_base_is_there_exactly_where_one_is_needed(
    store: Store, podman: Pack, base: Path, tmp_path: Path, base_given: bool
) -> None:
    """Else it is said in one line what to name; nothing is unpacked."""
    if base_given:
        first, file = shelf(tmp_path / "first"), tmp_path / "web.tar"
        config = {**SPEC, "root": {"path": "rootfs"}, "mounts": []}
        export(first, lent(first, tmp_path / "lent", config=config), Export(file=str(file)))
        with pytest.raises(OcimigError, match="holds all of it"):
            take_in(store, file, base=str(base))
    else:
        with pytest.raises(OcimigError, match="only what was changed") as caught:
            take_in(store, podman())
        assert "--base DIR" in caught.value.advice
    assert untouched(store)


@pytest.mark.parametrize("wrong", ["missing", "etc/kept", "empty"])
def test_a_base_that_is_none_is_refused(store: Store, podman: Pack, base: Path, wrong: str) -> None:
    """A name that leads nowhere, a file, an empty directory."""
    (base / "empty").mkdir()
    with pytest.raises(OcimigError, match="cannot unpack"):
        take_in(store, podman(), base=str(base / wrong))
    assert untouched(store)


@pytest.mark.parametrize("where", ["cp", "emptying"])
def test_a_full_disk_is_named(
    store: Store, podman: Pack, base: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cache, where it is unpacked; while the base is copied, and while pages are taken out."""
    full = os.strerror(errno.ENOSPC)
    if where == "cp":
        done = subprocess.CompletedProcess([], 1, stderr=f"cp: error writing 'x': {full}\n")
        monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)
    else:
        monkeypatch.setattr(Emptying, "process", lambda *_: _full())
    with pytest.raises(NoSpace, match=store.cache):
        take_in(store, podman(), base=str(base))
    assert untouched(store)


def _full() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_what_was_not_granted_is_refused(store: Store, podman: Pack, base: Path) -> None:
    """Before anything is written; a restore of the snapshot would not ask again."""
    spec = {**SPEC, "mounts": [{**SPEC["mounts"][0], "destination": "/in"}]}
    with pytest.raises(OcimigError, match="/run/x/hosts at /in") as caught:
        take_in(store, podman(spec), base=str(base))
    assert "--allow mounts" in caught.value.advice
    assert untouched(store)


def test_a_signature_that_is_wanted_has_to_be_there(podman: Pack) -> None:
    """It is looked at first of all."""
    with Fd(os.open(podman(), os.O_RDONLY)) as fd, pytest.raises(OcimigError, match="not signed"):
        carry.look(fd, "web", signers=Signers("/etc/hosts", "ops"))


def _twice(made: Checkpoint) -> None:
    write_pagemap(made.path / "pagemap-shmem-56.img", 1, [(0, 1, PRESENT)])


def _short(made: Checkpoint) -> None:
    with open(made.path / "pages-1.img", "r+b") as file:
        file.truncate(PAGE)


def _far(made: Checkpoint) -> None:
    write_pagemap(made.path / "pagemap-shmem-55.img", 9, [(1 << 62, 1, PRESENT)])


def _numbered(made: Checkpoint) -> None:
    name = f"pagemap-shmem-{1 << 70}.img"
    os.rename(made.path / "pagemap-shmem-55.img", made.path / name)


def _named(made: Checkpoint) -> None:
    (made.path / "-x.img").write_bytes(b"x")


def _elsewhere(made: Checkpoint) -> None:
    write_pagemap(made.path / "pagemap-1.img", 1, [(HEAP, 3, LAZY)])


@pytest.mark.parametrize("change", [_twice, _short, _far, _numbered, _named, _elsewhere])
def test_images_that_lie_make_no_snapshot(
    store: Store, podman: Pack, base: Path, change: Callable[[Checkpoint], None]
) -> None:
    """Neither one of other pages, nor one that nobody could read afterwards. It is the archive that is named."""
    with pytest.raises(OcimigError, match=r"podman\.tar"):
        take_in(store, podman(change=change), base=str(base))
    assert untouched(store)
    assert take_in(store, podman(), base=str(base)).pages == 4


@pytest.mark.parametrize(
    "about",
    [
        {"spec": {**SPEC, "annotations": {"long": "x" * 70_000}}},
        {"spec": {**SPEC, "linux": []}},
        {"name": "../../etc"},
        {"name": "a\x1b[2Jb"},
        {"name": ""},
    ],
    ids=["label", "linux", "path", "escape", "nothing"],
)
def test_documents_that_lie_make_no_snapshot(
    store: Store, podman: Pack, base: Path, about: dict[str, Any]
) -> None:
    """Words from outside become neither a name of a container nor a snapshot that cannot be read."""
    if about.get("name") == "":
        assert take_in(store, podman(**about), base=str(base)).container == "c" * 64
        return
    with pytest.raises(OcimigError):
        take_in(store, podman(**about), base=str(base))
    assert untouched(store)


@pytest.mark.parametrize("created", ["", "soon", "9999-12-31T23:59:59Z", "0001-01-01T00:00:00Z"])
def test_a_time_that_cannot_be_is_now(store: Store, podman: Pack, base: Path, created: str) -> None:
    """Else an archive could be the latest of its container for ever."""
    before = time.time()
    assert before <= take_in(store, podman(created=created), base=str(base)).time <= time.time()


def test_memory_of_mapped_users_stays_in_the_images(store: Store, podman: Pack, base: Path) -> None:
    """CRIU cannot give it back lazily: a restore reads it there, as it does of what create() took."""
    spec = json.loads(json.dumps(SPEC))
    spec["linux"]["namespaces"].append({"type": "user"})
    for kind in ("uidMappings", "gidMappings"):
        spec["linux"][kind] = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    made = take_in(store, podman(spec), "mappings", base=str(base))
    assert made.spaces == {}
    assert content_of(store, made).images["pages-1.img"].startswith(WORDS)


def test_a_power_cut_at_any_step_leaves_all_of_it_or_nothing(
    podman: Pack, base: Path, tmp_path: Path
) -> None:
    """Of the store; what was there before stays, and the next import is whole."""
    archive = podman()
    store = shelf(tmp_path / "count")
    assert isinstance(store.place, MemoryPlace)
    begun = len(store.place.disk.steps)
    take_in(store, archive, base=str(base))
    steps = len(store.place.disk.steps) - begun
    assert steps > 8
    for number in range(1, steps + 1):
        cache = tmp_path / f"cache{number}"
        store = shelf(cache)
        assert isinstance(store.place, MemoryPlace)
        disk = store.place.disk
        disk.cut_at = len(disk.steps) + number
        with pytest.raises(PowerCut):
            take_in(store, archive, base=str(base))
        disk.cut_at, disk.off, disk.shared = 0, False, 0
        store = again(store, cache)
        for snapshot in store.snapshots():
            assert content_of(store, snapshot).files["rootfs/etc/new"] == b"new\n"
        take_in(store, archive, base=str(base))
        assert verify.verify(store, read_data=1.0, tell=lambda _: None).problems == []


def test_what_a_killed_import_left_goes_with_the_next(
    store: Store, podman: Pack, base: Path
) -> None:
    """Nobody holds its directory any more; that of one which runs stays."""
    left = Path(store.cache, HOME, "archive.01234567")
    (left / "bundle").mkdir(parents=True)
    take_in(store, podman(), base=str(base))
    assert not left.exists()
