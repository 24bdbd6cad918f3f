"""Names of one file, looked at while somebody changes it."""

import stat

from ocimig.migrate.rootfs.index import Entry, Index, doubt_twins
from ocimig.migrate.rootfs.plan import plan

DEVICE = Entry(stat.S_IFCHR | 0o600, 7, 1, 2, 0, 0, 0, 5, 5, 259, 0, 0, False)
CHANGED = DEVICE._replace(mode=stat.S_IFCHR | 0o777, ctime_ns=9)


def test_a_change_between_two_names_of_a_device_is_sent() -> None:
    """One name has the old mode and one the new: what is there has the old one under both."""
    seen = Index({"a": DEVICE, "b": CHANGED}, links={"b": "a"})
    doubt_twins(seen)
    made = plan(seen, Index({"a": CHANGED, "b": CHANGED}))
    assert sorted(made.creations) == ["a", "b"]
    assert not made.homes


def test_names_that_agree_are_believed() -> None:
    """Else every pass would send them again."""
    seen = Index({"a": DEVICE, "b": DEVICE}, links={"b": "a"})
    doubt_twins(seen)
    assert plan(seen, Index({"a": DEVICE, "b": DEVICE})).creations == []
