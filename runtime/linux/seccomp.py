"""libseccomp: a profile of config.json becomes the BPF program that seccomp(2) takes. Installs nothing.

The library is loaded only when a filter is asked for: most commands never need one.
"""

import ctypes
import errno
import os
import struct

from ocimig.runtime.linux import syscalls
from ocimig.runtime.linux.seccomp_prelude import INSTRUCTION, MAX_INSTRUCTIONS, Filter, prelude

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SECCOMP_SET_MODE_FILTER = 1
SECCOMP_FILTER_FLAG_TSYNC = 0x1
SECCOMP_FILTER_FLAG_LOG = 0x2
SECCOMP_FILTER_FLAG_SPEC_ALLOW = 0x4
SECCOMP_FILTER_FLAG_NEW_LISTENER = 0x8
SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV = 0x20
FLAGS = {
    # a filter is set by the only thread of the container's first process: nothing to synchronise
    "SECCOMP_FILTER_FLAG_TSYNC": 0,
    "SECCOMP_FILTER_FLAG_LOG": SECCOMP_FILTER_FLAG_LOG,
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW": SECCOMP_FILTER_FLAG_SPEC_ALLOW,
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV": SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV,
}
SCMP_FLTATR_CTL_OPTIMIZE = 8
ERRNO_ACTIONS = {"SCMP_ACT_ERRNO": 0x00050000, "SCMP_ACT_TRACE": 0x7FF00000}
ACTIONS = {
    **ERRNO_ACTIONS,
    "SCMP_ACT_KILL": 0x00000000,
    "SCMP_ACT_KILL_THREAD": 0x00000000,
    "SCMP_ACT_KILL_PROCESS": 0x80000000,
    "SCMP_ACT_TRAP": 0x00030000,
    "SCMP_ACT_NOTIFY": 0x7FC00000,
    "SCMP_ACT_LOG": 0x7FFC0000,
    "SCMP_ACT_ALLOW": 0x7FFF0000,
}
OPERATORS = {
    "SCMP_CMP_NE": 1,
    "SCMP_CMP_LT": 2,
    "SCMP_CMP_LE": 3,
    "SCMP_CMP_EQ": 4,
    "SCMP_CMP_GE": 5,
    "SCMP_CMP_GT": 6,
    "SCMP_CMP_MASKED_EQ": 7,
}
NR_SCMP_ERROR = -1
# The kernel takes 4096 instructions; libseccomp's time grows with the square of the rules.
MAX_RULES = 20_000
# libseccomp's own token, because its audit architecture is that of x86-64
SCMP_ARCH_X32 = 0x4000003E
AUDIT_ARCH_X86_64 = 0xC000003E


_COMPARE = struct.Struct("@IiQQ")  # struct scmp_arg_cmp
_library: "ctypes.CDLL | None" = None


def library() -> ctypes.CDLL:
    """libseccomp, loaded once. Raises OSError(ENOENT) where it is not installed."""
    global _library
    if _library is not None:
        return _library
    try:
        found = ctypes.CDLL("libseccomp.so.2")
    except OSError:
        raise OSError(errno.ENOENT, "libseccomp is not installed", "libseccomp.so.2") from None
    found.seccomp_init.restype = ctypes.c_void_p
    found.seccomp_init.argtypes = (ctypes.c_uint32,)
    found.seccomp_release.argtypes = (ctypes.c_void_p,)
    found.seccomp_release.restype = None
    found.seccomp_arch_add.argtypes = (ctypes.c_void_p, ctypes.c_uint32)
    found.seccomp_arch_resolve_name.argtypes = (ctypes.c_char_p,)
    found.seccomp_arch_resolve_name.restype = ctypes.c_uint32
    found.seccomp_arch_native.restype = ctypes.c_uint32
    found.seccomp_syscall_resolve_name.argtypes = (ctypes.c_char_p,)
    found.seccomp_syscall_resolve_name_arch.argtypes = (ctypes.c_uint32, ctypes.c_char_p)
    found.seccomp_attr_set.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32)
    found.seccomp_rule_add_array.argtypes = (
        ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint, ctypes.c_char_p,
    )  # fmt: skip
    found.seccomp_export_bpf.argtypes = (ctypes.c_void_p, ctypes.c_int)
    _library = found
    return found


