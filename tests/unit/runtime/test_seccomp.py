"""A seccomp profile becomes a program; a child installs it, and what the kernel then answers is observed."""

import ctypes
import errno
import os
import socket
import struct
import time
from pathlib import Path
from typing import Any

import pytest

from ocimig import jsonio
from ocimig.runtime import seccomp
from ocimig.runtime.errors import SeccompFailed, SocketFailed
from ocimig.runtime.linux import seccomp as libseccomp
from ocimig.runtime.linux import syscalls
from ocimig.runtime.linux.seccomp_prelude import AUDIT_ARCH_X86_64, INSTRUCTION, Filter, prelude

pytestmark = pytest.mark.seccomp
AARCH64, I386 = 0xC00000B7, 0x40000003
PR_SET_NO_NEW_PRIVS = 38
KILLED = -1


def number(name: str) -> int:
    """The number of a system call on this machine."""
    return int(libseccomp.library().seccomp_syscall_resolve_name(name.encode()))


def profile(*calls: dict[str, Any], default: str = "SCMP_ACT_ALLOW", **more: Any) -> dict[str, Any]:
    """A profile for this machine's own architecture."""
    return {"defaultAction": default, "syscalls": list(calls), **more}


def rule(name: str, action: str = "SCMP_ACT_ERRNO", **more: Any) -> dict[str, Any]:
    """One rule for one call."""
    return {"names": [name], "action": action, **more}


def argument(index: int, op: str, value: int, two: int = 0) -> dict[str, Any]:
    """One condition."""
    return {"index": index, "op": f"SCMP_CMP_{op}", "value": value, "valueTwo": two}


