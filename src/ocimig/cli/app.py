"""The long way in: click reads what `fast` does not accept, and finds the words for what is wrong.

The application is built from the table of verbs. A verb's module is imported by nobody here, so
`--help` costs click and nothing more.
"""

import click

from ocimig.cli import manual
from ocimig.cli.verbs import (
    FLAG,
    GLOBAL,
    GLOBAL_BY_NAME,
    MANY,
    NUMBER,
    Call,
    InvalidSetting,
    Misuse,
    Option,
    Verb,
    number,
    wrong_count,
)
from ocimig.cli.verbs_cold import ALL, FAMILIES

_HELP = Option("-h, --help", "show this help", FLAG)


class _Answer(Exception):
    """The text that --help or --version asks for."""


def parse(argv: list[str], program: str) -> Call | str:
    """What the command line means: a call, or a text that was asked for (help, the version).

    Raises Misuse, with words, for anything else.
    """
    group = _Group(program)
    try:
        outcome = group.main(args=argv, prog_name=program, standalone_mode=False)
    except _Answer as answer:
        return str(answer)
    except Misuse as error:
        error.outer = group.outer
        raise
    except click.Abort:
        raise KeyboardInterrupt from None
    except click.ClickException as error:
        raise Misuse(error.format_message().rstrip(".")) from None
    if not isinstance(outcome, Call):
        raise TypeError(f"click returned {outcome!r}")
    return outcome


class _Verb(click.Command):
    """One verb: its callback returns a `Call`."""

    def __init__(self, verb: Verb, program: str) -> None:
        self.verb = verb
        self.program = program
        words = click.Argument(["arguments"], nargs=-1, type=click.UNPROCESSED)
        super().__init__(
            verb.name,
            params=[words, *(_parameter(option, verb) for option in (*verb.options, _HELP))],
            callback=self._call,
            add_help_option=False,
            context_settings={"allow_interspersed_args": not verb.rest},
        )

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        known = {**self.verb.by_name, "help": _HELP, "h": _HELP}
        return super().parse_args(ctx, _canonical(args, known, self.verb))

    def _call(self, arguments: tuple[str, ...], **values: object) -> Call:
        if values.get("help"):
            raise _Answer(manual.of_verb(self.verb, self.program))
        if reason := wrong_count(self.verb, len(arguments)):
            raise _refuse(reason, self.verb)
        outer = click.get_current_context().find_root().obj
        return Call(self.verb, outer, _given(values, self.verb.options), list(arguments))


class _Group(click.Group):
    """The verbs, made when they are asked for."""

    def __init__(self, program: str) -> None:
        self.program = program
        self.outer: dict[str, object] = {}
        super().__init__(
            program,
            params=[_parameter(option, None) for option in GLOBAL],
            callback=self._outer,
            invoke_without_command=True,
            add_help_option=False,
        )

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        rest = super().parse_args(ctx, _canonical(args, GLOBAL_BY_NAME, None))
        if ctx.params.get("version"):
            raise _Answer(manual.version(self.program))
        if ctx.params.get("help"):
            raise _Answer(manual.of_program(self.program))
        return rest

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(ALL)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name, *rest = args
        if name in ("help", "h"):
            return name, _Help(self.program), rest
        if name not in FAMILIES:
            return name, _Verb(_known(name), self.program), rest
        if not rest or rest[0] in ("-h", "-help", "--help", "help"):
            raise _Answer(manual.of_family(name, self.program))
        verb = ALL.get(f"{name} {rest[0]}")
        if verb is None:
            raise Misuse(f"No help topic for '{name} {rest[0]}'", code=3)
        return verb.name, _Verb(verb, self.program), rest[1:]

    def _outer(self, **values: object) -> None:
        context = click.get_current_context()
        if context.invoked_subcommand is None:
            raise _Answer(manual.of_program(self.program))
        self.outer = context.obj = _given(values, GLOBAL)


