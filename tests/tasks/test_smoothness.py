"""smoothness and layer_cost: closed forms on a quadratic, checkpoints computed again, bytes by hand."""

import math
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor, nn

from bnsuite.calibration.curvature import Point
from bnsuite.engine.clock import Race
from bnsuite.engine.lanes import Examples
from bnsuite.engine.train import train
from bnsuite.networks import FAMILIES, softplus
from bnsuite.norms import LayerNorm
from bnsuite.records import Outcome
from bnsuite.tasks import Subject
from bnsuite.tasks.layer_cost import LayerCost, saved_bytes
from bnsuite.tasks.smoothness import Smoothness, along_gradient

TASK = Smoothness(width=4, batch=16, tuning=(), confirmation=(101, 102), depth=2, rate=0.1, steps=4, beside=1)


def test_closed_forms_on_a_quadratic() -> None:
    h = torch.tensor([3.0, 1.0, 0.1], dtype=torch.float64)
    theta = torch.tensor([1.0, -2.0, 5.0], dtype=torch.float64)

    def quadratic(theta: Tensor, y: Tensor) -> Tensor:
        return (h * theta**2).sum() / 2

    g = h * theta
    along = along_gradient(Point(theta), torch.empty(0), torch.empty(0), [0.1, 0.2], loss=quadratic)
    losses = [float(quadratic(theta - eta * g, theta)) for eta in (0, 0.1, 0.2)]
    beta = float((h * g).norm() / g.norm())
    assert along.effective_beta == pytest.approx(beta, rel=1e-12)
    assert along.gradient_change == pytest.approx(0.2 * beta, rel=1e-12)
    assert along.loss_range == pytest.approx(max(losses) - min(losses), rel=1e-12)


def test_checkpoints_are_those_of_training(make_subject: Callable[..., Subject]) -> None:
    subject = make_subject("batchnorm")
    measured = TASK(subject)
    data = Examples(subject.data.train_x, subject.data.train_y, 16)
    order = data.order(101, 5)
    network = subject.network(2, 4, 101, softplus)
    train(network, [(data.x[row], data.y[row]) for row in order[:4]], 0.1)
    x, y = data.x[order[4]].double(), data.y[order[4]]
    truth = along_gradient(network.double(), x, y, [0.05, 0.1, 0.2, 0.4])
    (row,) = [row for row in measured.trace if (row["seed"], row["step"]) == (101, 4)]
    assert row["effective_beta"] == pytest.approx(truth.effective_beta, rel=1e-4)
    assert row["loss_range"] == pytest.approx(truth.loss_range, rel=1e-3)
    assert [row["step"] for row in measured.trace if row["seed"] == 101] == [0, 1, 2, 4]
    betas = [math.log(row["effective_beta"]) for row in measured.trace if row["seed"] == 101 and row["step"]]  # type: ignore[arg-type]
    assert measured.samples[0].value == pytest.approx(math.exp(sum(betas) / 3), rel=1e-9)
    assert all(("lambda_max" in row) == (row["seed"] == 101) for row in measured.trace)


def test_lambda_is_of_the_same_minibatch(make_subject: Callable[..., Subject]) -> None:
    subject = make_subject("none")
    (row,) = [row for row in TASK(subject).trace if (row["seed"], row["step"]) == (101, 0)]
    x, y = TASK.minibatch(subject, 101)
    network = TASK.network(subject, 2, 101)
    parameters = dict(network.named_parameters())

    def loss(flat: Tensor) -> Tensor:
        parts = torch.split(flat, [p.numel() for p in parameters.values()])
        state = {name: part.view(p.shape) for (name, p), part in zip(parameters.items(), parts, strict=True)}
        return nn.functional.cross_entropy(torch.func.functional_call(network, state, (x,)), y)

    start = torch.cat([p.detach().flatten() for p in parameters.values()])
    hessian = torch.autograd.functional.hessian(loss, start)
    assert row["lambda_max"] == pytest.approx(float(torch.linalg.eigvalsh(hessian)[-1]), rel=1e-2)


def test_a_network_that_dies_has_no_value(make_subject: Callable[..., Subject]) -> None:
    dead = Smoothness(
        width=4, batch=16, tuning=(), confirmation=(101,), depth=2, rate=1e30, steps=4, beside=0
    )
    measured = dead(make_subject("none"))
    assert (measured.value, measured.outcome) == (None, Outcome.NONFINITE)


def test_what_autograd_keeps() -> None:
    x = torch.randn(8, 4, requires_grad=True)
    assert saved_bytes(nn.Identity(), x) == 0
    assert saved_bytes(nn.ReLU(), x) == 8 * 4 * 4
    assert saved_bytes(LayerNorm(4), x) >= 8 * 4 * 4


def test_layer_cost_measures_every_shape(make_subject: Callable[..., Subject]) -> None:
    task = LayerCost(width=2, batch=4, tuning=(), confirmation=(1, 2, 3, 4), doublings=2, repeats=2)
    measured = task(make_subject("batchnorm"))
    assert [row["shape"] for row in measured.trace] == ["4×2", "4×4", "4×8"]
    assert len(measured.samples) == 4
    assert measured.value is not None
    assert measured.value > 0
    assert measured.derived["idle"] in (True, False, None)
    assert "joules_per_pass" not in measured.derived
    conv = Subject(make_subject("none").scheme, FAMILIES["cnn"], make_subject().data)
    assert [row["shape"] for row in task(conv).trace] == ["4×2×2×2", "4×4×2×2", "4×8×2×2"]


def test_layer_cost_tells_the_joules_of_one_pass(
    make_subject: Callable[..., Subject], monkeypatch: pytest.MonkeyPatch
) -> None:
    def raced(contestants: Sequence[object], rounds: int, device: torch.device, energy: bool) -> Race:
        assert energy
        return Race([[0.5] * rounds for _ in contestants], idle=True, joules=[1.0, 2.0, 0.5])

    monkeypatch.setattr("bnsuite.tasks.layer_cost.race", raced)
    task = LayerCost(width=2, batch=4, tuning=(), confirmation=(1, 2, 3, 4), doublings=1, repeats=4)
    derived = task(make_subject("batchnorm")).derived
    assert (derived["joules_per_pass"], derived["idle"]) == (0.5, True)
