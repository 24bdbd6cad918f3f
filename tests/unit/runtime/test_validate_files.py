"""config.json and process.json as files: hostile ones, missing ones, and what loading fills in."""

import time
from pathlib import Path
from typing import Any

import pytest

from ocimig import jsonio
from ocimig.runtime import template, validate
from ocimig.runtime.errors import InvalidConfig, NoConfig


def full() -> dict[str, Any]:
    """A config.json that is right."""
    return template.default_spec()


def test_what_is_absent_and_means_zero_is_filled_in(tmp_path: Path) -> None:
    """No user is the user 0, no capabilities are none, and nobody after this has to ask."""
    spec = template.default_spec()
    del spec["process"]["user"], spec["process"]["capabilities"]
    spec["process"]["rlimits"] = [{"type": "RLIMIT_CORE"}]
    (tmp_path / "config.json").write_text(jsonio.dumps(spec))
    process = validate.load(str(tmp_path / "config.json"))["process"]
    assert process["user"] == {"uid": 0, "gid": 0}
    assert process["capabilities"] == {}
    assert process["rlimits"] == [{"type": "RLIMIT_CORE", "hard": 0, "soft": 0}]


def test_a_missing_config_is_named_as_runc_names_it(tmp_path: Path) -> None:
    """Callers match the text."""
    with pytest.raises(NoConfig, match=r"JSON specification file .*/config.json not found"):
        validate.load(str(tmp_path / "config.json"))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "line 1, column 1"),
        (b"{", "line 1"),
        (b'{"a": NaN}', "NaN is not JSON"),
        (b'{"process": 1, "process": 2}', "'process' is there twice"),
        (b"[" * 10000 + b"]" * 10000, "nested deeper than 256"),
        (b'{"a":' * 10000 + b"1" + b"}" * 10000, "nested deeper than 256"),
        (b"\xff\xfe{}", "byte 0 is not UTF-8"),
        (b"[]", "must be an object, is a list"),
        (b"null", "must be an object, is null"),
        (b'"text"', "must be an object, is a string"),
        (b"{} {}", "something follows the document"),
        (b'{"ociVersion": ' + b"9" * 5000 + b"}", "invalid"),
        (b'{"process": {"args": ["\\ud800"], "cwd": "/"}}', "process.args[0]: holds half"),
        (b'{"annotations": {"\\udfff": "x"}}', "annotations['\\udfff']: holds half"),
        (b'{"annotations": {"": "x"}}', "the key must not be empty"),
        (b" " * ((16 << 20) + 1), "is larger than 16 MiB"),
    ],
)
def test_a_hostile_file_gets_one_clear_error(tmp_path: Path, content: bytes, words: str) -> None:
    """No traceback, no endless work, and the file is named."""
    path = tmp_path / "config.json"
    path.write_bytes(content)
    started = time.monotonic()
    with pytest.raises(InvalidConfig) as caught:
        validate.load(str(path))
    assert words in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert time.monotonic() - started < 5


def test_a_file_of_fifty_megabytes_is_refused_before_it_is_parsed(tmp_path: Path) -> None:
    """A sparse file costs nothing to make and must cost nothing to refuse."""
    path = tmp_path / "config.json"
    with path.open("wb") as file:
        file.truncate(50 << 20)
    with pytest.raises(InvalidConfig, match="larger than 16 MiB"):
        validate.load(str(path))


def test_a_byte_order_mark_is_no_fault(tmp_path: Path) -> None:
    """Editors of another system write it."""
    path = tmp_path / "config.json"
    path.write_bytes(b"\xef\xbb\xbf" + jsonio.dumps(full()).encode())
    assert validate.load(str(path))["hostname"] == "runc"


def test_many_problems_are_counted(tmp_path: Path) -> None:
    """Ten are shown, all are kept."""
    spec = full()
    spec["process"]["args"] = [0] * 40
    (tmp_path / "config.json").write_text(jsonio.dumps(spec))
    with pytest.raises(InvalidConfig, match="and 30 more") as caught:
        validate.load(str(tmp_path / "config.json"))
    assert len(caught.value.problems) == 40


def test_a_process_document_is_checked_alike(tmp_path: Path) -> None:
    """process.json of exec: same fields, paths without a prefix."""
    path = tmp_path / "process.json"
    path.write_text('{"args": ["id", 5], "cwd": "/", "env": ["A=1"]}')
    with pytest.raises(InvalidConfig, match=r"args\[1\]: must be a string"):
        validate.load_process(str(path))
    path.write_text('{"args": ["id"], "cwd": "/"}')
    assert validate.load_process(str(path))["user"] == {"uid": 0, "gid": 0}
    path.write_text('{"args": ["id"], "cwd": "/", "env": ["=1"]}')
    with pytest.raises(InvalidConfig, match=r"env\[0\]: must be NAME=value"):
        validate.load_process(str(path))
