"""What preflight says of the inside of a container, against what CRIU really does with it."""

import json
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ocimig.criu_images import image
from ocimig.migrate import facts, inside
from ocimig.runtime.store import Store
from ocimig_testkit import Bundle, HostPair, Ocimig, make_bundle, until
from ocimig_testkit.box import Box
from ocimig_testkit.session import TOKEN

pytestmark = [pytest.mark.root, pytest.mark.criu]

# mode of blocker.c, name of the finding, where it is
NOT_DUMPED = [
    ("io_uring", "io_uring", "descriptor"),
    ("io_uring_mapped", "io_uring", "mapped at"),
    ("userfault", "userfaultfd", "descriptor"),
    ("perf", "perf event", "descriptor"),
    ("bpf_program", "bpf", "descriptor"),
    ("seccomp_listener", "seccomp listener", "descriptor"),
    ("landlock_ruleset", "landlock ruleset", "descriptor"),
    ("mount_context", "file system context", "descriptor"),
    ("secret_memory", "secret memory", "mapped at"),
    ("thread_pidfd", "thread pidfd", "descriptor"),
    ("packet_pipe", "packet pipe", "descriptor"),
    ("kvm", "virtual machine", "descriptor"),
    ("loop_control", "device", "descriptor"),
    ("fuse", "fuse", "descriptor"),
    ("message_queue", "message queues", "/dev/mqueue: q"),
    ("deleted_big", "deleted file", "of 70 MiB at descriptor"),
    ("deleted_mapped", "deleted file", "of 70 MiB mapped at"),
    ("inotify_proc", "inotify", "descriptor"),
    ("unix_outside", "unix socket", "descriptor"),
    ("unix_outside_datagrams", "unix socket", "descriptor"),
    ("socket_file", "socket file", "/tmp/s"),
    ("vsock", "socket", "AF_VSOCK"),
    ("netlink_queue", "queued messages", "descriptor"),
    ("mptcp", "socket", "MPTCP"),
    ("not_accepted", "waiting connections", "descriptor"),
    ("leave_thread", "ended leader", "process"),
    ("shared_memory_space", "shared memory space", "process"),
    ("nested_user", "nested namespace", "user"),
    ("nested_uts", "nested namespace", "uts"),
    ("nested_ipc", "nested namespace", "ipc"),
    ("nested_pid", "nested namespace", "pid"),
    ("lost_namespace", "foreign namespace", "net:["),
]
NOT_RESTORED = [
    ("tun", "tun", "/dev/tun"),
    ("deadline", "deadline scheduling", "SCHED_DEADLINE"),
    ("deleted_twice", "file in a deleted directory", "/tmp/q/f"),
]
FINE = ["nothing", "deleted_small", "inotify_file", "inotify_pts", "unix_waiting", "unix_pair", "packet", "raw",
        "netlink", "nested_mount", "shared_segment"]  # fmt: skip
ALLOWED = [("lock", "file lock", "file_locks"), ("lock_of_record", "file lock", "file_locks"),
           ("linked", "renamed file", "link_remap")]  # fmt: skip


@pytest.fixture(scope="session")
def blocker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """blocker.c, compiled."""
    target = tmp_path_factory.mktemp("blocker") / "blocker"
    source = Path(__file__).with_name("blocker.c")
    command = [
        "cc",
        "-static",
        "-O1",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-o",
        str(target),
        str(source),
    ]
    subprocess.run(command, check=True)
    return target


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """A directory of the host with a socket of each kind that answers."""
    place = tmp_path / "outside"
    place.mkdir()
    stream, datagrams = (
        socket.socket(socket.AF_UNIX),
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM),
    )
    with stream, datagrams:
        stream.bind(str(place / "stream"))
        datagrams.bind(str(place / "datagrams"))
        stream.listen()
        kept: list[socket.socket] = []
        answering = threading.Thread(target=_accept, args=(stream, kept))
        answering.start()
        yield place
        stream.shutdown(socket.SHUT_RDWR)
        answering.join(5)
        for each in kept:
            each.close()


def _accept(listener: socket.socket, kept: list[socket.socket]) -> None:
    while True:
        try:
            kept.append(listener.accept()[0])
        except OSError:
            return


@pytest.fixture
def hold(
    ocimig: Ocimig, bundle: Bundle, blocker: Path, outside: Path, tmp_path: Path
) -> Callable[[str], Box]:
    """Start a container that holds what the mode says, with every capability there is."""

    def start(mode: str) -> Box:
        _prepare(bundle, blocker)
        bundle.config["mounts"].append(
            {
                "destination": "/outside",
                "type": "bind",
                "source": str(outside),
                "options": ["rbind"],
            }
        )
        box = Box(ocimig, bundle, tmp_path / "output").run(mode)
        if "cannot" in box.output.read_text():
            pytest.skip(f"{mode}: {box.output.read_text().strip()}")
        until(box.lines, f"{mode} to count")
        return box

    return start


