"""Audit: published records pass, and no number of them can be changed alone."""

import copy
import math
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bnsuite.audit import CLASSES, objections, objections_to
from bnsuite.records import Measurement, Outcome, Record, read_records
from bnsuite.specs import RANKED

ROOT = Path(__file__).parents[1]
Forge = Callable[[dict[str, Any]], object]


@cache
def published() -> tuple[Record, ...]:
    return tuple(read_records([ROOT / "leaderboard" / "records"]).values())


def published_record(task: str, scheme: str = "batchnorm") -> Record:
    return next(r for r in published() if (r.task, r.scheme, r.profile) == (task, scheme, "quick"))


def forged(record: Record, forge: Forge) -> list[str]:
    """List objections to a record that was edited and sealed again."""
    data = copy.deepcopy(record.model_dump(mode="json"))
    if data["schema_version"] == 1:
        del data["about"], data["costs"]
    forge(data)
    return objections_to(Record.model_validate(data).sealed())


def put(path: str, value: object) -> Forge:
    """Set the value at a path of names and indices, or apply a function to it."""

    def forge(data: Any) -> None:
        data, last = reach(data, path)
        data[last] = value(data[last]) if callable(value) else value

    return forge


def drop(path: str) -> Forge:
    def forge(data: Any) -> None:
        data, last = reach(data, path)
        del data[last]

    return forge


def reach(data: Any, path: str) -> tuple[Any, Any]:
    """Find the container that holds the last part of a path, and that part."""
    *way, last = path.split("/")
    for name in way:
        data = data[int(name) if isinstance(data, list) else name]
    return data, int(last) if isinstance(data, list) else last


def row(name: str, value: object, **where: object) -> Forge:
    """Edit a field of the first row of the trace with these other fields."""

    def forge(data: Any) -> None:
        found = next(r for r in data["trace"] if where.items() <= r.items())
        found[name] = value(found[name]) if callable(value) else value

    return forge


def both(*forges: Forge) -> Forge:
    return lambda data: [forge(data) for forge in forges]


