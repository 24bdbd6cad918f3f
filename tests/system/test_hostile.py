"""Images, configurations and callers that mean harm: refused by name or harmless, and never slow."""

import fcntl
import hashlib
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ocimig_testkit import Bundle, Ocimig, until
from ocimig_testkit.probes import ROOT

pytestmark = [pytest.mark.root, pytest.mark.busybox]
own = pytest.mark.skipif("OCIMIG_RUNTIME" in os.environ, reason="another runtime does otherwise")
INIT = ROOT / "runtime/init/ocimig-init"
SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
SLOW = 20.0  # seconds: a fifo that is opened, or a link that leads in circles, would last for ever


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """A directory of the host with one file; nothing in it may change."""
    path = tmp_path / "outside"
    path.mkdir()
    (path / "file").write_text("of the host\n")
    os.chmod(path / "file", 0o644)
    before = facts(path)
    yield path
    assert facts(path) == before


def facts(directory: Path) -> list[tuple[str, int, int, bytes]]:
    """Names, modes, owners and content below a directory."""
    return [
        (name, (stat := os.lstat(path := Path(where) / name)).st_mode, stat.st_uid,
         path.read_bytes() if path.is_file() else b"")
        for where, directories, files in os.walk(directory) for name in sorted(directories + files)
    ]  # fmt: skip


def plain_dev(bundle: Bundle) -> Bundle:
    """/dev of the image itself, without the tmpfs and what lies in it."""
    mounts = bundle.config["mounts"]
    bundle.config["mounts"] = [row for row in mounts if not row["destination"].startswith("/dev")]
    return bundle.write()


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


SHAPES = ["file", "fifo", "absolute", "climbing", "dangling", "loop", "to file", "magic"]


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
@pytest.mark.parametrize("name", ["null", "zero", "tty", "console", "ptmx", "fd", "stdin"])
@pytest.mark.parametrize("terminal", [False, True])
def test_a_strange_device_of_the_image_is_refused_or_harmless(
    ocimig: Ocimig, bundle: Bundle, outside: Path, name: str, shape: str, terminal: bool
) -> None:
    """Where the image's own /dev is used, nothing behind a link is made, opened or changed."""
    if terminal and name not in {"console", "ptmx"}:
        pytest.skip("only these two are looked at for a terminal")
    keep = [row for row in bundle.config["mounts"] if row["destination"] == "/dev/pts"]
    plain_dev(bundle)
    bundle.config["mounts"] += keep
    plant(bundle.rootfs / f"dev/{name}", shape, outside)
    bundle.process["terminal"] = terminal
    bundle.shell("echo ran >/dev/null")
    if not terminal:
        assert "Traceback" not in ocimig.run(bundle, timeout=SLOW).err
        return
    from ocimig_testkit.console import ConsoleSocket

    with ConsoleSocket(bundle.path / "console") as console:
        answer = ocimig(
            "run", "-d", "--bundle", bundle.path, "--console-socket", console.path,
            ocimig.new_id(), code=None, timeout=SLOW,
        )  # fmt: skip
        assert "Traceback" not in answer.err


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


# ---- programs


def digest(path: Path) -> str:
    """Of a file of the host."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def precious() -> dict[Path, str]:
    """The host's files that run on behalf of a container."""
    library = Path(sys.base_prefix) / "lib"
    found = [Path(os.path.realpath(sys.executable)), INIT, *library.glob("libpython3*.so*")]
    return {path: digest(path) for path in found}


WRITER = """
while :; do for p in /proc/[0-9]*; do
  (echo harm >>"$p/exe") 2>/dev/null && echo "$p" >>/harmed
done; done"""


@own
@pytest.mark.parametrize("first", ["#!/proc/self/exe\n", "#!/proc/self/exe 0\n"])
def test_an_entrypoint_that_is_the_runtime_itself(
    ocimig: Ocimig, bundle: Bundle, first: str
) -> None:
    """CVE-2019-5736: executed again it does nothing, and its bytes stay as they are."""
    before = precious()
    script = bundle.rootfs / "entry"
    script.write_text(first)
    script.chmod(0o755)
    answer = ocimig.run(bundle.argv("/entry"), timeout=SLOW)
    assert answer.code != 0
    assert answer.out == ""
    ocimig.run(bundle.argv("/proc/self/exe", "0", "3"), timeout=SLOW)
    assert precious() == before


