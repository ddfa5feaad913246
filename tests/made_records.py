"""A small board's worth of made-up records, shaped like the prototype's numbers."""

import json
import math
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bnsuite.records import CALIBRATION, Outcome, Provenance, Record, Sample
from bnsuite.specs import RANKED
from bnsuite.statistics import summarize

UNITS = {
    "max_depth": ("layers", "higher", "How deep a network can it train in 200 steps?"),
    "stable_lr": ("learning rate", "higher", "How large a step does it stand?"),
    "top_eigenvalue": ("1/learning rate", "lower", "How sharp is the loss where it has just learned?"),
    "time_to_accuracy": ("steps", "lower", "How many steps does it need to a given test accuracy?"),
    "gradient_growth": ("ratio per layer", "lower", "How much do gradients grow a layer, at initialization?"),
    "scale_law": ("exponent", "lower", "How does a larger input change the gradient?"),
    "overflow_depth": ("layers", "higher", "How deep until the first gradients overflow?"),
}
MEDIANS = {
    "none": (17, 0.35, 138.0, 68),
    "batchnorm": (29, 5.1, 5.9, 38),
    "layernorm": (21, 0.75, 95.0, 56),
    "residual-batchnorm": (128, 6.8, 3.2, 28),
}
SCRIPT = "<script>alert(1)</script>"
RATES = [0.0032 * 10 ** (k / 2) for k in range(7)]


def provenance(device: str = "cpu", day: int = 1, **changes: Any) -> Provenance:
    settled: dict[str, Any] = {
        "package_version": "0.1.0",
        "scheme_source": "5c" * 32,
        "dataset_checksum": "d1" * 32,
        "commit": "0123456789abcdef0123456789abcdef01234567",
        "dirty": False,
        "torch": "2.13.0",
        "python": "3.11.9",
        "os": "Linux 6.8",
        "cpu": "AMD EPYC 7B13",
        "gpu": "NVIDIA H200" if device == "cuda" else None,
        "driver": "575.57" if device == "cuda" else None,
        "threads": 2,
        "deterministic": True,
        "tf32": False,
        "flush_subnormals": True,
        "stacked": True,
        "seeds": {"tuning": [0, 1], "confirmation": [100, 101, 102, 103, 104, 105]},
        "started": f"2026-11-{day:02d}T09:30:00+00:00",
        "duration_s": 21.4,
    }
    return Provenance(**{**settled, **changes})


def sample(seed: int, value: float | None, outcome: Outcome = Outcome.OK, **more: Any) -> Sample:
    return Sample(seed=seed, value=value, outcome=outcome, **more)


def record(
    task: str = "max_depth",
    scheme: str = "batchnorm",
    samples: Sequence[Sample | float] = (29, 28, 29, 31, 29, 27),
    *,
    device: str = "cpu",
    day: int = 1,
    source: dict[str, Any] | None = None,
    **changes: Any,
) -> Record:
    """One sealed record from its samples, summarized as the suite does it."""
    unit, better, question = UNITS.get(task, ("ratio", "lower", "A diagnostic?"))
    found = [s if isinstance(s, Sample) else sample(100 + i, s) for i, s in enumerate(samples)]
    fields: dict[str, Any] = {
        **summarize(found, better)._asdict(),
        "id": "",
        "key": "",
        "task": task,
        "task_version": 1,
        "question": question,
        "scheme": scheme,
        "family": "mlp",
        "dataset": "digits",
        "profile": "quick",
        "device": device,
        "settings": {"width": 64, "batch": 128, "target": 0.8},
        "unit": unit,
        "better": better,
        "samples": tuple(found),
        "provenance": provenance(device, day, **(source or {})),
    }
    return Record(**{**fields, **changes}).sealed()


