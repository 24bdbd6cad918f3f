"""What was found in a container, in words."""

import pytest

from ocimig.migrate import blockers_open, inside

LOCKED = {"kind": "file lock", "pid": 7, "command": "db", "fd": 3, "name": "/data/lock"}


def test_process_descriptor_and_name_are_in_the_text() -> None:
    """Enough to find it with ps and ls."""
    (found,) = inside.findings([LOCKED], inside.Wishes())
    assert found.text == "process 7 (db) has a locked file at descriptor 3: /data/lock"
    assert (found.severity, found.name, found.code) == (inside.REFUSE, "file lock", 14)


def test_a_mapping_is_named_by_its_addresses() -> None:
    """Nothing is open any more, so there is no descriptor."""
    thing = {
        "kind": "secret memory",
        "pid": 7,
        "command": "db",
        "mapping": "1000-2000",
        "name": "/secretmem",
    }
    (found,) = inside.findings([thing], inside.Wishes())
    assert "mapped at 1000-2000" in found.text


def test_an_option_that_was_given_silences_what_it_allows() -> None:
    """And only that."""
    things = [LOCKED, {**LOCKED, "kind": "renamed file"}]
    found = list(inside.findings(things, inside.Wishes(file_locks=True)))
    assert [each.name for each in found] == ["renamed file"]
    assert "--link-remap" in found[0].fix


def test_without_wishes_an_option_is_a_hint() -> None:
    """Whoever did not ask for options is warned, not refused."""
    (found,) = inside.findings([LOCKED], None)
    assert found.severity == inside.WARN


def test_many_alike_are_counted() -> None:
    """A server with a thousand locked files gives three lines."""
    found = list(inside.findings([{**LOCKED, "fd": fd} for fd in range(1000)], inside.Wishes()))
    assert len(found) == inside.SHOWN
    assert found[-1].text.endswith("and 997 more like it")


def test_what_nobody_knows_is_refused_by_its_name() -> None:
    """A kind of object that the kernel learned after this was written."""
    thing = {"kind": "kernel object", "pid": 7, "fd": 4, "name": "anon_inode:[hyperdrive]"}
    (found,) = inside.findings([thing], inside.Wishes())
    assert found.severity == inside.REFUSE
    assert "[hyperdrive]" in found.text


def test_names_with_braces_are_only_names() -> None:
    """A program may call itself anything."""
    thing = {"kind": "traced", "pid": 7, "command": "{pid}", "by": 9, "name": "{0}"}
    (found,) = inside.findings([thing], inside.Wishes())
    assert found.text == "process 7 ({pid}) is traced by process 9 ({0})"


@pytest.mark.parametrize("kind", [*inside.RULES, *inside.WHOLE])
def test_every_rule_can_be_said(kind: str) -> None:
    """No field is missing, and every one has a fix."""
    thing = {"kind": kind, "pid": 7, "by": 8, "command": "x", "fd": 3, "name": "y", "mount": "/m",
             "path": "/p", "protocol": "z", "size": 1 << 27}  # fmt: skip
    (found,) = inside.findings([thing], inside.Wishes())
    assert "{" not in found.text + found.fix
    assert found.fix


def test_every_kind_of_anonymous_inode_has_a_rule() -> None:
    """None falls back to the last words."""
    kinds = {*blockers_open.ANONYMOUS.values(), *blockers_open.DEVICES.values()}
    assert kinds <= set(inside.RULES)
