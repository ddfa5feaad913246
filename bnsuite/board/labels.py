"""Labels of tasks, entries, tracks and derived values on the pages."""

from collections.abc import Iterable, Mapping, Sequence

from bnsuite import format
from bnsuite.ranking.tables import Row
from bnsuite.ranking.tracks import Entry, Track
from bnsuite.records import Outcome, Record, is_number

TITLES = {
    "max_depth": "Trainable depth",
    "stable_lr": "Stable rate",
    "top_eigenvalue": "Sharpness",
    "time_to_accuracy": "Steps to accuracy",
    "gradient_growth": "Gradient growth",
    "scale_law": "Scale law",
    "first_step": "First step",
    "overflow_depth": "Depth of overflow",
    "smoothness": "Smoothness",
    "spectrum": "Hessian spectrum",
    "mean_shift": "Mean shift",
    "layer_cost": "Normalizer cost",
    "speedrun": "Speedrun",
}
"""Task → its heading; a task without one is called by its name."""

COMPANIONS: Mapping[str, Mapping[str, str]] = {
    "max_depth": {
        "non_monotone": "non-monotone",
        "accuracy_at_value": "accuracy at the value",
        "accuracy_above": "accuracy above it",
    },
    "stable_lr": {
        "best_rate": "best rate",
        "largest_finite_rate": "largest finite rate tried",
        "largest_not_rising_rate": "largest tried without a rise",
    },
    "top_eigenvalue": {
        "best_rate": "best rate",
        "max_residual": "largest residual",
        "at_init": "λ at initialization",
        "at_best_rate": "λ at the best rate",
        "edge_ratio": "rate·λ/2",
        "lambda_min": "smallest λ",
    },
    "time_to_accuracy": {
        "rate": "rate",
        "examples": "examples",
        "epochs": "epochs",
        "train_s": "training (s)",
        "eval_s": "evaluation (s)",
        "seconds_per_step": "a step (s)",
        "joules_per_step": "a step (J)",
        "energy_j": "training (J)",
        "ratio_to_batchnorm": "seconds / batchnorm’s",
        "drift": "clock drifted",
        "idle": "device idle",
    },
    "gradient_growth": {
        "theory": "theory’s rate",
        "imbalance": "imbalance λ",
        "weight_growth": "rate of ‖∂L/\u2060∂W‖²",
        "first_to_last": "‖∂L/\u2060∂h‖², first / last layer",
    },
    "scale_law": {
        "without_norm": "without its normalizer",
        "hidden_exponent": "exponent of ‖∂L/\u2060∂h‖",
        "without_norm_hidden": "‖∂L/\u2060∂h‖, without it",
        "cosine": "|cos(W,\u00a0∇W)|",
    },
    "first_step": {
        "before": "the same before the step",
        "gradient_before": "‖∇W_2‖ / ‖∇W_L‖ before",
        "gradient_after": "‖∇W_2‖ / ‖∇W_L‖ after",
        "weight_growth": "‖W_2‖ grows by",
    },
    "overflow_depth": {
        "nonfinite": "a gradient itself, float32",
        "half": "their squares’ sum, float16",
        "half_nonfinite": "a gradient itself, float16",
    },
    "smoothness": {
        "effective_beta_at_init": "β at initialization",
        "gradient_change": "relative change of the gradient",
        "loss_range": "range of the loss (nats)",
        "lambda_max_at_init": "λ_max at initialization",
        "lambda_max_at_end": "λ_max at the end",
    },
    "spectrum": {
        "at_init": "the same at initialization",
        "lambda_1": "λ_1 (1/rate)",
        "gap": "gap above λ_C",
        "outliers": "outliers above 2 λ_C",
        "gradient_share": "gradient in the top C",
        "negative_mass": "share below 0",
    },
    "mean_shift": {
        "means_random": "random span",
        "means_and_variances_share": "share with variances",
        "means_and_variances_random": "random span of that size",
        "means_ratio": "λ_max left",
        "means_and_variances_ratio": "λ_max left, with variances",
        "lambda_max": "λ_max (1/rate)",
    },
    "layer_cost": {
        "ratio_to_identity": "times an identity’s",
        "kept_mib": "kept for backward (MiB)",
        "joules_per_pass": "a pass (J)",
        "drift": "clock drifted",
        "idle": "device idle",
    },
    "speedrun": {
        "train_s": "training (s)",
        "eval_s": "test (s)",
        "examples_per_s": "examples a second",
        "precision": "precision",
        "compiled": "compiled",
    },
}
"""Task → derived values that its page shows next to the value, with their headings; none is ranked.

Of a task that is not listed here, all derived values are shown, under their keys.
"""

