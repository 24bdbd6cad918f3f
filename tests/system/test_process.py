"""The process of a container is what config.json says: who, where, with which limits and variables."""

import os
import time
from pathlib import Path

import pytest

from ocimig_testkit import Bundle, Ocimig

pytestmark = [pytest.mark.root, pytest.mark.busybox]
# only of ours: an older runc does otherwise
own = pytest.mark.skipif("OCIMIG_RUNTIME" in os.environ, reason="another runtime does otherwise")


def status_of(ocimig: Ocimig, bundle: Bundle) -> dict[str, str]:
    """/proc/self/status as a process of the container reads it."""
    answer = ocimig.run(bundle.argv("/bin/cat", "/proc/self/status"), code=0)
    lines = (line.partition(":") for line in answer.out.splitlines())
    return {name: value.strip() for name, _, value in lines}


def test_user_groups_and_umask(ocimig: Ocimig, bundle: Bundle) -> None:
    """uid, gid, supplementary groups and umask are set, and nothing of the caller's stays."""
    bundle.process["user"] = {"uid": 1000, "gid": 1001, "additionalGids": [2000, 5], "umask": 0o27}
    bundle.write()
    status = status_of(ocimig, bundle)
    assert status["Uid"].split() == ["1000"] * 4
    assert status["Gid"].split() == ["1001"] * 4
    assert set(status["Groups"].split()) == {"5", "2000"}
    assert status["Umask"] == "0027"


def test_no_additional_groups_means_none(ocimig: Ocimig, bundle: Bundle) -> None:
    """The caller's own groups must not leak in."""
    assert status_of(ocimig, bundle)["Groups"] == ""


def test_the_environment_is_the_configs(ocimig: Ocimig, bundle: Bundle) -> None:
    """Exactly its variables; HOME is added from the container's passwd."""
    bundle.process["env"] = ["PATH=/bin", "A=1=2", "EMPTY="]
    bundle.process["user"] = {"uid": 1000, "gid": 1000}
    answer = ocimig.run(bundle.argv("/bin/env"), code=0, env={"LEAK": "1", "LD_PRELOAD": ""})
    assert sorted(answer.out.split("\n")) == ["", "A=1=2", "EMPTY=", "HOME=/home", "PATH=/bin"]


def test_home_of_the_config_is_kept(ocimig: Ocimig, bundle: Bundle) -> None:
    """Only a missing HOME is looked up."""
    bundle.process["env"] = ["PATH=/bin", "HOME=/var"]
    assert ocimig.run(bundle.shell("echo $HOME"), code=0).out == "/var\n"


def test_the_working_directory_is_made_and_entered(ocimig: Ocimig, bundle: Bundle) -> None:
    """A cwd that the root file system does not have yet is created."""
    bundle.process["cwd"] = "/work/deep"
    assert ocimig.run(bundle.argv("/bin/pwd"), code=0).out == "/work/deep\n"


def test_a_program_is_found_in_the_containers_path(ocimig: Ocimig, bundle: Bundle) -> None:
    """By PATH of the config, not of the caller."""
    tool = bundle.rootfs / "usr/bin/tool"
    tool.write_text("#!/bin/sh\necho found by $0\n")
    tool.chmod(0o755)
    answer = ocimig.run(bundle.argv("tool"), code=0)
    assert answer.out == "found by /usr/bin/tool\n"


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("nosuch",), 'exec: "nosuch": executable file not found in $PATH'),
        (("/etc/passwd",), 'exec: "/etc/passwd": permission denied'),
        (("/nosuch",), "no such file or directory"),
    ],
)
def test_a_program_that_cannot_run_is_named(
    ocimig: Ocimig, bundle: Bundle, argv: tuple[str, ...], words: str
) -> None:
    """runc's words: podman turns them into 126 and 127."""
    answer = ocimig.run(bundle.argv(*argv), code=1)
    assert words in answer.err.replace('\\"', '"')


