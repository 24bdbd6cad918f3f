"""How far do the pages of the latest snapshot scatter, and what would gathering them cost? Counts, no bytes.

Each snapshot changes a part of the pages, anywhere. Printed are, for the last one: frames that a restore
expands, as a multiple of the fewest there can be; packs that it opens; and pages that were written anew,
per changed page, by a writer that gathers frames of which few pages are still needed.
"""

import argparse
import random
import sys

FRAME = 16  # pages, as in docs/formats/store.md


class Scatter:
    """Where the pages of the latest snapshot lie: in which frames, and these in which packs."""

    def __init__(self, pages: int) -> None:
        self.frames: dict[int, set[int]] = {}
        self.packs: dict[int, int] = {}  # of each frame
        self._frame: dict[int, int] = {}  # of each page
        self._next = 0
        self.put(list(range(pages)), 0)

    def put(self, pages: list[int], pack: int) -> None:
        """These are in frames of this pack from now on, in order."""
        for at in range(0, len(pages), FRAME):
            for page in pages[at : at + FRAME]:
                self._leave(page)
                self._frame[page] = self._next
                self.frames.setdefault(self._next, set()).add(page)
            self.packs[self._next] = pack
            self._next += 1

    def _leave(self, page: int) -> None:
        old = self._frame.get(page)
        if old is not None:
            self.frames[old].discard(page)
            if not self.frames[old]:
                del self.frames[old], self.packs[old]

    def sparse(self, most: int, room: int, pack: int) -> list[int]:
        """Pages of frames of other packs with `most` needed pages at most, the emptiest first; `room` in all."""
        found: list[int] = []
        few = [each for each, held in self.frames.items() if len(held) <= most]
        for each in sorted(few, key=lambda each: len(self.frames[each])):
            if self.packs[each] != pack and len(found) + len(self.frames[each]) <= room:
                found += self.frames[each]
        return sorted(found)


def main(argv: list[str]) -> int:
    """Count and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pages", type=int, default=16384)
    parser.add_argument("--snapshots", type=int, default=1000)
    parser.add_argument("--changed", type=float, default=0.01, help="part of the pages, each time")
    options = parser.parse_args(argv)
    count = int(options.pages * options.changed)
    print(f"{'gathered':>24} {'frames':>8} {'packs':>6} {'anew':>6}")
    for most, budget in ((0, 0.0), (1, 0.1), (2, 0.125), (2, 0.2), (4, 0.3), (8, 0.6)):
        dice, anew = random.Random(1), 0
        there = Scatter(options.pages)
        for pack in range(1, options.snapshots):
            there.put(sorted(dice.sample(range(options.pages), count)), pack)
            gathered = there.sparse(most, int(count * budget), pack)
            anew += len(gathered)
            there.put(gathered, pack)
        frames = len(there.frames) * FRAME / options.pages
        part = anew / (count * max(options.snapshots - 1, 1))
        what = f"{most} a frame, {budget:.1%} at most"
        print(f"{what:>24} {frames:8.2f} {len(set(there.packs.values())):6} {part:6.1%}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