def depth(scheme: str, median: float, rng: random.Random, n: int, cap: int) -> dict[str, Any]:
    samples, trace = [], []
    for seed in range(n):
        value = round(median * math.exp(rng.gauss(0, 0.05)))
        capped = value >= cap
        ends = (cap, None) if capped else (value - 1, value + 2)
        outcome = Outcome.CAPPED if capped else Outcome.OK
        samples.append(sample(100 + seed, min(value, cap), outcome, low=ends[0], high=ends[1]))
    for layers in sorted({4, 8, 16, 32, 64, 128} | {round(median * f) for f in (0.8, 0.9, 1.1)}):
        if layers > min(cap, 2.2 * median):
            continue
        for k, rate in enumerate(RATES):
            height = 1.15 - (layers / median) ** 2 * 0.5 - abs(k - 3.4) * 0.17
            for seed in (0, 1):
                dead = k == 6 and layers > 8
                accuracy = None if dead else max(0.1, min(0.99, height + rng.gauss(0, 0.05)))
                outcome = "nonfinite" if accuracy is None else "ok" if accuracy >= 0.8 else "stuck"
                row = {"phase": "tune", "depth": layers, "rate": rate, "seed": seed}
                trace.append({**row, "accuracy": accuracy, "loss": 1.0, "outcome": outcome})
        for seed in range(n):
            good = layers <= median
            row = {"phase": "confirm", "depth": layers, "rate": RATES[3], "seed": 100 + seed}
            trace.append({**row, "accuracy": 0.9 if good else 0.5, "outcome": "ok" if good else "stuck"})
    derived = {"non_monotone": False, "accuracy_at_value": 0.86, "accuracy_above": 0.61}
    return {"samples": samples, "trace": trace, "derived": derived}


def rate(scheme: str, median: float, rng: random.Random, n: int, cap: int) -> dict[str, Any]:
    samples, trace = [], []
    for seed in range(n):
        edge = median * 10 ** rng.gauss(0, 0.04)
        samples.append(sample(100 + seed, edge))
        for k in range(25):
            tried = median / 8 * 10 ** (k / 12)
            good = tried <= edge * 10 ** rng.gauss(0, 0.03)
            row = {"phase": "confirm", "rate": tried, "seed": 100 + seed, "first_loss": 2.3}
            trace.append({**row, "loss": 0.3 if good else None, "outcome": "ok" if good else "nonfinite"})
    derived = {
        "best_rate": median / 8,
        "largest_finite_rate": median * 2,
        "largest_not_rising_rate": median * 1.3,
    }
    return {"samples": samples, "trace": trace, "derived": derived}


def curvature(scheme: str, median: float, rng: random.Random, n: int, cap: int) -> dict[str, Any]:
    samples = []
    for seed in range(n):
        value = median * math.exp(rng.gauss(0, 0.1))
        best = {"rate": 0.3, "value": value / 3, "residual": 2e-4, "edge": 0.9}
        init = {"value": value * 1.7, "residual": 3e-4}
        detail = {"residual": 4e-4, "products": 41, "at_init": init, "at_best_rate": best, "rate": 0.01}
        samples.append(sample(100 + seed, value, detail=detail))
    derived = {"max_residual": 4e-4, "at_init": median * 1.7, "at_best_rate": median / 3, "edge_ratio": 0.9}
    return {"samples": samples, "derived": {**derived, "best_rate": 0.3}}


def time(scheme: str, median: float, rng: random.Random, n: int, cap: int) -> dict[str, Any]:
    samples, trace = [], []
    for seed in range(n):
        steps = 2 * round(median / 2 * math.exp(rng.gauss(0, 0.06)))
        samples.append(sample(100 + seed, steps))
        curve = [
            min(0.97, 0.1 + 0.85 * (1 - math.exp(-3.2 * t / steps)) / (1 - math.exp(-3.2)))
            for t in range(2, steps + 2, 2)
        ]
        row = {"phase": "confirm", "rate": 0.25, "seed": 100 + seed, "steps": steps, "every": 2}
        trace.append({**row, "accuracy": curve, "outcome": "ok"})
    derived = {"examples": median * 128, "epochs": median * 128 / 1437, "train_s": median * 0.0023}
    derived |= {"eval_s": 0.02, "seconds_per_step": 0.0023, "ratio_to_batchnorm": 0.62, "drift": False}
    return {"samples": samples, "trace": trace, "derived": derived}


