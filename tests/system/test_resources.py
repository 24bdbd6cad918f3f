"""Limits as a container feels them, the cgroups it sits in, and what its caller passes through."""

import array
import os
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from ocimig_testkit import TOKEN, Bundle, Ocimig, until

pytestmark = [pytest.mark.root, pytest.mark.busybox]
own = pytest.mark.skipif("OCIMIG_RUNTIME" in os.environ, reason="another runtime does otherwise")
CGROUPS = Path("/sys/fs/cgroup")
WAIT = "while :; do sleep 0.1; done"


def controller(pid: int, name: str, file: str, file2: str = "") -> Path:
    """A file of a process's cgroup, named as in v1 and (where it differs) as in v2."""
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        if name in names.split(","):
            return CGROUPS / name / path.lstrip("/") / file
    path = Path(f"/proc/{pid}/cgroup").read_text().partition("0::")[2].splitlines()[0]
    return CGROUPS / path.lstrip("/") / (file2 or file)


def limited(ocimig: Ocimig, bundle: Bundle, script: str = WAIT, **resources: Any) -> int:
    """A running container with these limits: its pid."""
    bundle.linux["resources"].update(resources)
    return ocimig.pid(ocimig.launch(bundle.shell(script)))


def has(name: str) -> bool:
    """Whether this host has a controller."""
    listed = CGROUPS / "cgroup.controllers"
    return name in listed.read_text().split() if listed.exists() else (CGROUPS / name).is_dir()


# ---- limits


def test_a_memory_limit_ends_what_takes_more(ocimig: Ocimig, bundle: Bundle) -> None:
    """It is in the kernel's file, and the program is killed."""
    pid = limited(ocimig, bundle, memory={"limit": 32 << 20, "swap": 32 << 20})
    file = controller(pid, "memory", "memory.limit_in_bytes", "memory.max")
    assert file.read_text().strip() == str(32 << 20)
    answer = ocimig.run(bundle.shell("x=0123456789abcdef; while :; do x=$x$x; done"))
    assert answer.code in {137, 2, 1}, answer


def test_a_fork_bomb_stops_at_the_limit(ocimig: Ocimig, bundle: Bundle) -> None:
    """pids.limit: fork(2) is refused, the host does not notice."""
    pid = limited(ocimig, bundle, pids={"limit": 12})
    assert controller(pid, "pids", "pids.max").read_text() == "12\n"
    script = "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16; do sleep 2 & done; wait"
    answer = ocimig.run(bundle.shell(script))
    assert "fork" in answer.err


@pytest.mark.parametrize(("limit", "shown"), [(-1, "max\n"), (5, "5\n")])
def test_pids_without_a_limit(ocimig: Ocimig, bundle: Bundle, limit: int, shown: str) -> None:
    """-1 is none."""
    pid = limited(ocimig, bundle, pids={"limit": limit})
    assert controller(pid, "pids", "pids.max").read_text() == shown


def test_a_processor_quota_is_kept(ocimig: Ocimig, bundle: Bundle) -> None:
    """A loop gets a tenth of one processor."""
    pid = limited(
        ocimig, bundle, "while :; do :; done", cpu={"quota": 10000, "period": 100000, "shares": 512}
    )
    file = controller(pid, "cpu", "cpu.cfs_quota_us", "cpu.max")
    assert file.read_text().split()[0] == "10000"

    def used() -> float:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    before, start = used(), time.monotonic()
    time.sleep(2)
    assert (used() - before) / (time.monotonic() - start) < 0.25


def test_a_processor_set_is_kept(ocimig: Ocimig, bundle: Bundle) -> None:
    """The process may run there and nowhere else."""
    pid = limited(ocimig, bundle, cpu={"cpus": "0", "mems": "0"})
    assert os.sched_getaffinity(pid) == {0}


@pytest.mark.skipif(not has("blkio") and not has("io"), reason="no block I/O controller")
def test_throttling_of_a_disk_is_written(ocimig: Ocimig, bundle: Bundle) -> None:
    """For the disk under the root."""
    disks = [name for name in os.listdir("/sys/block") if name.startswith(("vd", "sd", "nvme"))]
    if not disks:
        pytest.skip("no disk")
    major, minor = map(int, Path(f"/sys/block/{disks[0]}/dev").read_text().split(":"))
    rate = {"major": major, "minor": minor, "rate": 1048576}
    pid = limited(ocimig, bundle, blockIO={"throttleReadBpsDevice": [rate]})
    file = controller(pid, "blkio", "blkio.throttle.read_bps_device", "io.max")
    assert f"{major}:{minor}" in file.read_text()
    assert "1048576" in file.read_text()


