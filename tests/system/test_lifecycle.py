"""create, start, state, kill, delete: what callers see of them, on success and on failure."""

import json
import os
import subprocess
import time
from pathlib import Path

import pytest

from ocimig_testkit import Bundle, Ocimig, until

pytestmark = [pytest.mark.root, pytest.mark.busybox]
own = pytest.mark.skipif("OCIMIG_RUNTIME" in os.environ, reason="another runtime does otherwise")


def test_a_container_goes_through_its_states(ocimig: Ocimig, bundle: Bundle) -> None:
    """created, running, stopped, gone; its program does not run before the start."""
    marker = bundle.rootfs / "ran"
    bundle.shell("echo yes >/ran; while :; do sleep 1; done")
    id = ocimig.create(bundle)
    assert ocimig.status(id) == "created"
    assert not marker.exists()
    ocimig.start(id)
    assert ocimig.status(id) == "running"
    until(marker.exists, "the program to run")
    ocimig.kill(id)
    ocimig.wait(id, "stopped")
    ocimig.delete(id)
    assert ocimig.status(id) == ""


@own
def test_a_created_process_holds_only_its_streams_and_the_fifo(
    ocimig: Ocimig, bundle: Bundle
) -> None:
    """Callers check: no socket, no descriptor of the host."""
    pid = ocimig.pid(ocimig.create(bundle))
    names = {fd: os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")}
    assert sorted(names)[:3] == ["0", "1", "2"]
    assert [name.rpartition("/")[2] for fd, name in names.items() if int(fd) > 2] == ["exec.fifo"]


def test_a_leaked_descriptor_does_not_reach_the_container(ocimig: Ocimig, bundle: Bundle) -> None:
    """CVE-2024-21626: what the caller leaves open is closed before anything of the container runs."""
    fd = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.set_inheritable(fd, True)
        answer = ocimig.run(bundle.shell("ls /proc/self/fd | tr '\\n' ' '"), pass_fds=[fd], code=0)
    finally:
        os.close(fd)
    assert answer.out.split() == ["0", "1", "2", "3"]  # 3 is ls's own


@own
@pytest.mark.parametrize("number", range(3, 20))
def test_a_working_directory_outside_is_refused(
    ocimig: Ocimig, bundle: Bundle, number: int
) -> None:
    """CVE-2024-21626: cwd through a descriptor of the host."""
    fd = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.set_inheritable(fd, True)
        bundle.process["cwd"] = f"/proc/self/fd/{number}"
        answer = ocimig.run(bundle.shell("ls"), pass_fds=[fd], code=None)
    finally:
        os.close(fd)
    assert answer.code == 1
    assert "working directory" in answer.err or "cwd" in answer.err or "mkdir" in answer.err


def test_preserved_descriptors_reach_the_process(ocimig: Ocimig, bundle: Bundle) -> None:
    """--preserve-fds 1 hands over descriptor 3."""
    reader, writer = os.pipe()
    try:
        bundle.shell("echo over >&3")
        run = ocimig.command("run", "--preserve-fds", "1", "--bundle", bundle.path, ocimig.new_id())
        argv = ["bash", "-c", f'exec "$@" 3>&{writer}', "bash", *run]
        subprocess.run(argv, pass_fds=[writer], check=True, timeout=30, stdin=subprocess.DEVNULL)
        os.close(writer)
        writer = -1
        assert os.read(reader, 100) == b"over\n"
    finally:
        os.close(reader)
        if writer >= 0:
            os.close(writer)


def test_exit_codes_are_passed_on(ocimig: Ocimig, bundle: Bundle) -> None:
    """Of the process, 128+N for a signal."""
    assert ocimig.run(bundle.shell("exit 7")).code == 7
    assert ocimig.run(bundle.shell("kill -TERM $$; exit 1"), code=None).code in {1, 143}
    assert ocimig.run(bundle.shell("exit 0")).code == 0


def test_a_foreground_container_is_gone_when_it_ends(ocimig: Ocimig, bundle: Bundle) -> None:
    """And with --keep it stays, stopped."""
    id = ocimig.new_id()
    ocimig.run(bundle.shell("exit 0"), id=id, code=0)
    assert ocimig.status(id) == ""
    ocimig.run(bundle.shell("exit 0"), "--keep", id=id, code=0)
    assert ocimig.status(id) == "stopped"


def test_signals_go_to_the_process(ocimig: Ocimig, bundle: Bundle) -> None:
    """What the runtime is sent in the foreground, the container gets."""
    bundle.shell("trap 'exit 9' TERM; echo up; while :; do sleep 0.1; done")
    process = ocimig.popen("run", "--bundle", bundle.path, ocimig.new_id(), stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    process.terminate()
    assert process.wait(20) == 9
    process.stdout.close()


def test_the_pid_file_is_a_bare_number(ocimig: Ocimig, bundle: Bundle, tmp_path: Path) -> None:
    """go-runc parses the whole file."""
    path = tmp_path / "pid"
    id = ocimig.create(bundle, "--pid-file", str(path))
    assert path.read_text() == str(ocimig.pid(id))


def test_a_taken_name_is_refused_and_the_first_is_untouched(ocimig: Ocimig, bundle: Bundle) -> None:
    """The message is runc's."""
    id = ocimig.launch(bundle)
    answer = ocimig("create", "--bundle", bundle.path, id, code=1)
    assert "container with given ID already exists" in answer.err
    assert ocimig.status(id) == "running"


@own
@pytest.mark.parametrize(
    "id", ["", ".", "..", "a/b", "x" * 2000, "a\nb", "a b", "é", "-leading", ".hidden"]
)
def test_a_bad_name_is_refused_in_one_line(ocimig: Ocimig, bundle: Bundle, id: str) -> None:
    """Nothing is made, nothing is traced back."""
    answer = ocimig("create", "--bundle", bundle.path, "--", id, code=None)
    assert answer.code in {1, 2}
    assert "Traceback" not in answer.err
    assert not ocimig.root.exists() or not [
        name for name in os.listdir(ocimig.root) if name[0] != "."
    ]


@own
def test_what_cannot_be_made_leaves_nothing(ocimig: Ocimig, bundle: Bundle) -> None:
    """A program that is not there: no state, no cgroup, no process (the session's sweep looks)."""
    id = ocimig.new_id()
    answer = ocimig("create", "--bundle", bundle.argv("nosuch").path, id, code=1)
    assert "executable file not found in $PATH" in answer.err
    assert not (ocimig.root / id).exists()


@own
def test_a_directory_and_a_plain_file_are_no_programs(ocimig: Ocimig, bundle: Bundle) -> None:
    """Each is said in the words that callers map to 126 and 127."""
    (bundle.rootfs / "plain").write_text("x")
    (bundle.rootfs / "plain").chmod(0o644)
    assert "permission denied" in ocimig.run(bundle.argv("/plain")).err
    assert "is a directory" in ocimig.run(bundle.argv("/etc")).err
    assert "no such file or directory" in ocimig.run(bundle.argv("/missing")).err


@own
def test_a_missing_bundle_config_and_root_are_named(
    ocimig: Ocimig, bundle: Bundle, tmp_path: Path
) -> None:
    """Each in one line, with the path."""
    missing = ocimig("create", "--bundle", tmp_path / "nosuch", "x1", code=1)
    assert "does not exist" in missing.err
    (tmp_path / "empty").mkdir()
    empty = ocimig("create", "--bundle", tmp_path / "empty", "x1", code=1)
    assert "config.json not found" in empty.err
    bundle.config["root"]["path"] = "elsewhere"
    assert "elsewhere" in ocimig("create", "--bundle", bundle.write().path, "x1", code=1).err


@own
def test_a_broken_config_names_the_place(ocimig: Ocimig, bundle: Bundle) -> None:
    """The JSON path, and what is wrong there."""
    bundle.process["args"] = ["sh", 5]
    bundle.linux["namespaces"].append({"type": "bogus"})
    answer = ocimig("create", "--bundle", bundle.write().path, "x1", code=1)
    assert "process.args[1]" in answer.err
    assert "linux.namespaces[5].type" in answer.err
    assert "line 1" in ocimig("create", "--bundle", bundle.text('{"a": }').path, "x1", code=1).err


def test_a_container_starts_once(ocimig: Ocimig, bundle: Bundle) -> None:
    """A running and a stopped one are refused, in runc's words."""
    id = ocimig.launch(bundle)
    assert "cannot start an already running container" in ocimig("start", id, code=1).err
    ocimig.kill(id)
    ocimig.wait(id, "stopped")
    assert "cannot start a container that has stopped" in ocimig("start", id, code=1).err


def test_a_running_container_is_deleted_only_by_force(ocimig: Ocimig, bundle: Bundle) -> None:
    """And a missing one is an error only without force."""
    id = ocimig.launch(bundle)
    assert "is not stopped: running" in ocimig("delete", id, code=1).err
    ocimig.delete(id, force=True)
    assert "container does not exist" in ocimig("delete", id, code=1).err
    ocimig.delete(id, force=True)


def test_a_container_that_ended_before_its_start_says_so(ocimig: Ocimig, bundle: Bundle) -> None:
    """A created one may be killed; it cannot be started then."""
    id = ocimig.create(bundle)
    ocimig.kill(id)
    ocimig.wait(id, "stopped")
    ocimig("start", id, code=1)


@own
def test_one_json_object_in_the_log_and_the_words_on_stderr(
    ocimig: Ocimig, bundle: Bundle, tmp_path: Path
) -> None:
    """podman decodes the whole file as one object; conmon shows stderr."""
    log = tmp_path / "log.json"
    ocimig.globals = ("--log", str(log), "--log-format", "json")
    answer = ocimig("create", "--bundle", bundle.argv("nosuch").path, "x1", code=1)
    record = json.loads(log.read_text())
    assert record["level"] == "error"
    assert record["msg"].endswith("executable file not found in $PATH")
    assert record["msg"] in answer.err


@own
@pytest.mark.parametrize("moment", [0.0, 0.01, 0.02, 0.04, 0.08])
def test_a_runtime_killed_while_it_creates_can_be_cleaned_up(
    ocimig: Ocimig, bundle: Bundle, moment: float
) -> None:
    """Whatever the moment, `delete --force` leaves nothing (the session's sweep looks)."""
    id = ocimig.new_id()
    process = ocimig.popen("create", "--bundle", bundle.path, id)
    time.sleep(moment)
    process.kill()
    process.wait()
    ocimig.delete(id, force=True)
    assert ocimig.status(id) == ""
    ocimig.create(bundle, id=id)


def test_pause_freezes_and_resume_thaws(ocimig: Ocimig, bundle: Bundle) -> None:
    """A counter stands still while paused; exec into it is refused."""
    bundle.shell("i=0; while :; do i=$((i+1)); echo $i >/n; sleep 0.01; done")
    id = ocimig.launch(bundle)
    number = bundle.rootfs / "n"
    until(lambda: number.exists() and number.read_text().strip(), "it to count")
    ocimig("pause", id)
    assert ocimig.status(id) == "paused"
    first = number.read_text()
    time.sleep(0.2)
    assert number.read_text() == first
    ocimig("exec", id, "true", code=None)
    ocimig("resume", id)
    until(lambda: number.read_text() not in {first, ""}, "it to count again")


def test_list_and_ps_show_what_runs(ocimig: Ocimig, bundle: Bundle) -> None:
    """As json and as a table."""
    id = ocimig.launch(bundle)
    pid = ocimig.pid(id)
    listed = {entry["id"]: entry for entry in ocimig("list", "--format", "json").json()}
    assert listed[id]["pid"] == pid
    assert ocimig("list", "-q").out.split() == [id]
    assert pid in ocimig("ps", "--format", "json", id).json()
    assert str(pid) in ocimig("ps", id).out
