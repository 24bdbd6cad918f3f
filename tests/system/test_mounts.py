"""Mounts of config.json as a container sees them, and root file systems that try to lead them astray."""

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ocimig.migrate import facts
from ocimig_testkit import Bundle, Ocimig

pytestmark = [pytest.mark.root, pytest.mark.busybox]
own = pytest.mark.skipif("OCIMIG_RUNTIME" in os.environ, reason="another runtime does otherwise")


def mount(bundle: Bundle, destination: str, **fields: Any) -> Bundle:
    """Add one mount."""
    bundle.config["mounts"].append({"destination": destination, **fields})
    return bundle.write()


def bind(bundle: Bundle, source: Path | str, destination: str, *options: str) -> Bundle:
    """Add one bind mount."""
    words = list(options) if {"bind", "rbind"} & set(options) else ["bind", *options]
    return mount(bundle, destination, type="bind", source=str(source), options=words)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A directory of the host with one file."""
    path = tmp_path / "data"
    path.mkdir()
    (path / "file").write_text("of the host\n")
    return path


def test_a_directory_is_bound_and_may_be_written(
    ocimig: Ocimig, bundle: Bundle, data: Path
) -> None:
    """The destination is made, what is written there is on the host."""
    bind(bundle, data, "/deep/er/data").shell(
        "cat /deep/er/data/file; echo new > /deep/er/data/new"
    )
    assert ocimig.run(bundle, code=0).out == "of the host\n"
    assert (data / "new").read_text() == "new\n"


def test_a_file_is_bound(ocimig: Ocimig, bundle: Bundle, data: Path) -> None:
    """Over a file that is there, and over one that is not."""
    bind(bundle, data / "file", "/etc/hostname")
    bind(bundle, data / "file", "/made/file").shell("cat /etc/hostname /made/file")
    assert ocimig.run(bundle, code=0).out == "of the host\n" * 2


def test_a_relative_source_is_below_the_bundle(ocimig: Ocimig, bundle: Bundle) -> None:
    """As the specification says."""
    (bundle.path / "extra").mkdir()
    (bundle.path / "extra/file").write_text("of the bundle\n")
    bind(bundle, "extra", "/data").shell("cat /data/file")
    assert ocimig.run(bundle, code=0).out == "of the bundle\n"


def test_a_relative_destination_is_below_the_root(
    ocimig: Ocimig, bundle: Bundle, data: Path
) -> None:
    """Deprecated, but still read."""
    bind(bundle, data, "data").shell("cat /data/file")
    assert ocimig.run(bundle, code=0).out == "of the host\n"


def test_a_bind_is_read_only_when_asked(ocimig: Ocimig, bundle: Bundle, data: Path) -> None:
    """Also with the flags that the first mount(2) would have ignored."""
    bind(bundle, data, "/data", "ro", "nosuid", "nodev", "noexec")
    bundle.shell("grep ' /data ' /proc/self/mountinfo | cut -d' ' -f6; echo x > /data/x")
    answer = ocimig.run(bundle, code=1)
    assert set(answer.out.strip().split(",")) >= {"ro", "nosuid", "nodev", "noexec"}
    assert "Read-only file system" in answer.err
    assert not (data / "x").exists()


@pytest.mark.parametrize(("option", "writable"), [("ro", True), ("rro", False)])
def test_read_only_below_the_top_only_with_rro(
    ocimig: Ocimig, bundle: Bundle, data: Path, option: str, writable: bool
) -> None:
    """`ro` of a recursive bind is the top alone; `rro` is the whole tree."""
    (data / "inner").mkdir()
    bind(bundle, data, "/data", "rbind", option)
    # a mount below the source, in a namespace of the runtime's own
    ocimig.prefix = (
        "unshare", "--mount", "sh", "-c",
        f'mount -t tmpfs inner {data}/inner && exec "$@"', "sh",
    )  # fmt: skip
    bundle.shell("grep -q ' /data/inner ' /proc/self/mountinfo || exit 9; echo x > /data/inner/x")
    answer = ocimig.run(bundle)
    assert answer.code == (0 if writable else 1), answer


def test_a_tmpfs_has_its_size_and_mode(ocimig: Ocimig, bundle: Bundle) -> None:
    """The options of the file system itself."""
    mount(
        bundle,
        "/scratch",
        type="tmpfs",
        source="tmpfs",
        options=["nosuid", "mode=1750", "size=1024k", "uid=1000"],
    )
    bundle.shell("stat -c '%a %u' /scratch; df -k /scratch | tail -1")
    lines = ocimig.run(bundle, code=0).out.splitlines()
    assert lines[0] == "1750 1000"
    assert lines[1].split()[1] == "1024"


def test_a_tmpfs_takes_the_files_it_covers(ocimig: Ocimig, bundle: Bundle) -> None:
    """tmpcopyup: what the image has there is in the tmpfs, with its modes and links."""
    directory = bundle.rootfs / "var/lib/app"
    directory.mkdir(parents=True)
    (directory / "file").write_text("of the image\n")
    (directory / "file").chmod(0o640)
    (directory / "link").symlink_to("file")
    mount(bundle, "/var/lib/app", type="tmpfs", source="tmpfs", options=["tmpcopyup", "mode=755"])
    bundle.shell("cat /var/lib/app/link; stat -c %a /var/lib/app/file; echo x > /var/lib/app/new")
    assert ocimig.run(bundle, code=0).out == "of the image\n640\n"
    assert sorted(os.listdir(directory)) == ["file", "link"]


def test_mounts_are_made_in_their_order(ocimig: Ocimig, bundle: Bundle, data: Path) -> None:
    """A later one covers an earlier one and may lie inside it."""
    mount(bundle, "/a", type="tmpfs", source="tmpfs")
    bind(bundle, data, "/a/b/c").shell("cat /a/b/c/file; ls /a")
    assert ocimig.run(bundle, code=0).out == "of the host\nb\n"
    assert not (bundle.rootfs / "a/b").exists()


def test_the_root_is_read_only_when_asked(ocimig: Ocimig, bundle: Bundle) -> None:
    """And the mounts in it are not."""
    bundle.config["root"]["readonly"] = True
    bundle.shell("echo x > /dev/shm/x && echo shm; echo x > /x")
    answer = ocimig.run(bundle, code=1)
    assert answer.out == "shm\n"
    assert "Read-only file system" in answer.err


def test_the_standard_devices_are_there(ocimig: Ocimig, bundle: Bundle) -> None:
    """Nodes, links and ptmx of the specification, whatever config.json lists."""
    script = (
        "for n in null zero full random urandom tty; do stat -c '%n %t %T %a' /dev/$n; done;"
        " for l in fd stdin stdout stderr ptmx; do readlink /dev/$l; done; echo x > /dev/null"
    )
    assert ocimig.run(bundle.shell(script), code=0).out.splitlines() == [
        "/dev/null 1 3 666",
        "/dev/zero 1 5 666",
        "/dev/full 1 7 666",
        "/dev/random 1 8 666",
        "/dev/urandom 1 9 666",
        "/dev/tty 5 0 666",
        "/proc/self/fd",
        "/proc/self/fd/0",
        "/proc/self/fd/1",
        "/proc/self/fd/2",
        "pts/ptmx",
    ]


def test_devices_of_the_config_are_made(ocimig: Ocimig, bundle: Bundle) -> None:
    """With owner and mode, in a directory that is not there yet, and a fifo."""
    bundle.linux["devices"] = [
        {"path": "/dev/sub/zero", "type": "c", "major": 1, "minor": 5, "fileMode": 0o640,
         "uid": 1000, "gid": 1001},
        {"path": "/dev/pipe", "type": "p", "fileMode": 0o600},
    ]  # fmt: skip
    bundle.linux["resources"]["devices"].append(
        {"allow": True, "type": "c", "major": 1, "minor": 5, "access": "rwm"}
    )
    bundle.shell("stat -c '%F %t %T %a %u %g' /dev/sub/zero; stat -c '%F %a' /dev/pipe")
    assert ocimig.run(bundle, code=0).out.splitlines() == [
        "character special file 1 5 640 1000 1001",
        "fifo 600",
    ]


def test_masked_paths_show_nothing(ocimig: Ocimig, bundle: Bundle) -> None:
    """A file is empty, a directory is empty and cannot be written, what is not there is no fault."""
    (bundle.rootfs / "secret").write_text("secret\n")
    (bundle.rootfs / "secrets").mkdir()
    (bundle.rootfs / "secrets/one").write_text("secret\n")
    bundle.linux["maskedPaths"] = ["/secret", "/secrets", "/missing", "/secret", "/proc/kcore"]
    bundle.shell("cat /secret; ls -A /secrets; head -c1 /proc/kcore; touch /secrets/new")
    answer = ocimig.run(bundle, code=1)
    assert answer.out == ""
    assert "Read-only file system" in answer.err
    assert (bundle.rootfs / "secret").read_text() == "secret\n"


def test_read_only_paths_cannot_be_written(ocimig: Ocimig, bundle: Bundle) -> None:
    """Of the root file system and of /proc."""
    (bundle.rootfs / "fixed").mkdir()
    bundle.linux["readonlyPaths"] = ["/fixed", "/missing", "/proc/sys"]
    bundle.shell("touch /fixed/x; echo 1 > /proc/sys/kernel/domainname; touch /free && echo free")
    answer = ocimig.run(bundle, code=0)
    assert answer.out == "free\n"
    assert answer.err.count("Read-only file system") == 2


def test_many_masked_paths_are_quick(ocimig: Ocimig, bundle: Bundle) -> None:
    """Three hundred of them, half of them directories."""
    for number in range(150):
        (bundle.rootfs / f"d{number}").mkdir()
        (bundle.rootfs / f"d{number}/x").write_text("x")
        (bundle.rootfs / f"f{number}").write_text("secret")
    kinds = [f"/{kind}{number}" for number in range(150) for kind in "df"]
    bundle.linux["maskedPaths"] = kinds
    bundle.shell("cat /f*; ls -A /d[0-9]*/ | grep x; true")
    assert ocimig.run(bundle, code=0, timeout=20).out == ""


def test_a_mount_over_a_link_stays_inside(
    ocimig: Ocimig, bundle: Bundle, data: Path, tmp_path: Path
) -> None:
    """The image's links are followed below its own root, however they are written."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (bundle.rootfs / "absolute").symlink_to(outside)
    (bundle.rootfs / "climbing").symlink_to("../" * 30 + str(outside)[1:])
    bind(bundle, data, "/absolute")
    bind(bundle, data, "/climbing/deeper").shell(f"cat {outside}/file {outside}/deeper/file")
    assert ocimig.run(bundle, code=0).out == "of the host\n" * 2
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize("name", ["proc", "sys"])
def test_a_link_for_proc_or_sys_is_refused(ocimig: Ocimig, bundle: Bundle, name: str) -> None:
    """A /proc that leads elsewhere would take writes meant for the kernel (CVE-2019-19921)."""
    (bundle.rootfs / name).rmdir()
    (bundle.rootfs / name).symlink_to("/tmp")
    answer = ocimig.run(bundle.shell("true"))
    assert answer.code == 1
    assert name in answer.err


