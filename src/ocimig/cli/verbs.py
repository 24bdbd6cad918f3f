"""The command line as data: verbs, what each takes, what each says. Never parses and never acts.

`fast` and `app` read this table, and so do the completions, the man pages and the tests: nothing
about an option is written anywhere else.
"""

from ocimig.errors import OcimigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

FLAG, TEXT, NUMBER, MANY, MAYBE = "flag", "text", "number", "many", "maybe"
ANY = -1  # no upper limit of arguments


class Option:
    """One option. `names` is "-b, --bundle" or "--bundle"; the long name is its key in a `Call`.

    Kinds: FLAG takes no value, TEXT one, NUMBER a decimal number, MANY may be given again, MAYBE has a
    value only behind an equals sign.
    """

    __slots__ = ("choices", "file", "help", "hidden", "key", "kind", "metavar", "names")

    def __init__(
        self,
        names: str,
        help: str,
        kind: str = TEXT,
        metavar: str = "",
        *,
        choices: "tuple[str, ...]" = (),
        file: bool = False,
        hidden: bool = False,
    ) -> None:
        self.names = tuple(name.lstrip("-") for name in names.split(", "))
        self.key = self.names[-1]
        self.help = help
        self.kind = kind
        self.metavar = metavar
        self.choices = choices
        self.file = file  # the value is a path: completions offer files
        self.hidden = hidden


class Verb:
    """One verb: where its function is, what it takes, how it is explained.

    `contract` verbs keep runc's exit codes: `failure` for every error, 1 for a wrong command line;
    a `failure` of 0 lets every error have its own.
    The others use the code of the error. `rest` verbs leave everything after the first argument to
    somebody else (a command, ps).
    """

    __slots__ = (
        "arguments", "by_name", "contract", "description", "examples", "failure", "hidden",
        "maximum", "minimum", "name", "options", "rest", "summary", "target",
    )  # fmt: skip

    def __init__(
        self,
        name: str,
        target: str,
        summary: str,
        *,
        arguments: str = "ID",
        minimum: int = 1,
        maximum: int = 1,
        options: "tuple[Option, ...]" = (),
        description: str = "",
        examples: "tuple[tuple[str, str], ...]" = (),
        contract: bool = True,
        failure: int = 1,
        rest: bool = False,
        hidden: bool = False,
    ) -> None:
        self.name = name
        self.target = target
        self.summary = summary
        self.arguments = arguments
        self.minimum = minimum
        self.maximum = maximum
        self.options = options
        self.description = description
        self.examples = examples
        self.contract = contract
        self.failure = failure
        self.rest = rest
        self.hidden = hidden
        self.by_name = by_name(options)


def by_name(options: "Iterable[Option]") -> "dict[str, Option]":
    """Every name of every option, without dashes: as in Go, -name and --name are the same."""
    return {name: option for option in options for name in option.names}


class Call:
    """A command line that was understood."""

    __slots__ = ("arguments", "options", "outer", "verb")

    def __init__(
        self,
        verb: Verb,
        outer: "dict[str, object]",
        options: "dict[str, object]",
        arguments: "list[str]",
    ) -> None:
        self.verb = verb
        self.outer = outer  # the options before the verb
        self.options = options
        if verb.rest and arguments[1:2] == ["--"]:
            arguments = arguments[:1] + arguments[2:]
        self.arguments = arguments

    def given(self, key: str) -> bool:
        """Whether the option stands on the command line at all."""
        return key in self.options or key in self.outer

    def flag(self, key: str) -> bool:
        """Whether a FLAG was given."""
        return bool(self._value(key, FLAG))

    def text(self, key: str, default: str = "") -> str:
        """The value of a TEXT option."""
        value = self._value(key, TEXT)
        return value if isinstance(value, str) else default

    def maybe(self, key: str, default: str) -> str | None:
        """The value of a MAYBE option, `default` where it has none; None where it was not given."""
        value = self._value(key, MAYBE)
        return (value or default) if isinstance(value, str) else None

    def number(self, key: str, default: int = 0) -> int:
        """The value of a NUMBER option."""
        value = self._value(key, NUMBER)
        return value if isinstance(value, int) else default

    def many(self, key: str) -> "list[str]":
        """Every value of a MANY option."""
        value = self._value(key, MANY)
        return value if isinstance(value, list) else []

    def _value(self, key: str, kind: str) -> object:
        option = self.verb.by_name.get(key) or GLOBAL_BY_NAME[key]
        if option.kind != kind:
            raise TypeError(f"--{key} of {self.verb.name} is a {option.kind}, not a {kind}")
        return self.options.get(key, self.outer.get(key))


class Misuse(OcimigError):
    """A command line that no verb takes; `code` is 1 for verbs of runc, 2 for ours, 3 for no verb."""

    message = "{reason}"

    def __init__(self, reason: str, *, code: int = 1, verb: "Verb | None" = None) -> None:
        super().__init__(reason=reason)
        self.code = code
        self.verb = verb
        self.outer: dict[str, object] = {}  # the options before the verb, as far as they were read


class InvalidSetting(OcimigError):
    """An option before the verb has a value that cannot be used."""

    message = "{reason}"

    def __init__(self, *, reason: str) -> None:
        super().__init__(reason=reason)


GLOBAL = (
    Option("--root", "directory of the state of containers", TEXT, "DIR", file=True),
    Option("--log", "append the log to this file instead of stderr", TEXT, "FILE", file=True),
    Option("--log-format", "form of the log", TEXT, "FORMAT", choices=("text", "json")),
    Option("--debug", "log every step, and show tracebacks of expected errors too", FLAG),
    Option("--systemd-cgroup", "cgroupsPath is slice:prefix:name, and systemd makes the cgroup", FLAG),
    Option("--rootless", "ignore what only root may do with cgroups", TEXT, "VALUE",
           choices=("true", "false", "auto")),
    Option("--cgroup-manager", "who makes cgroups (crun's name for --systemd-cgroup)", TEXT, "NAME",
           choices=("cgroupfs", "systemd", "disabled")),
    Option("--criu", "ignored: old callers pass the path of criu", TEXT, "PATH", hidden=True),
    Option("--log-level", "crun's name for --debug", TEXT, "LEVEL",
           choices=("error", "warning", "debug"), hidden=True),
    Option("-h, --help", "show this help", FLAG),
    Option("-v, --version", "show the version", FLAG),
)  # fmt: skip
GLOBAL_BY_NAME = by_name(GLOBAL)


def number(value: str) -> int:
    """The value of a NUMBER option. Raises ValueError unless it is a short decimal number."""
    if not (value.isascii() and value.isdigit() and len(value) < 10):
        raise ValueError(value)
    return int(value)


def wrong_count(verb: Verb, count: int) -> str:
    """Why `count` arguments are not what the verb takes, in runc's words; empty when they are."""
    if verb.minimum == verb.maximum != count:
        return f'"{verb.name}" requires exactly {verb.minimum} argument(s)'
    if count < verb.minimum:
        return f'"{verb.name}" requires a minimum of {verb.minimum} argument(s)'
    if verb.maximum not in (ANY, count) and count > verb.maximum:
        return f'"{verb.name}" requires a maximum of {verb.maximum} argument(s)'
    return ""
