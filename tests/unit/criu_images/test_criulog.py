"""A log in one line."""

from pathlib import Path

import pytest

from ocimig.criu_images import criulog

HEAD = """(00.000001) Version: 4.2.1 (gitid 0)
(00.004782) Error (criu/util.c:1533): rlimit: Can't setup RLIMIT_NOFILE for self: Operation not permitted
"""
TAIL = "(00.016488) Error (criu/cr-restore.c:2320): Restoring FAILED.\n"


@pytest.mark.parametrize(
    ("line", "words", "remedy"),
    [
        (
            "(00.1) Error (criu/sk-inet.c:188): inet: Connected TCP socket, consider using --tcp-established",
            "established TCP connection",
            "--tcp-established",
        ),
        (
            "(00.1)      1: Error (criu/files-reg.c:2175): File root/data has bad size 3 (expect 5)",
            "root/data has 3 bytes now and had 5",
            "same files",
        ),
        (
            "(00.1)      1: Error (criu/files-reg.c:2353): Can't open file root/open on restore: No such file",
            "root/open",
            "",
        ),
        ("(00.1) Error (criu/page-xfer.c:1): write: No space left on device", "no space left", "free"),
        (
            "(00.1) Error (criu/cr-restore.c:1236): Can't fork for 12: File exists",
            "process number 12 is taken",
            "pid namespace",
        ),
    ],
)  # fmt: skip
def test_a_known_cause_is_said_in_words(tmp_path: Path, line: str, words: str, remedy: str) -> None:
    """The line that matters, not the first and not the last."""
    log = tmp_path / "log"
    log.write_text(HEAD + line + "\n" + TAIL)
    found = criulog.explain(str(log))
    assert found.known
    assert words in found.words
    assert remedy in found.remedy


def test_an_unknown_cause_is_the_first_real_error(tmp_path: Path) -> None:
    """What CRIU calls an error and goes on is left out."""
    log = tmp_path / "log"
    log.write_text(HEAD + "(00.1) Error (criu/x.c:7): something new\n" + TAIL)
    assert criulog.explain(str(log)).words == "criu/x.c: something new"


def test_no_log_leaves_the_message_of_the_answer(tmp_path: Path) -> None:
    """CRIU can fail before it has a log."""
    assert criulog.explain(str(tmp_path / "none"), "bad things").words == "bad things"
    assert criulog.explain(str(tmp_path / "none")).words == ""


def test_every_cause_can_be_filled_in() -> None:
    """No template asks for a group its pattern has not got."""
    for cause in criulog.CAUSES:
        cause.words.format("a", "b", "c", "d")
        cause.remedy.format("a", "b", "c", "d")