@own
def test_writing_to_every_exe_changes_nothing_of_the_host(ocimig: Ocimig, bundle: Bundle) -> None:
    """A loop in the container tries it on all it sees while processes are added to it."""
    before = precious()
    script = bundle.rootfs / "entry"
    script.write_text("#!/proc/self/exe\n")
    script.chmod(0o755)
    id = ocimig.launch(bundle.shell(WRITER))
    for _ in range(20):
        ocimig.exec(id, "true", code=0)
        ocimig.exec(id, "/entry", code=None)
    ocimig.kill(id)
    assert precious() == before
    assert not (bundle.rootfs / "harmed").exists()


@own
def test_the_program_inside_is_a_sealed_copy(ocimig: Ocimig, bundle: Bundle) -> None:
    """F_GET_SEALS of what a created container executes."""
    pid = ocimig.pid(ocimig.create(bundle))
    name = os.readlink(f"/proc/{pid}/exe")
    assert "memfd:ocimig-init" in name
    with open(f"/proc/{pid}/exe", "rb") as file:
        assert fcntl.fcntl(file, fcntl.F_GET_SEALS) & SEALS == SEALS
        assert hashlib.sha256(file.read()).hexdigest() == digest(INIT)
    with pytest.raises(OSError, match=r"Text file busy|Operation not permitted"):
        with open(f"/proc/{pid}/exe", "r+b") as file:
            os.write(file.fileno(), b"harm")


def test_poisoned_libraries_of_the_image_are_not_loaded(ocimig: Ocimig, bundle: Bundle) -> None:
    """CVE-2019-14271: ld.so.preload, NSS, gconv and Python's library lie ready; none is touched."""
    library = bundle.path / "poison.so"
    source = (
        "#include <fcntl.h>\n#include <unistd.h>\n__attribute__((constructor)) static void f(void)"
        '{ close(open("/marker", O_CREAT | O_WRONLY, 0644)); }\n'
    )
    subprocess.run(
        ["gcc", "-shared", "-fPIC", "-x", "c", "-", "-o", library],
        input=source.encode(), check=True,
    )  # fmt: skip
    for name in ("libnss_files.so.2", "libnss_compat.so.2", "libc.so.6", "libpython3.11.so.1.0",
                 "gconv/UTF-8.so", "ld-linux-x86-64.so.2"):  # fmt: skip
        for where in ("lib", "lib64", "usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"):
            path = bundle.rootfs / where / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(library.read_bytes())
    (bundle.rootfs / "etc/ld.so.preload").write_text("/lib/libc.so.6\n")
    (bundle.rootfs / "etc/nsswitch.conf").write_text("passwd: files\nhosts: files\n")
    for version in ("3.11", "3.12", "3.13"):
        path = bundle.rootfs / f"usr/lib/python{version}"
        path.mkdir(parents=True)
        for name in ("os.py", "signal.py", "encodings.py", "termios.py", "site.py", "json.py"):
            (path / name).write_text("open('/marker', 'w')\n")
    bundle.process["user"] = {"uid": 1000, "gid": 1000}
    id = ocimig.launch(bundle.shell("while :; do sleep 1; done"))
    ocimig.exec(id, "/bin/id", code=0)
    ocimig.exec(id, "nosuch", code=None)
    assert not (bundle.rootfs / "marker").exists()
    assert not Path("/marker").exists()


# ---- callers


