"""Processes marked for KSM."""

import os
import subprocess

import pytest

from ocimig.migrate.clone import merge


@pytest.mark.skipif(bool(merge.impossible()), reason="this kernel marks no process for KSM")
def test_a_mark_is_inherited_by_what_is_started() -> None:
    """So whoever starts CRIU marks what CRIU restores, and is the only one that is marked besides."""
    command = ["sh", "-c", "echo; read word"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, preexec_fn=merge.mark
    ) as child:
        assert child.stdout is not None
        assert child.stdout.read(1) == b"\n"  # it has been executed
        assert merge.marked(child.pid)
        child.communicate()
    assert not merge.marked(os.getpid())