TUNE, CONFIRM = {"phase": "tune"}, {"phase": "confirm"}
EVERY: list[tuple[Forge, str]] = [
    (put("value", lambda v: v * 1.01), "value: got"),
    (both(put("value", None), put("outcome", "stuck")), "value: got None"),
    (put("low", lambda v: v * 0.99), "low: got"),
    (put("high", lambda v: v * 1.01), "high: got"),
    (put("coverage", 0.99), "coverage: got 0.99"),
    (put("outcome", "capped"), "outcome: got capped"),
    (put("samples/2/value", lambda v: v * 1.01), "samples[seed 103].value"),
    (put("samples/2/low", 0.0), "samples[seed 103].low"),
    (put("samples/2/high", 1e9), "samples[seed 103].high"),
    (put("samples/2/outcome", "capped"), "samples[seed 103].outcome"),
    (put("samples/2/seed", 999), "seeds: got"),
    (drop("samples/2"), "seeds: got"),
    (put("samples", lambda s: s[::-1]), "seeds: got"),
    (put("settings/confirmation", [101]), "seeds: got"),
    (drop("trace/3"), "trace["),
    (drop("trace/-1"), "trace: got"),
    (put("trace", lambda t: [*t, t[-1]]), "must end after"),
    (put("trace", []), "trace: got 0 rows"),
    (put("trace/0", {}), "trace[0].phase: got"),
    (put("trace/0/rate", 0.5), "trace[0].rate: got 0.5"),
    (put("trace/0/rate", "0.5"), "trace[0].rate: got"),
    (put("trace/0/seed", 7), "trace[0].seed: got 7"),
    (put("trace/0/seed", True), "trace[0].seed: got True"),
    (put("trace/0/phase", "confirm"), "trace[0].phase"),
    (put("trace/0/outcome", "oom"), "trace[0].outcome"),
    (put("trace/0/more", 1), "trace[0].more"),
    (put("derived/more", 1), "derived.more"),
    (put("error", "what"), "error: got"),
    (put("unit", "miles"), "unit: got"),
    (put("question", "Who is best?"), "question: got"),
    (put("better", lambda b: {"higher": "lower", "lower": "higher"}[b]), "better: got"),
    (put("task_version", 9), "task_version: got 9"),
    (put("suite_version", 9), "suite_version: got 9"),
    (put("settings/rates", "many"), "settings: rates of "),
    (drop("settings/steps"), "settings.steps"),
    (put("provenance/seeds", {}), "provenance.seeds: got"),
    (put("provenance/started", "2999-01-01T00:00:00+00:00"), "provenance.started: got"),
    (put("provenance/started", "yesterday"), "provenance.started: got"),
    (put("provenance/duration_s", -1.0), "provenance.duration_s: got"),
    (put("provenance/threads", 0), "provenance.threads: got"),
    (put("provenance/scheme_source", "ab"), "provenance.scheme_source: got"),
    (both(put("outcome", "oom"), put("value", None)), "samples: got 6, must be empty"),
]
TRAINED = {**CONFIRM, "outcome": "ok"}
DEPTH: list[tuple[Forge, str]] = [
    (row("accuracy", 0.7, **TRAINED), "outcome: got ok"),
    (row("accuracy", 0.99, **CONFIRM, outcome="stuck"), "outcome: got stuck"),
    (row("accuracy", 1.2, **TRAINED), "accuracy: got 1.2"),
    (row("accuracy", None, **TRAINED), "accuracy: got None"),
    (row("outcome", "stuck", **TRAINED), "must be ok iff"),
    (row("loss", None, **TRAINED), "loss: got None"),
    (row("loss", -1.0, **TRAINED), "loss: got -1.0"),
    (lambda data: row("loss", 9.0, depth=4, rate=data["derived"]["best_rates"]["4"])(data), "rate: got"),
    (row("rate", 0.01, **TRAINED), "rate: got 0.01"),
    (row("depth", 256, **TRAINED), "depth: got 256"),
    (put("settings/depths", [4, 4]), "trace"),
    (put("settings/depths", [8, 4]), "settings: "),
    (put("settings/target", 0.99), "outcome: got"),
    (put("derived/best_rates/4", 0.01), "derived.best_rates"),
    (put("derived/non_monotone", True), "derived.non_monotone"),
    (put("derived/accuracy_at_value", 0.99), "derived.accuracy_at_value"),
    (put("samples/0/detail/accuracy_passed", 0.99), "samples[seed 101].detail"),
    (put("samples/0/value", 4096), "samples[seed 101].value"),
]
RATE: list[tuple[Forge, str]] = [
    (row("outcome", "stuck", **TRAINED), "outcome: got stuck"),
    (row("outcome", "nonfinite", **TRAINED), "outcome: got nonfinite"),
    (row("outcome", "ok", **CONFIRM, outcome="stuck"), "outcome: got ok"),
    (row("loss", 2.0, **TRAINED), "outcome: got ok"),
    (row("loss", None, **TRAINED), "outcome: got ok"),
    (row("first_loss", 9.0, **TRAINED), "first_loss: got"),
    (row("first_loss", None, **TRAINED), "first_loss: got None"),
    (row("rate", 50.0, **TRAINED), "rate: got 50.0"),
    (put("derived/best_rate", 1e-4), "derived.best_rate"),
    (put("derived/largest_finite_rate", 1e4), "derived.largest_finite_rate"),
    (put("derived/largest_not_rising_rate", 1e4), "derived.largest_not_rising_rate"),
    (drop("derived/largest_not_rising_rate"), "derived.largest_not_rising_rate"),
    (put("samples/1/detail/passing", 25), "samples[seed 102].detail"),
]
EIGEN: list[tuple[Forge, str]] = [
    (put("samples/1/detail/residual", 0.5), "residual: got 0.5"),
    (put("samples/1/detail/residuals", [2.0]), "must be that of the first"),
    (
        both(put("samples/1/detail/residuals", [2.0]), put("samples/1/detail/residual", 2.0)),
        "samples[seed 102].outcome: got ok, must be unconverged",
    ),
    (put("samples/1/detail/eigenvalues", [1.0]), "samples[seed 102].value"),
    (put("samples/1/detail/eigenvalues", [1.0, 0.5]), "eigenvalues: got 2"),
    (put("samples/1/detail/eigenvalues", []), "eigenvalues: got"),
    (put("samples/0/detail/eigenvalues", lambda v: v[::-1]), "must descend"),
    (
        both(drop("samples/0/detail/eigenvalues/9"), drop("samples/0/detail/residuals/9")),
        "eigenvalues: got 9",
    ),
    (put("samples/0/detail/lambda_min", 1e6), "must descend"),
    (drop("samples/0/detail/lambda_min"), "lambda_min"),
    (put("samples/1/detail/rate", 0.02), "rate: got 0.02"),
    (put("samples/1/detail/rate", 0.009), "rate: got 0.009"),
    (put("settings/rate", 1e6), "must be 1000000.0 / 2^k"),
    (put("samples/1/detail/products", 1), "products: got 1"),
    (put("samples/1/detail/products", 1000), "products: got 1000"),
    (put("samples/1/detail/step", 401 << 3), "step: got 3208, must be from 5 to "),
    (put("samples/1/detail/rate", 0.01 / 2**9), "k from 0 to 8"),
    (put("samples/1/detail/step", 4), "step: got 4"),
    (put("samples/1/detail/accuracy", 1.5), "accuracy: got 1.5"),
    (drop("samples/1/detail/step"), "step: got"),
    (drop("samples/1/detail/at_init"), "at_init: got None"),
    (put("samples/5/detail/at_init", {"value": 1.0, "residual": 0.0}), "must be left out"),
    (put("samples/1/detail/at_best_rate/rate", 0.5), "at_best_rate.rate: got 0.5"),
    (put("samples/1/detail/at_best_rate/edge", 0.5), "at_best_rate.edge: got 0.5"),
    (put("derived/best_rate", 1e-4), "derived.best_rate"),
    (put("derived/max_residual", 1e-9), "derived.max_residual"),
    (put("derived/at_init", 0.1), "derived.at_init"),
    (both(*(row("loss", 1e-6, seed=seed, rate=0.1) for seed in (1, 2))), "derived.best_rate"),
    (row("loss", 2.0, **TUNE, outcome="ok"), "outcome: got ok"),
    (row("first_loss", 9.0, **TUNE, rate=0.1), "first_loss: got 9.0"),
]
TIME: list[tuple[Forge, str]] = [
    (row("steps", 2, **CONFIRM), "steps: got 2"),
    (row("steps", 31, **TUNE), "steps: got 31"),
    (row("steps", 402, **TUNE), "steps: got 402"),
    (row("steps", None, **TUNE, outcome="ok"), "outcome: got ok"),
    (both(*(row("steps", 2, seed=seed, rate=1.0) for seed in (1, 2))), "derived.rate: got"),
    (row("outcome", "timeout", **CONFIRM), "outcome: got timeout"),
    (row("every", 1, **CONFIRM), "every: got 1"),
    (row("accuracy", lambda a: a[1:], **CONFIRM), "steps: got"),
    (row("accuracy", lambda a: [*a[:-1], 0.9], **CONFIRM), "accuracy: got 0.9"),
    (row("accuracy", lambda a: [0.99, *a[1:]], **CONFIRM), "accuracy: got 0.99"),
    (row("accuracy", lambda a: [*a[:-1], 1.01], **CONFIRM), "got 1.01"),
    (row("accuracy", lambda a: [None, *a[1:]], **CONFIRM), "a number until a loss is not finite"),
    (row("accuracy", [], **CONFIRM), "steps: got"),
    (row("rate", 1.0, **CONFIRM), "rate: got 1.0"),
    (put("derived/rate", 0.3), "must be 0.3"),
    (put("derived/target", 0.5), "derived.target: got 0.5"),
    (put("derived/seconds_per_step", 0.0), "seconds_per_step: got 0.0"),
    (both(put("derived/seconds_per_step", 1e-12), put("derived/train_s", 1e-12)), "clock's tick"),
    (put("derived/seconds_per_step", 100.0), "must leave the race within"),
    (put("derived/eval_s", 1e6), "must leave the race within"),
    (put("derived/eval_s", 1e-12), "derived.eval_s"),
    (put("provenance/duration_s", 0.001), "must leave the race within the 0.001 s"),
    (put("derived/train_s", 0.01), "derived.train_s: got 0.01"),
    (put("derived/examples", 1.0), "derived.examples: got 1.0"),
    (put("derived/epochs", 1.0101), "derived.epochs: got 1.0101"),
    (put("derived/ratio_to_batchnorm", 0.0), "ratio_to_batchnorm: got 0.0"),
    (drop("derived/drift"), "derived.drift"),
    (put("derived/idle", "yes"), "derived.idle"),
    (put("derived/energy_j", 1.0), "derived.energy_j: got 1.0, must be None"),
    (put("derived/joules_per_step", 1.0), "derived.energy_j: got None"),
    (put("samples/1/detail/best_accuracy", 0.99), "samples[seed 102].detail"),
]
OWN = {"max_depth": DEPTH, "stable_lr": RATE, "top_eigenvalue": EIGEN, "time_to_accuracy": TIME}
FORGED = [
    pytest.param(task, forge, words, id=f"{task}-{i}-{words[:40]}")
    for task in RANKED
    for i, (forge, words) in enumerate([*EVERY, *OWN[task]])
]


