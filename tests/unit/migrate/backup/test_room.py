"""The directory of a restore: nobody else's, gone afterwards, but for the log of one that failed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ocimig.criu_images.errors import CriuFailed
from ocimig.migrate.backup.room import room
from ocimig.migrate.errors import RestoreFailed


def test_two_restores_of_one_name_do_not_share(tmp_path: Path) -> None:
    """The second must not remove the images that the first reads from."""
    with room(str(tmp_path), "web") as one:
        Path(one, "images").mkdir()
        with room(str(tmp_path), "web") as other:
            assert one != other
            assert os.listdir(one) == ["images"]
        assert not os.path.exists(other)
    assert os.listdir(tmp_path / ".restores") == []


def test_what_a_crash_left_goes_at_the_next_use(tmp_path: Path) -> None:
    """That of this name; others may have one like it with a dot, and keep theirs."""
    crash = (
        "import os, sys; from ocimig.migrate.backup.room import room\n"
        "with room(sys.argv[1], sys.argv[2]) as path: os.mkdir(path + '/images'); os._exit(0)"
    )
    for name in ("web", "web.1"):
        subprocess.run([sys.executable, "-c", crash, str(tmp_path), name], check=True)
    left = {name.rpartition(".")[0]: name for name in os.listdir(tmp_path / ".restores")}
    assert set(left) == {"web", "web.1"}
    with room(str(tmp_path), "web") as path:
        assert set(os.listdir(tmp_path / ".restores")) == {Path(path).name, left["web.1"]}


def fail(root: Path, log: str) -> None:
    """A restore that fails with an error that names this log, relative to its directory; "" for none."""
    with room(str(root), "web") as path:
        for name in ("images", "criu"):
            Path(path, name).mkdir()
            Path(path, name, "secret.img").write_text("memory")
        Path(path, "criu/restore.log").write_text("Error (criu): no")
        try:
            raise CriuFailed(step="restore", cause="no", log=os.path.join(path, log) if log else "")
        except CriuFailed as error:
            raise RestoreFailed(reason="its memory cannot come") from error


def test_the_log_that_the_error_names_stays(tmp_path: Path) -> None:
    """And nothing but it: images hold the memory of the container."""
    with pytest.raises(RestoreFailed, match="memory cannot come") as caught:
        fail(tmp_path, "criu/restore.log")
    assert isinstance(caught.value.__cause__, CriuFailed)
    log = Path(str(caught.value.__cause__.fields["log"]))
    assert log.read_text() == "Error (criu): no"
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [log]
    with room(str(tmp_path), "web"):
        assert not log.exists()


@pytest.mark.parametrize("log", ["", "/etc/passwd", "criu/gone.log", "criu/../images/secret.img"])
def test_without_a_log_nothing_stays(tmp_path: Path, log: str) -> None:
    """Whatever the error was, and wherever it says that its log is."""
    with pytest.raises(RestoreFailed):
        fail(tmp_path, log)
    assert os.listdir(tmp_path / ".restores") == []
