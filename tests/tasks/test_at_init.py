"""Diagnostics at initialization, against autograd by hand and closed forms."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from bnsuite import theory
from bnsuite.datasets import Dataset
from bnsuite.engine.lanes import Examples
from bnsuite.names import UnknownNameError
from bnsuite.networks import FAMILIES
from bnsuite.norms import BatchNorm
from bnsuite.records import Outcome
from bnsuite.schemes import REFERENCES, SCHEMES, Scheme
from bnsuite.tasks import Subject
from bnsuite.tasks._initial import backward, slope
from bnsuite.tasks.first_step import FirstStep
from bnsuite.tasks.gradient_growth import GradientGrowth
from bnsuite.tasks.overflow_depth import OverflowDepth
from bnsuite.tasks.scale_law import ScaleLaw

SIZE: dict[str, Any] = {"width": 8, "batch": 16, "tuning": (1,), "confirmation": (101, 102)}
GROWTH = GradientGrowth(**SIZE, depth=6)


def exact(num_features: int) -> torch.nn.Module:
    """Batch norm with a tiny ε."""
    return BatchNorm(num_features, eps=1e-14)


def gaussian(n: int = 64, d: int = 32) -> Dataset:
    draw = torch.Generator().manual_seed(0)
    x, y = torch.randn(n, 1, 1, d, generator=draw), torch.arange(n) % 4
    return Dataset("gaussian", x, y, x, y, classes=4)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("scheme", [*map(SCHEMES.get, REFERENCES), Scheme("post", BatchNorm, skip="post")])
def test_hidden_layers_and_their_gradients(
    scheme: Scheme, family: str, make_subject: Callable[..., Subject]
) -> None:
    """Return the weight gradient of each layer, and ∂L/∂h_1, which is that of the first bias."""
    subject = dataclasses.replace(make_subject(), scheme=scheme, family=FAMILIES[family])
    network = GROWTH.network(subject, 3, 101)
    x, y = GROWTH.minibatch(subject, 101)
    gradients = backward(network, x, y)
    assert len(gradients.hidden) == len(gradients.weights) == 3
    loss = F.cross_entropy(network(x), y)
    for layer, weights in enumerate(network.weights()):
        truth = torch.autograd.grad(loss, weights, retain_graph=True)
        assert torch.equal(gradients.weights[layer], torch.cat([g.flatten() for g in truth]))
    bias = network.get_parameter("stem.bias" if family != "transformer" else "positions.start")
    (of_bias,) = torch.autograd.grad(loss, bias)
    first = gradients.hidden[0]  # (N, C, *S)
    summed = first.sum(0).mT if family == "transformer" else first.transpose(0, 1).flatten(1).sum(1)
    assert torch.allclose(summed, of_bias, atol=1e-12), "h_1 is what the first bias is added to"


def test_the_minibatch_is_the_first_of_training(subject: Subject) -> None:
    x, _ = GROWTH.minibatch(subject, 101)
    order = Examples(subject.data.train_x, subject.data.train_y, 16).order(101, 3)
    assert torch.equal(x, subject.data.train_x[order[0]].double())


@pytest.mark.parametrize(
    ("scheme", "activation"),
    [("batchnorm", "relu"), ("batchnorm", "tanh"), ("none", "relu"), ("layernorm", "relu")],
)
def test_growth_is_the_theorys(scheme: str, activation: str) -> None:
    task = GradientGrowth(
        width=300, batch=16, tuning=(), confirmation=(101, 102, 103), depth=24, activation=activation
    )
    measured = task(Subject(SCHEMES[scheme], FAMILIES["mlp"], gaussian()))
    known = measured.derived["theory"]
    assert isinstance(known, float)
    assert measured.value == pytest.approx(known, rel=0.06)
    assert measured.derived["weight_growth"] == pytest.approx(known, rel=0.08)
    rows = [row for row in measured.trace if row["seed"] == 101]
    assert [row["layer"] for row in rows] == list(range(1, 25))
    chosen = [(row["layer"], math.log(row["hidden"])) for row in rows if 5 <= row["layer"] <= 21]  # type: ignore[operator, arg-type]
    assert measured.samples[0].value == pytest.approx(math.exp(-slope(*zip(*chosen, strict=True))), rel=1e-4)  # type: ignore[arg-type]


def test_the_theory_stands_beside_what_it_is_about() -> None:
    def beside(scheme: Scheme, family: str = "mlp", batch: int = 16) -> object:
        return dataclasses.replace(GROWTH, batch=batch).theory(Subject(scheme, FAMILIES[family], gaussian()))

    assert beside(SCHEMES["batchnorm"]) == theory.gradient_growth("batch", "relu", 16)
    assert beside(SCHEMES["layernorm"]) == theory.gradient_growth("layer", "relu")
    assert beside(SCHEMES["batchnorm"], batch=3) is None
    assert beside(SCHEMES["batchnorm"], "cnn") is None
    assert beside(SCHEMES["residual-batchnorm"]) is None
    assert beside(Scheme("mine", exact)) is None


def test_scale_law_of_a_scale_free_normalizer_and_of_none() -> None:
    task = ScaleLaw(**SIZE, depth=4)
    measured = task(Subject(Scheme("exact", exact), FAMILIES["mlp"], gaussian()))
    assert measured.value == pytest.approx(-1, abs=1e-6)
    assert measured.derived["hidden_exponent"] == pytest.approx(-1, abs=1e-6)
    assert abs(measured.derived["cosine"]) < 1e-10  # type: ignore[arg-type]
    bare = task(Subject(SCHEMES["none"], FAMILIES["mlp"], gaussian()))
    assert bare.value == pytest.approx(measured.derived["without_norm"], rel=1e-12)
    assert bare.value is not None
    assert bare.value > -0.5
    assert "without_norm" not in bare.derived


def test_first_step_makes_the_lower_layers_slow() -> None:
    task = FirstStep(**{**SIZE, "width": 64}, depth=100)
    measured = task(Subject(SCHEMES["batchnorm"], FAMILIES["mlp"], gaussian()))
    assert measured.value is not None
    assert measured.value < 0.02
    assert measured.derived["before"] > 100  # type: ignore[operator]
    assert measured.derived["weight_growth"] > 10  # type: ignore[operator]
    rows = [row for row in measured.trace if row["seed"] == 101]
    (second, last) = (rows[1], rows[-1])
    relative = [row["gradient_after"] / row["weight_after"] for row in (second, last)]  # type: ignore[operator]
    assert measured.samples[0].value == pytest.approx(relative[0] / relative[1], rel=1e-4)
    assert second["weight_after"] == pytest.approx(
        math.hypot(second["weight"], 0.1 * second["gradient"]),  # type: ignore[arg-type, operator]
        rel=1e-2,
    ), "batch norm's gradient stands at right angles to the weights"


def test_overflow_depth_is_where_the_sum_of_squares_leaves_float32() -> None:
    task = OverflowDepth(
        width=16, batch=8, tuning=(), confirmation=(101, 102), depths=(64, 256), half=(8, 64)
    )
    subject = Subject(SCHEMES["batchnorm"], FAMILIES["mlp"], gaussian())
    measured = task(subject)
    assert measured.outcome is Outcome.OK
    for sample in measured.samples:
        assert sample.low is not None
        assert sample.value is not None
        for depth, over in ((sample.low, False), (sample.value, True)):
            network = task.network(subject, int(depth), sample.seed).float()
            x, y = task.minibatch(subject, sample.seed)
            gradients = backward(network, x.float(), y)
            total = sum(float(g.double().square().sum()) for g in gradients.weights)
            assert (total > torch.finfo(torch.float32).max) is over
    assert measured.derived["nonfinite"] > measured.value  # type: ignore[operator]
    assert measured.derived["half"] < measured.value  # type: ignore[operator]


def test_what_never_overflows_is_capped() -> None:
    task = OverflowDepth(**SIZE, depths=(2, 8), half=(1, 1))
    measured = task(Subject(SCHEMES["none"], FAMILIES["mlp"], gaussian()))
    assert (measured.value, measured.outcome) == (8, Outcome.CAPPED)
    assert "half" not in measured.derived


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: GradientGrowth(**SIZE, depth=3), "depth of gradient_growth: got 3, wanted at least 4"),
        (lambda: FirstStep(**SIZE, depth=2), "depth of first_step: got 2, wanted at least 3"),
        (lambda: ScaleLaw(**SIZE, activation="tahn"), "unknown activation 'tahn'. Did you mean tanh"),
    ],
)
def test_bad_settings(make: Callable[[], object], words: str) -> None:
    with pytest.raises((ValueError, UnknownNameError), match=words):
        make()


@pytest.mark.parametrize("task", [GradientGrowth, ScaleLaw, FirstStep])
def test_a_readout_that_starts_from_zero_has_an_outcome(task: Any) -> None:
    subject = Subject(SCHEMES["fixup"], FAMILIES["mlp"], gaussian())
    measured = task(**SIZE, depth=8)(subject)
    assert measured.value is None
    assert {sample.outcome for sample in measured.samples} == {Outcome.NONFINITE}
    assert "NaN" not in measured.model_dump_json()