@pytest.mark.parametrize(
    "shape", ["link", "file", "fifo", pytest.param("absolute link", marks=own)]
)
def test_a_strange_dev_is_refused_or_harmless(
    ocimig: Ocimig, bundle: Bundle, tmp_path: Path, shape: str
) -> None:
    """Within seconds, and nothing appears outside the root file system (CVE-2026-41579)."""
    outside = tmp_path / "outside"
    outside.mkdir()
    device = bundle.rootfs / "dev"
    device.rmdir()
    if shape == "file":
        device.write_text("")
    elif shape == "fifo":
        os.mkfifo(device)
    else:
        device.symlink_to(outside if shape == "absolute link" else "tmp")
    ocimig.run(bundle.shell("echo x > /dev/null"), timeout=20)
    assert list(outside.iterdir()) == []


def test_a_null_device_of_the_image_is_not_used_for_masking(ocimig: Ocimig, bundle: Bundle) -> None:
    """A link at /dev/null would bind something else over what should be hidden (CVE-2025-31133)."""
    mounts = bundle.config["mounts"]
    bundle.config["mounts"] = [row for row in mounts if not row["destination"].startswith("/dev")]
    (bundle.rootfs / "dev/null").symlink_to("/proc/sys/kernel/core_pattern")
    (bundle.rootfs / "secret").write_text("secret\n")
    bundle.linux["maskedPaths"] = ["/secret"]
    before = Path("/proc/sys/kernel/core_pattern").read_text()
    answer = ocimig.run(bundle.shell("cat /secret; echo harm > /secret"))
    assert "secret" not in answer.out
    assert Path("/proc/sys/kernel/core_pattern").read_text() == before