def test_limits_are_set_soft_and_hard(ocimig: Ocimig, bundle: Bundle) -> None:
    """Lowering needs no privilege, so every host can do it."""
    bundle.process["rlimits"] = [
        {"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200},
        {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
        {"type": "RLIMIT_NPROC", "soft": 500, "hard": 600},
    ]
    answer = ocimig.run(bundle.argv("/bin/cat", "/proc/self/limits"), code=0)
    limits = {line[:26].strip(): line[26:].split()[:2] for line in answer.out.splitlines()}
    assert limits["Max open files"] == ["100", "200"]
    assert limits["Max core file size"] == ["0", "0"]
    assert limits["Max processes"] == ["500", "600"]


def test_the_oom_score_is_raised(ocimig: Ocimig, bundle: Bundle) -> None:
    """oomScoreAdj."""
    bundle.process["oomScoreAdj"] = 500
    assert ocimig.run(bundle.argv("/bin/cat", "/proc/self/oom_score_adj"), code=0).out == "500\n"


@pytest.mark.parametrize("wanted", [True, False])
def test_no_new_privileges(ocimig: Ocimig, bundle: Bundle, wanted: bool) -> None:
    """The bit is set when asked for and only then."""
    bundle.process["noNewPrivileges"] = wanted
    assert status_of(ocimig, bundle)["NoNewPrivs"] == str(int(wanted))


def test_signals_arrive_as_on_a_fresh_process(ocimig: Ocimig, bundle: Bundle) -> None:
    """Nothing that the runtime ignored or blocked (Python ignores SIGPIPE) is inherited."""
    status = status_of(ocimig, bundle)
    assert int(status["SigIgn"], 16) == 0
    assert int(status["SigBlk"], 16) == 0


def test_the_process_holds_its_three_streams_only(ocimig: Ocimig, bundle: Bundle) -> None:
    """Whatever the caller had open stays outside (CVE-2024-21626)."""
    leaked = os.open("/", os.O_RDONLY)
    try:
        os.set_inheritable(leaked, True)
        id = ocimig.launch(bundle, pass_fds=(leaked,))
    finally:
        os.close(leaked)
    # until the shell runs: before that the last stage of the runtime has its own
    for _ in range(100):
        if Path(f"/proc/{ocimig.pid(id)}/comm").read_text() in ("sh\n", "busybox\n"):
            break
        time.sleep(0.02)
    assert set(os.listdir(f"/proc/{ocimig.pid(id)}/fd")) == {"0", "1", "2"}


@pytest.mark.parametrize("number", range(3, 13))
def test_a_leaked_descriptor_is_no_working_directory(
    ocimig: Ocimig, bundle: Bundle, number: int
) -> None:
    """cwd through /proc/self/fd must never be a directory of the host (CVE-2024-21626)."""
    bundle.process["cwd"] = f"/proc/self/fd/{number}"
    bundle.argv("/bin/ls")
    leaked = os.open("/", os.O_RDONLY)
    try:
        os.dup2(leaked, number + 100, inheritable=True)
        answer = ocimig.run(bundle, pass_fds=(number + 100,))
    finally:
        os.close(leaked)
        os.close(number + 100)
    assert answer.code != 0
    assert "vmlinuz" not in answer.out


def test_host_and_domain_name(ocimig: Ocimig, bundle: Bundle) -> None:
    """In the container's own UTS namespace; the host keeps its own."""
    before = os.uname().nodename
    bundle.config["hostname"] = "inside"
    answer = ocimig.run(bundle.shell("hostname"), code=0)
    assert answer.out == "inside\n"
    assert os.uname().nodename == before


@own
def test_the_domain_name_is_set(ocimig: Ocimig, bundle: Bundle) -> None:
    """Debian 12's runc does not know the field yet."""
    bundle.config["domainname"] = "example.org"
    answer = ocimig.run(bundle.shell("cat /proc/sys/kernel/domainname"), code=0)
    assert answer.out == "example.org\n"


@own
def test_a_32_bit_personality(ocimig: Ocimig, bundle: Bundle) -> None:
    """The machine calls itself i686; Debian 12's runc does not know the field yet."""
    bundle.linux["personality"] = {"domain": "LINUX32"}
    assert ocimig.run(bundle.shell("uname -m"), code=0).out == "i686\n"


@pytest.mark.parametrize("code", [0, 1, 7, 255])
def test_the_exit_code_is_passed_on(ocimig: Ocimig, bundle: Bundle, code: int) -> None:
    """As it is."""
    ocimig.run(bundle.shell(f"exit {code}"), code=code)


@own
def test_the_scheduler_and_io_class_are_set(ocimig: Ocimig, bundle: Bundle) -> None:
    """SCHED_BATCH with a nice value, and the idle class of disk access."""
    bundle.process["scheduler"] = {"policy": "SCHED_BATCH", "nice": 5}
    bundle.process["ioPriority"] = {"class": "IOPRIO_CLASS_IDLE", "priority": 0}
    answer = ocimig.run(bundle.shell("cat /proc/self/stat; ionice -p 1"), code=0)
    stat, ionice = answer.out.splitlines()
    fields = stat.rpartition(")")[2].split()
    assert fields[16] == "5"
    assert fields[38] == "3"
    assert "idle" in ionice


def test_exec_as_another_user_keeps_the_groups(ocimig: Ocimig, bundle: Bundle) -> None:
    """-u changes uid and gid, -g adds groups; the rest of `user` stays as in config.json."""
    bundle.process["user"] = {"uid": 0, "gid": 7, "additionalGids": [5]}
    id = ocimig.launch(bundle.write())
    options = ["--user", "1000", "--additional-gids", "2000"]
    out = ocimig.exec(id, "/bin/cat", "/proc/self/status", options=options, code=0).out
    status = dict(line.split(":\t", 1) for line in out.splitlines() if ":\t" in line)
    assert status["Uid"].split()[0] == "1000"
    assert status["Gid"].split()[0] == "7"
    assert {"5", "2000"} <= set(status["Groups"].split())


@own
@pytest.mark.parametrize("user", ["", "+1", "0x1", "-1", "99999999999", "１", "root", "1:", "1:x"])
def test_exec_as_what_is_no_user_is_refused(ocimig: Ocimig, bundle: Bundle, user: str) -> None:
    """Exit 255 as every failure of exec, and never the user 0 by accident (CVE-2026-30892)."""
    id = ocimig.launch(bundle)
    answer = ocimig.exec(id, "/bin/id", options=["--user", user], code=None)
    assert answer.code == 255, answer
    assert answer.out == ""