def version() -> str:
    """The version of libseccomp, or an empty string where there is none."""
    try:
        found = library()
    except OSError:
        return ""
    found.seccomp_version.restype = ctypes.POINTER(ctypes.c_uint * 3)
    return ".".join(str(number) for number in found.seccomp_version().contents)


def arch_token(name: str) -> int:
    """libseccomp's token of SCMP_ARCH_…; 0 when it does not know the architecture."""
    word = name.removeprefix("SCMP_ARCH_").lower().encode()
    return int(library().seccomp_arch_resolve_name(word))


def flag_supported(name: str) -> bool:
    """Whether this kernel takes a filter flag: a null program fails only after the flags were read."""
    flag = FLAGS.get(name)
    if not flag:
        return flag == 0
    if flag == SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV:
        flag |= SECCOMP_FILTER_FLAG_NEW_LISTENER  # means nothing without a listener
    try:
        number = library().seccomp_syscall_resolve_name(b"seccomp")
        syscalls.call(number, SECCOMP_SET_MODE_FILTER, flag, None)
    except OSError as error:
        return error.errno == errno.EFAULT
    return True


def action(name: str, number: "int | None") -> int:
    """SCMP_ACT_… as a number; EPERM where an errno is wanted and none is given."""
    base = ACTIONS[name]
    if name in ERRNO_ACTIONS:
        return base | ((errno.EPERM if number is None else number) & 0xFFFF)
    return base


def compile_filter(seccomp: "dict[str, Any]") -> Filter:
    """The program for linux.seccomp, which `validate` has checked.

    Raises OSError: ENOENT without libseccomp, EINVAL for what it or the kernel does not know, E2BIG
    for a program that is longer than the kernel takes.
    """
    lib = library()
    rules = sum(
        len(c["names"]) * max(1, len(c.get("args") or ())) for c in seccomp.get("syscalls") or ()
    )
    if rules > MAX_RULES:
        raise OSError(errno.E2BIG, f"{rules} rules are more than any kernel takes")
    default = action(seccomp["defaultAction"], seccomp.get("defaultErrnoRet"))
    context = lib.seccomp_init(default)
    if not context:
        raise OSError(errno.EINVAL, f"libseccomp does not know {seccomp['defaultAction']}")
    try:
        tokens = _add_architectures(lib, context, seccomp.get("architectures") or [])
        calls = seccomp.get("syscalls") or ()
        if sum(len(call["names"]) for call in calls) > 32:
            # a binary tree instead of a chain; libseccomp before 2.5 has none, and does not need one
            lib.seccomp_attr_set(context, SCMP_FLTATR_CTL_OPTIMIZE, 2)
        unknown: dict[str, None] = {}
        for call in calls:
            _add_call(lib, context, call, default, unknown)
        program = _export(lib, context)
    finally:
        lib.seccomp_release(context)
    if default not in _PERMISSIVE and default & 0xFFFF0000 != ACTIONS["SCMP_ACT_TRACE"]:
        program = prelude(_highest(lib, calls, tokens)) + program
    if len(program) > MAX_INSTRUCTIONS * INSTRUCTION.size:
        words = f"the filter has {len(program) // INSTRUCTION.size} instructions, the kernel takes"
        raise OSError(errno.E2BIG, f"{words} {MAX_INSTRUCTIONS}")
    notify = any(call["action"] == "SCMP_ACT_NOTIFY" for call in calls)
    flags = _flags(seccomp.get("flags")) | (SECCOMP_FILTER_FLAG_NEW_LISTENER if notify else 0)
    if not notify:
        flags &= ~SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
    return Filter(program, flags, notify=notify, unknown=list(unknown))


