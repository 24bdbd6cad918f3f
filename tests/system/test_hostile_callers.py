"""Programs and callers that mean harm: nothing of the host is changed, loaded, or handed over."""

import fcntl
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ocimig_testkit import TOKEN, Bundle, Ocimig, until
from ocimig_testkit.hostile import SLOW
from ocimig_testkit.probes import ROOT

pytestmark = [pytest.mark.root, pytest.mark.busybox]
own = pytest.mark.skipif("OCIMIG_RUNTIME" in os.environ, reason="another runtime does otherwise")
INIT = ROOT / "runtime/init/ocimig-init"
SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


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


@pytest.mark.parametrize("by_link", [False, True])
def test_exec_does_not_start_in_a_directory_of_the_host(
    ocimig: Ocimig, bundle: Bundle, by_link: bool
) -> None:
    """CVE-2024-21626 for exec: by a number, or by a link that the image brought."""
    leaked = os.open("/", os.O_RDONLY)
    os.set_inheritable(leaked, True)
    for number in range(3, 16):
        (bundle.rootfs / f"work{number}").symlink_to(f"/proc/self/fd/{number}")
    id = ocimig.launch(bundle)
    try:
        for number in range(3, 16):
            path = f"/work{number}" if by_link else f"/proc/self/fd/{number}"
            answer = ocimig.exec(
                id, "/bin/ls", options=["--cwd", path], code=None, pass_fds=(leaked,)
            )
            assert answer.code != 0, answer
            assert answer.out == ""
    finally:
        os.close(leaked)