class _Help(click.Command):
    """`ocimig help [VERB]`, as runc has it."""

    def __init__(self, program: str) -> None:
        self.program = program
        words = click.Argument(["names"], nargs=-1, type=click.UNPROCESSED)
        super().__init__("help", params=[words], callback=self._show, add_help_option=False,
                         context_settings={"ignore_unknown_options": True})  # fmt: skip

    def _show(self, names: tuple[str, ...]) -> None:
        if not names or names[0].startswith("-"):
            raise _Answer(manual.of_program(self.program))
        if names[0] in FAMILIES and len(names) == 1:
            raise _Answer(manual.of_family(names[0], self.program))
        count = 2 if names[0] in FAMILIES else 1
        raise _Answer(manual.of_verb(_known(" ".join(names[:count])), self.program))


def _parameter(option: Option, verb: Verb | None) -> click.Option:
    # The key is the only declaration: _canonical has already written every name that way.
    names = [_variable(option), f"--{option.key}"]
    if option.kind == FLAG:
        return click.Option(names, is_flag=True)

    def convert(value: str) -> int | str:
        return _checked(option, value, verb)

    return click.Option(names, type=convert, multiple=option.kind == MANY)


def _checked(option: Option, value: str, verb: Verb | None) -> int | str:
    if option.choices and value not in option.choices:
        if option.key == "log-format":
            raise InvalidSetting(reason=f"invalid log-format: {value}")
        why = f"not one of {', '.join(option.choices)}"
        raise _refuse(f'invalid value "{value}" for flag -{option.key}: {why}', verb)
    if option.kind != NUMBER:
        return value
    try:
        return number(value)
    except ValueError:
        raise _refuse(
            f'invalid value "{value}" for flag -{option.key}: not a number', verb
        ) from None


def _variable(option: Option) -> str:
    return option.key.replace("-", "_")


def _given(values: dict[str, object], options: tuple[Option, ...]) -> dict[str, object]:
    """Only what stood on the command line, under the keys of the table."""
    given = {}
    for option in options:
        value = values.get(_variable(option))
        if value is None or value is False or value == ():
            continue
        given[option.key] = list(value) if isinstance(value, tuple) else value
    return given


def _canonical(args: list[str], known: dict[str, Option], verb: Verb | None) -> list[str]:
    """Options as click takes them: -name, --n and --name V become --name=V; --flag=false goes.

    Before the verb, and for verbs that leave the rest to others, the first argument ends them.
    """
    words: list[tuple[str, bool]] = []  # with whether it is a flag, which =false takes back
    position = 0
    while position < len(args):
        word = args[position]
        plain = word == "-" or not word.startswith("-")
        if word == "--" or (plain and (verb is None or verb.rest)):
            words += [(later, False) for later in args[position:]]
            break
        position += 1
        if plain:
            words.append((word, False))
            continue
        name, equals, value = word[2 if word.startswith("--") else 1 :].partition("=")
        option = known.get(name)
        if option is None:
            raise _refuse(f"flag provided but not defined: -{name}", verb)
        long = f"--{option.key}"
        if option.kind == FLAG:
            words = [earlier for earlier in words if earlier != (long, True)]
            if not equals or _truth(value, name, verb):
                words.append((long, True))
            continue
        if not equals:
            if position == len(args):
                raise _refuse(f"flag needs an argument: -{name}", verb)
            value = args[position]
            position += 1
        words.append((f"{long}={value}", False))
    return [word for word, _ in words]


def _truth(value: str, name: str, verb: Verb | None) -> bool:
    """What Go's strconv.ParseBool takes for true and for false."""
    if value in ("1", "t", "T", "true", "TRUE", "True"):
        return True
    if value in ("0", "f", "F", "false", "FALSE", "False"):
        return False
    raise _refuse(f'invalid boolean value "{value}" for -{name}: parse error', verb)


def _known(name: str) -> Verb:
    verb = ALL.get(name)
    if verb is None:
        raise Misuse(f"No help topic for '{name}'", code=3)
    return verb


def _refuse(reason: str, verb: Verb | None) -> Misuse:
    return Misuse(reason, code=1 if verb is None or verb.contract else 2, verb=verb)
