"""Capabilities of config.json become masks that the kernel takes."""

from ocimig.runtime import capabilities
from ocimig.runtime.linux import capabilities as kernel

KILL, CHOWN, BPF = (1 << kernel.CAPS[name] for name in ("CAP_KILL", "CAP_CHOWN", "CAP_BPF"))
FIVE = {kind: ["CAP_KILL"] for kind in capabilities.SETS}


def test_the_five_sets_become_five_masks() -> None:
    """Names to bits, and nothing else happens to sets that fit together."""
    plan = capabilities.plan(FIVE, available=capabilities.ALL)
    assert plan.warnings == []
    assert {getattr(plan, kind) for kind in capabilities.SETS} == {KILL}
    assert plan.describe() == "capabilities inh=20 prm=20 eff=20 bnd=20 amb=20"


def test_no_capabilities_are_none() -> None:
    """A config without the field gives a process without any."""
    plan = capabilities.plan(None, available=capabilities.ALL)
    assert plan.bounding == plan.effective == plan.permitted == 0


def test_an_unknown_name_is_a_warning() -> None:
    """The specification wants a warning, not an error; runc's words."""
    plan = capabilities.plan(
        {"bounding": ["CAP_KILL", "CAP_NEW", "kill"]}, available=capabilities.ALL
    )
    assert plan.bounding == KILL
    assert plan.warnings == ["ignoring unknown or unavailable capabilities: [CAP_NEW kill]"]


def test_what_we_do_not_have_is_left_out() -> None:
    """A host that lacks a capability still starts the container, and says what is missing."""
    plan = capabilities.plan(FIVE, available=capabilities.ALL & ~KILL)
    assert plan.bounding == plan.ambient == 0
    assert plan.warnings == [
        "ignoring capabilities that this process does not have itself: [CAP_KILL]"
    ]


def test_effective_stays_within_permitted() -> None:
    """capset(2) would refuse it all."""
    plan = capabilities.plan(
        {"effective": ["CAP_KILL", "CAP_CHOWN"], "permitted": ["CAP_KILL"]},
        available=capabilities.ALL,
    )
    assert plan.effective == KILL
    assert "CAP_CHOWN" in plan.warnings[0]


def test_ambient_needs_permitted_and_inheritable() -> None:
    """The kernel's rule; each one that fails is named, the others are raised."""
    wanted = {
        "bounding": ["CAP_KILL", "CAP_CHOWN"],
        "permitted": ["CAP_KILL", "CAP_CHOWN"],
        "inheritable": ["CAP_KILL"],
        "ambient": ["CAP_KILL", "CAP_CHOWN"],
    }
    plan = capabilities.plan(wanted, available=capabilities.ALL)
    assert plan.ambient == KILL
    assert plan.warnings == [
        "can't raise ambient capability CAP_CHOWN: it is not permitted and inheritable"
    ]


def test_exec_adds_capabilities_but_never_inheritable_ones() -> None:
    """CVE-2022-29162: an inheritable set gives more than the container has."""
    before = {"bounding": ["CAP_KILL"], "permitted": ["CAP_KILL"]}
    after = capabilities.added(before, ["CAP_CHOWN", "CAP_KILL"])
    assert after["bounding"] == ["CAP_KILL", "CAP_CHOWN"]
    assert after["effective"] == ["CAP_CHOWN", "CAP_KILL"]
    assert "inheritable" not in after
    assert "ambient" not in after
    assert before["bounding"] == ["CAP_KILL"]
    assert "ambient" in capabilities.added({"inheritable": ["CAP_KILL"]}, ["CAP_KILL"])
    assert capabilities.added(None, ["CAP_KILL"])["permitted"] == ["CAP_KILL"]


def test_the_table_is_the_kernels() -> None:
    """Names and numbers agree with this kernel's highest one, and masks go there and back."""
    assert kernel.CAPS["CAP_SYS_ADMIN"] == 21
    assert kernel.CAPS["CAP_CHECKPOINT_RESTORE"] == 40
    bits, unknown = kernel.mask(kernel.NAMES[: kernel.last_cap() + 1])
    assert unknown == []
    assert kernel.names_of(bits) == list(kernel.NAMES[: kernel.last_cap() + 1])


def test_our_own_masks_are_read_from_proc() -> None:
    """The bounding set is what a child could ever have."""
    masks = kernel.of_process()
    assert set(masks) == {"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"}
    assert kernel.bounding_set() == masks["CapBnd"]
