"""How long a container will stand still: by what it is, and by what earlier migrations on this host took.

A model says what each part of the blackout depends on (processes, threads, mappings, descriptors,
sockets, a little on memory; bytes over bandwidth; round trips) on a machine that has nothing else to do, and how much slower
this one is at the moment is measured (`strain`). Each migration leaves what it really took in
`<root>/.migrations/.calibration.json`; the model's parts are then stretched to fit those, the latest, the
most similar and those to the same host first. Never decides.
"""

import math
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from ocimig import files, jsonio, log
from ocimig.migrate import journal
from ocimig.migrate.memory.runs import PAGE
from ocimig.migrate.report import DELTA, DUMP, FILES, FREEZE, NETWORK, PARTS, RESTORE, WIRE
from ocimig.runtime.linux import proc
from ocimig.runtime.store import Store

NAME = ".calibration.json"
VERSION = 1
KEPT = 64  # migrations
_LIMITS = (0.2, 5.0)  # what one migration may stretch a part by: the rest was something else
_PRIOR = 0.3  # migrations that the bare model counts for
_ELSEWHERE = 0.3  # what a migration to another host counts for

# Milliseconds: always, and for each process, thread, mapping, descriptor, socket and GiB of memory.
_MODEL: dict[str, tuple[float, float, float, float, float, float, float]] = {
    FREEZE: (1.5, 0.1, 0.05, 0.0, 0.0, 0.0, 0.5),
    DUMP: (18.0, 3.0, 0.3, 0.01, 0.05, 0.3, 6.0),
    FILES: (3.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0),
    RESTORE: (42.0, 4.0, 0.3, 0.02, 0.05, 0.3, 5.0),
    NETWORK: (2.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0),
    WIRE: (16.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0),
    DELTA: (4.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0),
}
_ROUND_TRIPS = 2  # prepare → prepared, go → running
_IMAGE = 24 << 10  # bytes of CRIU's images, and for each process
_CHANGED_FILE = 0.0002  # seconds
_BURST = 0.015  # seconds of processor time: a few turns of the scheduler
_LAG = 0.005  # seconds from the last look at memory to the freeze


@dataclass(frozen=True, slots=True)
class Shape:
    """What a container is, as far as time depends on it."""

    processes: int = 1
    threads: int = 1
    mappings: int = 0
    descriptors: int = 0
    sockets: int = 0
    memory: int = 0  # bytes that are nobody else's

    def counts(self) -> tuple[float, ...]:
        """In the order of the model's columns."""
        counted = (self.processes, self.threads, self.mappings, self.descriptors, self.sockets)
        return (*counted, self.memory / (1 << 30))


@dataclass(frozen=True, slots=True)
class Situation:
    """What the blackout depends on."""

    shape: Shape = field(default_factory=Shape)
    strain: float = 1.0  # how many times slower than alone this machine is
    far_strain: float = 1.0  # and the other one
    round_trip: float = 0.0  # seconds
    bandwidth: float = 0.0  # bytes of memory a second; 0: unknown
    changed_files: int = 0  # that the last pass is likely to meet
    delta: float = 0.0  # bytes of the last pages over the bandwidth: seconds


@dataclass(frozen=True, slots=True)
class Sample:
    """What one migration was and took."""

    target: str
    situation: Situation
    parts: Mapping[str, float]

    def to_dict(self) -> dict[str, Any]:
        """For the file."""
        parts = {name: round(took, 6) for name, took in self.parts.items()}
        return {"target": self.target, **asdict(self.situation), "parts": parts}


@dataclass(frozen=True, slots=True)
class Prediction:
    """Seconds of blackout, and of each part."""

    total: float
    parts: dict[str, float] = field(default_factory=dict)


