"""One directory as lines: the same node is the same line, and what is hostile is refused in words."""

import json
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocimig.migrate.store import stream, tree
from ocimig.migrate.store.blobs import BLOCK, ZEROS, Run
from ocimig.migrate.store.tree import Node, decode, encode, nodes

_names = st.binary(min_size=1, max_size=255).filter(
    lambda name: name not in (b".", b"..") and not {0, 47} & set(name)
)
_runs = st.lists(
    st.one_of(
        st.builds(Run, st.just(ZEROS), st.just(0), st.integers(1, 1 << 40)),
        st.builds(Run, st.integers(1, (1 << 64) - 1), st.integers(0, 1 << 31), st.integers(1, 999)),
    ),
    max_size=4,
)
_attributes = st.dictionaries(
    st.binary(min_size=1, max_size=30).filter(lambda name: 0 not in name),
    st.binary(max_size=40),
    max_size=4,
).map(lambda found: tuple(sorted(found.items())))
_id = st.integers(0, 0xFFFFFFFE)
_link = st.one_of(st.just(0), st.integers(1, (1 << 64) - 1))


@st.composite
def _nodes(draw: st.DrawFn) -> Node:
    kind = draw(st.sampled_from("fdlcbps"))
    node = Node(
        draw(_names), kind, draw(st.integers(0, 0o7777)), draw(_id), draw(_id),
        draw(st.integers(-(1 << 63), (1 << 63) - 1)), draw(_attributes),
        link=0 if kind == "d" else draw(_link),
    )  # fmt: skip
    if kind in "fd":
        runs = tuple(draw(_runs))
        blocks = sum(run.entries for run in runs)
        size = blocks * BLOCK - draw(st.integers(0, BLOCK - 1)) if blocks else 0
        return node._replace(runs=runs, size=size)
    if kind == "l":
        target = draw(st.binary(min_size=1, max_size=99).filter(lambda raw: 0 not in raw))
        return node._replace(target=target)
    if kind in "cb":
        return node._replace(device=(draw(st.integers(0, 4095)), draw(st.integers(0, 1048575))))
    return node


@given(_nodes())
def test_a_node_comes_back_as_it_was(node: Node) -> None:
    """Names and attributes that are no UTF-8 among them; and in one line."""
    line = encode(node)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert decode(line) == node
    assert encode(decode(line)) == line


@given(st.lists(_nodes(), max_size=5, unique_by=lambda node: node.name), st.integers(1, 200))
def test_a_directory_comes_back_however_it_is_cut(found: list[Node], size: int) -> None:
    """It comes in blocks, which know nothing of lines."""
    found.sort(key=lambda node: node.name)
    whole = b"".join(map(encode, found))
    parts = [whole[start : start + size] for start in range(0, len(whole), size)]
    assert list(nodes(parts)) == found


@given(_nodes(), st.data())
def test_a_line_that_was_changed_is_refused_or_is_something_else_that_can_be(
    node: Node, data: st.DataObject
) -> None:
    """Nothing but ValueError comes out of it, and no value that a file could not have."""
    line = bytearray(encode(node))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(line) - 1))
        act = data.draw(st.integers(0, 2))
        if act == 0:
            line[at] = data.draw(st.integers(0, 255))
        elif act == 1:
            del line[at : at + data.draw(st.integers(1, 9))]
        else:
            line[at:at] = data.draw(st.sampled_from([b"9", b"-", b'"', b"\\ud800", b"[", b"{}"]))
        if not line:
            return
    try:
        (found,) = nodes([bytes(line)])
    except ValueError:
        return
    _legal(found)
    assert decode(encode(found)) == found


def _legal(node: Node) -> None:
    assert 1 <= len(node.name) <= 255
    assert node.name not in (b".", b"..")
    assert b"/" not in node.name
    assert b"\0" not in node.name + node.target
    assert 0 <= node.mode <= 0o7777
    assert 0 <= min(node.uid, node.gid) <= max(node.uid, node.gid) < 0xFFFFFFFF
    assert not stream.fault(node.runs, node.size)
    assert (node.type == "l") == bool(node.target)


_GOOD = {"g": 0, "m": 420, "n": "name", "r": ["1f", 0, 1], "s": 5, "t": "f", "u": 0, "w": 1}
_LINK = {"g": 0, "m": 511, "n": "name", "t": "l", "to": "x", "u": 0, "w": 1}
_DEVICE = {"d": [1, 3], "g": 0, "m": 438, "n": "null", "t": "c", "u": 0, "w": 1}


