"""Waiting for a thing to become true, with a deadline. Never a sleep and a hope."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(question: Callable[[], T], what: str, seconds: float = 10.0, every: float = 0.01) -> T:
    """Ask again until the answer is true, and return it; AssertionError naming `what` when time is up."""
    deadline = time.monotonic() + seconds
    while True:
        answer = question()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(
                f"waited {seconds} s in vain for: {what} (last answer: {answer!r})"
            )
        time.sleep(every)
