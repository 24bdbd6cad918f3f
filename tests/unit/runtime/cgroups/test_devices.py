"""Device rules: what they mean, as v1's lines and as v2's program, which must agree."""

import itertools
import struct
from typing import Any

import pytest

from ocimig.runtime.cgroups import device_filter, devices
from ocimig.runtime.errors import DevicesRefused

DENY_ALL = {"allow": False, "access": "rwm"}
BITS = {"m": 1, "r": 2, "w": 4}


def runs(code: bytes, kind: str, access: str, major: int, minor: int) -> bool:
    """What the kernel would answer: an interpreter of the few instructions that are used."""
    bits = 0
    for letter in access:
        bits |= BITS[letter]
    context = (bits << 16 | {"b": 1, "c": 2}[kind], major, minor)
    registers = [0] * 6
    at = 0
    while True:
        op, names, off, imm = struct.unpack_from("=BBhi", code, at * 8)
        dst, src = names & 15, names >> 4
        at += 1
        if op == 0x95:
            return registers[0] != 0
        if op == 0x61:
            registers[dst] = context[off // 4]
        elif op == 0xB4:
            registers[dst] = imm
        elif op == 0xBC:
            registers[dst] = registers[src]
        elif op == 0x54:
            registers[dst] &= imm
        elif op == 0x74:
            registers[dst] >>= imm
        else:
            other = registers[src] if op == 0x5D else imm
            jump = registers[dst] == other if op == 0x15 else registers[dst] != other
            assert op in {0x15, 0x55, 0x5D}
            at += off if jump else 0


def means(allowed: devices.Allowed, kind: str, access: str, major: int, minor: int) -> bool:
    """The meaning by the kernel's rules of v1, written down once more and differently."""
    matching = [
        letters
        for (rule_kind, rule_major, rule_minor), letters in allowed.exceptions.items()
        if rule_kind == kind and rule_major in {-1, major} and rule_minor in {-1, minor}
    ]
    if allowed.everything:
        return not any(set(access) & set(letters) for letters in matching)
    return any(set(access) <= set(letters) for letters in matching)


def test_the_defaults_are_runcs() -> None:
    """Any node may be made; the default nodes and terminals used; no tun, no console."""
    lines = devices.lines_v1(devices.settle([DENY_ALL]))
    assert lines[0] == ("devices.deny", "a")
    assert {file for file, _ in lines[1:]} == {"devices.allow"}
    assert sorted(line for _, line in lines[1:]) == sorted(
        ["b *:* m", "c *:* m", "c 136:* rwm", "c 5:2 rwm", "c 5:0 rwm"]
        + [f"c 1:{minor} rwm" for minor in (3, 5, 7, 8, 9)]
    )


def test_without_rules_nothing_but_the_defaults_is_allowed() -> None:
    """The specification's default of "deny all" needs no rule."""
    assert devices.lines_v1(devices.settle(None)) == devices.lines_v1(devices.settle([DENY_ALL]))


def test_allowing_everything_is_one_line() -> None:
    """A privileged container."""
    assert devices.lines_v1(devices.settle([{"allow": True, "type": "a"}])) == [
        ("devices.allow", "a")
    ]


def test_access_of_one_device_adds_up() -> None:
    """Two rules with half of it each are one rule in v1."""
    rules = [
        {"allow": True, "type": "c", "major": 10, "minor": 200, "access": "w"},
        {"allow": True, "type": "c", "major": 10, "minor": 200, "access": "r"},
        {"allow": True, "type": "b", "major": 8, "minor": 0, "access": "rm"},
        {"allow": False, "type": "b", "major": 8, "minor": 0, "access": "m"},
    ]
    exceptions = devices.settle(rules).exceptions
    assert exceptions["c", 10, 200] == "rw"
    assert exceptions["b", 8, 0] == "r"


def test_a_hole_in_a_wildcard_is_refused() -> None:
    """The kernel's v1 would keep the device open without a word."""
    rules = [
        {"allow": True, "type": "c", "major": 10, "access": "rw"},
        {"allow": False, "type": "c", "major": 10, "minor": 200, "access": "r"},
    ]
    with pytest.raises(DevicesRefused, match=r"c 10:200 r.*hole.*c 10:\* rw"):
        devices.settle(rules)


RULES: list[list[dict[str, Any]]] = [
    [],
    [{"allow": True, "type": "a"}],
    [{"allow": True, "type": "c", "major": 10, "access": "r"}],
    [{"allow": True, "type": "b", "minor": 3, "access": "wm"}],
    [{"allow": True, "type": "u", "major": 10, "minor": 200}],
    [{"allow": True}, {"allow": False, "type": "c", "major": 10, "minor": 200, "access": "w"}],
    [{"allow": True}, {"allow": False, "type": "b", "access": "rw"}],
    [{"allow": True, "type": "c", "major": 4294967295, "minor": 200, "access": "rwm"}],
]


@pytest.mark.parametrize("rules", RULES)
def test_the_program_answers_as_the_rules_mean(rules: list[dict[str, Any]]) -> None:
    """Every kind, access and a grid of numbers."""
    allowed = devices.settle(rules)
    code = device_filter.program(allowed)
    letters = ["".join(some) for n in (1, 2, 3) for some in itertools.combinations("rwm", n)]
    for kind, access in itertools.product("bc", letters):
        for major, minor in itertools.product((0, 1, 5, 8, 10, 136), (0, 2, 3, 200)):
            asked = (kind, access, major, minor)
            assert runs(code, *asked) == means(allowed, *asked), asked


def test_instructions_are_the_kernels() -> None:
    """r0 = 1; exit: as <linux/bpf.h> lays it out on a little-endian machine."""
    allowed = devices.Allowed()
    allowed.everything = True
    tail = device_filter.program(allowed)[-16:]
    assert struct.unpack("=BBhiBBhi", tail) == (0xB4, 0, 0, 1, 0x95, 0, 0, 0)
