"""The four ranked tasks for every built-in scheme, at the budgets of `smoke`: one sample per seed.

`BNSUITE_ASV_SCHEMES=batchnorm,path/to/mine` measures these schemes alone. A path is relative to the
checkout; its scheme is loaded in the sandbox, and its row is named after its folder or file.
"""

import math
import os
from collections.abc import Callable
from pathlib import Path

import bnsuite
from bnsuite.cli.submission import sandbox
from bnsuite.names import lookup
from bnsuite.profiles import load_profile
from bnsuite.records import SUITE_VERSION, Outcome, Record
from bnsuite.records.record import digest
from bnsuite.schemes import SCHEMES, scheme_names
from bnsuite.submission.conversation import Limits
from bnsuite.submission.foreign import SCHEME, Foreign, load_scheme
from bnsuite.tasks import TASKS

ROOT = Path(__file__).parents[1]
PROFILE = load_profile("smoke")

FAMILY = "mlp"
"""Family of the networks; not `cnn`, where at the one depth of `smoke` most schemes are stuck or time out."""

Records = dict[str, Record]
"""Name of a row → its record, for one task."""

param_names = ("scheme",)


def chosen(asked: str) -> dict[str, str | Path]:
    """Row name → name of a known scheme, or path of a foreign one.

    Args:
        asked: names and paths with commas between; all built-in schemes where it is empty.

    Raises:
        UnknownNameError: neither a known scheme nor a file or folder of the checkout.
        ValueError: two schemes with one row name.
    """
    schemes: dict[str, str | Path] = {}
    for item in filter(None, map(str.strip, asked.split(","))):
        path = ROOT / item
        known = item in scheme_names()
        if not known and not path.exists():
            lookup("scheme", item, {name: name for name in scheme_names()})
        row = item if known else path.parent.name if path.name == SCHEME else path.stem
        if row in schemes or (not known and row in SCHEMES):
            raise ValueError(f"rows have names of their own: got {row!r} twice. Rename the folder of {item}.")
        schemes[row] = item if known else path
    return schemes or {name: name for name in SCHEMES}


ROWS = chosen(os.environ.get("BNSUITE_ASV_SCHEMES", ""))


def _load(scheme: str | Path) -> str | Foreign:
    return scheme if isinstance(scheme, str) else load_scheme(scheme, sandbox("prefer"), Limits(wall_s=3600))


def measure(task: str) -> Records:
    """Measure one task for every row, in the folder that asv makes for it."""
    schemes = {row: _load(scheme) for row, scheme in ROWS.items()}
    rows = {scheme if isinstance(scheme, str) else scheme.name: row for row, scheme in schemes.items()}
    records = bnsuite.run(
        profile=PROFILE.name,
        tasks=[task],
        schemes=list(schemes.values()),
        families=[FAMILY],
        device="cpu",
        records="records",
        workers=os.cpu_count() or 1,
    )
    return {rows[record.scheme]: record for record in records}


def asv_value(record: Record) -> dict[str, object] | float:
    """Convert a record to what asv stores: samples for a median and its interval, or NaN without a value.

    asv shows NaN as skipped and None as failed, so that only `error` fails. If a seed has no value, the
    median alone is stored: asv would take it over the other seeds.

    Raises:
        RuntimeError: the record's outcome is `error`; has its traceback.
    """
    if record.outcome is Outcome.ERROR:
        raise RuntimeError(record.error)
    if record.value is None:
        return math.nan
    samples = [sample.value for sample in record.samples]
    return record.value if None in samples else {"samples": samples, "number": 1}


def _track(
    name: str, setup_cache: Callable[[], Records]
) -> Callable[[Records, str], dict[str, object] | float]:
    def track(records: Records, scheme: str) -> dict[str, object] | float:
        return asv_value(records[scheme])

    task = TASKS[name]
    budget = digest({FAMILY: PROFILE.settings(name, FAMILY)})[:8]
    setup_cache.timeout = 3600  # type: ignore[attr-defined]  # seconds; asv's way to give one
    track.__name__ = f"track_{name}"
    track.__doc__ = f"{task.spec.question} ({task.spec.unit}; {task.spec.better} is better)"
    track.setup_cache = setup_cache  # type: ignore[attr-defined]
    track.params = (list(ROWS),)  # type: ignore[attr-defined]
    track.unit = task.spec.unit  # type: ignore[attr-defined]
    # asv compares results of one version; it shall be what the board compares, not a hash of this file.
    track.version = f"suite {SUITE_VERSION}, task {task.spec.version}, {PROFILE.name} {budget}"  # type: ignore[attr-defined]
    return track


# One cache per task, so that `--bench` measures no more than it asks; asv tells caches apart by their line.
track_max_depth = _track("max_depth", lambda: measure("max_depth"))
track_stable_lr = _track("stable_lr", lambda: measure("stable_lr"))
track_top_eigenvalue = _track("top_eigenvalue", lambda: measure("top_eigenvalue"))
track_time_to_accuracy = _track("time_to_accuracy", lambda: measure("time_to_accuracy"))