# what a filter lets through by itself, and ENOSYS itself, need no prelude
_PERMISSIVE = (
    ACTIONS["SCMP_ACT_ALLOW"],
    ACTIONS["SCMP_ACT_LOG"],
    action("SCMP_ACT_ERRNO", errno.ENOSYS),
)


def _flags(names: "list[str] | None") -> int:
    if names is None:
        # as runc: without a list, not even an empty one, leave the speculation controls alone
        default = "SECCOMP_FILTER_FLAG_SPEC_ALLOW"
        return FLAGS[default] if flag_supported(default) else 0
    bits = 0
    for name in names:
        if not flag_supported(name):
            raise OSError(errno.EINVAL, f"this kernel does not know {name}")
        bits |= FLAGS[name]
    return bits


def _add_architectures(lib: ctypes.CDLL, context: int, names: "list[str]") -> "list[int]":
    native = int(lib.seccomp_arch_native())
    tokens = [native]
    for name in names:
        token = arch_token(name)
        if not token:
            raise OSError(errno.EINVAL, f"libseccomp {version()} does not know {name}")
        if token not in tokens:
            tokens.append(token)
            if lib.seccomp_arch_add(context, token) < 0:
                raise OSError(
                    errno.EINVAL, f"{name} cannot be filtered together with this machine's own"
                )
    return tokens


def _add_call(
    lib: ctypes.CDLL, context: int, call: "dict[str, Any]", default: int, unknown: "dict[str, None]"
) -> None:
    wanted = action(call["action"], call.get("errnoRet"))
    if wanted == default:
        return  # libseccomp refuses a rule that says what the default says
    alternatives = _alternatives(call.get("args") or ())
    resolve, add = lib.seccomp_syscall_resolve_name, lib.seccomp_rule_add_array
    for name in call["names"]:
        number = resolve(name.encode())
        if number == NR_SCMP_ERROR:
            unknown[name] = None
            continue
        for count, conditions in alternatives:
            result = add(context, wanted, number, count, conditions)
            if result < 0 and -result != errno.EEXIST:
                words = f"libseccomp refuses the rule for {name}: {os.strerror(-result)}"
                raise OSError(-result, words)


def _alternatives(rows: "Any") -> "list[tuple[int, bytes | None]]":
    """Conditions on different arguments must all hold; where one argument is named twice, any may.

    The second is how runc has always read such a profile, and profiles count on it.
    """
    if not rows:
        return [(0, None)]
    conditions = [
        _COMPARE.pack(row["index"], OPERATORS[row["op"]], row["value"], row.get("valueTwo") or 0)
        for row in rows
    ]
    if len({row["index"] for row in rows}) == len(rows):
        return [(len(rows), b"".join(conditions))]
    return [(1, condition) for condition in conditions]


def _export(lib: ctypes.CDLL, context: int) -> bytes:
    fd = os.memfd_create("seccomp", os.MFD_CLOEXEC)
    try:
        result = lib.seccomp_export_bpf(context, fd)
        if result < 0:
            raise OSError(-result, f"libseccomp cannot make the filter: {os.strerror(-result)}")
        return os.pread(fd, os.fstat(fd).st_size, 0)
    finally:
        os.close(fd)


def _highest(lib: ctypes.CDLL, calls: "Any", tokens: "list[int]") -> "dict[int, dict[bool, int]]":
    """The highest number that the profile names, for each audit architecture and mode."""
    resolve = lib.seccomp_syscall_resolve_name_arch
    names = [name.encode() for name in {name for call in calls for name in call["names"]}]
    found: dict[int, dict[bool, int]] = {}
    for token in tokens:
        top = max((resolve(token, name) for name in names), default=0)
        if top > 0:
            arch = AUDIT_ARCH_X86_64 if token == SCMP_ARCH_X32 else token
            found.setdefault(arch, {})[token == SCMP_ARCH_X32] = top
    return found