def _prepare(bundle: Bundle, blocker: Path) -> None:
    shutil.copy2(blocker, bundle.rootfs / "bin/worker")
    (bundle.rootfs / "tmp").mkdir(exist_ok=True)
    status = Path("/proc/self/status").read_text().split("CapEff:\t", 1)[1]
    held = int(status.split()[0], 16)
    names = [
        line.split()[1]
        for line in Path("/usr/include/linux/capability.h").read_text().splitlines()
        if line.startswith("#define CAP_") and line.split()[-1].isdigit()
    ]
    for kind in ("bounding", "effective", "permitted", "inheritable"):
        bundle.process["capabilities"][kind] = [
            name for number, name in enumerate(names) if held >> number & 1
        ]
    bundle.process["noNewPrivileges"] = False
    bundle.linux["resources"] = {"devices": [{"allow": True, "access": "rwm"}]}


def found(box: Box, wishes: inside.Wishes = inside.Wishes()) -> list[inside.Finding]:  # noqa: B008
    """What preflight finds in the container."""
    store = Store(str(box.ocimig.root))
    looked = facts.container(store.load(box.id), store.config(box.id))
    return list(inside.findings(looked["objects"], wishes))


def named(box: Box, name: str, where: str) -> None:
    """It is refused by that name, with the process or the place, and a fix; the container goes on."""
    refused = [each for each in found(box) if each.severity == inside.REFUSE and each.name == name]
    assert refused, found(box)
    assert where in refused[0].text
    assert "process" in refused[0].text or "mount" in refused[0].text or "queues" in refused[0].text
    assert refused[0].fix
    box.goes_on()


@pytest.mark.parametrize(("mode", "name", "where"), NOT_DUMPED, ids=[row[0] for row in NOT_DUMPED])
def test_what_cannot_be_dumped_is_named(
    hold: Callable[[str], Box], mode: str, name: str, where: str
) -> None:
    """Preflight names it, and CRIU does fail."""
    box = hold(mode)
    named(box, name, where)
    options = ("--tcp-established", "--file-locks", "--link-remap", "--ext-unix-sk")
    said = box.checkpoint(*options, code=1)
    assert "criu dump failed" in said or "criu cannot save" in said
    box.goes_on()


@pytest.mark.parametrize(
    ("mode", "name", "where"), NOT_RESTORED, ids=[row[0] for row in NOT_RESTORED]
)
def test_what_cannot_be_restored_is_named(
    hold: Callable[[str], Box], mode: str, name: str, where: str
) -> None:
    """CRIU dumps it and cannot bring it back: that would show only at the destination."""
    box = hold(mode)
    named(box, name, where)
    box.checkpoint()
    assert "criu restore failed" in box.restore(code=1)


@pytest.mark.parametrize("mode", FINE)
def test_what_criu_can_do_is_not_named(hold: Callable[[str], Box], mode: str) -> None:
    """No suspicion without a reason."""
    box = hold(mode)
    assert found(box) == []
    box.checkpoint()
    box.restore()
    box.goes_on()


@pytest.mark.parametrize(("mode", "name", "option"), ALLOWED, ids=[row[0] for row in ALLOWED])
def test_what_an_option_allows_is_named_with_it(
    hold: Callable[[str], Box], mode: str, name: str, option: str
) -> None:
    """Refused without the option, which the fix names; with it nothing is said and CRIU succeeds."""
    box = hold(mode)
    flag = "--" + option.replace("_", "-")
    named(box, name, "descriptor")
    assert flag in found(box)[0].fix
    box.checkpoint(code=1)
    assert found(box, inside.Wishes(**{option: True})) == []
    box.checkpoint(flag)
    box.restore(flag)
    box.goes_on()


def test_a_traced_process_is_named(hold: Callable[[str], Box]) -> None:
    """CRIU would wait for it as long as it is patient, with the container frozen: a checkpoint refuses too."""
    box = hold("traced")
    named(box, "traced", "traced by process")
    began = time.monotonic()
    said = box.checkpoint(code=1)
    assert "is traced by process" in said
    assert "detach the debugger" in said
    assert time.monotonic() - began < 10
    box.goes_on()