def test_sysctls_are_set_in_the_containers_namespaces(ocimig: Ocimig, bundle: Bundle) -> None:
    """And the host keeps its own."""
    path = Path("/proc/sys/kernel/msgmax")
    before = path.read_text()
    bundle.linux["sysctl"] = {"kernel.msgmax": "4096", "net.ipv4.ip_forward": "1"}
    bundle.shell("cat /proc/sys/kernel/msgmax /proc/sys/net/ipv4/ip_forward")
    assert ocimig.run(bundle, code=0).out == "4096\n1\n"
    assert path.read_text() == before


@pytest.mark.parametrize(
    ("propagation", "word"),
    [
        ("rprivate", "-"),
        ("rslave", "master:"),
        pytest.param("rshared", "shared:", marks=own),
    ],
)
def test_the_root_has_the_propagation_asked_for(
    ocimig: Ocimig, bundle: Bundle, propagation: str, word: str
) -> None:
    """linux.rootfsPropagation, as mountinfo shows it for the root."""
    bundle.linux["rootfsPropagation"] = propagation
    ocimig.prefix = ("unshare", "--mount", "--propagation", "shared")
    answer = ocimig.run(bundle.shell("grep ' / / \\|rootfs / ' /proc/self/mountinfo"), code=0)
    optional = answer.out.splitlines()[-1].split()[6]
    assert optional.startswith(word), answer.out