@pytest.mark.skipif(not has("hugetlb"), reason="no hugetlb controller")
def test_huge_pages_are_limited(ocimig: Ocimig, bundle: Bundle) -> None:
    """Of 2 MB."""
    pid = limited(ocimig, bundle, hugepageLimits=[{"pageSize": "2MB", "limit": 4 << 20}])
    file = controller(pid, "hugetlb", "hugetlb.2MB.limit_in_bytes", "hugetlb.2MB.max")
    assert file.read_text().strip() == str(4 << 20)


def test_a_device_that_is_not_allowed_cannot_be_opened(ocimig: Ocimig, bundle: Bundle) -> None:
    """A node may be made (as runc lets it), but is not opened; an allowed one is, as far as allowed."""
    for name in ("bounding", "effective", "permitted"):
        bundle.process["capabilities"][name] += ["CAP_MKNOD", "CAP_SYSLOG", "CAP_SYS_RAWIO"]
    bundle.linux["resources"]["devices"] += [
        {"allow": True, "type": "c", "major": 1, "minor": 11, "access": "r"},
        {"allow": True, "type": "b", "major": 7, "minor": 77, "access": "m"},
    ]
    bundle.linux["devices"] = [
        {"path": "/dev/kmsg", "type": "c", "major": 1, "minor": 11},
        {"path": "/dev/mem", "type": "c", "major": 1, "minor": 1},
    ]
    script = (
        "mknod /tmp/m c 1 1; (: </tmp/m) && echo BAD made; (: </dev/mem) && echo BAD mem;"
        " mknod /tmp/b b 7 77 && echo good mknod; (: </tmp/b) && echo BAD loop;"
        " (: </dev/kmsg) && echo good kmsg; (: >>/dev/kmsg) && echo BAD kmsg;"
        " echo x >/dev/null && head -c1 /dev/zero >/dev/null && echo good null; true"
    )
    answer = ocimig.run(bundle.shell(script), code=0)
    assert answer.out == "good mknod\ngood kmsg\ngood null\n", answer
    assert "Operation not permitted" in answer.err


def test_a_list_that_allows_all_allows_all(ocimig: Ocimig, bundle: Bundle) -> None:
    """A privileged container."""
    for name in ("bounding", "effective", "permitted"):
        bundle.process["capabilities"][name].append("CAP_SYSLOG")
    bundle.linux["resources"]["devices"] = [{"allow": True, "access": "rwm"}]
    bundle.linux["devices"] = [{"path": "/dev/kmsg", "type": "c", "major": 1, "minor": 11}]
    answer = ocimig.run(bundle.shell("(: </dev/kmsg) && (: >>/dev/kmsg) && echo good"), code=0)
    assert answer.out == "good\n"


@own
def test_a_limit_that_the_kernel_refuses_is_named(ocimig: Ocimig, bundle: Bundle) -> None:
    """And nothing is left."""
    bundle.linux["resources"]["cpu"] = {"cpus": "4000-4001"}
    answer = ocimig.run(bundle.shell("true"), code=1)
    assert "cpus" in answer.err
    assert not list(CGROUPS.glob(f"*/{ocimig.ids[-1]}"))


# ---- where it sits


@pytest.mark.parametrize("path", [f"/{TOKEN}-parent/{{id}}", f"{TOKEN}-parent/{{id}}"])
def test_the_cgroup_is_the_one_asked_for_and_goes_with_the_container(
    ocimig: Ocimig, bundle: Bundle, path: str
) -> None:
    """Absolute or relative; its parents may be made, the container's own part is removed."""
    id = ocimig.new_id()
    bundle.linux["cgroupsPath"] = path.format(id=id)
    ocimig.launch(bundle.write(), id=id)
    seen = Path(f"/proc/{ocimig.pid(id)}/cgroup").read_text()
    assert f"{TOKEN}-parent/{id}" in seen
    ocimig.delete(id, force=True)
    assert not [where for where, _, _ in os.walk(CGROUPS) if id in where]
    for where, _, _ in os.walk(CGROUPS, topdown=False):
        if where.endswith(f"{TOKEN}-parent"):
            os.rmdir(where)


