"""bpf(2), as far as device filters of cgroups and iterators need it. Knows no rule of any device."""

import ctypes
import errno
import fcntl
import os
import struct

from ocimig.runtime.linux.syscalls import libc, oserror

BPF_CGROUP_DEVICE = 6
BPF_F_ALLOW_MULTI = 2
BPF_F_REPLACE = 4
BPF_ITER_CREATE = 33
BPF_LINK_CREATE = 28
BPF_PROG_ATTACH = 8
BPF_PROG_DETACH = 9
BPF_PROG_GET_FD_BY_ID = 13
BPF_PROG_LOAD = 5
BPF_PROG_QUERY = 16
BPF_PROG_TYPE_CGROUP_DEVICE = 15
BPF_PROG_TYPE_TRACING = 26
BPF_TRACE_ITER = 28

# Older than the numbers all architectures share.
_NUMBERS = {
    "x86_64": 321, "i686": 357, "ppc64le": 361, "ppc64": 361, "s390x": 351, "armv7l": 386,
}  # fmt: skip
_GENERIC = 280  # aarch64, riscv64, loongarch64

_INTERRUPTED_LIMIT = 30  # the verifier gives up with EAGAIN when a signal is pending
_QUERY_LIMIT = 64  # programs one cgroup can have


def _bpf(command: int, attr: "ctypes.Array[ctypes.c_char]") -> int:
    number = _NUMBERS.get(os.uname().machine, _GENERIC)
    for _ in range(_INTERRUPTED_LIMIT):
        result = libc.syscall(
            ctypes.c_long(number), ctypes.c_int(command), attr, ctypes.c_uint(len(attr))
        )
        if result >= 0:
            return int(result)
        if ctypes.get_errno() not in {errno.EAGAIN, errno.EINTR}:
            break
    raise oserror()


def _attr(layout: str, *values: int, size: int = 0) -> "ctypes.Array[ctypes.c_char]":
    packed = struct.pack(layout, *values)
    return ctypes.create_string_buffer(packed, max(size, len(packed)))


def prog_load(
    instructions: bytes,
    license: bytes = b"Apache-2.0",
    *,
    type: int = BPF_PROG_TYPE_CGROUP_DEVICE,
    expected_attach_type: int = 0,
    attach_btf_id: int = 0,
) -> int:
    """BPF_PROG_LOAD: the descriptor of the program. The verifier's words are in the error."""
    code = ctypes.create_string_buffer(instructions, len(instructions))
    words = ctypes.create_string_buffer(license)
    head = (type, len(instructions) // 8, ctypes.addressof(code), ctypes.addressof(words))
    # up to log_buf for old kernels, which know no more; a member that is not here is zero
    layout = "=IIQQIIQ"
    tail: tuple[int, ...] = ()
    if attach_btf_id:
        layout, tail = "=IIQQIIQ28xI36xI", (expected_attach_type, attach_btf_id)
    try:
        fd = _bpf(BPF_PROG_LOAD, _attr(layout, *head, 0, 0, 0, *tail))
    except OSError as error:
        if error.errno in {errno.EPERM, errno.ENOSYS}:
            raise
        log = ctypes.create_string_buffer(65536)
        wanted = (1, len(log), ctypes.addressof(log))
        try:
            fd = _bpf(BPF_PROG_LOAD, _attr(layout, *head, *wanted, *tail))
        except OSError as again:
            text = log.value.decode("utf-8", "replace").strip().replace("\n", "; ")
            again.strerror = f"{again.strerror}: {text[-400:]}" if text else again.strerror
            raise
    return _cloexec(fd)


def _cloexec(fd: int) -> int:
    # the kernel gives program descriptors O_CLOEXEC; 0 would read as "no descriptor" in later calls
    if fd:
        return fd
    moved = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
    os.close(fd)
    return moved


def prog_attach(cgroup: int, program: int, flags: int, replaced: int = 0) -> None:
    """BPF_PROG_ATTACH of a device filter. With BPF_F_REPLACE it takes the place of `replaced`."""
    values = (cgroup, program, BPF_CGROUP_DEVICE, flags)
    if flags & BPF_F_REPLACE:
        _bpf(BPF_PROG_ATTACH, _attr("=IIIII", *values, replaced))
    else:
        _bpf(BPF_PROG_ATTACH, _attr("=IIII", *values))


def prog_detach(cgroup: int, program: int) -> None:
    """BPF_PROG_DETACH of a device filter."""
    _bpf(BPF_PROG_DETACH, _attr("=III", cgroup, program, BPF_CGROUP_DEVICE))


def prog_get_fd_by_id(id: int) -> int:
    """BPF_PROG_GET_FD_BY_ID."""
    return _cloexec(_bpf(BPF_PROG_GET_FD_BY_ID, _attr("=I", id)))


def prog_query(cgroup: int) -> "list[int]":
    """BPF_PROG_QUERY: the ids of the device filters attached to this cgroup itself."""
    ids = (ctypes.c_uint32 * _QUERY_LIMIT)()
    # Linux 6.17 to 7.1 write `revision` whatever size they are told: the room for it must be there.
    values = (cgroup, BPF_CGROUP_DEVICE, 0, 0, ctypes.addressof(ids), _QUERY_LIMIT)
    attr = _attr("=IIIIQI", *values, size=64)
    _bpf(BPF_PROG_QUERY, attr)
    count = struct.unpack_from("=I", attr.raw, 24)[0]
    return list(ids[:count])


def link_create_iter(program: int, *, tid: int) -> int:
    """BPF_LINK_CREATE of an iterator over what one thread has. A thread that is not is no error."""
    info = _attr("=III", tid, 0, 0)  # the member `task` of union bpf_iter_link_info
    values = (program, 0, BPF_TRACE_ITER, 0, ctypes.addressof(info), len(info))
    return _cloexec(_bpf(BPF_LINK_CREATE, _attr("=IIIIQI", *values)))


def iter_create(link: int) -> int:
    """BPF_ITER_CREATE: a descriptor to read, where the iterator is at its beginning."""
    return _cloexec(_bpf(BPF_ITER_CREATE, _attr("=II", link, 0)))
