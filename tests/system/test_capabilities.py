"""Capabilities as the kernel shows them in a container, for every way of asking for them."""

import json
import os
from pathlib import Path

import pytest

from ocimig_testkit import Answer, Bundle, Ocimig

pytestmark = [pytest.mark.root, pytest.mark.busybox]
own = pytest.mark.skipif("OCIMIG_RUNTIME" in os.environ, reason="another runtime does otherwise")
CHOWN, KILL, NET_BIND, NET_RAW, RESOURCE = (1 << bit for bit in (0, 5, 10, 13, 24))
SETS = {"CapBnd": "bounding", "CapEff": "effective", "CapPrm": "permitted",
        "CapInh": "inheritable", "CapAmb": "ambient"}  # fmt: skip


def masks(answer: Answer) -> dict[str, int]:
    """The five sets of what printed /proc/self/status."""
    assert answer.code == 0, answer
    lines = (line.partition(":") for line in answer.out.splitlines() if line.startswith("Cap"))
    return {SETS[name]: int(value, 16) for name, _, value in lines}


def asked(ocimig: Ocimig, bundle: Bundle, **sets: list[str]) -> dict[str, int]:
    """What a container gets that asks for these sets."""
    bundle.process["capabilities"] = sets
    return masks(ocimig.run(bundle.argv("/bin/cat", "/proc/self/status")))


def test_each_set_is_what_was_asked_for(ocimig: Ocimig, bundle: Bundle) -> None:
    """Bounding, effective and permitted; inheritable and ambient are empty unless listed."""
    both = ["CAP_CHOWN", "CAP_KILL"]
    got = asked(ocimig, bundle, bounding=both, effective=both, permitted=both)
    assert got == {
        "bounding": CHOWN | KILL,
        "effective": CHOWN | KILL,
        "permitted": CHOWN | KILL,
        "inheritable": 0,
        "ambient": 0,
    }


def test_no_sets_at_all_is_no_capability(ocimig: Ocimig, bundle: Bundle) -> None:
    """An empty object gives nothing, even to root."""
    assert set(asked(ocimig, bundle).values()) == {0}


@own
def test_a_config_without_capabilities_gives_none(ocimig: Ocimig, bundle: Bundle) -> None:
    """As runc 1.1 and crun; a later runc leaves the caller's."""
    del bundle.process["capabilities"]
    got = masks(ocimig.run(bundle.argv("/bin/cat", "/proc/self/status")))
    assert set(got.values()) == {0}


def test_a_user_keeps_only_ambient_ones(ocimig: Ocimig, bundle: Bundle) -> None:
    """execve takes permitted ones from a user that is not root, unless they are ambient."""
    bundle.process["user"] = {"uid": 1000, "gid": 1000}
    all_five = {name: ["CAP_NET_BIND_SERVICE"] for name in SETS.values()}
    got = asked(ocimig, bundle, **all_five)
    assert set(got.values()) == {NET_BIND}
    got = asked(ocimig, bundle, **{**all_five, "ambient": [], "inheritable": []})
    assert got == {
        "bounding": NET_BIND,
        "effective": 0,
        "permitted": 0,
        "inheritable": 0,
        "ambient": 0,
    }


def test_an_unknown_capability_is_a_warning(ocimig: Ocimig, bundle: Bundle) -> None:
    """A config written for a newer kernel still runs."""
    names = ["CAP_KILL", "CAP_FROM_THE_FUTURE"]
    bundle.process["capabilities"] = {"bounding": names, "effective": names, "permitted": names}
    answer = ocimig.run(bundle.argv("/bin/cat", "/proc/self/status"))
    assert masks(answer)["effective"] == KILL
    assert "ignoring unknown or unavailable capabilities: [CAP_FROM_THE_FUTURE]" in answer.err


@own
def test_ambient_without_inheritable_is_a_warning(ocimig: Ocimig, bundle: Bundle) -> None:
    """The kernel would refuse it; the rest of the sets is set."""
    names = ["CAP_KILL"]
    bundle.process["capabilities"] = {
        "bounding": names, "effective": names, "permitted": names, "ambient": names,
    }  # fmt: skip
    answer = ocimig.run(bundle.argv("/bin/cat", "/proc/self/status"))
    assert masks(answer) == {
        "bounding": KILL, "effective": KILL, "permitted": KILL, "inheritable": 0, "ambient": 0,
    }  # fmt: skip
    assert "can't raise ambient capability CAP_KILL" in answer.err


@own
def test_what_the_caller_lacks_is_a_warning(ocimig: Ocimig, bundle: Bundle) -> None:
    """A caller without NET_RAW in its bounding set cannot give it, and says so."""
    ocimig.prefix = ("setpriv", "--bounding-set=-net_raw")
    names = ["CAP_KILL", "CAP_NET_RAW"]
    bundle.process["capabilities"] = {"bounding": names, "effective": names, "permitted": names}
    answer = ocimig.run(bundle.argv("/bin/cat", "/proc/self/status"))
    assert masks(answer)["permitted"] == KILL
    assert "CAP_NET_RAW" in answer.err


def test_exec_gets_the_containers_and_what_is_added(ocimig: Ocimig, bundle: Bundle) -> None:
    """--cap adds to bounding, effective and permitted, never to inheritable (CVE-2022-29162)."""
    names = ["CAP_KILL"]
    bundle.process["capabilities"] = {"bounding": names, "effective": names, "permitted": names}
    id = ocimig.launch(bundle.write())
    plain = masks(ocimig.exec(id, "/bin/cat", "/proc/self/status"))
    assert plain["effective"] == plain["bounding"] == KILL
    added = masks(
        ocimig.exec(id, "/bin/cat", "/proc/self/status", options=["--cap", "CAP_NET_RAW"])
    )
    assert added == {
        "bounding": KILL | NET_RAW,
        "effective": KILL | NET_RAW,
        "permitted": KILL | NET_RAW,
        "inheritable": 0,
        "ambient": 0,
    }


def test_a_process_document_without_capabilities_gets_the_containers(
    ocimig: Ocimig, bundle: Bundle, tmp_path: Path
) -> None:
    """Never the caller's own: that would be everything."""
    names = ["CAP_KILL"]
    bundle.process["capabilities"] = {"bounding": names, "effective": names, "permitted": names}
    id = ocimig.launch(bundle.write())
    document = {"args": ["/bin/cat", "/proc/self/status"], "cwd": "/"}
    (tmp_path / "process.json").write_text(json.dumps(document))
    got = masks(ocimig("exec", "--process", tmp_path / "process.json", id))
    assert got["bounding"] == got["effective"] == got["permitted"] == KILL


def test_a_dropped_capability_really_does_not_work(ocimig: Ocimig, bundle: Bundle) -> None:
    """chown of a file of somebody else, with and without."""
    names = ["CAP_CHOWN"]
    bundle.shell("f=$(mktemp) && chown 1000 $f")
    bundle.process["capabilities"] = {"bounding": names, "effective": names, "permitted": names}
    ocimig.run(bundle.write(), code=0)
    bundle.process["capabilities"] = {}
    answer = ocimig.run(bundle.write(), code=1)
    assert "Operation not permitted" in answer.err
