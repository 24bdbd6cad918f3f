"""The short way in: accepts a well-formed command line of a hot verb, and never refuses anything.

Whatever is odd (an unknown option, a missing value, --help, a wrong number of arguments) is None:
`app` reads it again with click and finds the words for it. A property test holds both to the same
meaning.
"""

from ocimig.cli.verbs import FLAG, GLOBAL_BY_NAME, MANY, MAYBE, NUMBER, Call, number, wrong_count
from ocimig.cli.verbs_hot import HOT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocimig.cli.verbs import Option


def parse(argv: "list[str]") -> "Call | None":
    """What the command line means, or None when that takes a second look."""
    outer: dict[str, object] = {}
    position = _options(argv, 0, GLOBAL_BY_NAME, outer)
    if not 0 <= position < len(argv) or outer.keys() & {"help", "version"}:
        return None
    verb = HOT.get(argv[position])
    if verb is None:
        return None
    options: dict[str, object] = {}
    arguments: list[str] = []
    position += 1
    while position < len(argv):
        position = _options(argv, position, verb.by_name, options)
        if position < 0:
            return None
        if position < len(argv) and argv[position] == "--":
            arguments += argv[position + 1 :]
            break
        arguments += argv[position : position + 1]
        position += 1
        if verb.rest and arguments:
            arguments += argv[position:]
            break
    if wrong_count(verb, len(arguments)):
        return None
    return Call(verb, outer, options, arguments)


def _options(
    argv: "list[str]", position: int, known: "dict[str, Option]", found: "dict[str, object]"
) -> int:
    """Read options from `position` on; the first place that is none, or -1 for something odd."""
    while position < len(argv):
        word = argv[position]
        if word in ("-", "--") or not word.startswith("-"):
            return position
        name, equals, value = word[2 if word.startswith("--") else 1 :].partition("=")
        option = known.get(name)
        if option is None:
            return -1
        position += 1
        if option.kind == MAYBE:
            return -1
        if option.kind == FLAG:
            if equals:
                return -1
            found[option.key] = True
            continue
        if not equals:
            if position == len(argv):
                return -1
            value = argv[position]
            position += 1
        if option.choices and value not in option.choices:
            return -1
        if option.kind == NUMBER:
            try:
                found[option.key] = number(value)
            except ValueError:
                return -1
        elif option.kind == MANY:
            _append(found, option.key, value)
        else:
            found[option.key] = value
    return position


def _append(found: "dict[str, object]", key: str, value: str) -> None:
    values = found.setdefault(key, [])
    if isinstance(values, list):
        values.append(value)
