"""Completion files of bash, zsh and fish, from the table of verbs. Pure: contrib/man.py writes them.

They are static and start no Python at TAB: the ids are the names in the directory of the state.
"""

from ocimig.cli.verbs import FLAG, GLOBAL, Option, Verb
from ocimig.cli.verbs_cold import ALL, FAMILIES, of_family, rows

_HELP = Option("-h, --help", "show this help", FLAG)
_NEW_NAME = ("create", "run", "restore")  # their ID is not there yet
_MADE = '# Made by "make man" from src/ocimig/cli/verbs.py: do not edit.'


def files() -> dict[str, str]:
    """Every completion file, by its path below contrib/completions."""
    return {"ocimig.bash": bash(), "_ocimig": zsh(), "ocimig.fish": fish()}


def _shown() -> list[Verb]:
    return [verb for verb in ALL.values() if not verb.hidden]


def _options(verb: Verb) -> list[Option]:
    return [option for option in (*verb.options, _HELP) if not option.hidden]


def _global() -> list[Option]:
    return [option for option in GLOBAL if not option.hidden]


def _dashed(option: Option) -> list[str]:
    return [f"-{name}" if len(name) == 1 else f"--{name}" for name in option.names]


def _takes_id(verb: Verb) -> bool:
    return verb.arguments.lstrip("[").startswith("ID") and verb.name not in _NEW_NAME


def bash() -> str:
    """bash: one function; the verb decides."""
    outer = "|".join(name for option in GLOBAL if option.kind != FLAG for name in _dashed(option))
    lines = [
        _MADE,
        "_ocimig_ids() {",
        "    local root=/run/ocimig i",
        "    ((EUID == 0)) || root=${XDG_RUNTIME_DIR:-/run}/ocimig",
        "    for ((i = 1; i < COMP_CWORD; i++)); do",
        "        [[ ${COMP_WORDS[i]} == --root ]] || continue",
        "        root=${COMP_WORDS[i + 1]}",
        '        [[ $root == "=" ]] && root=${COMP_WORDS[i + 2]}',
        "        break",
        "    done",
        '    (cd -- "$root" 2>/dev/null && compgen -d -- "$1")',
        "}",
        "",
        "_ocimig() {",
        '    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} verb="" i',
        '    [[ $cur == "=" ]] && cur=""',
        '    [[ $prev == "=" ]] && prev=${COMP_WORDS[COMP_CWORD - 2]}',
        "    for ((i = 1; i < COMP_CWORD; i++)); do",
        "        case ${COMP_WORDS[i]} in",
        f'        {outer}) [[ ${{COMP_WORDS[i + 1]}} == "=" ]] && ((i++)); ((i++)) ;;',
        "        -*) ;;",
        "        *) verb=${COMP_WORDS[i]}; break ;;",
        "        esac",
        "    done",
        *_bash_second_word(),
        '    case "$verb,$prev" in',
        *_bash_values("", _global()),
    ]
    for verb in _shown():
        lines += _bash_values(verb.name, _options(verb))
    lines += ["    esac", "    case $verb in"]
    words = " ".join(name for option in _global() for name in _dashed(option))
    verbs = " ".join(name for name, _ in rows())
    lines.append(f'    "") mapfile -t COMPREPLY < <(compgen -W "{verbs} {words}" -- "$cur") ;;')
    for verb in _shown():
        words = " ".join(name for option in _options(verb) for name in _dashed(option))
        reply = f'mapfile -t COMPREPLY < <(compgen -W "{words}" -- "$cur")'
        if _takes_id(verb):
            ids = 'mapfile -t COMPREPLY < <(_ocimig_ids "$cur")'
            reply = f"if [[ $cur == -* ]]; then {reply}; else {ids}; fi"
        lines.append(f'    "{verb.name}") {reply} ;;')
    for family in FAMILIES:
        seconds = " ".join(_second(verb) for verb in of_family(family) if not verb.hidden)
        lines.append(f'    {family}) mapfile -t COMPREPLY < <(compgen -W "{seconds}" -- "$cur") ;;')
    lines += ["    esac", "}", "", "complete -F _ocimig ocimig", ""]
    return "\n".join(lines)


def _bash_second_word() -> list[str]:
    """A verb of two words is one once the second of them is whole."""
    if not FAMILIES:
        return []
    return [
        f"    case $verb in {'|'.join(FAMILIES)})",
        '        ((i + 1 < COMP_CWORD)) && verb+=" ${COMP_WORDS[i + 1]}" ;;',
        "    esac",
    ]


def _second(verb: Verb) -> str:
    return verb.name.partition(" ")[2]


def _bash_values(verb: str, options: list[Option]) -> list[str]:
    lines = []
    for option in options:
        if option.kind == FLAG:
            continue
        pattern = "|".join(f'"{verb},{name}"' for name in _dashed(option))
        reply = ""
        if option.choices:
            values = " ".join(option.choices)
            reply = f'mapfile -t COMPREPLY < <(compgen -W "{values}" -- "$cur"); '
        elif option.file:
            reply = 'compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); '
        lines.append(f"    {pattern}) {reply}return ;;")
    return lines