MAKERS: tuple[Callable[..., dict[str, Any]], ...] = (depth, rate, curvature, time)
SETTINGS = {"time_to_accuracy": {"width": 64, "batch": 128, "target": 0.95, "budget": 400, "every": 2}}


def measured(scheme: str, *, n: int = 6, cap: int = 128, seed: int = 0, **changes: Any) -> list[Record]:
    """The four ranked tasks of one scheme."""
    rng = random.Random(f"{scheme} {seed}")
    medians = MEDIANS.get(scheme, (24, 1.2, 40.0, 50))
    records = []
    for task, make, median in zip(RANKED, MAKERS, medians, strict=True):
        found = make(scheme, median, rng, n, cap)
        if task in SETTINGS:
            found["settings"] = SETTINGS[task]
        records.append(record(task, scheme, **{**found, **changes}))
    return records


def without_value(task: str, scheme: str, outcome: Outcome, **changes: Any) -> Record:
    return record(task, scheme, [sample(100 + i, None, outcome) for i in range(6)], **changes)


def published() -> list[Record]:
    """Four schemes measured in full, and one with every kind of hole."""
    holes = [
        without_value("max_depth", SCRIPT, Outcome.STUCK),
        record("stable_lr", SCRIPT, [0.1] * 6),
        record("top_eigenvalue", SCRIPT, [], outcome=Outcome.ERROR, error="Traceback:\n  <boom> & gone"),
        record(
            "time_to_accuracy",
            SCRIPT,
            [sample(100 + i, 400, Outcome.TIMEOUT) for i in range(6)],
            settings=SETTINGS["time_to_accuracy"],
        ),
    ]
    return [r for scheme in MEDIANS for r in measured(scheme, **FACETS.get(scheme, {}))] + holes


def local() -> list[Record]:
    """A GPU's rows, a smoke track, a remeasured cell, the diagnostics, a calibration."""
    return [
        *measured("batchnorm", device="cuda", seed=1),
        *measured("none", n=2, cap=8, profile="smoke", family="cnn"),
        *measured("batchnorm", n=2, cap=8, profile="smoke", family="cnn"),
        record("max_depth", "layernorm", [20, 21, 22, 21, 20, 23], day=1),
        record("max_depth", "layernorm", [21, 21, 22, 21, 20, 23], day=2),
        *diagnosed("batchnorm"),
        *diagnosed("none"),
        calibration(),
    ]


def diagnosed(scheme: str = "batchnorm", n: int = 6, **changes: Any) -> list[Record]:
    """The diagnostics of one scheme, with the traces and companions that the tasks leave."""
    growth = {"batchnorm": 1.46, "none": 1.01}.get(scheme, 1.1)
    seeds = range(100, 100 + n)
    layers = [
        {"phase": "layers", "seed": seed, "layer": layer, "hidden": growth ** (20 - layer), "weights": 2.0}
        for seed in seeds
        for layer in range(1, 21)
    ]
    steps = [
        {"phase": "layers", "seed": seed, "layer": layer, "gradient": growth ** (80 - layer), "weight": 22.6}
        | {"gradient_after": 1.1**layer, "weight_after": 23.0}
        for seed in seeds
        for layer in range(1, 81)
    ]
    checkpoints: list[dict[str, Any]] = [
        {"phase": "checkpoint", "seed": seed, "step": step, "effective_beta": 7.0 + seed / 100}
        | ({"lambda_max": 20.0} if seed < 103 else {})
        for step in (0, 1, 2, 4, 8, 16)
        for seed in seeds
    ]
    eigenvalues = [9.0, 6.0, 4.0, 2.0, 1.8]
    density = [
        {"phase": "density", "seed": 100, "x": x / 10, "y": math.exp(-abs(x)) + 1e-4 * (x == 90)}
        | {"error": 1e-5}
        for x in range(-10, 95)
    ]
    moments = {
        "means": {"share": 0.8, "random": 0.01, "ratio": 0.3},
        "means_and_variances": {"share": 0.9, "random": 0.02, "ratio": 0.2},
    }
    shapes = [{"phase": "shape", "shape": f"128×{64 << k}", "us": 90.0 * 2**k} for k in range(4)]
    overflow = {"nonfinite": 491.0, "nonfinite_outcome": "ok", "half": 33.0, "half_outcome": "ok"}
    overflow |= {"half_nonfinite": 64.0, "half_nonfinite_outcome": "capped"}
    top = [sample(seed, 4.5, detail={"eigenvalues": eigenvalues}) for seed in seeds]
    shifts = [sample(seed, 0.8, detail=moments) for seed in seeds]
    derived = {"theory": growth, "weight_growth": growth, "first_to_last": growth**19}
    makers: dict[str, dict[str, Any]] = {
        "gradient_growth": {"samples": [growth] * n, "trace": layers, "derived": derived},
        "scale_law": {"samples": [-1.0] * n, "derived": {"hidden_exponent": -1.0, "cosine": 1e-8}},
        "first_step": {"samples": [4e-6] * n, "trace": steps, "derived": {"before": 1e8}},
        "overflow_depth": {"samples": [235] * n, "derived": overflow, "settings": {"half": [8, 64]}},
        "smoothness": {"samples": [7.6] * n, "trace": checkpoints, "derived": {"loss_range": 0.17}},
        "spectrum": {"samples": top, "trace": density, "derived": {"gap": 2.0, "lambda_1_at_init": 3.0}},
        "mean_shift": {"samples": shifts, "derived": {"means_share": 0.8, "means_ratio": 0.3}},
        "layer_cost": {"samples": [720.0] * n, "trace": shapes, "derived": {"kept_mib": 0.26}},
        "speedrun": {"samples": [0.94] * n, "derived": {"train_s": 2.5, "precision": "bfloat16"}},
    }
    return [record(task, scheme, **{**found, **changes}) for task, found in makers.items()]