def test_what_was_published_stands() -> None:
    assert {r.task for r in published()} > {*RANKED}
    found = {f"{r.cell} {r.id}": objections_to(r) for r in published()}
    assert not {name: words for name, words in found.items() if words}


@pytest.mark.parametrize(("task", "forge", "words"), FORGED)
def test_no_number_is_changed_alone(task: str, forge: Forge, words: str) -> None:
    lines = forged(published_record(task), forge)
    assert any(words in line for line in lines), lines
    assert all("\n" not in line for line in lines)


@given(data=st.data(), task=st.sampled_from(RANKED), factor=st.sampled_from((0.5, 0.9, 1.1, 2.0)))
def test_any_sample_that_is_scaled_is_caught(data: st.DataObject, task: str, factor: float) -> None:
    scheme = data.draw(st.sampled_from(("batchnorm", "layernorm", "none", "residual-batchnorm")))
    seed = data.draw(st.integers(0, 5))
    name = data.draw(st.sampled_from(("value", "low")))
    assert forged(published_record(task, scheme), put(f"samples/{seed}/{name}", lambda v: (v or 1) * factor))


@given(data=st.data(), task=st.sampled_from(RANKED))
def test_any_row_that_is_dropped_doubled_or_swapped_is_caught(data: st.DataObject, task: str) -> None:
    record = published_record(task)
    i = data.draw(st.integers(0, len(record.trace) - 2))
    changed: list[Any] = [
        lambda t: t[:i] + t[i + 1 :],
        lambda t: [*t[: i + 1], *t[i:]],
        lambda t: [*t[:i], t[i + 1], t[i], *t[i + 2 :]],
    ]
    assert forged(record, put("trace", data.draw(st.sampled_from(changed))))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@given(data=st.data(), task=st.sampled_from(RANKED), junk=JSON)
