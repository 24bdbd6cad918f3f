"""Who of those that move together may go on, and when. Pure: hears words, answers with orders."""

from collections.abc import Iterable

# What a member says when it can go on only with all others, and the order that lets all of them.
STEPS = (
    ("looked", "begin"),  # nothing was touched yet
    ("ready", "freeze"),  # what is left to send is little
    ("prepared", "intend"),  # built there, frozen here
    ("intended", "go"),  # given away here, durably
)
ABORT = "abort"
_INTEND = 3  # that many orders were given when members may have given their containers away

Orders = list[tuple[str, str]]  # who, what


class Gather:
    """One barrier after the other. After the last order nothing turns anybody back any more."""

    def __init__(self, members: Iterable[str], *, steps: int = len(STEPS)) -> None:
        self.at = dict.fromkeys(members, 0)  # how many steps each has reached
        self.steps = steps
        self.given = 0
        self.aborted = False

    @property
    def decided(self) -> bool:
        """Whether the last order was given, or that there will be none."""
        return self.aborted or self.given == self.steps

    def heard(self, member: str, word: str) -> Orders:
        """A member waits. A word out of its turn is one we cannot trust the others to: all turn back."""
        reached = self.at.get(member)
        if reached is None or self.aborted:
            return []
        if reached != self.given or reached == self.steps or word != STEPS[reached][0]:
            return self.abort()
        self.at[member] += 1
        if any(each == self.given for each in self.at.values()):
            return []
        self.given += 1
        return [(each, STEPS[self.given - 1][1]) for each in self.at]

    def ended(self, member: str) -> Orders:
        """A member is no more: by itself, or because it was killed."""
        if self.at.pop(member, None) is None:
            return []
        return self.abort()

    def abort(self) -> Orders:
        """All turn back, unless they have gone."""
        if self.decided:
            return []
        self.aborted = True
        return [(each, ABORT) for each in self.at]

    def busy(self) -> list[str]:
        """Those that do not listen for an order now, and may be interrupted: they gave nothing away."""
        if self.given >= _INTEND:
            return []
        return [each for each, reached in self.at.items() if reached == self.given]