def test_a_source_that_is_not_there_is_named(ocimig: Ocimig, bundle: Bundle) -> None:
    """And nothing is left of the container."""
    bind(bundle, "/no/such/directory", "/data")
    answer = ocimig.run(bundle, code=1)
    assert "/no/such/directory" in answer.err
    assert ocimig.status(ocimig.ids[-1]) == ""


@own
def test_an_unknown_file_system_is_named(ocimig: Ocimig, bundle: Bundle) -> None:
    """Not only the errno."""
    mount(bundle, "/data", type="nosuchfs", source="x")
    assert "nosuchfs" in ocimig.run(bundle, code=1).err


@pytest.mark.userns
@own
def test_the_owners_of_a_mount_are_mapped(ocimig: Ocimig, bundle: Bundle, data: Path) -> None:
    """uidMappings of a mount: what root owns on the host belongs to 1000 in the container."""
    (data / "file").chmod(0o640)
    mapping = [{"containerID": 0, "hostID": 1000, "size": 10}]
    mount(
        bundle,
        "/data",
        type="bind",
        source=str(data),
        options=["bind"],
        uidMappings=mapping,
        gidMappings=mapping,
    )
    answer = ocimig.run(bundle.shell("stat -c '%u %g' /data/file"), code=0)
    assert answer.out == "1000 1000\n"


@pytest.mark.overlay
def test_an_overlay_of_long_paths(ocimig: Ocimig, bundle: Bundle, tmp_path: Path) -> None:
    """Lower directories of more bytes than fsconfig(2) takes at once."""
    lower = []
    for number in range(4):
        path = tmp_path / f"{number}{'x' * 100}"
        path.mkdir()
        (path / f"file{number}").write_text(f"{number}\n")
        lower.append(str(path))
    for name in ("upper", "work"):
        (tmp_path / name).mkdir()
    mount(
        bundle,
        "/layers",
        type="overlay",
        source="overlay",
        options=["nodev", f"lowerdir={':'.join(lower)}", f"upperdir={tmp_path}/upper",
                 f"workdir={tmp_path}/work"],
    )  # fmt: skip
    script = "cat /layers/*; echo new >/layers/new; grep ' /layers ' /proc/self/mountinfo"
    out = ocimig.run(bundle.shell(script), code=0).out
    assert out.startswith("0\n1\n2\n3\n")
    assert "nodev" in out
    assert (tmp_path / "upper/new").read_text() == "new\n"


def test_a_mount_of_any_name_leaves_the_others_readable(tmp_path: Path) -> None:
    """Any name on the host, and any that a container makes there, must not end every migration."""
    target = tmp_path / "a\rb"
    target.mkdir()
    before = facts.cgroup_layout()
    subprocess.run(["mount", "-t", "tmpfs", "none", target], check=True)
    try:
        assert facts.space(str(target))["memory"]
        assert facts.cgroup_layout() == before
    finally:
        subprocess.run(["umount", target], check=True)
