"""Our JSON agrees with the ordinary module, and refuses with words what it refuses."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ocimig
from ocimig import jsonio

ROOT = Path(ocimig.__file__).resolve().parents[1]
DOCUMENTS = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=20,
)
BROKEN = [
    "", "{", "[", '"', "tru", "-", "[1", "[1,", "[1 2]", '{"a"', '{"a":', '{"a":1,', "{1:2}",
    "{'a':1}", "1e", "01", "+1", "[1]x", '"\\x"', '"\\u12"', '"\x01"', "NaN", "Infinity", "nul",
]  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(DOCUMENTS, st.sampled_from([None, 1, 4, "\t"]), st.booleans())
def test_it_writes_and_reads_what_json_does(document: Any, indent: Any, ordered: bool) -> None:
    """Both ways, in every layout."""
    separators = (",", ":") if indent is None else None
    expected = json.dumps(document, indent=indent, sort_keys=ordered, separators=separators)
    assert jsonio.dumps(document, indent, sort_keys=ordered) == expected
    assert jsonio.loads(expected) == json.loads(expected)
    assert jsonio.loads(expected.encode()) == document


@given(st.text(st.sampled_from('{}[]",:truefalsn0123456789.-+eE \\u\n'), max_size=30))
def test_it_refuses_what_json_refuses(text: str) -> None:
    """And takes nothing that json would not; only stricter, with a ValueError each time."""
    try:
        found = jsonio.loads(text)
    except ValueError:
        return
    assert found == json.loads(text)


@pytest.mark.parametrize("text", BROKEN)
def test_a_broken_document_says_where(text: str) -> None:
    """Line and column."""
    with pytest.raises(ValueError, match=r"line 1, column \d+: |is not JSON"):
        jsonio.loads(text)


def test_it_says_so_too_where_json_was_never_loaded() -> None:
    """The C scanner looks for its error class in json.decoder, which the program does not load."""
    script = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "from ocimig import jsonio\n"
        "assert 'json' not in sys.modules\n"
        f"for text in {BROKEN!r}:\n"
        "    try: jsonio.loads(text)\n"
        "    except ValueError as error: print(error)\n"
    )
    command = [sys.executable, "-IS", "-c", script]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    assert len(ended.stdout.splitlines()) == len(BROKEN)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"a": 1, "b": {"c": 1, "c": 2}}', "the key 'c' is there twice"),
        ("[NaN]", "NaN is not JSON"),
        ("[-Infinity]", "-Infinity is not JSON"),
        ("[" * 300 + "]" * 300, "nested deeper than 256"),
        ("[" * 100_000, "nested deeper than 256"),
    ],
)
def test_it_is_stricter_than_json(text: str, words: str) -> None:
    """What has no one meaning, and what would break the stack."""
    with pytest.raises(ValueError, match=words):
        jsonio.loads(text)


def test_brackets_in_strings_are_no_depth() -> None:
    """Only nesting counts."""
    text = json.dumps(["[" * 5000 + '\\"{' * 10])
    assert jsonio.loads(text) == json.loads(text)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}, object(), b"x"])
def test_what_is_not_json_is_not_written(value: Any) -> None:
    """No file of ours holds what no other program reads."""
    with pytest.raises((TypeError, ValueError), match="is not JSON"):
        jsonio.dumps([value])


def test_a_byte_order_mark_is_skipped() -> None:
    """Editors of another system write it."""
    assert jsonio.loads(b"\xef\xbb\xbf[1]") == jsonio.loads("\ufeff[1]") == [1]