@dataclass(slots=True)
class Predictor:
    """For one container on its way to one host. The fields are what its caller knows."""

    path: str
    target: str
    samples: Sequence[Sample] = ()
    shape: Shape = field(default_factory=Shape)
    strain: float = 0.0  # 0: not measured
    far_strain: float = 0.0  # 0: not told; then ours counts
    round_trip: float = 0.0
    changed_files: int = 0
    delta: float = 0.0  # of the last prediction

    @classmethod
    def open(cls, store: Store, target: str) -> "Predictor":
        """With what this host has learnt."""
        path = os.path.join(journal.directory(store), NAME)
        return cls(path, target, read(path))

    def look(self, pids: Iterable[int]) -> None:
        """Count what these processes have, and see how busy the machine is. Takes 20 ms; not in the freeze."""
        self.shape = look(pids)
        now = strain()
        self.strain = (self.strain + now) / 2 if self.strain else now

    @property
    def bandwidth(self) -> float:
        """Bytes of memory a second that went to this host the last times; 0 when it is new."""
        known = [each.situation.bandwidth for each in self.samples if each.target == self.target]
        return _median([(value, 1.0) for value in known[-3:] if value > 0])

    def fixed(self) -> float:
        """Seconds of blackout without the last pages."""
        return sum(self._parts(0.0).values())

    def overlap(self) -> float:
        """Seconds that the last pages may travel without being waited for: none, they follow the dump."""
        return 0.0

    def predict(self, delta_bytes: float, bandwidth: float, dirty_rate: float = 0.0) -> Prediction:
        """Everything, with so many bytes of memory left and so many going a second.

        `dirty_rate`, bytes a second, adds what is written until the container really stands still.
        """
        lag = _LAG + self._parts(0.0)[FREEZE]
        left = delta_bytes + dirty_rate * lag
        self.delta = left / bandwidth if bandwidth > 0 else 0.0
        parts = dict.fromkeys(PARTS, 0.0) | self._parts(self.delta)
        return Prediction(sum(parts.values()), parts)

    def learn(self, parts: Mapping[str, float], *, bandwidth: float = 0.0) -> None:
        """Keep what a migration took, for the next ones; a file that cannot be written is no failure."""
        situation = replace(self._situation(self.delta), bandwidth=bandwidth)
        sample = Sample(self.target, situation, dict(parts))
        self.samples = [*self.samples, sample][-KEPT:]
        text = jsonio.dumps(
            {"version": VERSION, "migrations": [each.to_dict() for each in self.samples]}
        )
        try:
            files.write_atomic(self.path, text.encode(), sync=False)
        except OSError as error:
            log.debug(f"nothing was learnt: {error}")

    def _situation(self, delta: float) -> Situation:
        return Situation(
            shape=self.shape,
            strain=self.strain or 1.0,
            far_strain=self.far_strain or self.strain or 1.0,
            round_trip=self.round_trip,
            bandwidth=self.bandwidth,
            changed_files=self.changed_files,
            delta=delta,
        )

    def _parts(self, delta: float) -> dict[str, float]:
        bare = model(self._situation(delta))
        return {name: took * self._stretch(name) for name, took in bare.items()}

    def _stretch(self, part: str) -> float:
        """What the model's part has to be multiplied by: the weighted median of what was seen."""
        seen = [(1.0, _PRIOR)]
        size = _size(self.shape)
        for age, each in enumerate(reversed(self.samples)):
            foreseen = model(each.situation)
            took = each.parts.get(part)
            if took is None or foreseen[part] <= 0:
                continue
            low, high = _LIMITS
            alike = 1 / (1 + 4 * abs(math.log(size / _size(each.situation.shape))))
            here = 1.0 if each.target == self.target else _ELSEWHERE
            ratio = min(high, max(low, took / foreseen[part]))
            seen.append((ratio, 0.9**age * alike * here))
        return _median(seen)


def model(situation: Situation) -> dict[str, float]:
    """Seconds of each part, before anything was learnt."""
    found = {}
    counts = situation.shape.counts()
    for part, (always, *each) in _MODEL.items():
        counted = sum(cost * count for cost, count in zip(each, counts, strict=True))
        there = part in (RESTORE, NETWORK)
        slower = situation.far_strain if there else situation.strain
        found[part] = (always + counted) / 1000 * slower
    found[FILES] += situation.changed_files * _CHANGED_FILE
    found[DELTA] += situation.delta
    found[WIRE] += _ROUND_TRIPS * situation.round_trip
    if situation.bandwidth > 0:
        found[WIRE] += _IMAGE * (1 + situation.shape.processes) / situation.bandwidth
    return found


def strain() -> float:
    """How many times longer than alone a computation takes now, on one processor of this machine."""
    began, used = time.perf_counter(), time.thread_time()
    while (mine := time.thread_time() - used) < _BURST:
        sum(range(2000))
    return max(1.0, (time.perf_counter() - began) / mine)


def look(pids: Iterable[int]) -> Shape:
    """Count the processes' threads, mappings, descriptors, sockets and memory. Reads /proc only."""
    processes = threads = mappings = descriptors = sockets = pages = 0
    for pid in pids:
        stat = proc.stat(pid)
        if stat is None or stat.ended:
            continue
        processes += 1
        threads += stat.threads
        try:
            mappings += files.read(f"/proc/{pid}/maps").count(b"\n")
            _, resident, shared, *_ = map(int, files.read(f"/proc/{pid}/statm").split())
            pages += resident - shared
            for name in os.listdir(f"/proc/{pid}/fd"):
                descriptors += 1
                sockets += os.readlink(f"/proc/{pid}/fd/{name}").startswith("socket:")
        except OSError:
            continue  # it ended, or closed one just now
    memory = max(0, pages) * PAGE
    return Shape(max(1, processes), max(1, threads), mappings, descriptors, sockets, memory)


def read(path: str) -> list[Sample]:
    """What was learnt, the oldest first. What cannot be read was never learnt."""
    try:
        document = jsonio.loads(files.read(path, limit=1 << 20))
        if document.get("version") != VERSION:
            return []
        return [_sample(each) for each in document["migrations"]][-KEPT:]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        log.debug(f"{path} is not used: {error}")
        return []


def _sample(each: Mapping[str, Any]) -> Sample:
    counts = {spec.name: int(each["shape"].get(spec.name, 0)) for spec in fields(Shape)}
    situation = Situation(
        Shape(**counts),
        max(1.0, float(each.get("strain", 1))),
        max(1.0, float(each.get("far_strain", 1))),
        float(each.get("round_trip", 0)),
        float(each.get("bandwidth", 0)),
        int(each.get("changed_files", 0)),
        float(each.get("delta", 0)),
    )
    parts = {str(name): float(took) for name, took in each["parts"].items() if name in PARTS}
    return Sample(str(each["target"]), situation, parts)


def _size(shape: Shape) -> float:
    """One number for how much there is to dump and restore."""
    return sum(model(Situation(shape)).values())


def _median(weighted: list[tuple[float, float]]) -> float:
    """Half of the weight lies below, half above; 0 for nothing."""
    left = sum(weight for _, weight in weighted) / 2
    for value, weight in sorted(weighted):
        left -= weight
        if left <= 1e-12:
            return value
    return 0.0