def answers(filter_: Filter, *calls: tuple[int, ...]) -> list[int]:
    """The errno of each call (0 when it worked) in a child under the filter; KILLED at the end if it died."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        _under(filter_, calls, writer)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        data = pipe.read()
    _, status = os.waitpid(child, 0)
    found = list(struct.unpack(f"{len(data) // 4}i", data))
    return [*found, KILLED] if os.WIFSIGNALED(status) else found


def _under(filter_: Filter, calls: tuple[tuple[int, ...], ...], writer: int) -> None:
    try:
        syscalls.libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        code = ctypes.create_string_buffer(filter_.bpf, len(filter_.bpf))
        size = len(filter_.bpf) // INSTRUCTION.size
        program = struct.pack("@HP", size, ctypes.addressof(code))  # struct sock_fprog
        syscalls.call(number("seccomp"), 1, filter_.flags, program)
        found = b""
        for call in calls:
            try:
                syscalls.call(*call)
                found += struct.pack("i", 0)
            except OSError as error:
                found += struct.pack("i", error.errno)
        os.write(writer, found)
    finally:
        os._exit(0)


def verdicts(document: dict[str, Any], *calls: tuple[int, ...]) -> list[int]:
    """Compile, install, call."""
    return answers(libseccomp.compile_filter(document), *calls)


def test_a_denied_call_gets_eperm_and_the_others_work() -> None:
    """The plainest profile of all."""
    getcwd, getppid = number("getcwd"), number("getppid")
    assert verdicts(profile(rule("getcwd")), (getcwd, 0, 0), (getppid,)) == [errno.EPERM, 0]


def test_the_errno_of_a_rule_and_of_the_default_is_given() -> None:
    """errnoRet and defaultErrnoRet."""
    getppid, getuid = number("getppid"), number("getuid")
    document = profile(rule("getppid", errnoRet=errno.EXDEV))
    assert verdicts(document, (getppid,)) == [errno.EXDEV]
    allowed = [rule(name, "SCMP_ACT_ALLOW") for name in ("write", "exit_group", "getuid")]
    document = profile(*allowed, default="SCMP_ACT_ERRNO", defaultErrnoRet=errno.EBUSY)
    assert verdicts(document, (getuid,), (getppid,)) == [0, errno.EBUSY]


@pytest.mark.parametrize(
    ("op", "value", "two", "denied"),
    [
        ("EQ", 5, 0, [5]),
        ("NE", 5, 0, [4, 6]),
        ("LT", 5, 0, [4]),
        ("LE", 5, 0, [4, 5]),
        ("GT", 5, 0, [6]),
        ("GE", 5, 0, [5, 6]),
        ("MASKED_EQ", 4, 4, [4, 5, 6]),
        ("MASKED_EQ", 2, 0, [4, 5]),
    ],
)
def test_every_operator_compares(op: str, value: int, two: int, denied: list[int]) -> None:
    """Arguments 4, 5 and 6 against each operator; for MASKED_EQ `value` is the mask."""
    umask = number("umask")
    document = profile(rule("umask", args=[argument(0, op, value, two)]))
    found = verdicts(document, (umask, 4), (umask, 5), (umask, 6))
    assert [given for given, got in zip((4, 5, 6), found, strict=True) if got] == denied


def test_conditions_on_different_arguments_must_all_hold() -> None:
    """AND between arguments."""
    lseek = number("lseek")
    document = profile(rule("lseek", args=[argument(1, "EQ", 7), argument(2, "EQ", 1)]))
    found = verdicts(document, (lseek, -1, 7, 1), (lseek, -1, 7, 0), (lseek, -1, 0, 1))
    assert found == [errno.EPERM, errno.EBADF, errno.EBADF]


def test_two_conditions_on_one_argument_are_alternatives() -> None:
    """OR where one argument is named twice: how runc reads it."""
    umask = number("umask")
    document = profile(rule("umask", args=[argument(0, "EQ", 1), argument(0, "EQ", 2)]))
    assert verdicts(document, (umask, 1), (umask, 2), (umask, 3)) == [errno.EPERM, errno.EPERM, 0]


def test_a_64_bit_argument_is_compared_whole() -> None:
    """The halves are compared by two instructions each; a wrong order would let one of them through."""
    lseek, big = number("lseek"), 1 << 40
    document = profile(rule("lseek", args=[argument(1, "EQ", big)]))
    found = verdicts(document, (lseek, -1, big, 0), (lseek, -1, 1 << 8, 0), (lseek, -1, big + 1, 0))
    assert found == [errno.EPERM, errno.EBADF, errno.EBADF]


@pytest.mark.parametrize("action", ["SCMP_ACT_KILL", "SCMP_ACT_KILL_THREAD", "SCMP_ACT_KILL_PROCESS",
                                    "SCMP_ACT_TRAP"])  # fmt: skip
def test_a_killing_action_kills(action: str) -> None:
    """The child dies before it can report."""
    assert verdicts(profile(rule("getppid", action)), (number("getppid"),)) == [KILLED]


def test_log_lets_the_call_through_and_trace_without_a_tracer_is_enosys() -> None:
    """The actions that need somebody else to mean more."""
    getppid = number("getppid")
    assert verdicts(profile(rule("getppid", "SCMP_ACT_LOG")), (getppid,)) == [0]
    assert verdicts(profile(rule("getppid", "SCMP_ACT_TRACE")), (getppid,)) == [errno.ENOSYS]


def test_unknown_calls_are_left_out_and_named() -> None:
    """A profile for every kernel names calls that this libseccomp never heard of."""
    made = libseccomp.compile_filter(
        profile({"names": ["getppid", "no_such_call"], "action": "SCMP_ACT_ERRNO"})
    )
    assert made.unknown == ["no_such_call"]
    assert answers(made, (number("getppid"),)) == [errno.EPERM]


def allow_list(*missing: str) -> dict[str, Any]:
    """A profile of the size of the usual defaults: what the library knows, without a few."""
    lib = libseccomp.library()
    lib.seccomp_syscall_resolve_num_arch.restype = ctypes.c_char_p
    lib.seccomp_syscall_resolve_num_arch.argtypes = (ctypes.c_uint32, ctypes.c_int)
    found = (lib.seccomp_syscall_resolve_num_arch(lib.seccomp_arch_native(), n) for n in range(450))
    names = [name.decode() for name in found if name and name.decode() not in missing]
    return profile({"names": names, "action": "SCMP_ACT_ALLOW"}, default="SCMP_ACT_ERRNO")


def test_a_call_newer_than_the_profile_gets_enosys() -> None:
    """A C library then falls back to an older call; EPERM would make it give up (runc does the same)."""
    found = verdicts(allow_list("mkdir", "mkdirat"), (1000,), (number("mkdirat"), 0, 0))
    assert found == [errno.ENOSYS, errno.EPERM]


def test_a_permissive_default_needs_no_prelude() -> None:
    """Unknown calls reach the kernel, which knows what it knows."""
    assert len(libseccomp.compile_filter(profile(rule("getcwd"))).bpf) // 8 < 12
    enosys = profile(rule("getcwd", "SCMP_ACT_ALLOW"), default="SCMP_ACT_ERRNO", defaultErrnoRet=38)
    eperm = enosys | {"defaultErrnoRet": 1}
    made = [libseccomp.compile_filter(document) for document in (enosys, eperm)]
    assert len(made[0].bpf) < len(made[1].bpf)


def simulate(program: bytes, arch: int, call: int) -> str:
    """Run the instructions of a prelude: "filter" when it falls off the end, else what it returns."""
    rows = list(INSTRUCTION.iter_unpack(program))
    at, accumulator = 0, 0
    while at < len(rows):
        code, true, false, value = rows[at]
        at += 1
        if code == 0x20:
            accumulator = {0: call, 4: arch}[value]
        elif code == 0x05:
            at += value
        elif code == 0x06:
            return errno.errorcode[value & 0xFFFF]
        else:
            hit = {0x15: accumulator == value, 0x25: accumulator > value,
                   0x45: bool(accumulator & value)}[code]  # fmt: skip
            at += true if hit else false
    assert at == len(rows)
    return "filter"


@pytest.mark.parametrize(
    ("arch", "call", "verdict"),
    [
        (AUDIT_ARCH_X86_64, 400, "filter"),
        (AUDIT_ARCH_X86_64, 401, "ENOSYS"),
        (AUDIT_ARCH_X86_64, 0x40000000 | 350, "filter"),
        (AUDIT_ARCH_X86_64, 0x40000000 | 351, "ENOSYS"),
        (I386, 300, "filter"),
        (I386, 301, "ENOSYS"),
        (I386, 0xFFFFFFFF, "ENOSYS"),
        (AARCH64, 9999, "filter"),
        (0x80000016, 0, "ENOSYS"),
        (0x80000016, 200, "filter"),
    ],
)
def test_the_prelude_splits_by_architecture_and_mode(arch: int, call: int, verdict: str) -> None:
    """Several architectures in one filter, x32 told apart, and strangers left to the filter."""
    program = prelude(
        {
            AUDIT_ARCH_X86_64: {False: 400, True: 0x40000000 | 350},
            I386: {False: 300},
            0x80000016: {False: 440},
        }
    )
    assert simulate(program, arch, call) == verdict


def test_x32_is_left_to_the_filter_when_the_profile_does_not_name_it() -> None:
    """The filter refuses it as a bad architecture; ENOSYS would hide that."""
    program = prelude({AUDIT_ARCH_X86_64: {False: 400}})
    assert simulate(program, AUDIT_ARCH_X86_64, 0x40000000 | 999) == "filter"
    assert simulate(program, AUDIT_ARCH_X86_64, 401) == "ENOSYS"
    assert prelude({}) == b""


def test_foreign_architectures_go_into_the_same_filter() -> None:
    """A 64-bit container may run 32-bit programs; the native one is always in."""
    plain = libseccomp.compile_filter(allow_list())
    both = libseccomp.compile_filter(
        allow_list() | {"architectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"]}
    )
    assert len(both.bpf) > len(plain.bpf)
    assert answers(both, (number("getppid"),)) == [0]


def test_flags_become_the_kernels_and_their_absence_has_a_meaning() -> None:
    """No list at all means SPEC_ALLOW, an empty list means nothing; TSYNC is accepted and needless."""
    bits = {
        None: libseccomp.SECCOMP_FILTER_FLAG_SPEC_ALLOW,
        (): 0,
        ("SECCOMP_FILTER_FLAG_TSYNC",): 0,
        ("SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"): 6,
        ("SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",): 0,
    }
    for names, expected in bits.items():
        more: dict[str, Any] = {} if names is None else {"flags": list(names)}
        assert libseccomp.compile_filter(profile(rule("getcwd"), **more)).flags == expected


def test_a_notifying_filter_hands_the_call_to_a_listener() -> None:
    """The flags ask for a descriptor, and the kernel takes the program with them."""
    made = libseccomp.compile_filter(
        profile(
            rule("getppid", "SCMP_ACT_NOTIFY"),
            flags=["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"],
            listenerPath="/run/x",
        )
    )
    assert made.notify
    assert made.flags == 0x28
    assert answers(made, (number("getuid"),)) == [0]


def test_an_unknown_architecture_is_named(tmp_path: Path) -> None:
    """Words, not a number; and nothing is kept."""
    with pytest.raises(SeccompFailed, match="does not know SCMP_ARCH_VAX"):
        seccomp.plan(profile(architectures=["SCMP_ARCH_VAX"]), cache=str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_filter_too_long_for_the_kernel_is_refused() -> None:
    """Four thousand conditions do not fit in 4096 instructions."""
    calls = [rule("umask", args=[argument(0, "EQ", value)]) for value in range(4200)]
    with pytest.raises(SeccompFailed, match="instructions, the kernel takes 4096"):
        seccomp.plan(profile(*calls))


def test_a_usual_profile_is_made_quickly() -> None:
    """Some 360 calls for one architecture: processor time, best of five; a busy machine counts for little."""
    document, best = allow_list(), 1.0
    for _ in range(5):
        started = time.thread_time()
        libseccomp.compile_filter(document)
        best = min(best, time.thread_time() - started)
    assert best < 0.03


def _received(listener: socket.socket) -> tuple[dict[str, Any], list[int]]:
    connection, _ = listener.accept()
    with connection:
        data, fds, _, _ = socket.recv_fds(connection, 65536, 4)
    document: dict[str, Any] = jsonio.loads(data)
    return document, fds


def test_the_agent_gets_the_descriptor_and_the_state(tmp_path: Path) -> None:
    """ContainerProcessState as the specification has it; our own copy is closed."""
    path = str(tmp_path / "agent.sock")
    spec = {"linux": {"seccomp": {"listenerPath": path, "listenerMetadata": "hello"}}}
    reader, writer = os.pipe()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(1)
        seccomp.send_listener(spec, writer, {"id": "c1", "status": "creating"}, 42)
        document, fds = _received(listener)
    assert document == {
        "ociVersion": "1.3.0",
        "fds": ["seccompFd"],
        "pid": 42,
        "metadata": "hello",
        "state": {"id": "c1", "status": "creating"},
    }
    os.write(fds[0], b"x")
    assert os.read(reader, 1) == b"x"
    os.close(fds[0])
    assert os.read(reader, 1) == b""
    os.close(reader)


def test_an_agent_that_does_not_listen_is_named(tmp_path: Path) -> None:
    """The container must not start without the agent that decides for it."""
    spec = {"linux": {"seccomp": {"listenerPath": str(tmp_path / "none.sock")}}}
    with pytest.raises(SocketFailed, match=r"seccomp descriptor to .*none\.sock"):
        seccomp.send_listener(spec, os.open("/dev/null", os.O_RDONLY), {}, 1)


def test_without_libseccomp_the_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one line a person needs."""

    def missing(name: str) -> ctypes.CDLL:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(libseccomp, "_library", None)
    monkeypatch.setattr(ctypes, "CDLL", missing)
    with pytest.raises(SeccompFailed, match="libseccomp is not installed") as caught:
        seccomp.plan(profile(rule("getcwd")))
    assert caught.value.advice == "install libseccomp2"
    assert libseccomp.version() == ""
