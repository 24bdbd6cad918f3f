"""Images and configurations that mean harm: refused by name or harmless, and never slow."""

import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ocimig_testkit import Bundle, Ocimig
from ocimig_testkit.console import ConsoleSocket
from ocimig_testkit.hostile import SHAPES, SLOW, plant

pytestmark = [pytest.mark.root, pytest.mark.busybox]
own = pytest.mark.skipif("OCIMIG_RUNTIME" in os.environ, reason="another runtime does otherwise")


def plain_dev(bundle: Bundle) -> Bundle:
    """/dev of the image itself, without the tmpfs and what lies in it."""
    mounts = bundle.config["mounts"]
    bundle.config["mounts"] = [row for row in mounts if not row["destination"].startswith("/dev")]
    return bundle.write()


@own
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", ["proc", "sys", "dev", "dev/pts", "dev/shm"])
def test_a_strange_mount_point_is_refused_or_harmless(
    ocimig: Ocimig, bundle: Bundle, outside: Path, name: str, shape: str
) -> None:
    """/proc and /sys that are no directories are refused, the rest stays inside; quickly either way."""
    if name.startswith("dev/"):
        mounts = bundle.config["mounts"]
        bundle.config["mounts"] = [row for row in mounts if row["destination"] != "/dev"]
    plant(bundle.rootfs / name, shape, outside)
    answer = ocimig.run(bundle.shell("echo ran; touch /dev/planted"), timeout=SLOW)
    assert "Traceback" not in answer.err
    if name in {"proc", "sys"}:
        assert answer.code == 1
        assert f"/{name}" in answer.err
        assert answer.out == ""


@own
@pytest.mark.parametrize("shape", [*SHAPES, "directory"])
@pytest.mark.parametrize(
    ("name", "terminal"),
    [(name, False) for name in ("null", "zero", "tty", "console", "ptmx", "fd", "stdin")]
    + [("console", True), ("ptmx", True)],
)
def test_a_strange_device_of_the_image_is_refused_or_harmless(
    ocimig: Ocimig, bundle: Bundle, outside: Path, name: str, shape: str, terminal: bool
) -> None:
    """Where the image's own /dev is used, nothing behind a link is made, opened or changed."""
    keep = [row for row in bundle.config["mounts"] if row["destination"] == "/dev/pts"]
    plain_dev(bundle)
    bundle.config["mounts"] += keep
    plant(bundle.rootfs / f"dev/{name}", shape, outside)
    bundle.process["terminal"] = terminal
    bundle.shell("echo ran >/dev/null")
    if not terminal:
        assert "Traceback" not in ocimig.run(bundle, timeout=SLOW).err
        return
    with ConsoleSocket(bundle.path / "console") as console:
        answer = ocimig(
            "run", "-d", "--bundle", bundle.path, "--console-socket", console.path,
            ocimig.new_id(), code=None, timeout=SLOW,
        )  # fmt: skip
        assert "Traceback" not in answer.err


@own
@pytest.mark.parametrize("shape", ["fifo", "directory", "loop", "dangling", "to shadow", "sparse"])
def test_a_strange_passwd_file_is_harmless(
    ocimig: Ocimig, bundle: Bundle, outside: Path, shape: str
) -> None:
    """It is only read, as text, inside: a fifo does not hang, a huge one takes no memory."""
    passwd = bundle.rootfs / "etc/passwd"
    if shape == "sparse":
        with passwd.open("wb") as file:
            file.truncate(1 << 30)
    elif shape == "to shadow":
        passwd.unlink()
        passwd.symlink_to("../../../../../../../../etc/shadow")
    else:
        plant(passwd, shape, outside)
    bundle.process["env"] = ["PATH=/bin"]
    started = time.monotonic()
    answer = ocimig.run(bundle.shell("echo home=$HOME"), timeout=SLOW)
    assert time.monotonic() - started < 5
    if answer.code == 0:
        assert answer.out == "home=/\n"


@own
@pytest.mark.parametrize(
    "line", ["root:x:0:0:root:/ev:il\n", "::::::\n", "root:x:0\n", "\0" * 99, "x" * 70000]
)
def test_a_broken_passwd_file_is_harmless(ocimig: Ocimig, bundle: Bundle, line: str) -> None:
    """Short lines, no colons, NUL bytes, one line without an end."""
    (bundle.rootfs / "etc/passwd").write_text(line)
    bundle.process["env"] = ["PATH=/bin"]
    ocimig.run(bundle.shell("echo $HOME"), code=0)


# ---- mounts


