"""Every option of the table arrives where the work is done."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from ocimig.cli import app, fast, main
from ocimig.cli.verbs import FLAG, MANY, MAYBE, NUMBER, Call, Verb
from ocimig.cli.verbs_archive import EXPORT, IMPORT
from ocimig.cli.verbs_cold import ALL
from ocimig.migrate import checkpoint as checkpoint_room
from ocimig.migrate import engine
from ocimig.migrate import recover as recover_room
from ocimig.migrate import restore as restore_room
from ocimig.migrate.report import Report
from ocimig.runtime import create as create_room
from ocimig.runtime import exec as exec_room
from ocimig.runtime import lifecycle, observe
from ocimig.runtime.errors import NoSuchContainer
from ocimig.runtime.store import Store

ARCHIVES = {option.key for option in (*EXPORT, *IMPORT)}


class Seen:
    """What a room was called with."""

    def __init__(self, answer: Any = None) -> None:
        self.answer = answer
        self.positional: tuple[Any, ...] = ()
        self.named: dict[str, Any] = {}

    def __call__(self, *positional: Any, **named: Any) -> Any:
        self.positional, self.named = positional, named
        return self.answer


def _everything(verb: Verb, *without: str) -> list[str]:
    """The verb with every option it has, each with a value that is not the default."""
    words = [verb.name]
    for option in verb.options:
        if option.key in without:
            continue
        if option.kind == FLAG:
            words.append(f"--{option.key}")
            continue
        value = "7" if option.kind == NUMBER else (option.choices or ("value",))[0]
        words.append(f"--{option.key}={value}")
    return words


def _unset(options: Any, names: set[str]) -> set[str]:
    """The fields that still have the value they have when nothing is asked for."""
    usual = type(options)()
    return {name for name in names if getattr(options, name) == getattr(usual, name)}


def test_every_option_of_checkpoint_arrives(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A field that stayed at its default is an option that does nothing."""
    seen = Seen()
    monkeypatch.setattr(checkpoint_room, "checkpoint", seen)
    words = _everything(ALL["checkpoint"], *ARCHIVES)
    assert main.run(["--root", str(tmp_path), *words, "c1"]) == 0
    store, id, options = seen.positional
    assert (store.root, id) == (str(tmp_path), "c1")
    names = {option.key for option in ALL["checkpoint"].options} - ARCHIVES
    assert _unset(options, {name.replace("-", "_") for name in names}) == set()


