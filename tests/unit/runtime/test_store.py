"""The state directory and the facts in it."""

import os
import subprocess
import threading
from pathlib import Path

import pytest

from ocimig import jsonio
from ocimig.runtime import state as facts
from ocimig.runtime.errors import ContainerExists, InvalidId, NoSuchContainer, StateUnreadable
from ocimig.runtime.linux import proc
from ocimig.runtime.state import ContainerState
from ocimig.runtime.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store whose root does not exist yet."""
    return Store(str(tmp_path / "root"))


@pytest.mark.parametrize("id", ["c1", "A_b+c.d-e", "x" * 200, "0", "a..b"])
def test_a_good_name_is_taken_once(store: Store, id: str) -> None:
    """The second claim says so and changes nothing."""
    store.claim(id)
    assert store.exists(id)
    assert os.stat(store.path(id)).st_mode & 0o777 == 0o711
    with pytest.raises(ContainerExists, match=r"^container with given ID already exists$"):
        store.claim(id)
    assert store.ids() == [id]


@pytest.mark.parametrize(
    "id", ["", ".", "..", "../x", "a/b", ".hidden", "x" * 201, "é", "a b", "a\n"]
)
def test_a_bad_name_is_refused(store: Store, id: str) -> None:
    """Before anything touches the disk."""
    with pytest.raises(InvalidId, match=r"^invalid container ID format$"):
        store.claim(id)
    with pytest.raises(InvalidId):
        store.load(id)
    assert not os.path.exists(store.root)


def test_of_many_claims_at_once_one_wins(store: Store) -> None:
    """mkdir(2) decides."""
    won: list[int] = []

    def claim(number: int) -> None:
        try:
            store.claim("c1")
        except ContainerExists:
            return
        won.append(number)

    threads = [threading.Thread(target=claim, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1


def test_an_empty_store_is_empty(store: Store) -> None:
    """A root that does not exist holds nothing."""
    assert store.ids() == []
    assert not store.exists("c1")
    with pytest.raises(NoSuchContainer, match=r"^container does not exist$"):
        store.load("c1")


def test_facts_survive_the_disk(store: Store) -> None:
    """Every field comes back as it went."""
    store.claim("c1")
    state = ContainerState(
        "c1",
        pid=12,
        start_time=34,
        bundle="/b",
        rootfs="/b/rootfs",
        cgroups={"memory": "/sys/fs/cgroup/memory/c1"},
        annotations={"a": "ü"},
        oci_version="1.2.0",
        descriptors=["/dev/null", "pipe:[1]", "pipe:[2]"],
        image="/image",
        network={"bridge": "br0"},
        checkpointed=True,
        mounts=["/mnt/x"],
    )
    store.save(state)
    again = store.load("c1")
    for name in ContainerState.__slots__:
        assert getattr(again, name) == getattr(state, name), name
    assert os.stat(os.path.join(store.path("c1"), "state.json")).st_mode & 0o777 == 0o600


def test_a_field_of_a_later_version_is_kept(store: Store) -> None:
    """What this version does not know is there after it has written the file again."""
    store.claim("c1")
    store.save(ContainerState("c1"))
    path = Path(store.path("c1"), "state.json")
    document = jsonio.loads(path.read_bytes())
    document["epoch"] = 7
    del document["mounts"]
    path.write_text(jsonio.dumps(document))
    state = store.load("c1")
    assert state.mounts == []
    store.save(state)
    assert jsonio.loads(path.read_bytes())["epoch"] == 7


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "a value is missing"),
        ("[]", "not a JSON object"),
        ('{"id":"c1","pid":"7"}', "pid is a str"),
        ('{"id":"c1","version":2}', "version 2"),
        ('{"id":"c2"}', "it is the state of c2"),
        ('{"pid":1}', "no id in it"),
    ],
)
def test_a_damaged_state_is_named(store: Store, text: str, words: str) -> None:
    """The error says what is wrong and what to do."""
    store.claim("c1")
    Path(store.path("c1"), "state.json").write_text(text)
    with pytest.raises(StateUnreadable, match=words) as caught:
        store.load("c1")
    assert "delete --force c1" in caught.value.advice


def test_a_container_without_facts_does_not_exist_yet(store: Store) -> None:
    """Claimed is taken, but there is nothing to load."""
    store.claim("c1")
    with pytest.raises(NoSuchContainer):
        store.load("c1")
    with pytest.raises(NoSuchContainer):
        store.config("c1")
    assert store.exists("c1")


def test_the_configuration_is_kept(store: Store) -> None:
    """As a copy of its own."""
    store.claim("c1")
    store.save_config("c1", {"ociVersion": "1.2.0", "process": {"args": ["a"]}})
    assert store.config("c1")["process"] == {"args": ["a"]}


def test_removing_leaves_nothing(store: Store) -> None:
    """Not even what an earlier removal, killed in the middle, left behind."""
    store.claim("c1")
    store.save(ContainerState("c1"))
    ended = subprocess.run(["sh", "-c", "echo $$"], capture_output=True, text=True, check=True)
    left = Path(store.root, f".c1.{ended.stdout.strip()}.removed", "deep")
    left.mkdir(parents=True)
    mine = Path(store.root, f".c1.{os.getpid()}.removed", "deep")
    mine.mkdir(parents=True)
    assert store.ids() == ["c1"]
    with store.lock("c1"):
        store.remove("c1")
    assert os.listdir(store.root) == []
    store.remove("c1")


def test_who_waited_for_the_lock_of_a_removed_container_finds_nothing(store: Store) -> None:
    """The lock file does not come back to life."""
    store.claim("c1")
    caught: list[type] = []

    def wait() -> None:
        try:
            with store.lock("c1"):
                caught.append(Store)
        except OSError as error:
            caught.append(type(error))

    with store.lock("c1"):
        waiter = threading.Thread(target=wait)
        waiter.start()
        store.remove("c1")
    waiter.join()
    assert caught == [FileNotFoundError]
    assert os.listdir(store.root) == []


def test_saving_to_a_removed_container_says_so(store: Store) -> None:
    """No directory is made by writing into it."""
    with pytest.raises(NoSuchContainer):
        store.save(ContainerState("c1"))


def test_status_follows_the_facts(store: Store) -> None:
    """creating, created, running, stopped: from the maker, the fifo and the process."""
    store.claim("c1")
    state = ContainerState("c1")
    store.save(state)
    assert facts.status(store.load("c1"), store) == facts.CREATING
    child = subprocess.Popen(["sleep", "1000"])
    try:
        os.mkfifo(store.fifo("c1"))
        state.adopt(child.pid)
        assert facts.status(state, store) == facts.CREATED
        os.unlink(store.fifo("c1"))
        assert facts.status(state, store) == facts.RUNNING
    finally:
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert facts.status(state, store) == facts.STOPPED  # a zombie has stopped
        child.wait()
    assert facts.status(state, store) == facts.STOPPED
    with pytest.raises(ProcessLookupError):
        state.adopt(child.pid)


def test_a_maker_that_died_is_not_at_work(store: Store) -> None:
    """A state without a process whose maker is gone has stopped."""
    child = subprocess.Popen(["sleep", "1000"])
    stat = proc.stat(child.pid)
    assert stat is not None
    state = ContainerState("c1", creator_pid=stat.pid, creator_start=stat.start_time)
    assert facts.status(state, store) == facts.CREATING
    child.kill()
    child.wait()
    assert facts.status(state, store) == facts.STOPPED


def test_a_number_used_again_is_not_the_container(store: Store) -> None:
    """Another start time, or another boot, is another process."""
    stat = proc.stat(os.getpid())
    assert stat is not None
    assert facts.alive(ContainerState("c1", pid=stat.pid, start_time=stat.start_time))
    assert not facts.alive(ContainerState("c1", pid=stat.pid, start_time=stat.start_time + 1))
    elsewhere = ContainerState("c1", pid=stat.pid, start_time=stat.start_time, boot_id="other")
    assert not facts.alive(elsewhere)
    assert not facts.alive(ContainerState("c1", pid=0))
    assert not facts.alive(ContainerState("c1", pid=-1))


def test_a_checkpointed_container_has_stopped(store: Store) -> None:
    """Even while the process that checkpointed it lives."""
    store.claim("c1")
    store.save(ContainerState("c1", checkpointed=True))
    assert facts.status(store.load("c1"), store) == facts.STOPPED


def test_now_is_rfc3339_with_nanoseconds() -> None:
    """As Go prints it and Go's callers read it."""
    text = facts.now()
    assert len(text) == len("2026-11-23T04:02:08.333159695Z")
    assert text[10] == "T"
    assert text.endswith("Z")
