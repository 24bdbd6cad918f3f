"""What `ocimig backup` says and how it ends: the codes are for scripts, the words for people."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from ocimig.migrate.store.local import LocalPlace
from ocimig.migrate.store.store import Store
from ocimig_testkit import Answer, Ocimig
from ocimig_testkit.shelves import Content, content_of, some, take


class Shelf:
    """A store in a directory, and the program."""

    def __init__(self, ocimig: Ocimig, directory: Path) -> None:
        self.ocimig = ocimig
        self.path = directory / "store"
        self.cache = directory / "cache"

    def __call__(self, verb: str, *words: str, code: int | None = 0, **call: object) -> Answer:
        """`ocimig backup VERB STORE …`."""
        options = ["--cache", str(self.cache)]
        return self.ocimig("backup", verb, str(self.path), *words, *options, code=code, **call)  # type: ignore[arg-type]

    def put(self, count: int = 3) -> dict[str, Content]:
        """Snapshots of containers that never were: one an hour, web and db in turn."""
        place = LocalPlace(str(self.path))
        try:
            store = Store.open(place, None, cache=str(self.cache))
            dice = random.Random(7)
            wanted = {}
            for number in range(count):
                content = some(dice)
                about = {"container": ("web", "db")[number % 2], "time": 1.7e9 + 3600 * number}
                wanted[take(store, content, tags=("t",) * (number == 0), **about).id] = content
            return wanted
        finally:
            place.close()

    def content(self) -> dict[str, Content]:
        """All that is in it now."""
        place = LocalPlace(str(self.path))
        try:
            store = Store.open(place, None, cache=str(self.cache))
            return {each.id: content_of(store, each) for each in store.snapshots()}
        finally:
            place.close()

    def damage(self) -> str:
        """The last byte of the data of one pack flips; its name."""
        pack = max(self.path.glob("packs/*/*.pack"), key=lambda path: path.stat().st_size)
        data = bytearray(pack.read_bytes())
        data[60] ^= 1
        pack.write_bytes(data)
        return pack.name


@pytest.fixture
def new(ocimig: Ocimig, tmp_path: Path) -> Shelf:
    """Nothing is there yet."""
    return Shelf(ocimig, tmp_path)


@pytest.fixture
def shelf(new: Shelf) -> Shelf:
    """An empty store."""
    new("init")
    return new


def test_a_store_is_made_once(shelf: Shelf, tmp_path: Path) -> None:
    """A second time, or where other things are, nothing is touched."""
    about = (shelf.path / "STORE").read_bytes()
    assert shelf.path.stat().st_mode & 0o777 == 0o700
    assert "it is a store already" in shelf("init", code=1).err
    assert (shelf.path / "STORE").read_bytes() == about
    shelf.path = tmp_path / "full"
    shelf.path.mkdir()
    (shelf.path / "letter").write_text("of somebody")
    assert "'letter' is in it" in shelf("init", code=1).err
    assert [path.name for path in shelf.path.iterdir()] == ["letter"]


def test_who_seals_must_give_something_that_opens(new: Shelf) -> None:
    """Code 12; and no directory is left that looks like a store."""
    answer = new("init", "--encryption", "aes-256-gcm", code=12)
    assert "needs something that opens it" in answer.err
    assert "--passphrase-file" in answer.err
    assert not new.path.exists()


def test_a_sealed_store_opens_with_its_passphrase_only(new: Shelf, tmp_path: Path) -> None:
    """Another one, or none, is code 12 at every verb, and says what would do."""
    right, wrong = tmp_path / "right", tmp_path / "wrong"
    right.write_text("correct horse\n")
    wrong.write_text("battery staple\n")
    for path in (right, wrong):
        path.chmod(0o600)
    assert "sealed by aes-256-gcm" in new("init", "--passphrase-file", str(right)).out
    assert new("list", "--passphrase-file", str(right)).out.split()[0] == "SNAPSHOT"
    assert "cannot be opened" in new("list", "--passphrase-file", str(wrong), code=12).err
    assert "a passphrase" in new("verify", code=12).err
    new("list", env={"OCIMIG_PASSPHRASE": "correct horse"})
    assert b"correct horse" not in b"".join(
        path.read_bytes() for path in new.path.rglob("*") if path.is_file()
    )


def test_what_is_not_there_is_code_10(new: Shelf) -> None:
    """No directory, a directory that is no store, no such snapshot: scripts tell these from failures."""
    for verb, *words in (
        ("list",), ("show", "ab"), ("verify",), ("prune",), ("repair",), ("unlock",),
        ("forget", "ab"), ("diff", "a", "b"), ("restore", "latest"), ("create", "web"),
    ):  # fmt: skip
        assert "is no store" in new(verb, *words, code=10).err
    new.path.mkdir()
    assert "there is no file STORE" in new("list", code=10).err
    new.path.rmdir()
    new("init")
    assert "has no snapshot latest" in new("show", "latest", code=10).err
    new.put(1)
    assert "has no snapshot zz" in new("show", "zz", code=10).err
    assert "has no snapshot latest db" in new("restore", "latest", "--container", "db", code=10).err
    assert "has no snapshot zz" in new("forget", "zz", code=10).err
    assert len(new.content()) == 1


def test_the_begin_of_a_name_must_be_of_one(shelf: Shelf) -> None:
    """Code 2, and how many there are; what is meant is never guessed."""
    names = list(shelf.put(20))
    begin = next(a[0] for a in names if sum(a[0] == b[0] for b in names) > 1)
    answer = shelf("show", begin, code=2)
    assert f"snapshots that begin with {begin}" in answer.err
    shelf("forget", begin, code=2)
    assert len(shelf.content()) == 20
    shelf("show", names[3])


def test_who_holds_a_store_is_said_and_waited_for_by_nobody(shelf: Shelf) -> None:
    """Code 11 with who it is, while somebody adds; and the other way round."""
    shelf.put(1)
    place = LocalPlace(str(shelf.path))
    try:
        with place.lock(exclusive=False, purpose="a test of locks"):
            for verb in ("prune", "repair"):
                answer = shelf(verb, code=11)
                assert "a test of locks" in answer.err
                assert "ocimig backup unlock" in answer.err
            assert "a test of locks" in shelf("unlock").out
            shelf("verify")
        with place.lock(exclusive=True, purpose="a test of locks"):
            assert "a test of locks" in shelf("verify", code=11).err
            assert "a test of locks" in shelf("create", "web", code=11).err
    finally:
        place.close()
    assert "nobody holds" in shelf("unlock").out


def test_lists_are_for_people_and_programs(shelf: Shelf) -> None:
    """Oldest first; --container, --tag and --quiet choose."""
    names = list(shelf.put(3))
    rows = [line.split() for line in shelf("list").out.splitlines()]
    assert rows[0][:3] == ["SNAPSHOT", "CONTAINER", "HOST"]
    assert [row[0] for row in rows[1:]] == names
    assert shelf("list", "-q").out.split() == names
    assert shelf("list", "-q", "--container", "db").out.split() == [names[1]]
    assert shelf("list", "-q", "--tag", "t").out.split() == [names[0]]
    found = shelf("list", "-f", "json").json()
    assert [each["id"] for each in found] == names
    assert found[0]["container"] == "web"
    assert found[0]["tags"] == ["t"]


def test_a_snapshot_shows_what_is_in_it(shelf: Shelf) -> None:
    """Its files by name and size, when asked for."""
    wanted = shelf.put(1)
    ((name, content),) = wanted.items()
    assert f"id: {name}" in shelf("show", "latest").out
    files = shelf("show", name, "--files", "-f", "json").json()["files"]
    assert {each["path"]: each["size"] for each in files if each["type"] == "f"} == {
        path: len(data) for path, data in content.files.items()
    }
    listed = shelf("show", name, "--files").out
    assert all(f"/b/{path}" in listed for path in content.files)


def test_forget_wants_names_or_a_policy(shelf: Shelf) -> None:
    """Neither, both, or nonsense is code 2 and removes nothing."""
    name, *_ = wanted = shelf.put(3)
    for words in (
        (), ("--prune",), (name, "--keep-last", "1"), ("--keep-last", "x"), ("--keep-last", "-2"),
        ("--keep-daily", "1.5"), ("--keep-within", "soon"), ("--keep-last", "0"),
    ):  # fmt: skip
        shelf("forget", *words, code=2)
    assert shelf.content() == wanted


def test_forget_by_name_removes_just_that(shelf: Shelf) -> None:
    """A name given twice is one; --dry-run removes none; --prune frees what only it needed."""
    wanted = shelf.put(3)
    name = next(iter(wanted))
    assert f"{name} would be removed" in shelf("forget", name, "--dry-run").out
    assert shelf.content() == wanted
    done = shelf("forget", name, name[:12], "--prune", "-f", "json").json()
    assert done["removed"] == [name]
    assert done["pruned"]["problems"] == []
    del wanted[name]
    assert shelf.content() == wanted
    assert shelf("verify", "--read-data").out.endswith("no problems\n")


def test_a_damaged_snapshot_is_forgotten_by_its_whole_name_only(shelf: Shelf) -> None:
    """list says the name; a policy, latest or the begin of it never remove what nobody can judge."""
    wanted = shelf.put(3)
    names = list(wanted)
    (path,) = shelf.path.glob(f"snapshots/{names[2]}*")
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    said = shelf("list")
    assert f"backup forget {shelf.path} {names[2]}" in said.err
    assert names[2] not in said.out
    assert "is damaged" in shelf("forget", names[2][:15], code=1).err
    shelf("forget", "--keep-tag", "t", "--container", "web")
    assert path.exists()
    assert f"{names[2]} would be removed" in shelf("forget", names[2], "-n").out
    assert path.exists()
    assert shelf("forget", names[2], "-f", "json").json()["removed"] == [names[2]]
    assert not path.exists()
    assert shelf("list").err == ""
    assert shelf.content() == {id: wanted[id] for id in names[:2]}


def test_forget_by_policy_says_why(shelf: Shelf) -> None:
    """For each container by itself."""
    wanted = shelf.put(4)
    web, db, web2, db2 = wanted
    out = shelf("forget", "--keep-last", "1", "--dry-run").out
    assert "would be removed" in out
    assert "last snapshot" in out or "kept" in out
    done = shelf("forget", "--keep-last", "1", "--container", "web", "-f", "json").json()
    assert done["removed"] == [web]
    assert shelf("list", "-q").out.split() == [db, web2, db2]
    assert {each["id"]: each["keep"] for each in done["decisions"]} == {web: False, web2: True}


def test_prune_says_what_it_freed(shelf: Shelf) -> None:
    """And with --dry-run what it would; a part is written as one."""
    for number, name in enumerate(shelf.put(3)):
        if number != 1:
            shelf("forget", name)
    would = shelf("prune", "--dry-run", "--max-unused", "0%", "-f", "json").json()
    assert would["remove"] + would["shrink"] > 0
    packs = sorted(shelf.path.glob("packs/*/*.pack"))
    assert "would be removed" in shelf("prune", "-n").out
    assert sorted(shelf.path.glob("packs/*/*.pack")) == packs
    before = sum(path.stat().st_size for path in packs)
    done = shelf("prune", "--max-unused", "0%", "-f", "json").json()
    assert done["removed"] + done["shrunk"] == would["remove"] + would["shrink"]
    after = sum(path.stat().st_size for path in shelf.path.glob("packs/*/*.pack"))
    assert done["freed_bytes"] == before - after > 0
    assert "0 packs removed, 0 written anew" in shelf("prune").out
    for part in ("30", "101%", "-1%", "x%", "nan%", ""):
        shelf("prune", f"--max-unused={part}", code=None if not part else 2)


def test_verify_reads_as_much_as_it_is_told(shelf: Shelf) -> None:
    """Nothing, a part, everything; what is no part is code 2."""
    shelf.put(3)
    read = {}
    for option in ((), ("--read-data=5%",), ("--read-data=100%",), ("--read-data",)):
        read[option] = shelf("verify", *option, "-f", "json").json()["read_packs"]
    assert list(read.values()) == [0, 1, 3, 3]
    for part in ("5", "200%", "-5%", "many", "inf%"):
        answer = shelf("verify", f"--read-data={part}", code=2)
        assert f'invalid value "{part}"' in answer.err


def test_damage_is_found_named_and_set_aside(shelf: Shelf) -> None:
    """verify ends with 1, repair with a store that verifies; what it lost is in quarantine/."""
    wanted = shelf.put(3)
    pack = shelf.damage()
    assert pack in shelf("verify", "--read-data", code=1).out
    verdict = shelf("verify", "--read-data", "-f", "json", code=1).json()
    assert verdict["lost"]
    assert verdict["problems"]
    repaired = shelf("repair", "-f", "json").json()
    assert repaired["lost"].keys() == verdict["lost"].keys()
    assert repaired["bad_packs"] == [pack[:16]]
    assert (shelf.path / "quarantine" / pack).exists()
    assert shelf("verify", "--read-data").out.endswith("no problems\n")
    assert shelf.content() == {id: each for id, each in wanted.items() if id not in verdict["lost"]}
    assert "no problems" in shelf("repair").out


def test_diff_says_how_two_snapshots_differ(shelf: Shelf) -> None:
    """With itself: in nothing."""
    one, other, _ = shelf.put(3)
    found = shelf("diff", one, other, "-f", "json").json()
    assert {each["space"] for each in found["memory"]} == {"p1", "p7"}
    assert all(each["same"] + each["changed"] + each["added"] for each in found["memory"])
    same = shelf("diff", one, one, "-f", "json").json()
    assert same["files"] == []
    assert all(each["changed"] == each["added"] == each["removed"] == 0 for each in same["memory"])


def test_a_container_that_is_not_there_is_an_error_of_its_own(shelf: Shelf) -> None:
    """create of several: each has its line, and the code is that of the failure."""
    answer = shelf("create", "nosuch", "-f", "json", code=None)
    assert answer.code not in (0, 3)
    (document,) = answer.json()
    assert document["container"] == "nosuch"
    assert document["code"] == answer.code
    assert "nosuch" in answer.err


def test_a_restore_needs_a_place_that_is_free(shelf: Shelf, tmp_path: Path) -> None:
    """Nothing is written where something is."""
    shelf.put(1)
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "letter").write_text("of somebody")
    answer = shelf("restore", "latest", "--as", "x", "-b", str(taken), code=None)
    assert answer.code not in (0, None)
    assert str(taken) in answer.err
    assert [path.name for path in taken.iterdir()] == ["letter"]
    assert not list(shelf.ocimig.root.glob(".restores/*"))


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("backup",), 0, "backup create"),
        (("backup", "--help"), 0, "backup create"),
        (("help", "backup"), 0, "backup create"),
        (("help", "backup", "create"), 0, "--tracker"),
        (("backup", "create", "--help"), 0, "--tracker"),
        (("backup", "nonsense"), 3, "backup nonsense"),
        (("help", "backup", "nonsense"), 3, "backup nonsense"),
        (("backup", "create"), 2, "minimum of 2"),
        (("backup", "list", "--nonsense", "x"), 2, "nonsense"),
        (("backup", "list", "--format", "xml", "x"), 2, "xml"),
    ],
)
def test_the_family_explains_itself(
    ocimig: Ocimig, words: tuple[str, ...], code: int, said: str
) -> None:
    """By every way that people try."""
    answer = ocimig(*words, code=code)
    assert said in (answer.out if code == 0 else answer.err)


def test_no_traceback_whatever_the_store_holds(shelf: Shelf) -> None:
    """Files that are no files, empty ones, nonsense: an error of one line, or a warning."""
    shelf.put(2)
    about = (shelf.path / "STORE").read_bytes()
    changes: list[Callable[[], object]] = [
        lambda: (shelf.path / "STORE").write_bytes(b""),
        lambda: (shelf.path / "STORE").write_bytes(b"[]"),
        lambda: (shelf.path / "STORE").write_bytes(b'{"version": 9}'),
        lambda: (shelf.path / "STORE").write_bytes(about[:-20]),
        lambda: next(shelf.path.glob("snapshots/*")).write_bytes(b"x"),
        lambda: next(shelf.path.glob("packs/*/*.pack")).write_bytes(b""),
        lambda: (shelf.path / "snapshots" / "0.snapshot").mkdir(),
    ]
    for change in changes:
        change()
        for verb, *words in (("list",), ("verify", "--read-data"), ("show", "latest", "--files")):
            answer = shelf(verb, *words, code=None)
            assert "Traceback" not in answer.err, answer
            assert answer.code in (0, 1, 10), answer
        (shelf.path / "STORE").write_bytes(about)
