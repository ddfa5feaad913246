"""Kill workers of a run at random, again and again; every run must end, and have one record for every cell.

    python tests/stress/kill_workers.py --kills 200 --seed 0

Runs of small cells in 2 workers, each into a fresh folder. Between two kills lies an exponential time, so
that they hit workers that start, measure, speak or wait; one kill of eight takes all workers there are.
After each run the same command, with nobody killed, fills in the cells whose record is an error.
"""

import argparse
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

from bnsuite.execute import plan as planning
from bnsuite.execute import run as running
from bnsuite.profiles import Profile
from bnsuite.records import Outcome, Store
from bnsuite.schemes import SCHEMES

WORKERS = 2
TINY = Profile.model_validate(
    {
        "name": "tiny",
        "about": "cells of less than a second",
        "datasets": ["digits"],
        "schemes": sorted(SCHEMES),
        "seeds": {"tuning": [1], "confirmation": [101, 102]},
        "families": {"mlp": {"width": 8, "batch": 64}},
        "tasks": {"stable_lr": {"rates": [0.1], "depth": 1, "steps": 10, "per_decade": 1}},
    }
)


def workers() -> list[int]:
    """Process ids of the workers of this process."""
    found = []
    for task in Path("/proc/self/task").iterdir():
        for child in (task / "children").read_text().split():
            with suppress(OSError):
                if b"serve_parent" in Path("/proc", child, "cmdline").read_bytes():
                    found.append(int(child))
    return found


class Killer(threading.Thread):
    """Kills a random worker from time to time, until `stop`."""

    def __init__(self, randomness: random.Random, most: int, every_s: float) -> None:
        super().__init__(daemon=True)
        self._randomness, self._most, self._every_s = randomness, most, every_s
        self._over = threading.Event()
        self.kills = 0

    def run(self) -> None:
        while self.kills < self._most:
            if self._over.wait(self._randomness.expovariate(1 / self._every_s)):
                return
            targets = workers()
            if targets and self._randomness.random() > 1 / 8:
                targets = [self._randomness.choice(targets)]
            for target in targets:
                with suppress(ProcessLookupError):
                    os.kill(target, signal.SIGKILL)
                    self.kills += 1

    def stop(self) -> int:
        self._over.set()
        self.join()
        return self.kills


def one_run(randomness: random.Random, most: int, every_s: float) -> tuple[int, Counter[str]]:
    """Number of kills, and counts of what came of them."""
    told: Counter[str] = Counter(runs=1)
    jobs = planning.plan("tiny", None, None, None, None, "cpu")

    def observe(event: running.Event) -> None:
        told["retries"] += "once more" in event.found

    with tempfile.TemporaryDirectory() as folder:
        killer = Killer(randomness, most, every_s)
        killer.start()
        try:
            found = running.run_jobs(jobs, folder, workers=WORKERS, observe=observe)
        except Exception as error:
            print(f"  the run ended: {type(error).__name__}: {error}", flush=True)
            told["runs ended"] += 1
            found = []
        kills = killer.stop()
        told["kills"] += kills
        stored = Counter(record.key for record in Store(folder))
        told["cells"] += len(jobs)
        told["cells lost"] += sum(stored[job.key] != 1 for job in jobs) + len(jobs) - len(found)
        errors = [record for record in found if record.outcome is Outcome.ERROR]
        told["error records"] += len(errors)
        told["without a signal's name"] += sum("SIGKILL" not in (record.error or "") for record in errors)
        again = running.run_jobs(jobs, folder, workers=WORKERS)
        told["not filled in by the next run"] += len(jobs) - sum(r.outcome != Outcome.ERROR for r in again)
    return kills, told


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--every", type=float, default=3.0, metavar="SECONDS", help="mean time between kills")
    asked = parser.parse_args()
    planning.load_profile = lambda name: TINY
    randomness, clock = random.Random(asked.seed), time.monotonic()
    told: Counter[str] = Counter({"runs ended": 0, "cells lost": 0, "not filled in by the next run": 0})
    while told["kills"] < asked.kills:
        kills, more = one_run(randomness, asked.kills - told["kills"], asked.every)
        told.update(more)
        print(f"run {told['runs']}: {kills} kills, {dict(more)}", flush=True)
    counts = ", ".join(f"{count} {what}" for what, count in told.items())
    print(f"seed {asked.seed}, {time.monotonic() - clock:.0f} s: {counts}")
    wrong = ("runs ended", "cells lost", "without a signal's name", "not filled in by the next run")
    sys.exit(any(told[name] for name in wrong))


if __name__ == "__main__":
    main()
