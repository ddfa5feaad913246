"""One seeded fuzz run over records, manifests, settings, data files and command lines.

Every input must be accepted with a sound result, or refused in one line. `python tests/fuzz/campaign.py`
tries 100,000 and prints a row per kind; the tests try a few hundred of each.
"""

import argparse
import contextlib
import io
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import command_lines
import data_files
import fuzz_settings
import manifests
import records
from hypothesis import HealthCheck, Phase, given, seed, settings

KINDS: dict[str, tuple[Any, Callable[[Any, Path], str]]] = {
    "records": (records.STRATEGY, records.try_one),
    "manifests": (manifests.STRATEGY, manifests.try_one),
    "settings": (fuzz_settings.STRATEGY, lambda case, folder: fuzz_settings.try_one(case)),
    "data files": (data_files.STRATEGY, data_files.try_one),
    "command lines": (command_lines.STRATEGY, command_lines.try_one),
}
"""Strategy of the inputs, and the trial of one in a folder: `accepted` or `refused`, or an exception."""

SHARES = {"records": 0.25, "manifests": 0.35, "settings": 0.2, "data files": 0.19, "command lines": 0.01}
HANG_S = 120.0
"""Seconds after which one input counts as a hang."""


class HangError(BaseException):
    """No answer in time; no Exception, which the code under test might take for a refusal."""


class Tried(NamedTuple):
    """Outcomes of the inputs of one kind, and the faults: tracebacks, hangs, nonsense accepted."""

    kind: str
    outcomes: Counter[str]
    faults: list[str]
    seconds: float


def fuzz(kind: str, cases: int, number: int, folder: Path) -> Tried:
    """Try about `cases` inputs of a kind, drawn by the seed `number`."""
    strategy, try_one = KINDS[kind]
    outcomes: Counter[str] = Counter()
    faults: list[str] = []
    started = time.perf_counter()

    @seed(number)
    @settings(
        max_examples=cases,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def each(case: Any) -> None:
        try:
            with _limit(HANG_S):
                outcomes[try_one(case, folder)] += 1
        except (Exception, HangError) as error:  # the run goes on, and shows all faults
            outcomes["fault"] += 1
            faults.append(f"{kind}: {case!r:.500}: {error!r:.500}")

    each()
    if kind == "records":
        records.build(folder)
    return Tried(kind, outcomes, faults, time.perf_counter() - started)


@contextlib.contextmanager
def _limit(seconds: float) -> Iterator[None]:
    """Raise HangError within the block after these seconds."""

    def stop(number: int, frame: object) -> None:
        raise HangError(f"no answer within {seconds:g} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _part(part: tuple[str, int, int]) -> Tried:
    """Try a part of the run, in a process that tries no other at the time."""
    kind, cases, number = part
    with tempfile.TemporaryDirectory(prefix="bnsuite-fuzz-") as folder:
        os.environ["BNSUITE_CACHE"] = str(Path(folder, "cache"))
        room = Path(folder, "room")
        room.mkdir()
        with contextlib.redirect_stderr(io.StringIO()):
            return fuzz(kind, cases, number, room)


def main() -> int:
    """Run every kind in processes side by side; exit status 1 where there is a fault."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--cases", type=int, default=100_000, help="inputs in all")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes side by side")
    options.add_argument("--part", type=int, default=1000, help="inputs of one process, at most")
    given = options.parse_args()
    parts = []
    for kind, share in SHARES.items():
        left = round(given.cases * share)
        parts += [(kind, min(given.part, left - at), at) for at in range(0, left, given.part)]
    started = time.perf_counter()
    found: dict[str, list[Tried]] = {kind: [] for kind in KINDS}
    with get_context("spawn").Pool(given.workers, maxtasksperchild=4) as pool:
        for tried in pool.imap(_part, [(kind, cases, given.seed + at) for kind, cases, at in parts]):
            found[tried.kind].append(tried)
            print(f"{tried.kind}: {dict(tried.outcomes)}, {tried.seconds:.0f} s", file=sys.stderr, flush=True)
            for fault in tried.faults:
                print(fault, file=sys.stderr, flush=True)
    print("| kind | inputs | accepted | refused | faults | seconds of a core |\n|---|---|---|---|---|---|")
    total = 0
    for kind, several in found.items():
        outcomes = sum((tried.outcomes for tried in several), Counter[str]())
        total += outcomes.total()
        counts = [outcomes.total(), outcomes["accepted"], outcomes["refused"], outcomes["fault"]]
        seconds = sum(tried.seconds for tried in several)
        print(f"| {kind} | {' | '.join(f'{count:,}' for count in counts)} | {seconds:,.0f} |")
    faults = sum(len(tried.faults) for several in found.values() for tried in several)
    print(f"seed {given.seed}: {total:,} inputs, {faults} faults, {time.perf_counter() - started:,.0f} s")
    return min(faults, 1)


if __name__ == "__main__":
    raise SystemExit(main())