@pytest.mark.overlay
def test_a_mount_that_would_be_lost_is_named(hold: Callable[[str], Box]) -> None:
    """An overlay made inside: neither CRIU nor config.json can make it again."""
    box = hold("overlay_mount")
    named(box, "mount", "/tmp/m")
    said = box.checkpoint(code=1)
    assert "/tmp/m is a file system (overlay) mounted inside" in said
    assert "unmount it in the container" in said
    box.goes_on()


@pytest.mark.parametrize("kind", ["bind", "cgroup"])
def test_an_image_with_a_mount_of_no_place_is_refused(
    hold: Callable[[str], Box], kind: str
) -> None:
    """An empty path is not the bundle, which the container would then find there, and could write to."""
    box = hold("nothing")
    box.checkpoint()
    path = box.image / image.MANIFEST
    manifest = json.loads(path.read_text())
    mount = {"key": "m9999", "kind": kind, "target": "/outside", "controller": "no such hierarchy"}
    mounts = [each for each in manifest["facts"]["mounts"] if each["target"] != "/outside"]
    manifest["facts"]["mounts"] = [*mounts, mount]
    path.write_text(json.dumps(manifest))
    said = box.restore(code=1)
    assert "mount /outside: nothing on this host" in said
    assert box.id not in box.ocimig("list", "-q").out


def test_a_process_that_came_by_exec_is_named(hold: Callable[[str], Box]) -> None:
    """It is not below the first process, so CRIU does not see it: it ends with the move."""
    box = hold("nothing")
    process = box.ocimig.popen("exec", box.id, "/bin/sleep", "1000")
    try:
        until(lambda: any("(sleep)" in each.text for each in found(box)), "it to be named")
        (finding,) = found(box)
        assert (finding.name, finding.severity) == ("exec", inside.WARN)
    finally:
        process.kill()
        process.wait()


@pytest.mark.overlay
@pytest.mark.parametrize("mode", ["inotify_file", "inotify_deep", "fanotify"])
def test_a_watch_on_an_overlay_is_kept(
    hold: Callable[[str], Box], bundle: Bundle, tmp_path: Path, mode: str
) -> None:
    """There is no handle that could be opened: CRIU is told the names. The root is an overlay, as engines make it."""
    layers = [bundle.rootfs.rename(tmp_path / "lower"), tmp_path / "upper", tmp_path / "work"]
    for directory in (*layers[1:], bundle.rootfs):
        directory.mkdir()
    options = ",".join(
        f"{name}dir={layer}" for name, layer in zip(("lower", "upper", "work"), layers, strict=True)
    )
    mount = ["mount", "-t", "overlay", "overlay", "-o", options, str(bundle.rootfs)]
    subprocess.run(mount, check=True)
    try:
        box = hold(mode)
        assert found(box) == []
        before = _watches(box)
        box.checkpoint()
        box.restore()
        box.goes_on()
        assert _watches(box) == before
        box.ocimig("delete", "--force", box.id)
    finally:
        subprocess.run(["umount", "-l", str(bundle.rootfs)], check=True)


def _watches(box: Box) -> list[str]:
    """The inodes that its first process watches, and for what."""
    found = []
    for info in Path(f"/proc/{box.ocimig.pid(box.id)}/fdinfo").iterdir():
        for line in info.read_text().splitlines():
            if line.startswith(("inotify ", "fanotify ino:")):
                words = dict(word.split(":", 1) for word in line.split()[1:])
                found.append(f"{words['ino']} {words['mask']}")
    assert found
    return sorted(found)


@pytest.mark.netns
@pytest.mark.ssh
def test_a_migration_is_refused_before_anything_is_touched(hosts: HostPair, blocker: Path) -> None:
    """Exit code 14, process, descriptor and fix; the container runs on and the other host has nothing."""
    bundle = make_bundle(hosts.a.bundles / "held", "/bin/worker", "packet_pipe")
    _prepare(bundle, blocker)
    bundle.write()
    id = f"{TOKEN}-held"
    for host in (hosts.a, hosts.b):
        host.ocimig.ids.append(id)
    hosts.a.ocimig("run", "-d", "-b", "/srv/held", id)
    pid = hosts.a.ocimig.pid(id)
    until(lambda: Path(f"/proc/{pid}/fd/4").is_symlink(), "the pipe")
    said = hosts.a.ocimig(
        "migrate", "--identity", hosts.identity, "--known-hosts", hosts.known_hosts, id, hosts.b.target,
        code=14,
    ).err  # fmt: skip
    assert f"process {pid} (worker) has a pipe in packet mode" in said
    assert "nothing was changed" in said
    assert hosts.a.ocimig.status(id) == "running"
    assert hosts.a.ocimig.pid(id) == pid
    assert list(hosts.b.bundles.iterdir()) == []