def zsh() -> str:
    """zsh: _arguments, with a state for the verb."""
    lines = ["#compdef ocimig", _MADE, "_ocimig_ids() {", "    local root=/run/ocimig",
             "    (( EUID == 0 )) || root=${XDG_RUNTIME_DIR:-/run}/ocimig",
             "    [[ -n $ocimig_root ]] && root=$ocimig_root",
             "    local -a ids; ids=($root/*(N/:t))", "    compadd -a ids", "}", "",
             "_ocimig() {", "    local curcontext=$curcontext state line", "    typeset -A opt_args",
             "    _arguments -C \\"]  # fmt: skip
    lines += [f"        {entry} \\" for option in _global() for entry in _zsh_option(option)]
    lines += ["        '1:command:->verb' '*::argument:->rest'", "    local ocimig_root=${(Q)opt_args[--root]}", "    case $state in", "    verb)",
              "        local -a verbs", "        verbs=("]  # fmt: skip
    lines += [f"            {_quoted(f'{name}:{summary}')}" for name, summary in rows()]
    lines += [
        "        )",
        "        _describe command verbs ;;",
        "    rest)",
        "        case $line[1] in",
    ]
    for verb in _shown():
        if " " not in verb.name:
            lines += _zsh_verb(verb, verb.name, "        ")
    for family in FAMILIES:
        verbs = [verb for verb in of_family(family) if not verb.hidden]
        lines += [f"        {family})", "            if ((CURRENT == 2)); then",
                  "                local -a seconds", "                seconds=("]  # fmt: skip
        lines += [f"                    {_quoted(f'{_second(v)}:{v.summary}')}" for v in verbs]
        lines += ["                )", "                _describe command seconds", "            else",
                  "                shift words; ((CURRENT--))", "                case $words[1] in"]  # fmt: skip
        for verb in verbs:
            lines += _zsh_verb(verb, _second(verb), "                ")
        lines += ["                esac", "            fi ;;"]
    lines += ["        esac ;;", "    esac", "}", "", '_ocimig "$@"', ""]
    return "\n".join(lines)


def _zsh_verb(verb: Verb, name: str, indent: str) -> list[str]:
    entries = [entry for option in _options(verb) for entry in _zsh_option(option)]
    if _takes_id(verb):
        many = verb.name in ("delete", "recover")
        entries.append("'*:id:_ocimig_ids'" if many else "'1:id:_ocimig_ids'")
    return [
        f"{indent}{name}) _arguments \\",
        *(f"{indent}    {entry} \\" for entry in entries[:-1]),
        f"{indent}    {entries[-1]} ;;",
    ]


def _zsh_option(option: Option) -> list[str]:
    text = option.help.replace("[", r"\[").replace("]", r"\]").replace(":", r"\:")
    star = "*" if option.kind == "many" else ""
    entries = []
    for name in _dashed(option):
        if option.kind == FLAG:
            entries.append(_quoted(f"{name}[{text}]"))
            continue
        action = (
            f"({' '.join(option.choices)})" if option.choices else "_files" if option.file else " "
        )
        equals = "=" if name.startswith("--") else ""
        label = option.metavar.replace(":", r"\:").replace("[", "").replace("]", "")
        entries.append(_quoted(f"{star}{name}{equals}[{text}]:{label}:{action}"))
    return entries


def fish() -> str:
    """fish: one line an option."""
    verbs = " ".join(name for name, _ in rows())
    lines = [
        _MADE,
        "function __ocimig_ids",
        "    set -l root /run/ocimig",
        "    test (id -u) -eq 0; or set root $XDG_RUNTIME_DIR/ocimig",
        "    for entry in $root/*/",
        "        path basename $entry",
        "    end",
        "end",
        "",
        f"set -l verbs {verbs}",
        'set -l early "not __fish_seen_subcommand_from $verbs"',
        "complete -c ocimig -f",
    ]
    lines += [
        f'complete -c ocimig -n "$early" -a {name} -d {_fish_quoted(summary)}'
        for name, summary in rows()
    ]
    for family in FAMILIES:
        seconds = [verb for verb in of_family(family) if not verb.hidden]
        words = " ".join(_second(verb) for verb in seconds)
        until = (
            f'"__fish_seen_subcommand_from {family}; and not __fish_seen_subcommand_from {words}"'
        )
        lines += [
            f"complete -c ocimig -n {until} -a {_second(verb)} -d {_fish_quoted(verb.summary)}"
            for verb in seconds
        ]
    lines += [_fish_option('"$early"', option) for option in _global()]
    for verb in _shown():
        seen = "; and ".join(f"__fish_seen_subcommand_from {word}" for word in verb.name.split())
        condition = f'"{seen}"'
        lines += [_fish_option(condition, option) for option in _options(verb)]
        if _takes_id(verb):
            lines.append(f'complete -c ocimig -n {condition} -a "(__ocimig_ids)"')
    return "\n".join([*lines, ""])


def _fish_option(condition: str, option: Option) -> str:
    names = " ".join(f"-s {name}" if len(name) == 1 else f"-l {name}" for name in option.names)
    if option.kind == FLAG:
        value = ""
    elif option.choices:
        value = f' -x -a "{" ".join(option.choices)}"'
    else:
        value = " -r -F" if option.file else " -x"
    return f"complete -c ocimig -n {condition} {names}{value} -d {_fish_quoted(option.help)}"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def _fish_quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