def test_what_is_not_asked_of_checkpoint_is_not_done(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Without options: the defaults, and descriptor 0 only when it was named."""
    seen = Seen()
    monkeypatch.setattr(checkpoint_room, "checkpoint", seen)
    assert main.run(["--root", str(tmp_path), "checkpoint", "c1"]) == 0
    assert seen.positional[2] == checkpoint_room.CheckpointOptions()
    assert main.run(["--root", str(tmp_path), "checkpoint", "--status-fd", "0", "c1"]) == 0
    assert seen.positional[2].status_fd == 0


def test_every_option_of_restore_arrives(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Except those that are of the image: CRIU finds them there."""
    from ocimig.cli.commands import networks

    of_the_image = {"tcp_skip_in_flight", "link_remap"}
    seen = Seen(7)
    monkeypatch.setattr(restore_room, "restore_and_wait", seen)
    monkeypatch.setattr(networks, "restorer", Seen(lambda netns: None))
    words = _everything(ALL["restore"], *ARCHIVES)
    assert main.run(["--root", str(tmp_path), "--systemd-cgroup", *words, "c1"]) == 7
    options = seen.positional[2]
    names = {option.key for option in ALL["restore"].options} - ARCHIVES
    names = {name.replace("-", "_") for name in names} - of_the_image
    assert _unset(options, {*names, "systemd_cgroup", "connect"}) == set()


@pytest.mark.parametrize("verb", ["create", "run"])
def test_every_option_of_create_and_run_arrives(
    verb: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """And the exit status of the process comes back from run."""
    seen = Seen(3 if verb == "run" else None)
    monkeypatch.setattr(create_room, verb, seen)
    words = _everything(ALL[verb], "net", "explain")
    assert main.run(["--root", str(tmp_path), "--systemd-cgroup", *words, "c1"]) == (
        3 if verb == "run" else 0
    )
    _, id, bundle, options = seen.positional
    assert id == "c1"
    assert bundle.endswith("/value")
    names = {option.key.replace("-", "_") for option in ALL[verb].options}
    names -= {"bundle", "net", "explain"}
    assert _unset(options, {*names, "systemd_cgroup"}) == set()
    assert seen.named["connect"] is None


def test_net_becomes_what_builds_the_network(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """And a mistake in it is told before anything is made."""
    seen = Seen(0)
    monkeypatch.setattr(create_room, "run", seen)
    words = ["run", "-d", "--net", "bridge=br0,address=10.0.0.5/24", "c1"]
    assert main.run(["--root", str(tmp_path), *words]) == 0
    assert callable(seen.named["connect"])
    words[3] = "bridge=br0,address=10.0.0.5"
    assert main.run(["--root", str(tmp_path), *words]) == 1
    assert "the prefix is missing" in capfd.readouterr().err


def test_a_network_is_also_what_annotations_ask_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The annotations of config.json, when there are any of ours."""
    from ocimig import jsonio
    from ocimig.runtime import template

    seen = Seen()
    monkeypatch.setattr(create_room, "create", seen)
    spec = template.default_spec()
    for annotations, wanted in (
        ({"org.example": "x"}, False),
        ({"org.ocimig.network.bridge": "br0", "org.ocimig.network.address": "10.0.0.5/24"}, True),
    ):
        text = jsonio.dumps({**spec, "annotations": annotations})
        (tmp_path / "config.json").write_text(text)
        assert main.run(["--root", str(tmp_path / "r"), "create", "-b", str(tmp_path), "c1"]) == 0
        assert (seen.named["connect"] is not None) == wanted


def test_every_option_of_exec_arrives(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Some change the process, the others how it is run."""
    process, run = Seen({"args": []}), Seen(9)
    monkeypatch.setattr(exec_room, "process_of", process)
    monkeypatch.setattr(exec_room, "execute", run)
    monkeypatch.setattr(Store, "config", Seen({"process": {}}))
    words = _everything(ALL["exec"], "process", "user", "additional-gids", "no-subreaper")
    argv = [
        "--root",
        str(tmp_path),
        *words,
        "-u",
        "5:6",
        "-g",
        "7",
        "-g",
        "8",
        "c1",
        "--",
        "ls",
        "-l",
    ]
    assert main.run(argv) == 9
    assert process.positional[1] == ["ls", "-l"]
    named = process.named
    assert (named["user"], named["gids"]) == ((5, 6), [7, 8])
    assert (named["cwd"], named["env"], named["caps"]) == ("value", ["value"], ["value"])
    assert named["tty"]
    assert named["no_new_privs"]
    names = {"console_socket", "pidfd_socket", "pid_file", "detach", "preserve_fds", "ignore_paused",
             "process_label", "apparmor"}  # fmt: skip
    options = run.positional[3]
    assert _unset(options, names) == set()
    assert options.cgroups == ["value"]


@pytest.mark.parametrize(
    ("words", "reason", "code"),
    [
        (["c1"], "process args cannot be empty", 1),
        (["-u", "x", "c1", "ls"], "exec failed: ", 255),
        (["-g", "x", "c1", "ls"], "exec failed: additional group 'x' is not a number", 255),
    ],
)
def test_exec_says_what_is_wrong(
    words: list[str], reason: str, code: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """A wrong command line is 1, what could not be run is 255."""
    monkeypatch.setattr(Store, "config", Seen({"process": {"args": ["sh"]}}))
    assert main.run(["--root", str(tmp_path), "exec", *words]) == code
    assert reason in capfd.readouterr().err


def test_every_option_of_migrate_arrives(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In the target or in the options; then the report is shown."""
    seen = Seen(Report("c1", "m", "host2", "possible"))
    monkeypatch.setattr(engine, "migrate", seen)
    words = _everything(
        ALL["migrate"],
        "resume",
        "abort",
        "together",
        "assume-destination-dead",
        "progress",
        "json",
        "report",
        "transport",
    )
    argv = ["--root", str(tmp_path), *words, "--transport=openssh", "c1", "me@host2"]
    assert main.run(argv) == 0
    _, id, target, options, _ = seen.positional
    assert id == "c1"
    assert (target.host, target.user, target.port, target.identity, target.known_hosts) == (
        "host2", "me", 7, "value", "value",
    )  # fmt: skip
    assert target.accept_new
    names = {field.name for field in fields(options)} - {
        "patience", "doubt", "reconnect", "assume_destination_dead",
    }  # fmt: skip
    assert _unset(options, names) == set()
    rules = {field.name for field in fields(options.policy)} - {"max_stalled"}
    assert _unset(options.policy, rules) == set()
    assert (options.policy.max_downtime, options.policy.max_bandwidth) == (0.007, 7 << 20)


@pytest.mark.parametrize("how", ["resume", "abort"])
def test_what_is_in_doubt_is_settled_without_naming_the_host(
    how: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The journal knows the host."""
    seen = Seen(Report("c1", "m", "host2", "resumed here"))
    monkeypatch.setattr(recover_room, how, seen)
    assert main.run(["--root", str(tmp_path), "migrate", f"--{how}", "c1"]) == 0
    assert seen.positional[1] == "c1"
    assert capfd.readouterr().out == "c1: resumed here (host2)\n"


@pytest.mark.parametrize(
    "words",
    [["c1"], ["--resume", "--abort", "c1"], ["--resume", "c1", "host2"],
     ["--assume-destination-dead", "c1", "host2"], ["a", "b", "c"]],
)  # fmt: skip
def test_a_migration_that_makes_no_sense_is_refused(
    words: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Code 2, one clear line, and nothing was looked at."""
    assert main.run(["--root", str(tmp_path), "migrate", *words]) == 2
    seen = capfd.readouterr()
    assert seen.out == ""
    first, second = seen.err.splitlines()
    assert first.startswith("ocimig migrate: ")
    assert second == "hint: see ocimig migrate --help"


def test_a_failed_migration_is_json_too(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """With --json the error is on standard output as well, with its code and what to do."""
    from ocimig import jsonio

    argv = ["--root", str(tmp_path), "migrate", "--json", "--progress", "none", "nosuch", "host2"]
    code = main.run(argv)
    document = jsonio.loads(capfd.readouterr().out)
    assert code == document["code"] == 10
    assert (document["id"], document["target"], document["outcome"]) == (
        "nosuch",
        "host2",
        "failed",
    )
    assert document["error"] == "container does not exist"


def test_recover_has_nothing_to_do_where_nothing_happened(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """And says nothing."""
    assert main.run(["--root", str(tmp_path), "recover"]) == 0
    assert capfd.readouterr().out == ""


def test_kill_takes_names_and_numbers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """TERM when none is given; what is no signal is an error."""
    seen = Seen()
    monkeypatch.setattr(lifecycle, "kill", seen)
    for words, number in (
        (["c1"], 15),
        (["c1", "9"], 9),
        (["c1", "SIGHUP"], 1),
        (["c1", "usr1"], 10),
    ):
        assert main.run(["--root", str(tmp_path), "kill", *words]) == 0
        assert seen.positional[2] == number
    assert main.run(["--root", str(tmp_path), "kill", "c1", "NOSUCH"]) == 1
    assert 'unknown signal \\"NOSUCH\\"' in capfd.readouterr().err


def test_delete_goes_on_after_one_that_cannot_be_deleted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """All that can go is gone; the first error is the one that is told as such."""
    asked = []

    def delete(store: Store, id: str, force: bool = False) -> None:
        asked.append((id, force))
        if id != "b":
            raise NoSuchContainer(id=id, root=store.root)

    monkeypatch.setattr(lifecycle, "delete", delete)
    assert main.run(["--root", str(tmp_path), "delete", "-f", "a", "b", "c"]) == 1
    assert asked == [("a", True), ("b", True), ("c", True)]
    assert capfd.readouterr().err.count("level=error") == 1


def test_a_list_of_nothing_is_null_for_programs(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """As runc writes it; an explicit root that is missing is an error instead."""
    assert main.run(["--root", str(tmp_path), "list", "-f", "json"]) == 0
    assert capfd.readouterr().out == "null\n"
    assert main.run(["--root", str(tmp_path / "none"), "list"]) == 1


def test_ps_as_json_is_a_list_of_numbers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """As runc writes it; for people, what ps says."""
    monkeypatch.setattr(observe, "pids", Seen([4, 5]))
    monkeypatch.setattr(observe, "ps", Seen(["PID", "4"]))
    assert main.run(["--root", str(tmp_path), "ps", "-f", "json", "c1"]) == 0
    assert main.run(["--root", str(tmp_path), "ps", "c1", "-e", "-x"]) == 0
    assert capfd.readouterr().out == "[4,5]\nPID\n4\n"


def test_spec_is_indented_by_tabs_and_never_overwrites(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Somebody may have edited it."""
    assert main.run(["spec", "-b", str(tmp_path)]) == 0
    text = (tmp_path / "config.json").read_text()
    assert text.startswith('{\n\t"ociVersion": ')
    assert main.run(["spec", "--bundle", str(tmp_path)]) == 1
    assert "File config.json exists. Remove it first" in capfd.readouterr().err
    assert (tmp_path / "config.json").read_text() == text
    assert main.run(["spec", "--bundle", str(tmp_path / "none")]) == 1


@pytest.mark.parametrize("verb", ALL.values(), ids=list(ALL))
def test_every_verb_has_a_function(verb: Verb) -> None:
    """The table names nothing that is not there."""
    module, _, name = verb.target.partition(":")
    __import__(module)
    import sys

    assert callable(getattr(sys.modules[module], name))


def test_crun_and_podman_spellings_mean_the_same() -> None:
    """--cgroup-manager is another word for --systemd-cgroup and for --rootless."""
    from ocimig.cli import context

    def call(*words: str) -> Call:
        found = fast.parse([*words, "state", "c1"]) or app.parse([*words, "state", "c1"], "ocimig")
        assert isinstance(found, Call)
        return found

    assert context.systemd_cgroup(call("--systemd-cgroup"))
    assert context.systemd_cgroup(call("--cgroup-manager", "systemd"))
    assert not context.systemd_cgroup(call("--cgroup-manager=cgroupfs"))
    assert context.rootless(call("--cgroup-manager", "disabled"))
    assert context.rootless(call("--rootless", "true"))
    assert not context.rootless(call("--rootless=false"))


def test_kinds_are_used_as_they_are_declared() -> None:
    """Every option of the table is of one of the five kinds, and all but FLAG have a value."""
    for verb in ALL.values():
        for option in verb.options:
            assert option.kind in (FLAG, "text", NUMBER, MANY, MAYBE)
            assert bool(option.metavar) == (option.kind != FLAG), f"{verb.name} --{option.key}"
