"""Behaviour of all tasks: settings, separate seeds, best rates, outcomes; tuning never uses test data."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from bnsuite.engine.lanes import Curves, Lane
from bnsuite.names import UnknownNameError
from bnsuite.networks import FAMILIES, UnsupportedError
from bnsuite.protocol.search import best_rate, grid, rounded
from bnsuite.records import Outcome
from bnsuite.specs import RANKED, SPECS
from bnsuite.tasks import TASKS, Subject, Task
from bnsuite.tasks._task import fates
from bnsuite.tasks.first_step import FirstStep
from bnsuite.tasks.gradient_growth import GradientGrowth
from bnsuite.tasks.layer_cost import LayerCost
from bnsuite.tasks.max_depth import MaxDepth
from bnsuite.tasks.mean_shift import MeanShift
from bnsuite.tasks.overflow_depth import OverflowDepth
from bnsuite.tasks.scale_law import ScaleLaw
from bnsuite.tasks.smoothness import Smoothness
from bnsuite.tasks.spectrum import HessianSpectrum
from bnsuite.tasks.stable_lr import StableLr
from bnsuite.tasks.time_to_accuracy import TimeToAccuracy
from bnsuite.tasks.top_eigenvalue import TopEigenvalue

SMALL: dict[str, Any] = {"width": 4, "batch": 16, "tuning": (1,), "confirmation": (101, 102)}
TINY: dict[str, Task] = {
    "max_depth": MaxDepth(**SMALL, depths=(1, 4), rates=(0.1, 1.0), steps=20, target=0.5, ratio=1.5),
    "stable_lr": StableLr(**SMALL, depth=2, rates=(0.01, 0.1), steps=60, per_decade=2),
    "top_eigenvalue": TopEigenvalue(**SMALL, depth=2, rates=(0.1, 1.0), rate=0.1, steps=200, tuning_steps=20),
    "time_to_accuracy": TimeToAccuracy(
        **SMALL, depth=2, rates=(0.01, 0.1), target=0.7, steps=60, every=2, warmup=5
    ),
}
DIAGNOSTICS: dict[str, Task] = {
    "gradient_growth": GradientGrowth(**SMALL, depth=4),
    "scale_law": ScaleLaw(**SMALL, depth=2),
    "first_step": FirstStep(**SMALL, depth=3),
    "overflow_depth": OverflowDepth(**SMALL, depths=(1, 4), half=(1, 2)),
    "smoothness": Smoothness(**SMALL, depth=2, steps=4),
    "spectrum": HessianSpectrum(**SMALL, depth=2, rate=0.1, steps=200, probes=2, order=10),
    "mean_shift": MeanShift(**SMALL, depth=2, rate=0.1, steps=200),
    "layer_cost": LayerCost(**SMALL, doublings=1, repeats=1),
}
MATCHED = pytest.mark.parametrize("task", [DIAGNOSTICS["spectrum"], DIAGNOSTICS["mean_shift"]])
RANKING = pytest.mark.parametrize("task", TINY.values(), ids=TINY)
EVERY = pytest.mark.parametrize("task", [*TINY.values(), *DIAGNOSTICS.values()], ids=[*TINY, *DIAGNOSTICS])


def settle(value: Any) -> Any:
    """Remove the seconds from a measurement."""
    derived = {
        k: v
        for k, v in value.derived.items()
        if "_s" not in k and "ratio" not in k and k not in ("drift", "idle")
    }
    derived = {k: v for k, v in derived.items() if k != "seconds_per_step"}
    return value.model_copy(update={"derived": derived})


def test_the_table() -> None:
    assert tuple(TASKS) == (*TINY, *DIAGNOSTICS, "speedrun")  # which needs images: see its own tests
    assert tuple(TINY) == RANKED
    assert all(name == task.spec.name for name, task in TASKS.items())
    directions = {name: SPECS[name].better for name in RANKED}
    assert directions == dict(zip(RANKED, ["higher", "higher", "lower", "lower"], strict=True))
    units = [SPECS[name].unit for name in RANKED]
    assert units == ["layers", "learning rate", "1/learning rate", "steps"]


@EVERY
def test_seeds_are_apart_and_settings_are_json(task: Task) -> None:
    assert json.loads(json.dumps(task.settings)) == task.settings
    assert task.settings["confirmation"] == [101, 102]
    with pytest.raises(ValueError, match=r"disjoint: both hold \[101\]"):
        type(task)(**{**vars(task), "tuning": (1, 101)})


def test_a_setting_added_later_changes_no_key_of_before() -> None:
    task = TINY["stable_lr"]
    assert "loss_ratio" not in task.settings
    changed = replace(task, loss_ratio=0.9)  # type: ignore[call-arg]
    assert changed.settings == {**task.settings, "loss_ratio": 0.9}
    assert task.parse("loss_ratio", "0.9") == 0.9


@EVERY
@pytest.mark.parametrize("scheme", ["none", "batchnorm"])
def test_a_task_measures_every_confirmation_seed_and_repeats_itself(
    task: Task, scheme: str, make_subject: Callable[..., Subject]
) -> None:
    said: list[str] = []
    measured = task(make_subject(scheme, report=said.append))
    assert [sample.seed for sample in measured.samples] == [101, 102]
    assert measured.outcome.has_value, measured
    assert said
    assert {row["phase"] for row in measured.trace} <= {
        "tune",
        "confirm",
        "probe",
        "density",
        "layers",
        "checkpoint",
        "shape",
    }
    for row in measured.trace:
        if row["phase"] != "shape":
            assert row["seed"] in (task.tuning if row["phase"] == "tune" else task.confirmation)
    if task.spec.name != "layer_cost":
        assert settle(task(make_subject(scheme))) == settle(measured)


@RANKING
def test_tuning_never_sees_test_data(task: Task, make_subject: Callable[..., Subject]) -> None:
    first, other = task(make_subject("batchnorm")), task(make_subject("batchnorm", test_seed=2))

    def tuned(measured: Any) -> list[Any]:
        return [row for row in measured.trace if row["phase"] == "tune"]

    assert tuned(first) == tuned(other)
    assert tuned(first)
    if task.spec.name == "time_to_accuracy":
        assert first.derived["rate"] == other.derived["rate"]
        assert first.trace != other.trace  # which confirmation does see
    else:
        assert first == other


@MATCHED
def test_a_diagnostic_sees_neither_test_data_nor_the_other_seeds(
    task: Task, make_subject: Callable[..., Subject]
) -> None:
    both, other = task(make_subject("batchnorm")), task(make_subject("batchnorm", test_seed=2))
    assert both == other
    alone = replace(task, confirmation=(102,))(make_subject("batchnorm"))
    assert alone.samples[0].value == pytest.approx(both.samples[1].value, rel=1e-3)
    assert alone.samples[0].detail["step"] == both.samples[1].detail["step"]


@MATCHED
def test_how_a_diagnostic_fails(task: Task, make_subject: Callable[..., Subject]) -> None:
    ends: list[tuple[dict[str, Any], Outcome]] = [
        ({"rate": 1e-6, "steps": 10}, Outcome.STUCK),
        ({"rate": 1e30, "steps": 30}, Outcome.NONFINITE),
        ({"max_products": 3}, Outcome.UNCONVERGED),
        ({"max_products": 5, "tolerance": 1e-9}, Outcome.UNCONVERGED),
    ]
    for changes, outcome in ends:
        measured = replace(task, **changes)(make_subject())
        assert (measured.value, measured.outcome) == (None, outcome)
        assert [sample.outcome for sample in measured.samples] == [outcome] * 2
        json.dumps(measured.model_dump(mode="json"), allow_nan=False)


@pytest.mark.parametrize("task", [task for task in DIAGNOSTICS.values() if hasattr(task, "activation")])
def test_a_diagnostic_takes_any_activation(task: Task, make_subject: Callable[..., Subject]) -> None:
    measured = replace(task, activation="tanh")(make_subject())
    assert measured.outcome.has_value
    if task.spec.name != "overflow_depth":  # which shallow networks do not reach, whatever their activation
        assert measured.value != task(make_subject()).value
    with pytest.raises(UnknownNameError, match="tanh"):
        replace(task, activation="than")


def curves(*columns: list[float]) -> Curves:
    losses = torch.tensor(columns, dtype=torch.float64).T
    return Curves(losses, 1 - losses)


def test_fates() -> None:
    outcomes = fates(
        curves([1.0] * 9 + [0.2], [1.0] * 10, [0.1, math.inf] + [math.nan] * 8), lambda loss, _: loss < 0.5
    )
    assert outcomes == [Outcome.OK, Outcome.STUCK, Outcome.NONFINITE]
    assert fates(curves([0.3] * 10), lambda _, accuracy: accuracy == pytest.approx(0.7)) == [Outcome.OK]


def test_the_best_rate_has_the_lowest_mean_loss_ties_to_the_smaller() -> None:
    lanes = grid([0.1, 1.0, 10.0], [1, 2])
    assert lanes == [Lane(1, 0.1), Lane(2, 0.1), Lane(1, 1.0), Lane(2, 1.0), Lane(1, 10.0), Lane(2, 10.0)]
    everything = [True] * 6
    assert best_rate(lanes, [3, 1, 1, 2, 9, 9], everything) == 1.0
    assert best_rate(lanes, [2, 2, 1, 3, 2, 2], everything) == 0.1
    assert best_rate(lanes, [3, 1, 0, math.inf, 0, math.nan], everything) == 0.1
    assert best_rate(lanes, [3, 1, 1, 2, 0, 0], [True] * 4 + [False] * 2) == 1.0
    assert best_rate(lanes, [3, 1, 1, 2, 0, 0], [False] * 6) is None


def test_numbers_of_the_trace() -> None:
    assert rounded(0.123456789) == 0.123457
    assert rounded(0.98765, 2) == 0.99
    assert [rounded(value) for value in (math.nan, math.inf, -math.inf)] == [None] * 3


def test_a_normalizer_that_refuses_a_shape_is_unsupported(make_subject: Callable[..., Subject]) -> None:
    subject = make_subject("instancenorm")
    with pytest.raises(UnsupportedError, match=r"instancenorm cannot be used in mlp: .*2 positions at least"):
        assert subject.stacked
    assert replace(subject, family=FAMILIES["cnn"]).stacked
