"""What a wrong command line gets, and what every verb's help says."""

import pytest

from ocimig.cli import app
from ocimig.cli.verbs import GLOBAL, Call, Misuse, Verb
from ocimig.cli.verbs_cold import ALL, rows


@pytest.mark.parametrize(
    ("line", "reason", "code"),
    [
        ("nosuch", "No help topic for 'nosuch'", 3),
        ("help nosuch", "No help topic for 'nosuch'", 3),
        ("state", '"state" requires exactly 1 argument(s)', 1),
        ("kill", '"kill" requires a minimum of 1 argument(s)', 1),
        ("kill a b c", '"kill" requires a maximum of 2 argument(s)', 1),
        ("state -x c1", "flag provided but not defined: -x", 1),
        ("--nosuch state c1", "flag provided but not defined: -nosuch", 1),
        ("restore --lsm-mount-context", "flag needs an argument: -lsm-mount-context", 1),
        ("--root", "flag needs an argument: -root", 1),
        ("exec -x", "flag provided but not defined: -x", 1),
        ("list --format xml", 'invalid value "xml" for flag -format: not one of table, json', 1),
        ("run --preserve-fds x c1", 'invalid value "x" for flag -preserve-fds: not a number', 1),
        ("run --detach=maybe c1", 'invalid boolean value "maybe" for -detach: parse error', 1),
        ("migrate", '"migrate" requires a minimum of 1 argument(s)', 2),
        ("migrate --nosuch c1 host2", "flag provided but not defined: -nosuch", 2),
    ],
)
def test_a_wrong_command_line_is_told_in_runcs_words(line: str, reason: str, code: int) -> None:
    """Callers match these texts and codes; ocimig's own verbs use code 2."""
    with pytest.raises(Misuse) as caught:
        app.parse(line.split(), "ocimig")
    assert (str(caught.value), caught.value.code) == (reason, code)


@pytest.mark.parametrize("verb", ALL.values(), ids=list(ALL))
def test_every_verb_explains_itself(verb: Verb) -> None:
    """--help, -h and `help VERB` are one page that names every option that is not hidden."""
    page = app.parse([verb.name, "--help"], "ocimig")
    assert isinstance(page, str)
    assert page.startswith(f"NAME:\n   ocimig {verb.name} - ")
    assert (
        page == app.parse([verb.name, "-h"], "ocimig") == app.parse(["help", verb.name], "ocimig")
    )
    for option in verb.options:
        assert (f"--{option.key}" in page) != option.hidden
    assert max(map(len, page.splitlines())) <= 120


@pytest.mark.parametrize("line", ["", "-h", "--help", "help", "h", "--debug", "--help state"])
def test_the_first_page_lists_the_verbs(line: str) -> None:
    """No verb at all is a question, not an error, as with runc."""
    page = app.parse(line.split(), "runc")
    assert isinstance(page, str)
    assert page.startswith("NAME:\n   runc - Open Container Initiative runtime")
    assert all(f"   {name} " in page for name, _ in rows())
    listed = {name for name, _ in rows()}
    assert {verb.name.split()[0] for verb in ALL.values() if not verb.hidden} == listed


@pytest.mark.parametrize("program", ["ocimig", "runc"])
def test_the_version_is_four_lines_that_callers_take_apart(program: str) -> None:
    """Docker takes any line with the word version: there is one."""
    answer = app.parse(["--version"], program)
    assert isinstance(answer, str)
    lines = answer.splitlines()
    assert lines[0].startswith(f"{program} version 0.")
    assert [line.split(":")[0] for line in lines[1:]] == ["commit", "spec", "libseccomp"]
    assert answer.count("version") == 1


def _call(*words: str) -> Call:
    call = app.parse(list(words), "ocimig")
    assert isinstance(call, Call)
    return call


def test_what_go_runc_sends_for_restore_is_understood() -> None:
    """One dash, and options after the id."""
    call = _call("restore", "c1", "--image-path", "/i", "-no-subreaper", "--detach", "-bundle=/b")
    assert call.flag("no-subreaper")
    assert call.flag("detach")
    assert (call.text("image-path"), call.text("bundle"), call.arguments) == ("/i", "/b", ["c1"])


def test_a_flag_can_be_given_and_taken_back() -> None:
    """As Go reads booleans: the last word counts."""
    assert _call("checkpoint", "--leave-running=true", "c1").flag("leave-running")
    assert not _call("checkpoint", "--leave-running=0", "c1").flag("leave-running")
    assert not _call("checkpoint", "--leave-running", "--leave-running=false", "c1").options
    assert _call("checkpoint", "--leave-running", "--leave-running", "c1").flag("leave-running")


def test_a_value_may_look_like_an_option() -> None:
    """The word after an option that takes a value is its value, whatever it is."""
    assert _call("checkpoint", "--image-path", "--leave-running", "c1").text("image-path") == (
        "--leave-running"
    )


def test_zero_and_nothing_are_values() -> None:
    """A number 0 and an empty text stand on the command line, and are kept."""
    call = _call("run", "--preserve-fds=0", "--bundle=", "--detach=true", "c1")
    assert call.options == {"preserve-fds": 0, "bundle": "", "detach": True}


def test_the_table_has_no_two_meanings() -> None:
    """No two options of a verb share a name, and no verb hides a name of --help."""
    for verb in ALL.values():
        names = [name for option in verb.options for name in option.names]
        assert len(names) == len(set(names)), verb.name
        assert not {"h", "help"} & set(names), verb.name
        assert verb.summary
        assert verb.examples or verb.hidden, verb.name
    names = [name for option in GLOBAL for name in option.names]
    assert len(names) == len(set(names))


def test_every_example_is_a_command_line_that_is_understood() -> None:
    """What the manual shows can be typed."""
    import shlex

    for verb in ALL.values():
        for _, line in verb.examples:
            assert _call(*shlex.split(line)).verb is verb, line
