"""Units of systemd: their names, their properties, and the messages that ask for them."""

import os
import socket
import struct
import threading
from pathlib import Path
from typing import Any

import pytest

from ocimig.runtime.cgroups import dbus, layout, properties, systemd
from ocimig.runtime.errors import InvalidCgroupsPath, NoSystemd

INFINITY = (1 << 64) - 1


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ("", ("system.slice", "ocimig-c1.scope")),
        ("user.slice:docker:1234", ("user.slice", "docker-1234.scope")),
        (":crio:abc", ("system.slice", "crio-abc.scope")),
        ("a.slice::b", ("a.slice", "b.scope")),
        ("kubepods.slice:x:kubepods-pod1.slice", ("kubepods.slice", "kubepods-pod1.slice")),
        ("a.slice:p:b+c", ("a.slice", "p-b\\x2bc.scope")),
    ],
)
def test_cgroups_path_names_a_unit(wanted: str, expected: tuple[str, str]) -> None:
    """slice:prefix:name; what no unit name may hold is escaped as systemd-escape does."""
    assert systemd.names(wanted, "c1") == expected


@pytest.mark.parametrize("wanted", ["/a/b", "a:b", "a:b:c:d", "a.slice:b:", "a.slice:b:c/d"])
def test_another_form_is_refused(wanted: str) -> None:
    """Naming the form that is expected."""
    with pytest.raises(InvalidCgroupsPath, match="slice:prefix:name"):
        systemd.names(wanted, "c1")


def test_a_slice_lies_below_its_parents() -> None:
    """The dashes of its name are its path."""
    assert systemd.expand("a-b-c.slice") == "/a.slice/a-b.slice/a-b-c.slice"
    assert systemd.expand("-.slice") == ""
    for wrong in ("a", ".slice", "a--b.slice", "-a.slice", "a/b.slice"):
        with pytest.raises(InvalidCgroupsPath):
            systemd.expand(wrong)


def test_without_systemd_it_is_said_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Before anything is made."""
    monkeypatch.setattr(systemd, "BOOTED", str(tmp_path / "nothing"))
    here = layout.Layout(2, [], layout.Hierarchy(("unified",), "/sys/fs/cgroup", "/", "/"))
    with pytest.raises(NoSystemd, match="systemd not running on this host"):
        systemd.open_unit(here, "", "c1", {}, rootless=False)


@pytest.mark.parametrize(
    ("version", "resources", "expected"),
    [
        (2, {"memory": {"limit": -1}}, {"MemoryMax": INFINITY, "MemorySwapMax": INFINITY}),
        (1, {"memory": {"limit": 5, "swap": 9}}, {"MemoryLimit": 5}),
        (2, {"memory": {"limit": 5, "swap": 9}}, {"MemoryMax": 5, "MemorySwapMax": 4}),
        (2, {"cpu": {"shares": 1024}}, {"CPUWeight": 100}),
        (1, {"cpu": {"shares": 1024}}, {"CPUShares": 1024}),
        (2, {"cpu": {"shares": 1024, "idle": 1}}, {"CPUWeight": 0}),
        (2, {"cpu": {"cpus": "0-1,8"}}, {"AllowedCPUs": b"\x03\x01"}),
        (2, {"cpu": {"quota": 5000}}, {"CPUQuotaPerSecUSec": 50000}),
        (2, {"pids": {"limit": 0}}, {"TasksMax": 1}),
        (2, {"pids": {"limit": -1}}, {"TasksMax": INFINITY}),
        (1, {"blockIO": {"weight": 10}}, {"BlockIOWeight": 10}),
    ],
)
def test_limits_are_properties(
    version: int, resources: dict[str, Any], expected: dict[str, Any]
) -> None:
    """So that a reload of systemd does not undo them."""
    rows = properties.of(resources, version, update=True)
    assert {name: value for name, (_, value) in rows} == expected


def test_a_quota_is_rounded_up_to_a_percent() -> None:
    """systemd counts percents; less than the file says would be refused."""
    assert properties.per_second(33333, 100000) == 340000
    assert properties.per_second(-1, 100000) == INFINITY


def test_devices_are_a_strict_list() -> None:
    """Wildcards in systemd's words; everything is no list at all."""
    rows = properties.of({}, 2, update=False)
    policy, entries = rows[-2:]
    assert policy == ("DevicePolicy", ("s", "strict"))
    assert {("char-*", "m"), ("char-136", "rwm"), ("/dev/char/1:3", "rwm")} <= set(entries[1][1])
    everything = properties.of({"devices": [{"allow": True}]}, 2, update=False)
    assert everything[-1] == ("DevicePolicy", ("s", "auto"))


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("y", 7),
        ("b", True),
        ("t", INFINITY),
        ("s", "grüße"),
        ("o", "/a/b"),
        ("g", "a{sv}"),
        ("au", [1, 2, 3]),
        ("at", []),
        ("a(ss)", [("a", "b"), ("", "")]),
        ("(yt)", (1, 2)),
        ("ay", [1, 2]),
    ],
)
def test_values_survive_the_wire(kind: str, value: object) -> None:
    """At every alignment."""
    for offset in range(8):
        out = bytearray(offset)
        dbus.put(out, kind, value)
        assert dbus.decode("<", kind, bytes(out), offset) == (value, len(out))


