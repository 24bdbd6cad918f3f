"""What the source removes once the container runs elsewhere, however often it is told to."""

from pathlib import Path

from ocimig.migrate import journal
from ocimig.migrate.source import RealSource, marked
from ocimig.runtime.store import Store


def moved(tmp_path: Path) -> tuple[Store, journal.Journal, Path]:
    """A migration that ended its container and was killed before it removed the files."""
    store = Store(str(tmp_path / "state"))
    Path(store.root).mkdir()
    bundle = tmp_path / "bundle"
    (bundle / "rootfs/bin").mkdir(parents=True)
    (bundle / "rootfs/bin/sh").write_text("")
    entry = journal.create(
        store, journal.new_id(), "source", id="c1", epoch=1, images=str(tmp_path / "m/image"),
        pid=1, start_time=1, network=None, trees=marked([("bundle", str(bundle))]),
    )  # fmt: skip
    return store, entry, bundle


def test_files_go_although_the_container_is_gone_already(tmp_path: Path) -> None:
    """The command was killed between the two; --resume finishes."""
    store, entry, bundle = moved(tmp_path)
    assert RealSource().remove(store, entry) == []
    assert not bundle.exists()
    assert RealSource().remove(store, entry) == []


def test_a_new_directory_in_the_old_place_is_left_alone(tmp_path: Path) -> None:
    """Somebody made a bundle of the same name since."""
    store, entry, bundle = moved(tmp_path)
    bundle.rename(tmp_path / "kept so that its inode is not used again")
    bundle.mkdir()
    assert RealSource().remove(store, entry) == []
    assert bundle.exists()