@own
@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("verb", ["run", "run -d", "create", "exec"])
def test_closed_standard_streams_hand_over_nothing_of_the_host(
    ocimig: Ocimig, bundle: Bundle, closed: str, verb: str
) -> None:
    """Descriptors 0-2 of the container are then the null device, never a file of the runtime."""
    script = "for n in 0 1 2; do readlink /proc/self/fd/$n || echo none; done >/seen.new; " \
             "ls -1 /proc/self/fd | wc -l >>/seen.new; mv /seen.new /seen; while [ -e /wait ]; do sleep 0.1; done"  # fmt: skip
    seen = bundle.rootfs / "seen"
    id = ocimig.new_id()
    if verb == "exec":
        ocimig.launch(bundle, id=id)
        argv = ocimig.command("exec", id, "/bin/sh", "-c", script)
    else:
        (bundle.rootfs / "wait").touch()
        if verb == "run":
            (bundle.rootfs / "wait").unlink()
        bundle.shell(script)
        argv = ocimig.command(*verb.split(), "--bundle", str(bundle.path), id)
    with (bundle.path / "said").open("w+b") as said:  # no pipe: the container would keep it open
        ended = subprocess.run(
            ["bash", "-c", f'exec "$@" {closed}', "bash", *argv],
            timeout=SLOW, check=False, stdin=subprocess.DEVNULL, stdout=said, stderr=said,
        )  # fmt: skip
    assert ended.returncode == 0, (bundle.path / "said").read_text()
    if verb == "create":
        ocimig.start(id)
    until(seen.exists, "it to look")
    lines = seen.read_text().split()
    numbers = [number for number, mark in enumerate(("<&-", ">&-", "2>&-"))
               if mark in closed.split()]  # fmt: skip
    for number in numbers:
        if number != 1:  # the script's own loop writes to its file there
            assert lines[number] in {"/dev/null", "none"}, lines
    (bundle.rootfs / "wait").unlink(missing_ok=True)


@own
@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("verb", ["run", "exec", "create"])
def test_a_preserved_descriptor_that_did_not_come_is_refused(
    ocimig: Ocimig, bundle: Bundle, tmp_path: Path, log: bool, verb: str
) -> None:
    """Number 3 must then not be something that the runtime has opened itself."""
    if log:
        ocimig.globals = ("--log", str(tmp_path / "log"))
    script = "ls -l /proc/self/fd/ | grep -v ' -> /proc'"
    if verb == "exec":
        id = ocimig.launch(bundle)
        answer = ocimig("exec", "--preserve-fds", "1", id, "/bin/sh", "-c", script, code=None)
    else:
        bundle.shell(script)
        answer = ocimig(
            verb, "--preserve-fds", "1", "--bundle", bundle.path, ocimig.new_id(), code=None
        )
    assert answer.code in {1, 255}, answer
    assert "unable to stat preserved-fd 0 (of 1)" in answer.err
    assert answer.out == ""


@own
def test_the_null_device_of_the_host_keeps_its_owner(ocimig: Ocimig, bundle: Bundle) -> None:
    """Even where the container has no null device to compare with."""
    before = os.stat("/dev/null")
    bundle.process["capabilities"]["effective"].append("CAP_MKNOD")
    id = ocimig.launch(bundle)
    ocimig.exec(id, "rm", "/dev/null", code=0)
    ocimig.exec(id, "/bin/true", options=["--user", "1000:1000"], code=0)
    after = os.stat("/dev/null")
    try:
        assert (after.st_uid, after.st_gid) == (before.st_uid, before.st_gid)
    finally:
        os.chown("/dev/null", before.st_uid, before.st_gid)


@own
def test_a_namespace_path_that_is_a_fifo_does_not_hang(
    ocimig: Ocimig, bundle: Bundle, tmp_path: Path
) -> None:
    """It is no namespace: refused at once."""
    os.mkfifo(tmp_path / "fifo")
    bundle.linux["namespaces"][1]["path"] = str(tmp_path / "fifo")
    answer = ocimig.run(bundle.shell("true"), code=1, timeout=SLOW)
    assert "network" in answer.err


@own
@pytest.mark.parametrize("path", ["../../../x", "/../../x", "/a/../../../x", "a/./../b"])
def test_a_cgroups_path_does_not_climb(ocimig: Ocimig, bundle: Bundle, path: str) -> None:
    """Nothing is made beside or above the root of the hierarchies."""
    from ocimig_testkit import TOKEN

    bundle.linux["cgroupsPath"] = f"{path}-{TOKEN}"
    answer = ocimig.run(bundle.shell("cat /proc/self/cgroup"))
    assert "Traceback" not in answer.err
    assert "/.." not in answer.out
    assert not Path(f"/sys/x-{TOKEN}").exists()


def test_the_state_of_another_user_is_not_readable(ocimig: Ocimig, bundle: Bundle) -> None:
    """The directory is 0711, what it holds is the owner's."""
    id = ocimig.launch(bundle)
    directory = ocimig.root / id
    assert directory.stat().st_mode & 0o077 in {0o011, 0}
    for name in ("state.json", "config.json"):
        if (directory / name).exists():
            assert (directory / name).stat().st_mode & 0o077 == 0, name
