"""top_eigenvalue: the checkpoint by the single loop, λ_max by an explicit Hessian."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from by_hand import checkpoint, hessian

from bnsuite.engine.curvature import Spectrum, extreme_eigenvalues
from bnsuite.engine.lanes import Lane
from bnsuite.engine.stack import Stack
from bnsuite.networks import softplus
from bnsuite.protocol.sharpness import HALVINGS
from bnsuite.records import Outcome, Sample
from bnsuite.tasks import Subject, top_eigenvalue
from bnsuite.tasks._checkpoint import Checkpoint
from bnsuite.tasks.top_eigenvalue import TopEigenvalue

SEEDS = (101, 102)
TASK = TopEigenvalue(
    width=4,
    batch=16,
    tuning=(1,),
    confirmation=SEEDS,
    depth=2,
    rates=(0.05, 0.1),
    rate=0.1,
    steps=200,
    tuning_steps=20,
)


def spectrum(subject: Subject, network: torch.nn.Module) -> torch.Tensor:
    """Compute all eigenvalues, ascending, from the explicit matrix."""
    return torch.linalg.eigvalsh(hessian(subject, network, TASK))


def test_fewer_minibatches_are_the_first_of_the_partition(subject: Subject) -> None:
    whole, two = TASK.partition(subject), dataclasses.replace(TASK, minibatches=2).partition(subject)
    assert len(whole.x) == 4
    assert torch.equal(two.x, whole.x[:2])
    assert torch.equal(two.y, whole.y[:2])
    assert two.x.dtype == torch.float64
    with pytest.raises(ValueError, match=r"minibatches of top_eigenvalue: got -1, wanted .* at least 0"):
        dataclasses.replace(TASK, minibatches=-1)


def test_the_loss_of_the_checkpoint_is_a_setting(subject: Subject) -> None:
    early = dataclasses.replace(TASK, loss_ratio=0.9)
    assert early.limit(subject) == 0.9 * math.log(4)
    first, later = early(subject).samples[0], TASK(subject).samples[0]
    assert first.detail["step"] < later.detail["step"]  # type: ignore[operator]


@pytest.mark.parametrize("scheme", ["none", "batchnorm"])
def test_the_second_opinion(
    scheme: str, make_subject: Callable[..., Subject], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both opinions are λ_max at the checkpoint of the first seed's sample; only one is by our Lanczos."""
    subject = make_subject(scheme)
    opinions = TASK.second_opinion(subject)
    assert opinions is not None
    sample = TASK(subject).samples[0]
    truth = float(spectrum(subject, checkpoint(subject, TASK, sample)[0])[-1])
    assert opinions == pytest.approx((truth, truth), rel=1e-5)  # training rounds
    assert opinions[0] == pytest.approx(opinions[1], rel=1e-9)
    monkeypatch.setattr(top_eigenvalue, "extreme_eigenvalues", doubled)
    assert TASK.second_opinion(subject) == pytest.approx((2 * opinions[0], opinions[1]))


def doubled(*args: Any, **more: Any) -> Spectrum:
    """Find λ_max, and double it."""
    spectrum = extreme_eigenvalues(*args, **more)
    top = spectrum.top[0]
    return spectrum._replace(top=(top._replace(value=2 * top.value),))


def test_a_seed_that_is_stuck_has_no_second_opinion(subject: Subject) -> None:
    assert dataclasses.replace(TASK, steps=5, rate=1e-6).second_opinion(subject) is None


@pytest.mark.parametrize("scheme", ["none", "batchnorm"])
def test_the_value_is_the_top_of_the_spectrum_at_matched_loss(
    scheme: str, make_subject: Callable[..., Subject]
) -> None:
    subject = make_subject(scheme)
    measured = TASK(subject)
    limit = math.log(4) / 2
    for sample in measured.samples:
        network, losses = checkpoint(subject, TASK, sample)
        means = [sum(losses[i - 5 : i]) / 5 for i in range(5, len(losses) + 1)]
        assert means[-1] <= limit < min(means[:-1])
        truth = spectrum(subject, network)
        assert sample.value == pytest.approx(float(truth[-1]), rel=2e-3)
        residual = sample.detail["residual"]
        assert isinstance(residual, float)
        assert residual <= TASK.tolerance
        assert sample.low == pytest.approx(sample.value * (1 - residual))  # type: ignore[operator]
        assert sample.detail["rate"] * sample.value / 2 <= 0.5  # type: ignore[operator]
        assert 0 < sample.detail["loss"] < math.log(4)  # type: ignore[operator]
        if sample.seed == SEEDS[0]:
            assert sample.detail["lambda_min"] == pytest.approx(float(truth[0]), rel=1e-2, abs=1e-3)
            assert sample.detail["eigenvalues"] == pytest.approx(truth.flip(0)[:4].tolist(), rel=1e-2)
        initial = spectrum(subject, subject.network(TASK.depth, TASK.width, sample.seed, softplus))
        assert sample.detail["at_init"]["value"] == pytest.approx(float(initial[-1]), rel=2e-3)  # type: ignore
        edge = sample.detail["at_best_rate"]
        assert edge["edge"] == pytest.approx(edge["rate"] * edge["value"] / 2)  # type: ignore[index, call-overload]
    assert measured.outcome is Outcome.OK
    assert measured.derived["max_residual"] <= TASK.tolerance  # type: ignore[operator]


