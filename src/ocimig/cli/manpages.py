"""Manual pages in roff, from the table of verbs. Pure: contrib/man.py writes the files."""

from collections.abc import Iterable

from ocimig import __version__
from ocimig.cli import exits
from ocimig.cli.manual import help_text, names
from ocimig.cli.verbs import FLAG, GLOBAL, Option, Verb
from ocimig.cli.verbs_cold import ALL, FAMILIES, of_family, rows

_SECTION = "8"
_HELP = Option("-h, --help", "show this help", FLAG)
_ENVIRONMENT = (
    ("XDG_RUNTIME_DIR", "where the state of containers is kept for a user who is not root"),
    ("NOTIFY_SOCKET", "the container's process may tell systemd here that it is ready"),
    ("LISTEN_FDS, LISTEN_FDNAMES", "sockets of systemd's, passed on to the container's process"),
    ("OCIMIG_CRIU", "the CRIU program to use"),
    ("OCIMIG_REMOTE_COMMAND", "how migrate calls ocimig on the other host"),
)
_FILES = (
    ("/run/ocimig", "state of containers of root; one directory each"),
    ("$XDG_RUNTIME_DIR/ocimig", "the same for other users"),
    ("/usr/local/lib/ocimig/criu", "CRIU, where contrib/install-criu had to install one"),
)


def pages() -> dict[str, str]:
    """Every page, by the name of its file."""
    shown = [verb for verb in ALL.values() if not verb.hidden]
    found = {f"ocimig.{_SECTION}": _program()}
    for verb in shown:
        found[f"ocimig-{_dashed(verb.name)}.{_SECTION}"] = _verb(verb)
    for family in FAMILIES:
        found[f"ocimig-{family}.{_SECTION}"] = _family(family)
    return found


def _dashed(name: str) -> str:
    return name.replace(" ", "-")


def _family(family: str) -> str:
    verbs = [verb for verb in of_family(family) if not verb.hidden]
    lines = [
        *_heading("SYNOPSIS"),
        rf"\fBocimig {_text(family)}\fR \fIcommand\fR [\fIoptions\fR] [\fIarguments\fR]",
        *_heading("COMMANDS"),
        *_items((rf"\fBocimig\-{_text(_dashed(verb.name))}\fR(8)", verb.summary) for verb in verbs),
        *_heading("SEE ALSO"),
        r"\fBocimig\fR(8)",
    ]
    return _page(f"ocimig-{family}", FAMILIES[family], lines)


def _program() -> str:
    return _page(
        "ocimig",
        "run OCI containers, and move them between hosts while they run",
        [
            *_heading("SYNOPSIS"),
            r"\fBocimig\fR [\fIglobal options\fR] \fIcommand\fR [\fIoptions\fR] [\fIarguments\fR]",
            *_heading("DESCRIPTION"),
            _text(
                "ocimig is an OCI runtime with the command line of runc. It also saves containers to "
                "files with CRIU, brings them back, and moves them to another host over SSH while "
                "their network connections stay open."
            ),
            *_heading("COMMANDS"),
            *_items((rf"\fBocimig\-{_text(name)}\fR(8)", summary) for name, summary in rows()),
            *_heading("GLOBAL OPTIONS"),
            *_options(GLOBAL),
            *_heading("EXIT STATUS"),
            _text("Commands that runc has exit as runc does:"),
            *_items((_bold(code), text) for code, text in exits.CONTRACT),
            ".PP",
            _text("The others (migrate, drain, recover, doctor, dirty-rate, backup, job, inspect, diff, memory):"),
            *_items((_bold(code), text) for code, text in exits.OWN),
            *_heading("ENVIRONMENT"),
            *_items((_bold(name), text) for name, text in _ENVIRONMENT),
            *_heading("FILES"),
            *_items((_italic(name), text) for name, text in _FILES),
            *_heading("EXAMPLES"),
            *_examples((("Run a container, then move it",
                         "run -d -b /srv/web --net bridge=br0,address=10.0.0.5/24 web"),
                        ("Is the other host ready for it?", "migrate --dry-run web root@host2"),
                        ("Move it", "migrate web root@host2"))),
            *_heading("SEE ALSO"),
            r"\fBrunc\fR(8), \fBcriu\fR(8)",
        ],
    )  # fmt: skip


def _verb(verb: Verb) -> str:
    arguments = f" {_italic(verb.arguments)}" if verb.arguments else ""
    lines = [
        *_heading("SYNOPSIS"),
        rf"\fBocimig {_text(verb.name)}\fR [\fIoptions\fR]{arguments}",
        *_heading("DESCRIPTION"),
        _text(f"{verb.summary[:1].upper()}{verb.summary[1:]}."),
    ]
    if verb.description:
        lines += [".PP", _text(verb.description)]
    lines += [*_heading("OPTIONS"), *_options((*verb.options, _HELP))]
    lines += _heading("EXIT STATUS")
    codes = exits.CONTRACT if verb.contract and verb.failure else exits.OWN
    special = [(code, text) for code, text in codes if not _elsewhere(text, verb.name)]
    lines += _items((_bold(code), text) for code, text in special)
    if verb.examples:
        lines += [*_heading("EXAMPLES"), *_examples(verb.examples)]
    lines += [*_heading("SEE ALSO"), r"\fBocimig\fR(8)"]
    return _page(f"ocimig-{_dashed(verb.name)}", verb.summary, lines)


def _elsewhere(text: str, name: str) -> bool:
    """Whether a code is of other verbs only: "run and exec: …"."""
    owners, colon, _ = text.partition(": ")
    return (
        bool(colon) and set(owners.split()) <= {"run", "and", "exec"} and name not in owners.split()
    )


def _page(name: str, summary: str, lines: list[str]) -> str:
    head = [
        r'.\" Made by "make man" from src/ocimig/cli/verbs.py: do not edit.',
        f'.TH {name.upper()} {_SECTION} "" "ocimig {__version__}" "ocimig"',
        ".SH NAME",
        rf"{_text(name)} \- {_text(summary)}",
    ]
    return "\n".join(head + lines) + "\n"


def _heading(text: str) -> list[str]:
    return [f".SH {text}"]


def _options(options: Iterable[Option]) -> list[str]:
    return _items(
        (_bold(names(option)), help_text(option)) for option in options if not option.hidden
    )


def _items(rows: Iterable[tuple[str, str]]) -> list[str]:
    return [line for term, text in rows for line in (".TP", term, _text(text))]


def _examples(examples: Iterable[tuple[str, str]]) -> list[str]:
    lines = []
    for title, line in examples:
        lines += [
            ".PP",
            _text(f"{title}:"),
            ".PP",
            ".RS",
            ".nf",
            _text(f"ocimig {line}"),
            ".fi",
            ".RE",
        ]
    return lines


def _bold(text: str) -> str:
    return rf"\fB{_text(text)}\fR"


def _italic(text: str) -> str:
    return rf"\fI{_text(text)}\fR"


def _text(text: str) -> str:
    """Plain text for roff: a dash stays a dash that can be copied, a leading dot is no request."""
    escaped = text.replace("\\", r"\e").replace("-", r"\-")
    return rf"\&{escaped}" if escaped[:1] in (".", "'") else escaped
