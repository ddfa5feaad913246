"""The words of the pages: what tasks, entries, tracks and derived values are called."""

from collections.abc import Sequence

from bnsuite.board import format
from bnsuite.board.tables import Row, Table
from bnsuite.board.tracks import Entry, Track
from bnsuite.records import RANKED, Record

TITLES = {
    "max_depth": "Trainable depth",
    "stable_lr": "Stable rate",
    "top_eigenvalue": "Sharpness",
    "time_to_accuracy": "Steps to accuracy",
}
"""What a ranked task is called in a heading; another goes by its name."""

COMPANIONS = {
    "non_monotone": "non-monotone",
    "accuracy_at_value": "accuracy at the value",
    "accuracy_above": "accuracy above it",
    "best_rate": "best rate",
    "largest_finite_rate": "largest finite rate tried",
    "largest_not_rising_rate": "largest tried without a rise",
    "max_residual": "largest residual",
    "at_init": "λ at initialization",
    "at_best_rate": "λ at the best rate",
    "edge_ratio": "rate·λ/2",
    "lambda_min": "smallest λ",
    "examples": "examples",
    "epochs": "epochs",
    "train_s": "training (s)",
    "eval_s": "evaluation (s)",
    "seconds_per_step": "a step (s)",
    "ratio_to_batchnorm": "seconds / batchnorm’s",
    "drift": "clock drifted",
}
"""Headings of what is shown beside a value and never ranked; another goes by its key."""

SETUP = {
    "scheme_source": "scheme source",
    "package_version": "bnsuite",
    "torch": "torch",
    "python": "Python",
    "os": "system",
    "cpu": "CPU",
    "gpu": "GPU",
    "driver": "driver",
    "threads": "threads",
    "deterministic": "deterministic",
    "tf32": "TF32",
    "flush_subnormals": "subnormals flushed",
    "commit": "commit",
    "dirty": "uncommitted changes",
}
"""The part of a provenance that records share: shown once for each distinct set-up."""


def title(task: str) -> str:
    return TITLES.get(task, task.replace("_", " ").capitalize())


def anchor(track: Track) -> str:
    """Id of a track in every page: stable, safe, and its own."""
    parts = (track.dataset, track.family, track.profile)
    return ".".join([*map(format.slug, parts), f"v{track.suite_version}"])


def label(entry: Entry) -> str:
    """An entry in one line: its scheme, and what is not plain about it."""
    marks = [entry.device] if entry.device != "cpu" else []
    marks += [entry.origin] if entry.origin != "published" else []
    return " · ".join([entry.scheme, *marks])


def short_labels(rows: Sequence[Row]) -> dict[Entry, str]:
    """Labels for the figures of one table: what all its entries share goes without saying."""
    devices, origins = {row.entry.device for row in rows}, {row.entry.origin for row in rows}
    return {
        row.entry: label(
            row.entry._replace(
                device="cpu" if len(devices) == 1 else row.entry.device,
                origin="published" if len(origins) == 1 else row.entry.origin,
            )
        )
        for row in rows
    }


def machines(records: Sequence[Record]) -> str:
    """The processors that the records were made on."""
    return ", ".join(sorted({r.provenance.gpu or r.provenance.cpu for r in records}))


def seeds(records: Sequence[Record]) -> str:
    """How many seeds the values rest on: 6, or 2–6."""
    counts = sorted({record.n for record in records if record.value is not None})
    return "–".join(map(str, dict.fromkeys(counts[:1] + counts[-1:]))) or "0"


def network(table: Table) -> str:
    """What a track is measured on: width 64, batch 128; empty where its tasks do not agree."""
    asked = [record.settings for task, record in table.standards.items() if task in RANKED]
    found = {key: {settings.get(key) for settings in asked} for key in ("width", "batch")}
    agreed = {key: next(iter(values)) for key, values in found.items() if len(values) == 1}
    return ", ".join(f"{key} {value}" for key, value in agreed.items() if value)


def coverage(records: Sequence[Record]) -> str:
    """How surely the intervals hold the median: 96.9 %, or 50.0–96.9 %; empty where no record says."""
    found = sorted({record.coverage for record in records if record.coverage is not None})
    return "–".join(dict.fromkeys(f"{100 * c:.1f}" for c in found[:1] + found[-1:])) + " %" if found else ""


def companions(records: Sequence[Record]) -> list[str]:
    """Keys of `derived` that are shown as columns: those with a number, a word or a yes in any record.

    What repeats a setting is left out.
    """
    found = {key for record in records for key in record.derived.keys() - record.settings.keys()}
    keys = [key for key in COMPANIONS if key in found] + sorted(found - COMPANIONS.keys())
    return [
        key for key in keys if any(format.plain(r.derived.get(key)) not in ("", "–", "no") for r in records)
    ]
