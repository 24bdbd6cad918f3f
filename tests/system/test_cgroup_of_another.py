"""A cgroup that another container is in is neither joined nor killed."""

import pytest

from ocimig_testkit import TOKEN, Bundle, Ocimig

pytestmark = [pytest.mark.root, pytest.mark.busybox]


def test_a_taken_cgroup_is_refused_and_its_container_lives_on(
    ocimig: Ocimig, bundle: Bundle
) -> None:
    """The second container fails; cleaning up after it must not end the first."""
    bundle.linux["cgroupsPath"] = f"/{TOKEN}-shared"
    first = ocimig.launch(bundle.write())
    answer = ocimig("create", "--bundle", bundle.path, ocimig.new_id(), code=1)
    assert "cgroup" in answer.err
    assert ocimig.status(first) == "running"
    assert [entry["id"] for entry in ocimig("list", "-f", "json").json()] == [first]