def test_a_rate_that_sets_its_own_curvature_is_halved(subject: Subject) -> None:
    measured = dataclasses.replace(TASK, rate=1.6, steps=400)(subject)
    rates = [sample.detail["rate"] for sample in measured.samples]
    assert all(rate in [1.6 / 2**k for k in range(1, 8)] for rate in rates)
    for sample in measured.samples:
        rate, value = sample.detail["rate"], sample.value
        assert isinstance(rate, float)
        assert value is not None
        assert rate * value / 2 <= 0.5
        network, _ = checkpoint(subject, TASK, sample)
        assert value == pytest.approx(float(spectrum(subject, network)[-1]), rel=2e-3)


@pytest.mark.parametrize("too_sharp", [0, 2, HALVINGS, math.inf])
def test_the_budget_doubles_with_every_halving(
    too_sharp: float, subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second seed needs so many halvings of its rate, the first none."""
    asked: list[tuple[list[Lane], int]] = []

    def train(
        self: TopEigenvalue, subject: Subject, lanes: list[Lane], steps: int, limit: float
    ) -> dict[int, Checkpoint]:
        asked.append((lanes, steps))
        return {lane.seed: Checkpoint(torch.nn.Linear(1, 1), steps) for lane in lanes}

    def measure(lane: Lane, there: Checkpoint) -> Sample | None:
        bears = lane.seed == 101 or lane.rate <= 0.1 / 2**too_sharp
        return Sample(seed=lane.seed, value=float(there.step)) if bears else None

    monkeypatch.setattr(TopEigenvalue, "train", train)
    first, second = TASK.at_matched_loss(subject, measure, "λ")
    last = int(min(too_sharp, HALVINGS))
    assert [steps for _, steps in asked] == [200 * 2**k for k in range(last + 1)]
    assert [lanes[-1] for lanes, _ in asked] == [Lane(102, 0.1 / 2**k) for k in range(last + 1)]
    assert (first.value, first.outcome) == (200, Outcome.OK)
    expected = (None, Outcome.STUCK) if too_sharp > HALVINGS else (200 * 2**last, Outcome.OK)
    assert (second.value, second.outcome) == expected


def test_never_reached_is_stuck(subject: Subject) -> None:
    measured = dataclasses.replace(TASK, rate=1e-6, steps=10)(subject)
    assert (measured.value, measured.outcome) == (None, Outcome.STUCK)
    assert [s.outcome for s in measured.samples] == [Outcome.STUCK] * 2
    assert measured.samples[0].detail["at_init"]["value"] > 0  # type: ignore[index, call-overload, operator]


def test_a_seed_that_died_is_nonfinite(subject: Subject) -> None:
    measured = dataclasses.replace(TASK, rate=1e30, steps=30)(subject)
    assert (measured.value, measured.outcome) == (None, Outcome.NONFINITE)


def test_a_checkpoint_with_parameters_that_overflowed_is_nonfinite(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: Stack, i: int) -> torch.nn.Module:
        network = whole(self, i)
        network.head.bias.data.fill_(math.nan)
        return network

    whole = Stack.network
    monkeypatch.setattr(Stack, "network", broken)
    measured = TASK(subject)
    assert (measured.value, measured.outcome) == (None, Outcome.NONFINITE)
    assert "at_best_rate" not in measured.samples[0].detail


def test_only_the_first_seeds_are_measured_beside(subject: Subject) -> None:
    measured = dataclasses.replace(TASK, beside=1)(subject)
    assert ["at_init" in sample.detail for sample in measured.samples] == [True, False]


@pytest.mark.parametrize("change", [{"max_products": 2}, {"max_products": 4, "tolerance": 1e-9}])
def test_a_missed_tolerance_is_unconverged(subject: Subject, change: dict[str, Any]) -> None:
    measured = dataclasses.replace(TASK, **change)(subject)
    assert (measured.value, measured.outcome) == (None, Outcome.UNCONVERGED)
    for sample in measured.samples:
        residual = sample.detail["residual"]
        assert isinstance(residual, float)
        assert residual > change.get("tolerance", TASK.tolerance)


def test_the_checkpoint_does_not_depend_on_the_other_seeds(make_subject: Callable[..., Subject]) -> None:
    both = TASK(make_subject("batchnorm"))
    alone = dataclasses.replace(TASK, confirmation=(102,))(make_subject("batchnorm"))
    assert alone.samples[0].value == pytest.approx(both.samples[1].value, rel=1e-3)
    assert alone.samples[0].detail["step"] == both.samples[1].detail["step"]