def calibration(*readings: dict[str, Any], day: int = 1, **source: Any) -> Record:
    """A record of `bnsuite calibrate`: by default one reading of two instruments each."""
    rows = readings or (reading(), reading("max_depth", "known thresholds inside their brackets"))
    fields = {"profile": "calibration", "dataset": "known", "settings": {}, "outcome": Outcome.OK}
    return record(CALIBRATION, "none", [], **fields, value=1.0, trace=rows, day=day, source=source)


def reading(
    instrument: str = "gradient_growth",
    experiment: str = "batchnorm, ReLU, batch 128",
    measured: float | None = 1.4741,
    *,
    ok: bool = True,
) -> dict[str, Any]:
    row = {"instrument": instrument, "experiment": experiment, "measured": measured, "expected": 1.4797}
    return {**row, "tolerance": [1.4501, 1.5093], "ok": ok}


def submit(folder: Path, records: Sequence[Record], **fields: Any) -> Path:
    """A submission of that folder's name; returns the folder of its records, which a board is built from."""
    folder.mkdir(parents=True)
    for one in records:  # not by the store: their strings may be no names of files
        (folder / "records").mkdir(exist_ok=True)
        (folder / "records" / f"{one.id}.json").write_text(one.model_dump_json())
    manifest = {"name": folder.name, "authors": ["Ada Lovelace"], "licence": "MIT", **fields}
    lines = [f"{key} = {json.dumps(value)}\n" for key, value in manifest.items()]
    (folder / "submission.toml").write_text("".join(lines))
    return folder / "records"


FACETS: dict[str, dict[str, Any]] = {
    "none": {"facets": ("batch-independent", "batch-1"), "costs": {"parameters per channel": 0.0}},
    "batchnorm": {"facets": ("scale-invariant",), "costs": {"parameters per channel": 2.0}},
    "layernorm": {"facets": ("batch-independent", "own-init"), "costs": {"parameters per channel": 3.0}},
    "residual-batchnorm": {"facets": ("scale-invariant", "residual"), "about": "deep, arXiv 1603.05027"},
}


def write(folder: Path, records: Sequence[Record]) -> Path:
    """As somebody who wants no good would: the store itself takes no hostile names."""
    folder.mkdir(parents=True, exist_ok=True)
    for one in records:
        (folder / f"{one.id}.json").write_text(one.model_dump_json(), encoding="utf-8")
    return folder