@pytest.mark.parametrize("kind", ["tmpfs", "bind", "bind file"])
@pytest.mark.parametrize("target", ["absolute", "climbing", "dangling out", "dots", "deep dots"])
def test_a_mount_lands_inside_whatever_the_link_says(
    ocimig: Ocimig, bundle: Bundle, outside: Path, tmp_path: Path, kind: str, target: str
) -> None:
    """Every way of writing a path that leads out of the root file system."""
    destination = "/link/made/here"
    if target == "absolute":
        (bundle.rootfs / "link").symlink_to(outside)
    elif target == "climbing":
        (bundle.rootfs / "link").symlink_to("../" * 30 + str(outside)[1:])
    elif target == "dangling out":
        (bundle.rootfs / "link").symlink_to(outside / "new")
    elif target == "dots":
        destination = "/../../../../.." + str(outside / "new")
    else:
        destination = "/etc/" + "../" * 40 + str(outside)[1:] + "/new"
    row: dict[str, object] = {"destination": destination, "type": "tmpfs", "source": "tmpfs"}
    if kind != "tmpfs":
        source = tmp_path / "source"
        source.mkdir()
        (source / "x").write_text("x")
        path = source if kind == "bind" else source / "x"
        row |= {"type": "bind", "source": str(path), "options": ["bind"]}
    bundle.config["mounts"].append(row)
    answer = ocimig.run(bundle.shell("true"), timeout=SLOW)
    assert "Traceback" not in answer.err
    assert answer.code == 0, answer


@own
@pytest.mark.parametrize("path", ["/proc/self/attr", "/proc/sys", "/proc/1", "/x/../proc/sys/net"])
@pytest.mark.parametrize("kind", ["tmpfs", "bind"])
def test_a_mount_inside_proc_is_refused_by_name(
    ocimig: Ocimig, bundle: Bundle, path: str, kind: str, tmp_path: Path
) -> None:
    """What covers a file of /proc could catch what is meant for the kernel (CVE-2019-16884)."""
    options = ["bind"] if kind == "bind" else []
    source = str(tmp_path) if kind == "bind" else "tmpfs"
    bundle.config["mounts"].append(
        {"destination": path, "type": kind, "source": source, "options": options}
    )
    answer = ocimig.run(bundle.shell("true"), code=1)
    assert "inside /proc" in answer.err
    assert "mounts[7].destination" in answer.err


@pytest.mark.parametrize("name", ["meminfo", "uptime", "stat"])
def test_files_of_proc_that_others_serve_may_be_covered(
    ocimig: Ocimig, bundle: Bundle, tmp_path: Path, name: str
) -> None:
    """lxcfs does so."""
    (tmp_path / "served").write_text("served\n")
    bundle.config["mounts"].append(
        {"destination": f"/proc/{name}", "type": "bind", "source": str(tmp_path / "served"),
         "options": ["bind"]}
    )  # fmt: skip
    assert ocimig.run(bundle.shell(f"cat /proc/{name}"), code=0).out == "served\n"


@own
def test_a_null_device_that_leads_to_the_kernel_is_not_bound(
    ocimig: Ocimig, bundle: Bundle
) -> None:
    """CVE-2025-31133: with /dev/null a link to core_pattern, masking a file would open that file."""
    plain_dev(bundle)
    (bundle.rootfs / "dev/null").symlink_to("/proc/sys/kernel/core_pattern")
    pattern = Path("/proc/sys/kernel/core_pattern").read_text()
    bundle.linux["readonlyPaths"] = []
    bundle.linux["maskedPaths"] = ["/proc/sysrq-trigger", "/etc/hostname"]
    script = (
        "cat /etc/hostname; for f in /etc/hostname /proc/sysrq-trigger; do echo '|/x' >$f; done"
    )
    answer = ocimig.run(bundle.shell(script))
    assert pattern not in answer.out
    assert Path("/proc/sys/kernel/core_pattern").read_text() == pattern


def test_masked_links_hide_what_they_lead_to_inside(
    ocimig: Ocimig, bundle: Bundle, outside: Path
) -> None:
    """Absolute, climbing, dangling and circular ones; the host's file is never covered."""
    for name in ("absolute", "climbing", "dangling", "loop"):
        plant(bundle.rootfs / name, name, outside)
    (bundle.rootfs / "real").write_text("secret\n")
    (bundle.rootfs / "link").symlink_to("real")
    bundle.linux["maskedPaths"] = ["/absolute", "/climbing", "/dangling", "/link", "/../real"]
    answer = ocimig.run(bundle.shell("cat /real /link"), timeout=SLOW, code=0)
    assert answer.out == ""
    assert (outside / "file").read_text() == "of the host\n"


def test_a_thousand_masked_paths(ocimig: Ocimig, bundle: Bundle) -> None:
    """Most twice, some missing; in seconds."""
    (bundle.rootfs / "d").mkdir()
    for number in range(400):
        (bundle.rootfs / f"d/f{number}").write_text("secret")
    bundle.linux["maskedPaths"] = [f"/d/f{number % 500}" for number in range(1000)]
    started = time.monotonic()
    assert ocimig.run(bundle.shell("cat /d/*"), code=0, timeout=60).out == ""
    assert time.monotonic() - started < 15


