"""The short way in and the long one mean the same, whenever the short one accepts."""

import random

import pytest

from ocimig.cli import app, fast
from ocimig.cli.verbs import GLOBAL, Call, Option
from ocimig.cli.verbs_hot import HOT

LINES = 20_000
_ODD = (
    "",
    "-",
    "--",
    "-x",
    "--help",
    "-h",
    "=",
    "a=b",
    "-abc",
    "0",
    "007",
    "-1",
    "1e3",
    "٣",
    "true",
)


def _option(chance: random.Random, option: Option) -> list[str]:
    """The option in one of the ways people write it, mostly well."""
    dash = chance.choice(("-", "--"))
    name = chance.choice(option.names)
    values = [*option.choices, "x", "/some/where", "5"]
    if chance.random() < 0.2:
        values = list(_ODD)
    value = chance.choice(values)
    if option.kind == "flag" and chance.random() < 0.9:
        return [dash + name]
    return chance.choice([[dash + name, value], [f"{dash}{name}={value}"]])


def _line(chance: random.Random) -> list[str]:
    """A command line that is right more often than not."""
    words: list[str] = []
    for _ in range(chance.choice((0, 0, 1, 2))):
        words += _option(chance, chance.choice(GLOBAL[:-2]))
    verb = chance.choice(list(HOT.values()))
    words.append(verb.name)
    parts = [["c1"] for _ in range(chance.choice((verb.minimum, verb.minimum, 0, 1, 2)))]
    if verb.options:
        parts += [
            _option(chance, chance.choice(verb.options)) for _ in range(chance.choice((0, 1, 2)))
        ]
    if chance.random() < 0.15:
        parts.append([chance.choice(_ODD)])
    chance.shuffle(parts)
    return words + [word for part in parts for word in part]


def test_both_readers_agree_on_whatever_the_short_one_accepts() -> None:
    """Twenty thousand command lines: the same verb, options and arguments, or a second look."""
    chance = random.Random(20261123)
    accepted = 0
    for _ in range(LINES):
        words = _line(chance)
        quick = fast.parse(words)
        if quick is None:
            continue
        accepted += 1
        slow = app.parse(words, "ocimig")
        assert isinstance(slow, Call), words
        assert slow.verb is quick.verb, words
        assert (slow.outer, slow.options, slow.arguments) == (
            quick.outer, quick.options, quick.arguments,
        ), words  # fmt: skip
    assert accepted > LINES // 4


@pytest.mark.parametrize(
    "line",
    [
        "--root /r --log /l --log-format json --systemd-cgroup create --bundle /b --pid-file /p c1",
        "create --bundle /b --pid-file /p --console-socket /s c1",
        "--root=/r state c1",
        "start c1",
        "kill --all c1 9",
        "kill c1 KILL",
        "delete --force c1",
        "exec --pid-file /p --process /f --detach --console-socket /s c1",
        "exec -u 1:1 -e A=1 -e B=2 c1 sh -c true",
        "list --format=json",
        "ps --format json c1",
        "run -d --pid-file /p c1",
        "--cgroup-manager disabled create c1",
    ],
)
def test_what_callers_send_all_day_takes_the_short_way(line: str) -> None:
    """conmon's, podman's, containerd's and CRI-O's calls of the hot verbs never cost click."""
    assert fast.parse(line.split()) is not None


@pytest.mark.parametrize(
    "line",
    [
        "", "nosuch", "state", "state a b", "state -h", "--help", "--version", "state --nosuch c1",
        "create -b", "list --format xml", "create --preserve-fds x c1", "checkpoint c1", "-- state c1",
        "run --detach=true c1", "--root", "-v state c1",
    ],
)  # fmt: skip
def test_what_is_odd_gets_a_second_look(line: str) -> None:
    """The short way refuses nothing: it leaves it to click."""
    assert fast.parse(line.split()) is None


def test_what_follows_the_id_of_exec_belongs_to_the_command() -> None:
    """Options of the command are not ours, and one `--` before it is only a mark."""
    call = fast.parse(["exec", "-t", "c1", "--", "ls", "-t", "--", "x"])
    assert call is not None
    assert call.flag("tty")
    assert call.arguments == ["c1", "ls", "-t", "--", "x"]


def test_options_may_follow_the_id_elsewhere() -> None:
    """As Go's flags reordered by runc: go-runc puts the id first."""
    call = fast.parse(["create", "c1", "-bundle", "/b", "--no-pivot"])
    assert call is not None
    assert call.arguments == ["c1"]
    assert call.text("bundle") == "/b"
    assert call.flag("no-pivot")


def test_an_option_is_read_as_what_it_is() -> None:
    """A slip in the program, asking for a text as a flag, is an error and not silently false."""
    call = fast.parse(["run", "--preserve-fds", "3", "c1"])
    assert call is not None
    assert call.number("preserve-fds") == 3
    with pytest.raises(TypeError):
        call.flag("preserve-fds")
    with pytest.raises(KeyError):
        call.flag("nosuch")
