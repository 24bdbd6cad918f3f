"""Seccomp in a container: what the filter denies is denied, by the errno that was asked for."""

import fcntl
import os
import socket
import struct
import threading
from pathlib import Path
from typing import Any

import pytest

from ocimig_testkit import Bundle, Ocimig

pytestmark = [pytest.mark.root, pytest.mark.busybox, pytest.mark.seccomp]
own = pytest.mark.skipif("OCIMIG_RUNTIME" in os.environ, reason="another runtime does otherwise")
MAKING = ["mkdir", "mkdirat"]
SECCOMP_IOCTL_NOTIF_RECV = 0xC0502100
SECCOMP_IOCTL_NOTIF_SEND = 0xC0182101


def filtered(bundle: Bundle, script: str, *calls: dict[str, Any], **more: Any) -> Bundle:
    """The bundle with a script, and a profile that allows all but `calls`."""
    bundle.linux["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": list(calls), **more}
    return bundle.shell(script)


def deny(**more: Any) -> dict[str, Any]:
    """No new directories."""
    return {"names": MAKING, "action": "SCMP_ACT_ERRNO", **more}


@pytest.mark.parametrize("no_new_privileges", [True, False])
def test_a_denied_call_fails_and_the_rest_works(
    ocimig: Ocimig, bundle: Bundle, no_new_privileges: bool
) -> None:
    """With no_new_privs the filter comes last; without, before the privileges are gone."""
    bundle.process["noNewPrivileges"] = no_new_privileges
    script = "mkdir /tmp/d; touch /tmp/f && grep Seccomp: /proc/self/status"
    answer = ocimig.run(filtered(bundle, script, deny()), code=0)
    assert "Operation not permitted" in answer.err
    assert answer.out.split() == ["Seccomp:", "2"]


def test_a_user_without_privileges_is_filtered_too(ocimig: Ocimig, bundle: Bundle) -> None:
    """The filter is set although the process could not set it itself."""
    bundle.process["user"] = {"uid": 1000, "gid": 1000}
    bundle.process["noNewPrivileges"] = False
    answer = ocimig.run(filtered(bundle, "mkdir /tmp/d", deny()), code=1)
    assert "Operation not permitted" in answer.err


def test_the_errno_is_the_one_asked_for(ocimig: Ocimig, bundle: Bundle) -> None:
    """errnoRet 28 is ENOSPC."""
    answer = ocimig.run(filtered(bundle, "mkdir /tmp/d", deny(errnoRet=28)), code=1)
    assert "No space left on device" in answer.err


def test_an_argument_decides(ocimig: Ocimig, bundle: Bundle) -> None:
    """kill(2) is denied for one signal only."""
    rule = {
        "names": ["kill"],
        "action": "SCMP_ACT_ERRNO",
        "args": [{"index": 1, "value": 10, "op": "SCMP_CMP_EQ"}],
    }
    script = "sleep 9 & kill -USR1 $! ; kill -USR2 $! && echo sent"
    answer = ocimig.run(filtered(bundle, script, rule), code=0)
    assert answer.out == "sent\n"
    assert "Operation not permitted" in answer.err


def test_a_killing_rule_ends_the_process(ocimig: Ocimig, bundle: Bundle) -> None:
    """SIGSYS is signal 31: the exit code is 159."""
    rule = {"names": MAKING, "action": "SCMP_ACT_KILL_PROCESS"}
    ocimig.run(filtered(bundle, "exec mkdir /tmp/d", rule), code=159)


def test_exec_is_under_the_same_filter(ocimig: Ocimig, bundle: Bundle) -> None:
    """A second process is no way around it."""
    id = ocimig.launch(filtered(bundle, "while :; do sleep 1; done", deny()))
    answer = ocimig.exec(id, "/bin/mkdir", "/tmp/d", code=1)
    assert "Operation not permitted" in answer.err