@own
def test_two_thousand_bind_mounts_with_the_usual_limit(
    ocimig: Ocimig, bundle: Bundle, outside: Path
) -> None:
    """A caller may have 1024 descriptors; the container gets the limit it would have had."""
    for number in range(2000):
        bundle.config["mounts"].append(
            {"destination": f"/many/{number}", "type": "bind", "source": str(outside / "file"),
             "options": ["bind", "ro"]}
        )  # fmt: skip
    del bundle.process["rlimits"]
    bundle.shell("grep -c ' /many/' /proc/self/mountinfo; ulimit -n; ulimit -Hn")
    hard = min(65536, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    ocimig.prefix = ("prlimit", f"--nofile=1024:{hard}")
    answer = ocimig.run(bundle, code=0, timeout=60)
    assert answer.out.split() == ["2000", "1024", str(hard)]


@own
@pytest.mark.parametrize("size", [300, 3000, 5000, 1 << 20])
def test_a_long_mount_option_is_refused_in_words(ocimig: Ocimig, bundle: Bundle, size: int) -> None:
    """CVE-2021-43784: no length overflows anything."""
    bundle.config["mounts"].append(
        {"destination": "/x", "type": "tmpfs", "source": "t", "options": ["mode=" + "7" * size]}
    )
    answer = ocimig.run(bundle.shell("true"), code=1)
    assert "tmpfs" in answer.err or "mounts[7].options" in answer.err
    assert len(answer.err) < 4096, "the option need not be quoted whole"


@own
def test_a_huge_annotation_is_kept_or_refused(ocimig: Ocimig, bundle: Bundle) -> None:
    """It does no harm."""
    bundle.config["annotations"] = {"a": "x" * (1 << 17)}
    id = ocimig.launch(bundle.write())
    assert len(ocimig.state(id)["annotations"]["a"]) == 1 << 17
    bundle.config["annotations"] = {"a": "x" * (1 << 20)}
    assert "annotations.a" in ocimig.run(bundle.write(), code=1).err


@pytest.mark.parametrize("what", ["destination", "cwd", "masked"])
def test_a_path_longer_than_the_kernel_takes_is_refused(
    ocimig: Ocimig, bundle: Bundle, what: str
) -> None:
    """By an error, not by a cut."""
    long = "/" + "/".join(["x" * 200] * 30)
    if what == "destination":
        bundle.config["mounts"].append({"destination": long, "type": "tmpfs", "source": "t"})
    elif what == "cwd":
        bundle.process["cwd"] = long
    else:
        bundle.linux["maskedPaths"] = [long]
    answer = ocimig.run(bundle.shell("true"))
    assert answer.code == 1
    assert "Traceback" not in answer.err


@own
def test_two_starts_at_once_may_share_what_is_missing(ocimig: Ocimig, bundle: Bundle) -> None:
    """One root file system, several containers, and the same mount points to be made."""
    for number in range(40):
        bundle.config["mounts"].append(
            {"destination": f"/made/a{number}/b/c", "type": "tmpfs", "source": "t"}
        )
    bundle.process["cwd"] = "/made/work/here"
    bundle.shell("true")
    for _ in range(4):
        running = [
            ocimig.popen("run", "--bundle", bundle.path, ocimig.new_id(), stderr=subprocess.PIPE)
            for _ in range(4)
        ]
        for process in running:
            _, err = process.communicate(timeout=60)
            assert process.returncode == 0, err
        subprocess.run(["rm", "-r", bundle.rootfs / "made"], check=True)


RACE = r"""
import ctypes, os, sys
libc = ctypes.CDLL(None)
a, b = (os.fsencode(p) for p in sys.argv[1:3])
while os.getppid() == int(sys.argv[3]):
    for _ in range(1000):
        libc.renameat2(-100, a, -100, b, 2)
"""


@own
def test_a_race_on_a_mount_point_never_leads_outside(
    ocimig: Ocimig, bundle: Bundle, tmp_path: Path, outside: Path
) -> None:
    """CVE-2021-30465: a directory and a link to the outside swapped all the time, in a shared volume."""
    shared = bundle.rootfs / "volume"
    (shared / "spot").mkdir(parents=True)
    (shared / "link").symlink_to("../" * 30 + str(outside)[1:])
    data = tmp_path / "data"
    data.mkdir()
    swapper = subprocess.Popen(
        [sys.executable, "-c", RACE, shared / "spot", shared / "link", str(os.getpid())]
    )
    bundle.config["mounts"] += [
        {"destination": "/volume", "type": "bind", "source": str(shared), "options": ["rbind"]},
        {"destination": "/volume/spot/made", "type": "tmpfs", "source": "t"},
        {"destination": "/volume/spot/bound", "type": "bind", "source": str(data),
         "options": ["bind"]},
        {"destination": "/volume/spot", "type": "tmpfs", "source": "t"},
    ]  # fmt: skip
    bundle.linux["devices"] = [
        {"path": "/volume/spot/dev/node", "type": "c", "major": 1, "minor": 3}
    ]
    bundle.linux["maskedPaths"] = ["/volume/spot/file"]
    bundle.process["cwd"] = "/volume/spot/work"
    bundle.shell("true")
    codes = []
    try:
        end = time.monotonic() + 10
        while time.monotonic() < end:
            codes.append(ocimig.run(bundle, timeout=SLOW).code)
            assert os.listdir(outside) == ["file"]
    finally:
        swapper.kill()
        swapper.wait()
    assert str(outside) not in Path("/proc/self/mountinfo").read_text()
    assert 0 in codes, codes
