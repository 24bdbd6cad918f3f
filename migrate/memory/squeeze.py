"""Whether compressing pages pays, and how hard to try. Never sends anything.

A byte costs 1/link seconds raw, and 1/speed + ratio/link compressed. Speed and ratio are measured on
samples of the data itself, the link by how long writing to it takes; the cheapest level wins. A link
faster than the compressor is thus never made to wait for it.
"""

import time
from dataclasses import dataclass

import zstandard

MODES = ("auto", "zstd", "none")
LEVELS = (1, 3, 6)
WORTH = 0.9  # what does not shrink below this part of itself goes as it is
ALWAYS = 3  # level of the mode "zstd"

_SAMPLE = 16 << 10
_SAMPLES = 4
_HOLD = 8  # frames for which a level is kept before it is looked at again
_PATIENCE = 64  # frames that go raw, at most, before the next sample
_UNHURRIED = 100e6  # bytes a second below which a higher level than the first is looked at
_ENOUGH = 4 << 20  # bytes after which the speed of the link is believed
_FORGET = 64 << 20  # bytes after which half of what was measured is forgotten


@dataclass(slots=True)
class Link:
    """How fast bytes left so far; what is long ago counts less."""

    sent: float = 0.0
    seconds: float = 0.0

    def add(self, count: int, seconds: float) -> None:
        """So many bytes took so long."""
        self.sent += count
        self.seconds += seconds
        if self.sent > _FORGET:
            self.sent /= 2
            self.seconds /= 2

    def speed(self) -> float:
        """Bytes a second, 0 where too little is known."""
        if self.sent < _ENOUGH or not self.seconds:
            return 0.0
        return self.sent / self.seconds


class Squeeze:
    """The compressor of one stream. `rate` is the speed of the link where it is limited, else 0;
    `link` is what is known of it from elsewhere."""

    def __init__(self, mode: str = "auto", *, rate: int = 0, link: Link | None = None) -> None:
        if mode not in MODES:
            raise ValueError(f"{mode!r} is not one of {', '.join(MODES)}")
        self._mode = mode
        self.link = Link() if link is None else link
        if rate:
            self.link.add(_ENOUGH, _ENOUGH / rate)
        self._compressors: dict[int, zstandard.ZstdCompressor] = {}
        self._level = ALWAYS if mode == "zstd" else 0
        self._hold = 0
        self._patience = 1

    @property
    def level(self) -> int:
        """The zstandard level in use, 0 for none."""
        return self._level

    def compress(self, data: memoryview) -> bytes | None:
        """The data as one zstandard frame with its size in it, or None where raw is better."""
        if self._mode == "none" or not data:
            return None
        if self._mode == "auto":
            self._choose(data)
        if not self._level:
            return None
        small = self._at(self._level).compress(data)
        if len(small) <= WORTH * len(data):
            return small
        self._hold = 0
        return None

    def sent(self, count: int, seconds: float) -> None:
        """Writing this many bytes took this long."""
        self.link.add(count, seconds)

    def _choose(self, data: memoryview) -> None:
        if self._hold > 0:
            self._hold -= 1
            return
        link = self.link.speed()
        if not link:
            self._level = 0
            return
        step = max(_SAMPLE, (len(data) - _SAMPLE) // (_SAMPLES - 1))
        sample = b"".join(data[at : at + _SAMPLE] for at in range(0, len(data), step))
        best, self._level = 1 / link, 0
        for level in LEVELS if link < _UNHURRIED else LEVELS[:1]:
            before = time.perf_counter()
            small = len(self._at(level).compress(sample))
            cost = (time.perf_counter() - before + small / link) / len(sample)
            if small > WORTH * len(sample):
                break
            if cost < best:
                best, self._level = cost, level
        if self._level:
            self._hold, self._patience = _HOLD, 1
        else:
            self._hold = self._patience
            self._patience = min(2 * self._patience, _PATIENCE)

    def _at(self, level: int) -> zstandard.ZstdCompressor:
        if level not in self._compressors:
            self._compressors[level] = zstandard.ZstdCompressor(level=level)
        return self._compressors[level]
