"""Things planted in root file systems that mean harm, and a look at whether they did any."""

import os
from pathlib import Path

SHAPES = ["file", "fifo", "absolute", "climbing", "dangling", "loop", "to file", "magic"]
SLOW = 20.0  # seconds: a fifo that is opened, or a link that leads in circles, would last for ever


def facts(directory: Path) -> list[tuple[str, int, int, bytes]]:
    """Names, modes, owners and content below a directory."""
    return [
        (name, (stat := os.lstat(path := Path(where) / name)).st_mode, stat.st_uid,
         path.read_bytes() if path.is_file() else b"")
        for where, directories, files in os.walk(directory) for name in sorted(directories + files)
    ]  # fmt: skip


def plant(path: Path, shape: str, outside: Path) -> None:
    """Put something strange where the runtime expects something else."""
    if path.is_dir() and not path.is_symlink():
        path.rmdir()
    else:
        path.unlink(missing_ok=True)
    if shape == "file":
        path.write_text("planted\n")
    elif shape == "fifo":
        os.mkfifo(path)
    elif shape == "directory":
        path.mkdir()
    else:
        path.symlink_to({"absolute": str(outside), "climbing": "../" * 20 + str(outside)[1:],
                         "dangling": "/no/such/place", "loop": path.name,
                         "to file": str(outside / "file"), "magic": "/proc/self/root",
                         }[shape])  # fmt: skip