def test_unknown_calls_of_a_profile_are_no_fault(ocimig: Ocimig, bundle: Bundle) -> None:
    """A profile for every machine names calls that this one does not have."""
    rule = {"names": [*MAKING, "call_of_the_future"], "action": "SCMP_ACT_ERRNO"}
    answer = ocimig.run(filtered(bundle, "mkdir /tmp/d", rule), code=1)
    assert "Operation not permitted" in answer.err


def test_the_same_profile_twice(ocimig: Ocimig, bundle: Bundle) -> None:
    """The second container gets what the first got, however the filter was made."""
    filtered(bundle, "mkdir /tmp/d", deny(errnoRet=28))
    for _ in range(3):
        assert "No space left" in ocimig.run(bundle, code=1).err


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"defaultAction": "SCMP_ACT_NOPE"}, "linux.seccomp.defaultAction"),
        ({"architectures": ["SCMP_ARCH_VAX"]}, "linux.seccomp.architectures[0]"),
        ({"flags": ["SECCOMP_FILTER_FLAG_NOPE"]}, "linux.seccomp.flags[0]"),
        (
            {"syscalls": [{"names": ["write"], "action": "SCMP_ACT_NOTIFY"}], "listenerPath": "/x"},
            "linux.seccomp.syscalls[0].names",
        ),
    ],
)
@own
def test_a_wrong_profile_is_named(
    ocimig: Ocimig, bundle: Bundle, change: dict[str, Any], path: str
) -> None:
    """With the place in config.json, before anything is made."""
    filtered(bundle, "true", deny())
    bundle.linux["seccomp"] |= change
    answer = ocimig.run(bundle.write(), code=1)
    assert path in answer.err


class Agent(threading.Thread):
    """A seccomp agent: takes one descriptor, answers `count` calls with an errno."""

    def __init__(self, path: Path, error: int, count: int) -> None:
        super().__init__(daemon=True)
        self.error = error
        self.count = count
        self.message = b""
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen(1)
        self.listener.settimeout(20)

    def run(self) -> None:
        connection, _ = self.listener.accept()
        with connection:
            self.message, fds, _, _ = socket.recv_fds(connection, 65536, 1)
        for _ in range(self.count):
            request = bytearray(80)
            fcntl.ioctl(fds[0], SECCOMP_IOCTL_NOTIF_RECV, request)
            (id,) = struct.unpack_from("=Q", request)
            reply = bytearray(struct.pack("=QqiI", id, 0, -self.error, 0))
            fcntl.ioctl(fds[0], SECCOMP_IOCTL_NOTIF_SEND, reply)
        os.close(fds[0])


@pytest.mark.parametrize("no_new_privileges", [True, False])
def test_an_agent_decides(
    ocimig: Ocimig, bundle: Bundle, tmp_path: Path, no_new_privileges: bool
) -> None:
    """SCMP_ACT_NOTIFY: the agent gets the state and the descriptor, and its errno is what mkdir sees."""
    bundle.process["noNewPrivileges"] = no_new_privileges
    agent = Agent(tmp_path / "agent.sock", error=28, count=1)
    agent.start()
    rule = {"names": MAKING, "action": "SCMP_ACT_NOTIFY"}
    filtered(
        bundle,
        "mkdir /tmp/d",
        rule,
        listenerPath=str(tmp_path / "agent.sock"),
        listenerMetadata="for you",
    )
    answer = ocimig.run(bundle, code=1)
    agent.join(20)
    agent.listener.close()
    assert "No space left on device" in answer.err
    assert b'"seccompFd"' in agent.message
    assert b'"metadata":"for you"' in agent.message
    assert ocimig.ids[-1].encode() in agent.message


def test_without_an_agent_nothing_starts(ocimig: Ocimig, bundle: Bundle, tmp_path: Path) -> None:
    """A container whose calls nobody would answer is an error that names the socket."""
    rule = {"names": MAKING, "action": "SCMP_ACT_NOTIFY"}
    filtered(bundle, "true", rule, listenerPath=str(tmp_path / "none.sock"))
    answer = ocimig.run(bundle, code=1)
    assert "none.sock" in answer.err
    assert ocimig.status(ocimig.ids[-1]) == ""