def test_cgroups_made_inside_go_too(ocimig: Ocimig, bundle: Bundle) -> None:
    """A container that manages cgroups of its own, with processes in them."""
    rows = bundle.config["mounts"]
    rows[-1]["options"] = [word for word in rows[-1]["options"] if word != "ro"]
    script = (
        "for c in /sys/fs/cgroup/pids /sys/fs/cgroup/memory /sys/fs/cgroup; do"
        " mkdir -p $c/a/b 2>/dev/null && (sleep 300 & echo $! >$c/a/b/cgroup.procs) && echo made;"
        f" done; echo done >/tmp/done; {WAIT}"
    )
    bundle.linux["namespaces"].append({"type": "cgroup"})
    id = ocimig.launch(bundle.shell(script))
    until((bundle.rootfs / "tmp/done").exists, "it to make them")
    inside = [where for where, _, _ in os.walk(CGROUPS) if id in where and where.endswith("a/b")]
    assert inside
    ocimig.delete(id, force=True)
    assert not [where for where, _, _ in os.walk(CGROUPS) if id in where]


@pytest.mark.parametrize("namespace", [True, False])
def test_a_container_sees_its_own_cgroups_only(
    ocimig: Ocimig, bundle: Bundle, namespace: bool
) -> None:
    """And cannot write to them where the mount is read-only (CVE-2023-25809)."""
    if namespace:
        bundle.linux["namespaces"].append({"type": "cgroup"})
    bundle.linux["resources"]["pids"] = {"limit": 77}
    script = (
        "cat /sys/fs/cgroup/pids/pids.max 2>/dev/null || cat /sys/fs/cgroup/pids.max;"
        " for d in /sys/fs/cgroup /sys/fs/cgroup/pids; do mkdir $d/x 2>/dev/null && echo BAD;"
        " echo 0 2>/dev/null >$d/cgroup.procs && echo BAD; done; true"
    )
    answer = ocimig.run(bundle.shell(script), code=0)
    assert answer.out == "77\n"


def test_two_containers_do_not_share_a_cgroup_by_accident(ocimig: Ocimig, bundle: Bundle) -> None:
    """Deleting one leaves the other alone, even where both name the same path."""
    bundle.linux["cgroupsPath"] = f"/{TOKEN}-shared"
    bundle.write()
    first, second = ocimig.new_id(), ocimig.new_id()
    ocimig.launch(bundle, id=first)
    ocimig("run", "-d", "--bundle", bundle.path, second, code=None)
    ocimig("delete", "--force", second, code=None)
    assert ocimig.status(first) == "running"


# ---- what is passed through


