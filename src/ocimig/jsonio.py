"""JSON without the weight of `json`: the same scanner in C, a small writer.

`json` costs 6 ms at start-up, most of it for `re`. `_json` is private to CPython (docs/adr/0004):
where it is missing, `json` does the work, and tests compare both on random documents.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MAX_DEPTH = 256  # nesting that a person or a program writes; deeper is an attack on the stack


class _Context:
    """What `_json.make_scanner` asks of a decoder."""

    __slots__ = ()
    strict = True
    object_hook = None
    object_pairs_hook = staticmethod(lambda pairs: _unique(pairs))
    parse_float = float
    parse_int = int
    memo: "dict[str, str]" = {}

    @staticmethod
    def parse_constant(name: str) -> "Any":
        raise ValueError(f"{name} is not JSON")


def _unique(pairs: "list[tuple[str, Any]]") -> "dict[str, Any]":
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise ValueError(f"the key {name!r} is there twice")
            seen.add(name)
    return found


_SPACE = " \t\n\r"


def loads(text: "str | bytes") -> "Any":
    """Parse one JSON document. Raises ValueError with the line and column of the fault.

    Stricter than `json`: NaN and Infinity, a key given twice, and nesting deeper than MAX_DEPTH
    are refused.
    """
    if isinstance(text, bytes):
        text = text.decode()  # "utf-8-sig" would be one more module to load
    text = text.removeprefix("\ufeff")
    _check_depth(text)
    start = _skip(text, 0)
    try:
        try:
            value, end = _scan(text, start)
        except SystemError:
            # the scanner takes its error class from json.decoder, and only looks whether it is there
            import json.decoder  # noqa: F401

            value, end = _scan(text, start)
    except StopIteration as stop:
        raise ValueError(_where(text, stop.value, "a value is missing")) from None
    except ValueError as error:
        position = getattr(error, "pos", None)
        message = getattr(error, "msg", str(error))
        raise ValueError(message if position is None else _where(text, position, message)) from None
    end = _skip(text, end)
    if end != len(text):
        raise ValueError(_where(text, end, "something follows the document"))
    return value


def _skip(text: str, position: int) -> int:
    while position < len(text) and text[position] in _SPACE:
        position += 1
    return position


def _where(text: str, position: int, message: str) -> str:
    line = text.count("\n", 0, position) + 1
    column = position - text.rfind("\n", 0, position)
    return f"line {line}, column {column}: {message[:1].lower()}{message[1:]}"


def _check_depth(text: str) -> None:
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return
    depth, inside, escaped = 0, False, False
    for position, char in enumerate(text):
        if inside:
            if escaped:
                escaped = False
            elif char == "\\":
                escaped = True
            elif char == '"':
                inside = False
        elif char == '"':
            inside = True
        elif char in "[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise ValueError(_where(text, position, f"nested deeper than {MAX_DEPTH}"))
        elif char in "]}":
            depth -= 1


def dumps(value: "Any", indent: "int | str | None" = None, *, sort_keys: bool = False) -> str:
    """The document as text: compact without `indent`, else as `json.dumps(value, indent=…)`."""
    step = " " * indent if isinstance(indent, int) else indent
    parts: list[str] = []
    _write(value, step, "\n", sort_keys, parts.append)
    return "".join(parts)


def _write(value: "Any", step: "str | None", line: str, ordered: bool, put: "Any") -> None:
    if value is None:
        put("null")
    elif value is True:
        put("true")
    elif value is False:
        put("false")
    elif isinstance(value, str):
        put(_quote(value))
    elif isinstance(value, int):
        put(int.__repr__(value))
    elif isinstance(value, float):
        if value != value or value in (float("inf"), float("-inf")):
            raise ValueError(f"{value!r} is not JSON")
        put(float.__repr__(value))
    elif isinstance(value, dict):
        items = sorted(value.items()) if ordered else value.items()
        colon = ":" if step is None else ": "
        _write_many(
            [(_quote(str(name)) + colon, inner) for name, inner in items],
            "{}", step, line, ordered, put,
        )  # fmt: skip
    elif isinstance(value, list | tuple):
        _write_many([("", inner) for inner in value], "[]", step, line, ordered, put)
    else:
        raise TypeError(f"{type(value).__name__} is not JSON")


def _write_many(
    items: "list[tuple[str, Any]]",
    brackets: str,
    step: "str | None",
    line: str,
    ordered: bool,
    put: "Any",
) -> None:
    if not items:
        put(brackets)
        return
    inner = line + (step or "")
    separator = "," if step is None else "," + inner
    put(brackets[0] if step is None else brackets[0] + inner)
    for number, (name, value) in enumerate(items):
        if number:
            put(separator)
        put(name)
        _write(value, step, inner, ordered, put)
    put(brackets[1] if step is None else line + brackets[1])


try:
    from _json import encode_basestring_ascii as _quote
    from _json import make_scanner as _make_scanner

    _scan: "Any" = _make_scanner(_Context())  # type: ignore[arg-type, unused-ignore]
except (ImportError, AttributeError, TypeError):  # another Python: the ordinary module does it
    import json

    _quote = json.dumps
    _decoder: "Any" = json.JSONDecoder(
        object_pairs_hook=_unique, parse_constant=_Context.parse_constant
    )
    _scan = _decoder.scan_once