def test_a_call_is_laid_out_as_the_specification_says() -> None:
    """Fixed head, array of fields, padding to eight, body."""
    message = dbus.encode(9, {1: "/o", 3: "M", 8: "su"}, "su", ("hi", 5))
    assert message[:4] == b"l\x01\x00\x01"
    body, serial, fields = struct.unpack_from("<III", message, 4)
    assert (body, serial) == (12, 9)
    assert len(message) == 16 + (fields + 7) // 8 * 8 + body
    assert message[-12:] == b"\x02\0\0\0hi\0\0\x05\0\0\0"


def test_signatures_are_split_into_complete_types() -> None:
    """Nested ones stay whole."""
    assert dbus.split("ssa(sv)a(sa(sv))u") == ["s", "s", "a(sv)", "a(sa(sv))", "u"]


def answer(serial: int, kind: int, fields: dict[int, Any], signature: str, *values: Any) -> bytes:
    """A message as the other side writes it."""
    raw = bytearray(dbus.encode(serial, {**fields, 8: signature}, signature, values))
    raw[1] = kind
    return bytes(raw)


def test_calls_get_their_own_answers(tmp_path: Path) -> None:
    """A signal in between is kept; an error has its name and words; then the other side goes away."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "bus"))
    listener.listen()

    def serve() -> None:
        peer, _ = listener.accept()
        with peer, peer.makefile("rb", buffering=0) as stream:
            assert stream.readline() == b"\0AUTH EXTERNAL " + (
                str(os.geteuid()).encode().hex().encode() + b"\r\n"
            )
            peer.sendall(b"OK 123\r\n")
            assert stream.readline() == b"BEGIN\r\n"
            assert stream.read(4096)
            signal = answer(1, dbus.SIGNAL, {3: "JobRemoved"}, "uoss", 1, "/j", "u", "done")
            peer.sendall(signal + answer(2, dbus.METHOD_RETURN, {5: 1}, "o", "/j"))
            assert stream.read(4096)
            peer.sendall(answer(3, dbus.ERROR, {4: "x.NoSuchUnit", 5: 2}, "s", "gone"))

    server = threading.Thread(target=serve)
    server.start()
    bus = dbus.Connection(str(tmp_path / "bus"), direct=True)
    try:
        assert bus.call("n", "/o", "i", "Start", "s", "u") == ["/j"]
        found = bus.signal("JobRemoved", 1)
        assert found is not None
        assert found.body == [1, "/j", "u", "done"]
        with pytest.raises(dbus.CallFailed, match="gone") as caught:
            bus.call("n", "/o", "i", "Stop")
        assert caught.value.name == "x.NoSuchUnit"
        with pytest.raises(OSError, match=r"closed|reset|Broken"):
            bus.call("n", "/o", "i", "Stop")
    finally:
        bus.close()
        server.join()
        listener.close()
