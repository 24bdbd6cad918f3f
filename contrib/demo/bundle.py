"""An OCI bundle of a program of this machine: the program, its libraries, and what it needs in /etc."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any


def libraries(program: Path) -> list[Path]:
    """The shared libraries of a program, and its loader, as ldd(1) finds them."""
    text = subprocess.run(["ldd", program], check=True, capture_output=True, text=True).stdout
    words = (line.split() for line in text.splitlines())
    return [Path(word) for line in words for word in line if word.startswith("/")]


def build(bundle: Path, program: Path, argv: list[str], config: dict[str, Any]) -> None:
    """Write the bundle; `config` is a config.json to start from."""
    rootfs = bundle / "rootfs"
    for name in ("dev", "etc", "proc", "sys", "tmp", "data"):
        (rootfs / name).mkdir(parents=True)
    (rootfs / "tmp").chmod(0o1777)
    for file in [program, *libraries(program)]:
        place = rootfs / str(file).lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(file, place)
    (rootfs / "etc/passwd").write_text("root:x:0:0:root:/:/bin/false\n")
    config["process"] |= {"args": argv, "cwd": "/data", "terminal": False}
    config["root"] = {"path": "rootfs", "readonly": False}
    config["hostname"] = "redis"
    config["process"]["rlimits"] = [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}]
    (bundle / "config.json").write_text(json.dumps(config, indent=2))