CLOCKED = frozenset(
    {"train_s", "eval_s", "seconds_per_step", "joules_per_step", "energy_j", "joules_per_pass"}
)
"""Derived values that are shown only where the device was idle and its clock did not drift."""

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
"""Fields of a provenance that many records share → headings; shown once per distinct set-up."""


def title(task: str) -> str:
    return TITLES.get(task, task.replace("_", " ").capitalize())


def in_order(tasks: Iterable[str]) -> list[str]:
    """Sort tasks by their place in `TITLES`, then the others by name."""
    places = {task: place for place, task in enumerate(TITLES)}
    return sorted(tasks, key=lambda task: (places.get(task, len(places)), task))


def anchor(track: Track) -> str:
    """Return the id of a track, unique and equal on every page."""
    parts = (track.data, track.family, track.profile)
    return ".".join([*map(format.slug, parts), f"v{track.suite_version}"])


def label(entry: Entry) -> str:
    """Return the scheme of an entry, its device unless that is the CPU, its origin unless published."""
    marks = [entry.device] if entry.device != "cpu" else []
    marks += [entry.origin] if entry.origin != "published" else []
    return " · ".join([format.printable(entry.scheme) or format.DASH, *marks])


def short_labels(rows: Sequence[Row]) -> dict[Entry, str]:
    """Return short labels for the figures of one table, without the device or origin that all entries share.

    That a scheme was submitted is left out, too, where none of ours has its name: room is short.
    """
    devices, origins = {row.entry.device for row in rows}, {row.entry.origin for row in rows}
    ours = {row.entry.scheme for row in rows if row.entry.origin != "submitted"}

    def short(entry: Entry) -> str:
        plain = len(origins) == 1 or (entry.origin == "submitted" and entry.scheme not in ours)
        return label(
            entry._replace(
                device="cpu" if len(devices) == 1 else entry.device,
                origin="published" if plain else entry.origin,
            )
        )

    return {row.entry: short(row.entry) for row in rows}


def machines(records: Sequence[Record]) -> str:
    """Return the processors on which the records were measured."""
    return ", ".join(sorted({r.provenance.gpu or r.provenance.cpu for r in records}))


def seeds(records: Sequence[Record]) -> str:
    """Return the number of seeds behind the values: `6`, or `2–6`."""
    counts = sorted({record.n for record in records if record.value is not None})
    return "–".join(map(str, dict.fromkeys(counts[:1] + counts[-1:]))) or "0"


def network(asked: Iterable[Record]) -> str:
    """Return the width and batch on which all records agree: `width 64, batch 128`."""
    settings = [record.settings for record in asked]
    found = {key: [one.get(key) for one in settings] for key in ("width", "batch") if settings}
    agreed = {key: values[0] for key, values in found.items() if values == values[:1] * len(values)}
    return ", ".join(f"{key} {value}" for key, value in agreed.items() if is_number(value) and value)


def coverage(records: Sequence[Record]) -> str:
    """Return the coverage of the intervals: `96.9 %`, or `50.0–96.9 %`; empty where no record has one."""
    found = sorted({record.coverage for record in records if record.coverage is not None})
    return "–".join(dict.fromkeys(f"{100 * c:.1f}" for c in found[:1] + found[-1:])) + " %" if found else ""


def companions(task: str, records: Sequence[Record]) -> dict[str, str]:
    """Return the columns next to the value, key → heading: those that hold something in any record.

    Derived values that repeat a setting are left out.
    """
    empty = ("", format.DASH, "no")
    shown = {
        key
        for record in records
        for key, found in record.derived.items()
        if found != record.settings.get(key) and companion(record, key) not in empty
    }
    named = COMPANIONS.get(task) or {key: key.replace("_", " ") for key in sorted(shown)}
    return {key: heading for key, heading in named.items() if key in shown}


def companion(record: Record, key: str) -> str:
    """Return a derived value as text, with the sign of a bound where the record holds its outcome."""
    if key in CLOCKED and not _settled(record):
        return format.DASH
    value, outcome = record.derived.get(key), record.derived.get(f"{key}_outcome")
    if not isinstance(outcome, str) or outcome not in set(Outcome):
        return format.plain(value)
    if value is None:
        return outcome
    sign = format.SIGNS.get(Outcome(outcome), "")
    return sign + (format.number(value, record.unit) if isinstance(value, float) else format.plain(value))


def _settled(record: Record) -> bool:
    """Tell whether the device was idle and steady; assumed of older records, which do not say."""
    beside = record.derived
    return "idle" not in beside or (beside["idle"] is True and beside.get("drift") is not True)