def test_junk_is_answered_and_never_raises(data: st.DataObject, task: str, junk: object) -> None:
    record = published_record(task)
    measured = Measurement(**{name: getattr(record, name) for name in Measurement.model_fields})
    where = data.draw(st.sampled_from(("trace", "field", "derived", "detail", "settings")))
    settings = dict(record.settings)
    if where == "trace":
        measured = measured.model_copy(update={"trace": (junk,)})
    elif where == "field":
        name = data.draw(st.sampled_from(sorted(record.trace[0])))
        measured = measured.model_copy(update={"trace": ({**record.trace[0], name: junk},)})
    elif where == "derived":
        measured = measured.model_copy(update={"derived": junk})
    elif where == "detail":
        samples = (record.samples[0].model_copy(update={"detail": {"step": junk}}), *record.samples[1:])
        measured = measured.model_copy(update={"samples": samples})
    else:
        settings[data.draw(st.sampled_from(sorted(settings)))] = junk
    lines = objections(measured, task, settings, better=record.better, dataset="digits")
    assert lines or where == "settings"


def test_numbers_that_are_not_finite() -> None:
    record = published_record("max_depth")
    for changes in (
        {"value": math.nan},
        {"derived": {"a": [{"b": math.inf}]}},
        {"trace": ({"loss": math.nan},)},
        {"samples": (record.samples[0].model_copy(update={"detail": {"a": math.nan}}),)},
    ):
        lines = objections_to(record.model_copy(update=changes))
        assert any("must be finite" in line for line in lines), changes


def test_a_record_that_was_edited_and_not_sealed() -> None:
    record = published_record("stable_lr")
    assert objections_to(record.model_copy(update={"id": "0" * 16}))[0].startswith("id: got 0000")
    assert objections_to(record.model_copy(update={"key": "0" * 32}))[0].startswith("key: got 0000")
    calibration = next(r for r in published() if r.task == "calibration")
    assert objections_to(calibration.model_copy(update={"value": 0.5}))[0].startswith("id: got")


@pytest.mark.parametrize("outcome", [Outcome.ERROR, Outcome.UNSUPPORTED, Outcome.OOM])
def test_what_failed_has_words_and_nothing_else(outcome: Outcome) -> None:
    failed = Measurement(value=None, outcome=outcome, error="refused")
    for task in RANKED:
        asked = published_record(task)
        assert not objections(failed, task, asked.settings, better=asked.better)
    changed = failed.model_copy(update={"error": None, "derived": {"a": 1}, "low": 1.0})
    lines = objections(changed, "max_depth", {}, better="higher")
    assert [line.split(":")[0] for line in lines] == ["low", "derived", "error"]


def test_without_the_number_of_classes_one_limit_must_part_the_losses() -> None:
    record = published_record("stable_lr")
    rows = [dict(r) for r in record.trace]
    next(r for r in rows if r["outcome"] == "ok")["loss"] = 2.3
    measured = Measurement(**{name: getattr(record, name) for name in Measurement.model_fields})
    measured = measured.model_copy(update={"trace": tuple(rows)})
    lines = objections(measured, record.task, record.settings, better=record.better)
    assert any("must be split by one limit" in line for line in lines)


def test_the_classes_are_those_of_the_data_sets() -> None:
    from bnsuite.datasets import DATASETS

    assert {name: known.classes for name, known in DATASETS.items()} == CLASSES
