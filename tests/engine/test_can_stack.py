"""Normalizers that cannot share one vmap are found, and run lane by lane without influence."""

import math
from typing import Any

import pytest
import torch
from calm import assert_calm
from torch import Tensor, nn

from bnsuite.datasets import digits
from bnsuite.engine.lanes import Examples, Lane, sweep
from bnsuite.engine.stack import can_stack
from bnsuite.engine.train import train
from bnsuite.networks import FAMILIES
from bnsuite.schemes import SCHEMES, Scheme

STEPS = 8


class Odd(nn.Module):
    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(()))


class Branching(Odd):
    """Branches on its data, in Python."""

    def forward(self, x: Tensor) -> Tensor:
        return self.gain * (x / 2 if x.std().item() > 1 else x)


class Noisy(Odd):
    """Draws random numbers, in training."""

    def forward(self, x: Tensor) -> Tensor:
        return self.gain * (x + 0.1 * torch.randn_like(x) if self.training else x)


class Dropping(Odd):
    """Draws them inside torch."""

    def forward(self, x: Tensor) -> Tensor:
        return self.gain * nn.functional.dropout(x, 0.1, self.training)


class Remembering(Odd):
    """Keeps a running scale as a Python number."""

    scale = 1.0

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.scale = 0.9 * self.scale + 0.1 * float(x.detach().abs().mean())
        return self.gain * x / self.scale


class Hoarding(Odd):
    """Keeps a running mean as a tensor that is no buffer."""

    mean: Tensor | float = 0.0

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.mean = 0.9 * self.mean + 0.1 * x.detach().mean()
        return self.gain * (x - self.mean)


ODD = pytest.mark.parametrize("norm", [Branching, Noisy, Dropping, Remembering, Hoarding])


def build(scheme: Scheme, seed: int, family: str = "mlp", width: int = 6) -> nn.Module:
    network = FAMILIES[family].build(scheme, 3, width=width, shape=digits().shape, classes=10, seed=seed)
    return network.double()


def curves(norm: Any, lanes: list[Lane]) -> Tensor:
    data = digits()
    examples = Examples(data.train_x[:64].double(), data.train_y[:64], batch=16)
    scheme = Scheme("odd", norm)
    return sweep(lambda seed: build(scheme, seed), lanes, examples, STEPS, stacked=False).losses


def few() -> tuple[Tensor, Tensor]:
    return digits().train_x[:32].double(), digits().train_y[:32]


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_built_in_schemes_can_be_stacked(scheme: Scheme, family: str) -> None:
    if (scheme.name, family) != ("instancenorm", "mlp"):
        assert can_stack(build(scheme, 0, family, width=16), *few())


@ODD
def test_what_cannot_be_stacked_is_found(norm: Any) -> None:
    assert not can_stack(build(Scheme("odd", norm), 0), *few())


@ODD
def test_the_trial_leaves_the_network_as_it_was(norm: Any) -> None:
    for scheme in (Scheme("odd", norm), SCHEMES["batchnorm"]):
        network = build(scheme, 0)
        before = {name: value.clone() for name, value in network.state_dict().items()}
        state = torch.get_rng_state()
        can_stack(network, *few())
        assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
        assert network.training
        assert torch.equal(torch.get_rng_state(), state)
        assert all(vars(m).get("scale", 1.0) == 1.0 for m in network.modules())


@ODD
def test_a_lane_alone_is_the_lane_in_company(norm: Any) -> None:
    lanes = [Lane(2, math.inf), Lane(1, 0.1), Lane(1, 0.01), Lane(3, math.inf), Lane(2, 0.1)]
    company = curves(norm, lanes)
    for i, lane in enumerate(lanes):
        own = curves(norm, [lane])[:, 0]
        assert torch.allclose(company[:, i], own, rtol=1e-12, atol=0, equal_nan=True)
        assert bool(own.isfinite().all()) == (lane.rate < 1)
        if lane.rate < 1:
            assert_calm(own)
    backwards = curves(norm, lanes[::-1])
    assert torch.allclose(backwards.flip(1), company, rtol=1e-12, atol=0, equal_nan=True)


@pytest.mark.parametrize("norm", [Branching, Remembering, Hoarding])
def test_lane_by_lane_is_the_single_loop(norm: Any) -> None:
    data = digits()
    examples = Examples(data.train_x[:64].double(), data.train_y[:64], batch=16)
    network = build(Scheme("odd", norm), 1)
    order = examples.order(1, STEPS)
    expected = train(network, [(examples.x[row], examples.y[row]) for row in order], 0.1)
    assert_calm(expected)
    assert torch.allclose(curves(norm, [Lane(4, 0.1), Lane(1, 0.1)])[:, 1], expected, rtol=1e-12)


@pytest.mark.parametrize("norm", [Noisy, Dropping])
def test_random_numbers_are_a_lanes_own(norm: Any) -> None:
    found = curves(norm, [Lane(1, 1e-30), Lane(2, 1e-30), Lane(1, 1e-30)])
    assert torch.equal(found[:, 0], found[:, 2])
    assert not torch.allclose(found[:, 0], found[:, 1], rtol=1e-3)
    torch.manual_seed(99)
    assert torch.equal(curves(norm, [Lane(1, 1e-30)])[:, 0], found[:, 0])
    still = curves(nn.Identity, [Lane(1, 1e-30)])[:, 0]
    per_epoch = 4
    assert not torch.allclose(found[:, 0], still, rtol=1e-4)
    noise = (found[:, 0] - still).view(-1, per_epoch)
    assert len(torch.unique(noise)) == STEPS  # fresh numbers at every step


@pytest.mark.parametrize("norm", [Noisy, Dropping])
def test_lanes_of_one_network_on_one_example_differ_by_their_random_numbers(norm: Any) -> None:
    data = digits()
    examples = Examples(data.train_x[:1].double().repeat(16, 1, 1, 1), data.train_y[:1].repeat(16), batch=16)
    scheme, lanes = Scheme("odd", norm), [Lane(seed, 1e-30) for seed in (1, 2, 1)]
    losses = sweep(lambda _: build(scheme, 1), lanes, examples, STEPS, stacked=False).losses
    assert torch.equal(losses[:, 0], losses[:, 2])
    assert (losses[:, 0] != losses[:, 1]).all()


@ODD
def test_a_sweep_leaves_the_callers_random_stream_alone(norm: Any) -> None:
    state = torch.get_rng_state()
    curves(norm, [Lane(1, 0.1)])
    assert torch.equal(torch.get_rng_state(), state)
