"""A table of a TOML file, read key by key; every problem is noted and none stops the reading."""

import difflib
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

T = TypeVar("T")


class Table:
    """One table. Whoever reads it calls `end` last: what nobody asked for is a key that does not exist."""

    def __init__(self, content: dict[str, Any], problems: list[str], where: str = "") -> None:
        self.problems = problems
        self._content = content
        self._where = where  # "checks[2]." in front of the names of keys
        self._known: list[str] = []

    def problem(self, key: str, reason: str) -> None:
        """Note what is wrong with a key."""
        self.problems.append(f"{self._where}{key}: {reason}")

    def given(self, key: str) -> bool:
        """Whether the key is there."""
        return key in self._content

    def text(self, key: str, *, choices: Sequence[str] = (), required: bool = False) -> str:
        """A string; empty when it is not there."""
        value: object = self._take(key, "")
        if not isinstance(value, str):
            self.problem(key, "must be a string")
            return ""
        if required and not value:
            self.problem(key, "is missing")
        if value and choices and value not in choices:
            self.problem(key, f"{value!r} is none of {', '.join(choices)}{_near(value, choices)}")
            return ""
        return value

    def texts(self, key: str, *, choices: Sequence[str] = ()) -> tuple[str, ...]:
        """A list of strings, or one string for a list of one."""
        value = self._take(key, [])
        value = [value] if isinstance(value, str) else value
        if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
            self.problem(key, "must be a list of strings")
            return ()
        for each in value:
            if choices and each not in choices:
                self.problem(key, f"{each!r} is none of {', '.join(choices)}{_near(each, choices)}")
        return tuple(value)

    def parsed(self, key: str, read: Callable[[str], T], default: T) -> T:
        """A string that `read` understands; its ValueError is the problem."""
        text = self.text(key)
        if not text:
            return default
        try:
            return read(text)
        except ValueError as error:
            self.problem(key, str(error))
            return default

    def count(self, key: str) -> int:
        """A number, 0 or more, or -1 or "unlimited" for all; 0 when it is not there."""
        value = self._take(key, 0)
        if value in (-1, "unlimited"):
            return -1
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            self.problem(key, 'must be a number, or "unlimited"')
            return 0
        return value

    def table(self, key: str) -> "Table":
        """A table below this one; an empty one when it is not there."""
        value = self._take(key, {})
        if not isinstance(value, dict):
            self.problem(key, "must be a table")
            value = {}
        return Table(value, self.problems, f"{self._where}{key}.")

    def tables(self, key: str) -> "list[Table]":
        """A list of tables."""
        value = self._take(key, [])
        if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
            self.problem(key, "must be a list of tables")
            return []
        return [
            Table(each, self.problems, f"{self._where}{key}[{number}].")
            for number, each in enumerate(value, 1)
        ]

    def end(self) -> None:
        """Name the keys that nobody asked for, each with the one it may have been meant to be."""
        for key in self._content:
            if key not in self._known:
                self.problem(key, f"there is no such key{_near(key, self._known)}")

    def _take(self, key: str, default: Any) -> Any:
        self._known.append(key)
        return self._content.get(key, default)


def _near(word: str, words: Sequence[str]) -> str:
    found = difflib.get_close_matches(word, words, 1)
    return f"; did you mean {found[0]}?" if found else ""
