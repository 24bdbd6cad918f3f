"""exec: one more process, in the container's namespaces and cgroups, as who the caller says."""

import os
import subprocess
from pathlib import Path

import pytest

from ocimig_testkit import Bundle, Ocimig

pytestmark = [pytest.mark.root, pytest.mark.busybox]
own = pytest.mark.skipif("OCIMIG_RUNTIME" in os.environ, reason="another runtime does otherwise")


def test_it_is_in_the_containers_namespaces_and_cgroups(ocimig: Ocimig, bundle: Bundle) -> None:
    """All of them."""
    id = ocimig.launch(bundle)
    pid = ocimig.pid(id)
    script = "readlink /proc/self/ns/pid; readlink /proc/self/ns/mnt; readlink /proc/self/ns/net"
    spaces = ocimig.exec(id, "sh", "-c", script).out.split()
    assert spaces == [os.readlink(f"/proc/{pid}/ns/{kind}") for kind in ("pid", "mnt", "net")]
    with open(f"/proc/{pid}/cgroup") as file:
        assert ocimig.exec(id, "cat", "/proc/self/cgroup").out == file.read()


def test_its_exit_code_is_passed_on(ocimig: Ocimig, bundle: Bundle) -> None:
    """Also that of a signal; the runtime's own failures are 255."""
    id = ocimig.launch(bundle)
    assert ocimig.exec(id, "sh", "-c", "exit 42", code=None).code == 42
    assert ocimig.exec(id, "sh", "-c", "kill -KILL $$", code=None).code == 137
    answer = ocimig.exec(id, "nosuch", code=255)
    assert "executable file not found" in answer.err


def test_user_directory_variables_and_groups_are_the_callers(
    ocimig: Ocimig, bundle: Bundle
) -> None:
    """Options replace what the container's process has."""
    id = ocimig.launch(bundle)
    options = ["-u", "5:6", "--cwd", "/etc", "-e", "A=b", "-g", "77"]
    script = "id -u; id -g; id -G; pwd; echo $A"
    answer = ocimig.exec(id, "sh", "-c", script, options=options)
    assert answer.out.split("\n")[:2] == ["5", "6"]
    assert set(answer.out.split("\n")[2].split()) == {"6", "77"}
    assert answer.out.split("\n")[3:5] == ["/etc", "b"]


@own
@pytest.mark.parametrize("user", ["+1", "0x1", "-1", "1:", ":1", "１", "99999999999", "a", ""])
def test_a_user_that_is_no_number_is_refused(ocimig: Ocimig, bundle: Bundle, user: str) -> None:
    """crun's CVE-2026-30892: never 0 by accident."""
    id = ocimig.launch(bundle)
    answer = ocimig.exec(id, "id", options=["--user", user], code=None)
    assert answer.code != 0
    assert "uid=" not in answer.out


def test_added_capabilities_are_never_inheritable(ocimig: Ocimig, bundle: Bundle) -> None:
    """CVE-2022-29162."""
    id = ocimig.launch(bundle)
    answer = ocimig.exec(id, "cat", "/proc/self/status", options=["--cap", "CAP_SYS_PTRACE"])
    caps = dict(line.split(":\t") for line in answer.out.splitlines() if line.startswith("Cap"))
    assert int(caps["CapEff"], 16) >> 19 & 1
    assert int(caps["CapInh"], 16) == int(caps["CapAmb"], 16) == 0


def test_a_detached_process_runs_on(ocimig: Ocimig, bundle: Bundle) -> None:
    """And its pid is written."""
    id = ocimig.launch(bundle)
    path = bundle.path / "pid"
    ocimig.exec(id, "sh", "-c", "while :; do sleep 1; done",
                options=["--detach", "--pid-file", str(path)])  # fmt: skip
    assert os.path.exists(f"/proc/{path.read_text()}")
    assert int(path.read_text()) in ocimig("ps", "-f", "json", id).json()


@own
def test_a_stopped_and_a_paused_container_are_refused(ocimig: Ocimig, bundle: Bundle) -> None:
    """255, and why."""
    id = ocimig.launch(bundle)
    ocimig("pause", id)
    assert "cannot exec in a paused container" in ocimig.exec(id, "true", code=255).err
    ocimig("resume", id)
    ocimig.kill(id)
    ocimig.wait(id, "stopped")
    assert "cannot exec in a stopped container" in ocimig.exec(id, "true", code=255).err


def test_standard_streams_are_the_callers(ocimig: Ocimig, bundle: Bundle) -> None:
    """In, out and error."""
    id = ocimig.launch(bundle)
    answer = ocimig.exec(id, "sh", "-c", "cat; echo bad >&2", input="through\n")
    assert (answer.out, answer.err) == ("through\n", "bad\n")


@own
def test_no_runtime_process_can_be_seen_or_traced_from_inside(
    ocimig: Ocimig, bundle: Bundle
) -> None:
    """CVE-2016-9962: while 60 processes are added, none of init's is open to the container."""
    # the name is asked for again after the look: it may have executed its program in between
    script = """
while :; do for p in /proc/[0-9]*; do
  [ "$(cat $p/comm 2>/dev/null)" = ocimig-init ] && seen=$(readlink $p/fd/0 2>/dev/null) \\
    && [ "$(cat $p/comm 2>/dev/null)" = ocimig-init ] && echo "$seen" >>/caught
done; done"""
    bundle.process["capabilities"] = {}
    id = ocimig.launch(bundle.shell(script))
    for _ in range(60):
        ocimig.exec(id, "true")
    caught = bundle.rootfs / "caught"
    assert not caught.exists() or not caught.read_text()


def test_many_at_the_same_time(ocimig: Ocimig, bundle: Bundle) -> None:
    """Twenty processes at once; each has its own exit code."""
    id = ocimig.launch(bundle)
    running = [ocimig.popen("exec", id, "sh", "-c", f"exit {number}") for number in range(20)]
    assert [process.wait(60) for process in running] == list(range(20))
    assert all(isinstance(process, subprocess.Popen) for process in running)


@own
def test_it_finds_the_root_of_a_container_that_was_made_in_a_chroot(
    ocimig: Ocimig, bundle: Bundle, tmp_path: Path
) -> None:
    """setns(2) alone would leave it at the host's root, outside of the container."""
    (tmp_path / "host").mkdir()
    script = f'mount --rbind / {tmp_path}/host && exec chroot {tmp_path}/host "$@"'
    ocimig.prefix = ("unshare", "--mount", "sh", "-c", script, "sh")
    id = ocimig.launch(bundle)
    ocimig.prefix = ()
    assert ocimig.exec(id, "/bin/cat", "/etc/hostname", code=0).out == "box\n"
    assert ocimig.exec(id, "/bin/cat", "/proc/1/comm", code=0).out == "sh\n"
