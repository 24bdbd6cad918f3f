"""Damaged images, one after the other, read by everything that reads images, until the time is up.

    contrib/fuzz-images.py [--seconds S] [--seed N] [--keep DIR] [--rebuild]

Anything but an error of ours, a case of more than ten seconds, or more than a GiB of memory is a find: the case
is kept in --keep, its traceback printed, and the exit code is 1. --rebuild writes the first case of the corpus
anew, from ocimig_testkit/image_kinds.py. `make fuzz`.
"""

import argparse
import random
import resource
import shutil
import sys
import tempfile
import time
import traceback
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests/support"))

from ocimig_testkit.image_fuzz import Fuzzer, limited  # noqa: E402 - found through the above
from ocimig_testkit.image_kinds import kinds  # noqa: E402

CORPUS = ROOT / "tests/unit/criu_images/corpus"
MEMORY = 1 << 30
FINDS = 20


def main() -> int:
    """Run the campaign."""
    options = _options()
    if options.rebuild:
        shutil.rmtree(CORPUS / "kinds", ignore_errors=True)
        kinds(CORPUS / "kinds")
        return 0
    _limit()
    seed = options.seed if options.seed is not None else time.time_ns() % (1 << 32)
    print(f"seed {seed}", flush=True)
    cases = refused = finds = 0
    slowest = 0.0
    end = time.monotonic() + options.seconds
    with tempfile.TemporaryDirectory(prefix="fuzz-images-") as room:
        fuzzer = Fuzzer(CORPUS, Path(room), random.Random(seed))
        while time.monotonic() < end and finds < FINDS:
            fuzzer.next()
            cases += 1
            began = time.monotonic()
            try:
                with limited(10.0):
                    refused += fuzzer.look() > 0
            except Exception:  # noqa: BLE001 - whatever it is, it is what is looked for
                finds += 1
                _keep(fuzzer.case, Path(options.keep) / f"{seed}-{cases}")
            slowest = max(slowest, time.monotonic() - began)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(
        f"{cases} cases, {refused} refused, {finds} finds, slowest {slowest:.2f} s, peak {peak} MiB"
    )
    return int(finds > 0)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--keep", default="fuzz-finds")
    parser.add_argument("--rebuild", action="store_true")
    return parser.parse_args()


def _limit() -> None:
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, hard))


def _keep(case: Path, place: Path) -> None:
    shutil.copytree(case, place, symlinks=True, dirs_exist_ok=True, copy_function=_copy)
    print(f"found: {place}\n{traceback.format_exc()}", flush=True)


def _copy(source: str, target: str) -> None:
    if not Path(source).is_fifo():
        shutil.copyfile(source, target, follow_symlinks=False)


if __name__ == "__main__":
    sys.exit(main())
