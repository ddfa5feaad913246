"""spectrum: eigenvalues, gradient share and density against the explicit Hessian at the checkpoint."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from by_hand import checkpoint, hessian, partition
from torch.nn.utils import parameters_to_vector

from bnsuite.activations import activation
from bnsuite.networks import softplus
from bnsuite.records import Outcome
from bnsuite.tasks import Subject
from bnsuite.tasks.spectrum import HessianSpectrum
from bnsuite.tasks.top_eigenvalue import TopEigenvalue

CLASSES = 4
COMMON: dict[str, Any] = {"width": 4, "batch": 16, "tuning": (1,), "confirmation": (101, 102)}
TASK = HessianSpectrum(**COMMON, depth=2, rate=0.1, steps=200, probes=8, order=24)


def minibatch_gradients(network: torch.nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Compute the gradients of the minibatches (M, P), by the plain loop."""
    rows = []
    for images, labels in zip(x, y, strict=True):
        loss = torch.nn.functional.cross_entropy(network(images), labels)
        rows.append(parameters_to_vector(torch.autograd.grad(loss, list(network.parameters()))))
    return torch.stack(rows)


@pytest.mark.parametrize(
    ("scheme", "phi"), [("none", "softplus"), ("batchnorm", "softplus"), ("none", "gelu")]
)
def test_against_the_explicit_hessian(scheme: str, phi: str, make_subject: Callable[..., Subject]) -> None:
    subject = make_subject(scheme)
    task = dataclasses.replace(TASK, activation=phi)
    measured = task(subject)
    assert measured.outcome is Outcome.OK
    for sample in measured.samples:
        detail: dict[str, Any] = sample.detail
        network, _ = checkpoint(subject, task, sample, activation(phi))
        values, vectors = torch.linalg.eigh(hessian(subject, network, task))
        top = values.flip(0)[: CLASSES + 1].tolist()
        assert detail["eigenvalues"] == pytest.approx(top, rel=1e-5)
        assert max(detail["residuals"][:CLASSES]) <= task.tolerance
        assert sample.value == pytest.approx(top[0] / top[CLASSES - 1], rel=1e-5)
        assert sample.low <= top[0] / top[CLASSES - 1] <= sample.high  # type: ignore[operator]
        assert detail["gap"] == pytest.approx(top[CLASSES - 2] / top[CLASSES - 1], rel=1e-5)
        assert detail["outliers"] == sum(value > 2 * top[CLASSES - 1] for value in top)
        gradients = minibatch_gradients(network, *partition(subject, task))
        inside = (gradients @ vectors[:, -CLASSES:]).square().sum(1) / gradients.square().sum(1)
        assert detail["gradient_share"] == pytest.approx(float(inside.mean()), abs=1e-4)
        initial = subject.network(task.depth, task.width, sample.seed, activation(phi))
        start = torch.linalg.eigvalsh(hessian(subject, initial, task)).flip(0)[: CLASSES + 1].tolist()
        assert detail["at_init"]["eigenvalues"] == pytest.approx(start, rel=1e-4, abs=1e-6)
        if sample.seed == task.confirmation[0]:
            negative = float((values < -0.01 * (values[-1] - values[0])).double().mean())
            assert detail["width"] == pytest.approx(0.01 * float(values[-1] - values[0]), rel=1e-2)
            assert abs(detail["negative_mass"] - negative) <= 4 * detail["negative_mass_error"] + 0.05
        else:
            assert "negative_mass" not in detail


def test_the_checkpoint_is_that_of_top_eigenvalue(make_subject: Callable[..., Subject]) -> None:
    sharp = TopEigenvalue(**COMMON, depth=2, rate=1.6, steps=400, rates=(0.1,), tuning_steps=10, beside=0)
    ours = dataclasses.replace(TASK, rate=1.6, steps=400)(make_subject())
    for sample, other in zip(ours.samples, sharp(make_subject()).samples, strict=True):
        assert [sample.detail[name] for name in ("step", "rate", "loss", "accuracy")] == [
            other.detail[name] for name in ("step", "rate", "loss", "accuracy")
        ]
        assert sample.detail["rate"] < 1.6  # type: ignore[operator]
        assert sample.detail["lambda_1"] == pytest.approx(other.value, rel=1e-4)


def test_the_density_of_the_first_seed(subject: Subject) -> None:
    task = dataclasses.replace(TASK, kernel=0.05, probes=24)
    measured = task(subject)
    rows: list[dict[str, Any]] = [*measured.trace]
    assert {row["phase"] for row in rows} == {"density"}
    assert {row["seed"] for row in rows} == {101}
    assert len(rows) == 120
    x, y, error = (
        torch.tensor([row[name] for row in rows], dtype=torch.float64) for name in ("x", "y", "error")
    )
    assert float(torch.trapezoid(y, x)) == pytest.approx(1, abs=1e-2)  # of a kernel, 3 deviations hold .997
    network, _ = checkpoint(subject, task, measured.samples[0], softplus)
    values = torch.linalg.eigvalsh(hessian(subject, network, task))
    assert float(x[0]) < float(values[0]) < float(values[-1]) < float(x[-1])
    width = 0.05 * float(values[-1] - values[0])
    truth = torch.exp(-(((x[:, None] - values) / width) ** 2) / 2).mean(1) / width / math.sqrt(2 * math.pi)
    assert float(((y - truth).abs() / (error + 0.01 * truth.max())).max()) < 5
    alone = dataclasses.replace(task, probes=1)(subject)
    assert {row["error"] for row in alone.trace} == {None}


def test_what_is_derived(subject: Subject) -> None:
    measured = TASK(subject)
    details: list[dict[str, Any]] = [sample.detail for sample in measured.samples]
    derived: dict[str, Any] = measured.derived
    assert derived["gap"] == pytest.approx(sum(d["gap"] for d in details) / 2)
    assert derived["outliers"] == sum(d["outliers"] for d in details) / 2
    assert derived["gradient_share"] == pytest.approx(sum(d["gradient_share"] for d in details) / 2)
    assert derived["lambda_1_at_init"] == pytest.approx(sum(d["at_init"]["lambda_1"] for d in details) / 2)
    assert derived["max_residual"] <= TASK.tolerance


def test_an_order_above_the_number_of_parameters(subject: Subject) -> None:
    with pytest.raises(ValueError, match=r"operator's size 60: got 61; lower the order"):
        dataclasses.replace(TASK, order=61)(subject)


@pytest.mark.parametrize("change", [{"probes": 0}, {"order": 0}, {"kernel": 0.0}])
def test_settings_are_above_zero(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="of spectrum: got 0"):
        dataclasses.replace(TASK, **change)