@own
def test_sd_notify_reaches_the_manager(ocimig: Ocimig, bundle: Bundle, tmp_path: Path) -> None:
    """READY=1 from inside, then the pid as the host sees it; the barrier is answered."""
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    manager.bind(str(tmp_path / "notify"))
    manager.settimeout(20)
    tool = bundle.rootfs / "bin/notify"
    source = (
        "#include <string.h>\n#include <stdlib.h>\n#include <unistd.h>\n#include <sys/socket.h>\n"
        "#include <sys/un.h>\nint main(void) { struct sockaddr_un a = { AF_UNIX }; int s;"
        ' strcpy(a.sun_path, getenv("NOTIFY_SOCKET")); s = socket(AF_UNIX, SOCK_DGRAM, 0);'
        ' while (sendto(s, "STATUS=x\\nREADY=1", 16, 0, (void *)&a, sizeof a) < 0) usleep(10000);'
        " for (;;) pause(); }\n"
    )
    subprocess.run(
        ["gcc", "-static", "-x", "c", "-", "-o", tool], input=source.encode(), check=True
    )
    id = ocimig.new_id()
    process = ocimig.popen(
        "run", "-d", "--bundle", bundle.argv("/bin/notify").path, id,
        env={**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify")},
    )  # fmt: skip
    said = b""
    while b"BARRIER=1" not in said:
        data, ancillary, _, _ = manager.recvmsg(4096, 4096)
        said += data + b"\n"
        for _, _, raw in ancillary:
            for fd in array.array("i", raw):
                os.close(fd)
    assert process.wait(20) == 0
    assert b"READY=1" in said
    assert b"MAINPID=%d" % ocimig.pid(id) in said
    manager.close()


@own
def test_listen_fds_are_passed_on(ocimig: Ocimig, bundle: Bundle) -> None:
    """Socket activation: number 3 and the variables, with the pid that the container sees."""
    # LISTEN_PID is the runtime's own, so the shell sets it
    bundle.shell("echo $LISTEN_FDS $LISTEN_PID $LISTEN_FDNAMES; readlink /proc/self/fd/3")
    command = ocimig.command("run", "--bundle", bundle.path, ocimig.new_id())
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        ended = subprocess.run(
            ["bash", "-c", f'LISTEN_PID=$$ exec "$@" 3<&{listener.fileno()}', "bash", *command],
            env={**os.environ, "LISTEN_FDS": "1", "LISTEN_FDNAMES": "web"},
            pass_fds=[listener.fileno()], capture_output=True, text=True, check=False, timeout=30,
        )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    first, second = ended.stdout.splitlines()
    assert first == "1 1 web"
    assert second.startswith("socket:")


def test_descriptors_meant_for_somebody_else_are_not_passed_on(
    ocimig: Ocimig, bundle: Bundle
) -> None:
    """A service started by a socket leaves LISTEN_FDS in the environment of all it starts."""
    bundle.shell("echo [$LISTEN_FDS]; readlink /proc/self/fd/3")
    answer = ocimig.run(bundle, env={"LISTEN_FDS": "1", "LISTEN_PID": "999999"}, code=1)
    assert answer.out == "[]\n"
    assert answer.err == ""


# ---- user and time namespaces


@pytest.mark.userns
@own
def test_a_root_that_the_mapped_user_cannot_reach(ocimig: Ocimig, bundle: Bundle) -> None:
    """Its parent is 0700 of the host's root; a bind source too."""
    bundle.linux["namespaces"].append({"type": "user"})
    mapping = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    bundle.linux["uidMappings"] = bundle.linux["gidMappings"] = mapping
    subprocess.run(["chown", "-hR", "100000:100000", bundle.rootfs], check=True)
    hidden = bundle.path / "hidden"
    hidden.mkdir(mode=0o700)
    (hidden / "data").mkdir(mode=0o755)
    (hidden / "data/file").write_text("of the host\n")
    bundle.config["mounts"].append(
        {"destination": "/data", "type": "bind", "source": str(hidden / "data"),
         "options": ["bind", "ro"]}
    )  # fmt: skip
    bundle.path.chmod(0o700)
    bundle.shell(f"id -u; cat /data/file; {WAIT}")
    id = ocimig.launch(bundle)
    answer = ocimig.exec(id, "/bin/cat", "/data/file", "/proc/self/uid_map", code=0)
    assert answer.out.split() == ["of", "the", "host", "0", "100000", "65536"]
    assert ocimig.exec(id, "nosuch", code=255).err


@pytest.mark.userns
@own
def test_an_identity_mapping_with_a_hole(ocimig: Ocimig, bundle: Bundle) -> None:
    """Several rows."""
    bundle.linux["namespaces"].append({"type": "user"})
    rows = [
        {"containerID": 0, "hostID": 0, "size": 1000},
        {"containerID": 2000, "hostID": 200000, "size": 10},
    ]
    bundle.linux["uidMappings"] = bundle.linux["gidMappings"] = rows
    bundle.process["user"] = {"uid": 2001, "gid": 2002}
    answer = ocimig.run(bundle.shell("id -u; id -g; cat /proc/self/uid_map"), code=0)
    assert answer.out.split() == ["2001", "2002", "0", "0", "1000", "2000", "200000", "10"]


@pytest.mark.timens
@own
def test_exec_sees_the_containers_clocks(ocimig: Ocimig, bundle: Bundle) -> None:
    """It joins the time namespace too."""
    bundle.linux["namespaces"].append({"type": "time"})
    bundle.linux["timeOffsets"] = {"boottime": {"secs": 86400}, "monotonic": {"nanosecs": 5}}
    id = ocimig.launch(bundle.write())
    up = float(ocimig.exec(id, "cat", "/proc/uptime", code=0).out.split()[0])
    assert up > float(Path("/proc/uptime").read_text().split()[0]) + 86000
