"""What the program says about itself: --help and --version, from the table of verbs. Pure."""

from ocimig import __version__
from ocimig.cli.verbs import GLOBAL, Option, Verb
from ocimig.cli.verbs_cold import FAMILIES, rows
from ocimig.cli.verbs_cold import of_family as verbs_of

SPEC_VERSION = "1.2.0"
WIDTH = 100


def of_program(program: str) -> str:
    """The first page, in the shape that callers of runc look for."""
    return "\n".join(
        [
            "NAME:",
            f"   {program} - Open Container Initiative runtime",
            "",
            f"{program} runs OCI containers, saves them with CRIU, and moves them, running, to other hosts.",
            "",
            "USAGE:",
            f"   {program} [global options] command [command options] [arguments...]",
            "",
            "VERSION:",
            f"   {__version__}",
            "",
            "COMMANDS:",
            *_columns(rows()),
            "",
            "GLOBAL OPTIONS:",
            *_columns(_rows(GLOBAL)),
            "",
            f'Run "{program} COMMAND --help" for more about a command.',
        ]
    )


def of_family(family: str, program: str) -> str:
    """The page of the verbs that share a first word."""
    verbs = [(verb.name, verb.summary) for verb in verbs_of(family) if not verb.hidden]
    return "\n".join(
        [
            "NAME:",
            f"   {program} {family} - {FAMILIES[family]}",
            "",
            "USAGE:",
            f"   {program} {family} command [command options] [arguments...]",
            "",
            "COMMANDS:",
            *_columns(verbs),
            "",
            f'Run "{program} {family} COMMAND --help" for more about a command.',
        ]
    )


def of_verb(verb: Verb, program: str) -> str:
    """The page of one verb."""
    options = (*verb.options, Option("-h, --help", "show this help", "flag"))
    page = [
        "NAME:",
        f"   {program} {verb.name} - {verb.summary}",
        "",
        "USAGE:",
        f"   {usage(verb, program)}",
    ]
    if verb.description:
        page += [
            "",
            "DESCRIPTION:",
            *(f"   {line}" for line in wrapped(verb.description, WIDTH - 3)),
        ]
    page += ["", "OPTIONS:", *_columns(_rows(options))]
    if verb.examples:
        page += ["", "EXAMPLES:"]
        for title, line in verb.examples:
            page += [f"   # {title}", f"   {program} {line}"]
    return "\n".join(page)


def usage(verb: Verb, program: str) -> str:
    """One line: how the verb is called."""
    options = "[options]" if verb.options else ""
    return " ".join(part for part in (program, verb.name, options, verb.arguments) if part)


def version(program: str) -> str:
    """Four lines that docker, podman and CRI-O take apart: only the first holds the word version."""
    return "\n".join(
        [
            f"{program} version {__version__}",
            f"commit: v{__version__}",
            f"spec: {SPEC_VERSION}",
            f"libseccomp: {_libseccomp()}",
        ]
    )


def _libseccomp() -> str:
    from ocimig.runtime.linux import seccomp

    return seccomp.version() or "none"


def wrapped(text: str, width: int) -> list[str]:
    """The text in lines of at most `width` columns, broken at spaces."""
    lines: list[str] = []
    for word in text.split():
        if lines and len(lines[-1]) + 1 + len(word) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def names(option: Option) -> str:
    """Its names with dashes, and what follows them."""
    shown = ", ".join(f"-{name}" if len(name) == 1 else f"--{name}" for name in option.names)
    return f"{shown} {option.metavar}" if option.metavar else shown


def help_text(option: Option) -> str:
    """Its help, with the values it takes."""
    return f"{option.help}: {', '.join(option.choices)}" if option.choices else option.help


def _rows(options: tuple[Option, ...]) -> list[tuple[str, str]]:
    return [(names(option), help_text(option)) for option in options if not option.hidden]


def _columns(rows: list[tuple[str, str]]) -> list[str]:
    left = min(max(len(first) for first, _ in rows), 32)
    lines = []
    for first, second in rows:
        if len(first) > left:
            lines.append(f"   {first}")
            first = ""
        for line in wrapped(second, WIDTH - left - 5) or [""]:
            lines.append(f"   {first:{left}}  {line}".rstrip())
            first = ""
    return lines
