"""`ocimig backup key`: what opens a store, by the program's command line."""

import os
import pty
import re
import select
import subprocess
from pathlib import Path

import pytest

from ocimig.migrate.store.local import LocalPlace
from ocimig_testkit import Answer, Ocimig


class Sealed:
    """A sealed store with one key, and what opens it."""

    def __init__(self, ocimig: Ocimig, directory: Path) -> None:
        self.ocimig = ocimig
        self.path = directory / "store"
        self.first = self.file(
            directory / "first", "f" * 32
        )  # a key file: passphrases cost seconds
        self.other = self.file(directory / "other", "battery staple\n")
        self.bytes = self.file(directory / "bytes", "k" * 32)
        self.cache = directory / "cache"
        ocimig("backup", "init", self.path, *self.mine, "--cache", self.cache)

    @staticmethod
    def file(path: Path, content: str) -> Path:
        """A file that only its owner reads."""
        path.touch(mode=0o600)
        path.write_text(content)
        return path

    @property
    def mine(self) -> tuple[str, str]:
        """The option that opens it."""
        return ("--key-file", str(self.first))

    def __call__(self, what: str, *words: str | Path, code: int = 0) -> Answer:
        """`ocimig backup key WHAT STORE …`."""
        return self.ocimig("backup", "key", what, self.path, *words, code=code)

    def opens(self, option: str, path: str | Path) -> bool:
        """Whether that opens it."""
        words = ("backup", "list", self.path, option, path, "--cache", self.cache)
        return self.ocimig(*words, code=None).code == 0

    def ids(self) -> list[str]:
        """The names of its keys."""
        return [each["id"] for each in self("list", "-f", "json").json()]


@pytest.fixture
def sealed(ocimig: Ocimig, tmp_path: Path) -> Sealed:
    """A store that the key file `first` opens."""
    return Sealed(ocimig, tmp_path)


def test_another_key_opens_too_and_says_so_in_the_list(sealed: Sealed) -> None:
    """The list needs nothing that opens; with something it marks which one that is."""
    sealed("add", *sealed.mine, "--new-passphrase-file", sealed.other, "--comment", "\x1b[31mops")
    assert sealed.opens("--passphrase-file", sealed.other)
    assert sealed.opens(*sealed.mine)
    found = {each["opens_with"]: each for each in sealed("list", "-f", "json").json()}
    assert found["a key file"]["comment"] == "init"
    assert found["a passphrase"]["comment"] == "\x1b[31mops"
    listed = sealed("list", *sealed.mine).out
    (marked,) = [line for line in listed.splitlines() if line.startswith("*")]
    assert found["a key file"]["id"] in marked
    assert "\x1b" not in listed


def test_a_changed_key_opens_and_the_old_one_does_not(sealed: Sealed) -> None:
    """One key before, one after."""
    (before,) = sealed.ids()
    sealed("change", *sealed.mine, "--new-passphrase-file", sealed.other)
    assert sealed.opens("--passphrase-file", sealed.other)
    assert not sealed.opens(*sealed.mine)
    (after,) = sealed.ids()
    assert after != before


def test_who_removes_the_key_that_they_came_by_is_told(sealed: Sealed) -> None:
    """And the last one stays, whoever asks."""
    (first,) = sealed.ids()
    assert "only key" in sealed("remove", first, *sealed.mine, code=1).err
    sealed("add", *sealed.mine, "--new-passcommand", f"cat {sealed.other}")
    (second,) = set(sealed.ids()) - {first}
    said = sealed("remove", first[:12], *sealed.mine).out
    assert "you came by" in said
    assert str(sealed.first) in said
    assert sealed.ids() == [second]
    assert "only key" in sealed("remove", second, "--passphrase-file", sealed.other, code=1).err
    assert sealed.opens("--passphrase-file", sealed.other)


def test_removing_the_key_of_another_says_nothing_of_that(sealed: Sealed) -> None:
    """The word is for who shuts themselves out."""
    (first,) = sealed.ids()
    sealed("add", *sealed.mine, "--new-key-file", sealed.bytes)
    (second,) = set(sealed.ids()) - {first}
    assert "came by" not in sealed("remove", second, *sealed.mine).out
    assert not sealed.opens("--key-file", sealed.bytes)


def test_nothing_changes_for_who_does_not_open_it(sealed: Sealed) -> None:
    """Code 12, with nothing given and with something wrong."""
    ids = sealed.ids()
    for given in ((), ("--passphrase-file", sealed.other)):
        for what, *words in (("add",), ("change",), ("remove", ids[0])):
            new = () if what == "remove" else ("--new-key-file", sealed.bytes)
            assert "cannot be opened" in sealed(what, *words, *given, *new, code=12).err
    assert sealed.ids() == ids


def test_a_change_while_somebody_adds_leaves_both_and_says_how_to_go_on(sealed: Sealed) -> None:
    """Code 11: the old key may only go when nobody holds the store, and must not be forgotten."""
    (first,) = sealed.ids()
    place = LocalPlace(str(sealed.path))
    try:
        with place.lock(exclusive=False, purpose="a backup"):
            words = (*sealed.mine, "--new-key-file", sealed.bytes)
            said = sealed("change", *words, code=11).err
    finally:
        place.close()
    assert f"backup key remove {sealed.path} {first}" in said
    assert sealed.opens(*sealed.mine)
    assert sealed.opens("--key-file", sealed.bytes)


def test_a_command_line_that_means_nothing_is_code_2(sealed: Sealed) -> None:
    """And nothing is asked for where nobody can answer."""
    (first,) = sealed.ids()
    for what, *words in (("show",), ("remove",), ("list", first), ("add", *sealed.mine)):
        sealed(what, *words, code=2)
    assert "there is none of that name" in sealed("remove", "zz", *sealed.mine, code=2).err
    assert sealed.ids() == [first]


def test_a_store_that_is_not_sealed_has_no_keys(ocimig: Ocimig, tmp_path: Path) -> None:
    """Code 12; a key that is added there would seal nothing."""
    ocimig("backup", "init", tmp_path / "s", "--cache", tmp_path / "cache")
    for what in ("list", "add", "change"):
        said = ocimig("backup", "key", what, tmp_path / "s", code=12).err
        assert "it is not sealed" in said
    assert not list((tmp_path / "s/keys").iterdir())


@pytest.mark.parametrize(("second", "code"), [("tröst", 0), ("trost", 12)])
def test_a_person_is_asked_twice(sealed: Sealed, second: str, code: int) -> None:
    """What is typed is not shown; a slip of the finger must not become the only key."""
    main, inner = pty.openpty()
    try:
        process = subprocess.Popen(
            sealed.ocimig.command("backup", "key", "change", sealed.path, *sealed.mine),
            stdin=inner, stdout=inner, stderr=inner, start_new_session=True,
        )  # fmt: skip
        os.close(inner)
        shown = _answer(main, "New passphrase:", "tröst") + _answer(main, "Once more:", second)
        assert process.wait(60) == code
    finally:
        os.close(main)
    assert not re.search("tr.?st", shown)
    new = sealed.file(sealed.path.parent / "new", "tröst")
    assert sealed.opens("--passphrase-file", new) == (code == 0)
    assert sealed.opens(*sealed.mine) == (code != 0)


def _answer(terminal: int, question: str, words: str) -> str:
    """Type when asked; what the terminal showed until then."""
    shown = b""
    while question.encode() not in shown:
        assert select.select([terminal], [], [], 30)[0], shown
        shown += os.read(terminal, 4096)
    os.write(terminal, f"{words}\n".encode())
    return shown.decode(errors="replace")
