"""The four ranked tasks over every built-in scheme, at the budgets of `smoke`: one sample a seed."""

import math
import os
from collections.abc import Callable

import bnsuite
from bnsuite.profiles import load_profile
from bnsuite.records import SUITE_VERSION, Outcome, Record
from bnsuite.records.record import digest
from bnsuite.schemes import SCHEMES
from bnsuite.tasks import TASKS

PROFILE = load_profile("smoke")

Records = dict[tuple[str, str, str], Record]
"""By task, scheme and family."""

param_names = ("scheme", "family")


def setup_cache() -> Records:
    """One run for all tracks, in the folder that asv makes for it."""
    records = bnsuite.run(
        profile=PROFILE.name,
        schemes=list(SCHEMES),
        device="cpu",
        records="records",
        workers=os.cpu_count() or 1,
    )
    return {(record.task, record.scheme, record.family): record for record in records}


setup_cache.timeout = 3600  # type: ignore[attr-defined]  # seconds; asv's way to give one


def asv_value(record: Record) -> dict[str, object] | float:
    """A record as asv keeps it: samples for a median and its interval, NaN where there is no value.

    NaN shows as skipped and None as failed, so that only `error` fails. A seed without a value leaves the
    median alone: asv would take it over the other seeds.

    Raises:
        RuntimeError: the record's outcome is `error`; with its traceback.
    """
    if record.outcome is Outcome.ERROR:
        raise RuntimeError(record.error)
    if record.value is None:
        return math.nan
    samples = [sample.value for sample in record.samples]
    return record.value if None in samples else {"samples": samples, "number": 1}


def _track(name: str) -> Callable[[Records, str, str], dict[str, object] | float]:
    def track(records: Records, scheme: str, family: str) -> dict[str, object] | float:
        return asv_value(records[name, scheme, family])

    task = TASKS[name]
    families = [family for family in PROFILE.families if PROFILE.asks(name, family)]
    budget = digest({family: PROFILE.settings(name, family) for family in families})[:8]
    track.__name__ = f"track_{name}"
    track.__doc__ = f"{task.question} ({task.unit}; {task.better} is better)"
    track.params = (list(SCHEMES), families)  # type: ignore[attr-defined]
    track.unit = task.unit  # type: ignore[attr-defined]
    # What asv compares over commits is what the board would compare; by default it hashes this file.
    track.version = f"suite {SUITE_VERSION}, task {task.version}, {PROFILE.name} {budget}"  # type: ignore[attr-defined]
    return track


track_max_depth = _track("max_depth")
track_stable_lr = _track("stable_lr")
track_top_eigenvalue = _track("top_eigenvalue")
track_time_to_accuracy = _track("time_to_accuracy")