def test_the_examples_below_are_good_but_for_one_thing() -> None:
    """Else the refusals would say nothing."""
    for each in (_GOOD, _LINK, _DEVICE):
        assert decode(json.dumps(each).encode()).name in (b"name", b"null")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"n": ""}, "no name"),
        ({"n": "."}, "no name"),
        ({"n": ".."}, "no name"),
        ({"n": "../etc/passwd"}, "slash"),
        ({"n": "a\0b"}, "NUL"),
        ({"n": "\udc41"}, "stands for no bytes|another way"),
        ({"n": "\ud800"}, "stands for no bytes"),
        ({"n": "\udcc3\udca9"}, "another way"),
        ({"n": "é" * 128}, "longer than 255"),
        ({"n": 5}, "no text"),
        ({"t": "D"}, "no type"),
        ({"t": ["f"]}, "no type"),
        ({"t": "d"}, "has the fields"),
        ({"to": "/etc"}, "has the fields"),
        ({"unknown": 1}, "has the fields"),
        ({"m": 0o10000}, "m is 4096"),
        ({"m": True}, "no whole number"),
        ({"m": 1.0}, "no whole number"),
        ({"u": 0xFFFFFFFF}, "u is 4294967295"),
        ({"g": -1}, "g is -1"),
        ({"w": 1 << 63}, "w is"),
        ({"s": -5}, "s is -5"),
        ({"s": 0}, "1 blocks, its size of 0 bytes needs 0"),
        ({"s": BLOCK + 1}, "needs 2"),
        ({"l": 0}, "l is 0"),
        ({"l": 1 << 64}, "l is"),
        ({"r": "1f"}, "no triples"),
        ({"r": ["1f", 0]}, "no triples"),
        ({"r": [["1f", 0, 1]]}, "no triples"),
        ({"r": [31, 0, 1]}, "no number of a pack"),
        ({"r": ["1F", 0, 1]}, "no number of a pack"),
        ({"r": ["", 0, 1]}, "no number of a pack"),
        ({"r": ["0" * 15 + "1f", 0, 1]}, "no number of a pack|begins with zeros"),
        ({"r": ["01", 0, 1]}, "begins with zeros"),
        ({"r": ["1f", -1, 1]}, "cannot be"),
        ({"r": ["1f", 0, 0]}, "cannot be"),
        ({"r": ["1f", (1 << 32) - 1, 2]}, "cannot be"),
        ({"r": ["0", 3, 1]}, "run of zeros"),
        ({"r": ["0", 0, 1 << 60]}, "run of zeros"),
        ({"x": {}}, "no object, or none"),
        ({"x": []}, "no object, or none"),
        ({"x": {"": ""}}, "name of an attribute"),
        ({"x": {"user.a": 1}}, "no text"),
        ({"x": {"user.a": "?"}}, "no base64"),
        ({"x": {"user.a": "QR=="}}, "no base64 as it has to be"),
        ({"x": {"user.a": "A" * 200_000}}, "too long"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_with_the_reason(change: dict[str, object], words: str) -> None:
    """An administrator reads it; a path that leaves the tree is the least of what may come."""
    with pytest.raises(ValueError, match=words):
        decode(json.dumps(_GOOD | change).encode())


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (json.dumps(_LINK | {"to": ""}), "target"),
        (json.dumps(_LINK | {"to": "a\0"}), "target"),
        (json.dumps(_LINK | {"to": "x" * 4096}), "target"),
        (json.dumps(_DEVICE | {"d": [1]}), "pair"),
        (json.dumps(_DEVICE | {"d": [4096, 0]}), "no device"),
        (json.dumps(_DEVICE | {"d": [1, -1]}), "no device"),
        ("[]", "no object"),
        ("[" * 100_000, "nested deeper"),
        ('{"t":"f","t":"f"}', "there twice"),
        ("", "a value is missing"),
        ("\xff", "not ASCII"),
    ],
)
def test_other_lines_that_cannot_be_are_refused(line: str, words: str) -> None:
    """Links, devices, and what is no object at all."""
    with pytest.raises(ValueError, match=words):
        decode(line.encode("latin-1"))


def test_only_the_root_has_no_name() -> None:
    """Its entry is in the snapshot, and in no directory."""
    line = json.dumps(_GOOD | {"n": ""}).encode()
    assert decode(line, root=True).name == b""
    with pytest.raises(ValueError, match="no name"):
        decode(line)


def test_names_come_in_order_and_once() -> None:
    """Two of one name would be two files, one over the other, on the way back."""
    one, two = (encode(Node(name, "p", 0, 0, 0, 0)) for name in (b"a", b"b"))
    assert len(list(nodes([one + two]))) == 2
    for wrong in (two + one, one + one):
        with pytest.raises(ValueError, match="does not come after"):
            list(nodes([wrong]))
    with pytest.raises(ValueError, match="no end"):
        list(nodes([one + two[:-1]]))


def test_a_line_without_end_is_not_gathered(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream may be as long as it likes."""
    monkeypatch.setattr(tree, "LONGEST_LINE", 1000)
    given = []

    def endless() -> Iterator[bytes]:
        while True:
            given.append(1)
            yield b"x" * 300

    with pytest.raises(ValueError, match="longer than 1000"):
        list(nodes(endless()))
    assert len(given) == 4
