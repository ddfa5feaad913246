"""Frozen parameters stay as they are, alone and in lanes; parameters with hooks are refused by name."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from calm import assert_calm
from torch import Tensor, nn

from bnsuite.datasets import digits
from bnsuite.engine.curvature import HessianOperator
from bnsuite.engine.lanes import Examples, Lane, sweep
from bnsuite.engine.moments import output_moments
from bnsuite.engine.stack import Stack, can_stack
from bnsuite.engine.train import Sgd, train
from bnsuite.networks import FAMILIES, UnsupportedError
from bnsuite.networks.recipe import build as recipe
from bnsuite.norms import BatchNorm
from bnsuite.schemes import Scheme
from bnsuite.submission.contract import contract

STEPS = 6
STACKED = pytest.mark.parametrize("stacked", [True, False], ids=["stacked", "lane by lane"])


def weight_alone(layer: nn.Module) -> nn.Module:
    layer.weight.requires_grad_(False)  # type: ignore[union-attr, operator]
    return layer


def bias_alone(layer: nn.Module) -> nn.Module:
    layer.bias.requires_grad_(False)  # type: ignore[union-attr, operator]
    return layer


def whole(layer: nn.Module) -> nn.Module:
    return layer.requires_grad_(False)


FREEZE = pytest.mark.parametrize("freeze", [weight_alone, bias_alone, whole])


def build(seed: int, freeze: Any = weight_alone) -> nn.Module:
    scheme = Scheme("frozen", BatchNorm, weight=freeze)
    size: dict[str, Any] = {"width": 6, "shape": digits().shape, "classes": 10}
    return FAMILIES["mlp"].build(scheme, 3, seed=seed, **size).double()


def examples() -> Examples:
    data = digits()
    return Examples(data.train_x[:64].double(), data.train_y[:64], batch=16)


def by_torch(network: nn.Module, lane: Lane, momentum: float) -> list[float]:
    """Losses before each step of torch's own optimizer, which leaves frozen parameters alone."""
    data, losses = examples(), []
    optimizer = torch.optim.SGD(network.parameters(), lr=lane.rate, momentum=momentum, nesterov=True)
    for chosen in data.order(lane.seed, STEPS):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(network(data.x[chosen]), data.y[chosen])
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


@STACKED
@FREEZE
def test_lanes_leave_frozen_parameters_as_they_are(freeze: Any, stacked: bool) -> None:
    lanes = [Lane(1, math.inf), Lane(2, 0.1), Lane(1, 0.1)]  # the first dies, and its row is dropped
    networks: dict[Lane, nn.Module] = {}
    logits: dict[Lane, Tensor] = {}

    def watch(step: int, stack: Stack, rows: list[Lane], losses: Tensor) -> list[int]:
        if step == STEPS:
            networks.update({lane: stack.network(i) for i, lane in enumerate(rows)})
            logits.update(zip(rows, stack.evaluate(examples().x), strict=True))
        return []

    sgd = Sgd(momentum=0.9)
    found = sweep(
        lambda seed: build(seed, freeze), lanes, examples(), STEPS, stacked=stacked, sgd=sgd, watch=watch
    )
    assert_calm(found.losses[:, 1:])
    for i, lane in enumerate(lanes[1:], 1):
        truth = build(lane.seed, freeze)
        assert found.losses[:, i].tolist() == pytest.approx(by_torch(truth, lane, 0.9), rel=1e-9)
        start = build(lane.seed, freeze)
        for (name, p), q, before in zip(
            networks[lane].named_parameters(), truth.parameters(), start.parameters(), strict=True
        ):
            assert torch.allclose(p, q, rtol=1e-7, atol=1e-9), name
            assert p.requires_grad == q.requires_grad
            assert torch.equal(p, before) is not p.requires_grad, name
        assert torch.allclose(logits[lane], truth.eval()(examples().x), rtol=1e-7, atol=1e-9)


@FREEZE
def test_the_single_loop_leaves_them_and_they_stack(freeze: Any) -> None:
    ours, theirs, data = build(1, freeze), build(1, freeze), examples()
    batches = [(data.x[row], data.y[row]) for row in data.order(1, STEPS)]
    expected = by_torch(theirs, Lane(1, 0.1), 0.9)
    assert train(ours, batches, 0.1, Sgd(momentum=0.9)).tolist() == pytest.approx(expected, rel=1e-9)
    for p, q, before in zip(
        ours.parameters(), theirs.parameters(), build(1, freeze).parameters(), strict=True
    ):
        assert torch.allclose(p, q, rtol=1e-7, atol=1e-9)
        assert p.requires_grad or torch.equal(p, before)
    assert can_stack(build(1, freeze), data.x[:32], data.y[:32])


@STACKED
@FREEZE
def test_the_hessian_is_that_of_the_trainable_parameters(freeze: Any, stacked: bool) -> None:
    data = examples()
    x, y = data.x[:32].view(2, 16, 1, 8, 8), data.y[:32].view(2, 16)
    frozen, free = build(1, freeze), build(1, lambda layer: layer)
    kept = torch.cat([torch.full((p.numel(),), p.requires_grad) for p in frozen.parameters()])
    part, full = (HessianOperator(each, x, y, stacked=stacked) for each in (frozen, free))
    assert part.size == int(kept.sum()) < full.size
    v = torch.randn(part.size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    wide = torch.zeros(full.size, dtype=torch.float64)
    wide[kept] = v
    assert torch.allclose(part.matvec(v), full.matvec(wide)[kept], rtol=1e-8, atol=1e-10)
    assert torch.allclose(part.gradient, full.gradient[kept], rtol=1e-8, atol=1e-10)
    means, all_means = (output_moments(each, x, stacked=stacked).means for each in (frozen, free))
    assert torch.allclose(means, all_means[:, kept], rtol=1e-8, atol=1e-10)


def hooked(layer: nn.Module) -> nn.Module:
    layer.weight.register_hook(lambda g: 0 * g)  # type: ignore[union-attr, operator]
    return layer


def hooked_after(layer: nn.Module) -> nn.Module:
    layer.bias.register_post_accumulate_grad_hook(lambda p: None)  # type: ignore[union-attr, operator]
    return layer


def all_frozen(network: nn.Module) -> None:
    network.requires_grad_(False)


REFUSED = pytest.mark.parametrize(
    ("scheme", "words"),
    [
        (Scheme("bad", weight=hooked), r"bad cannot be trained: parameter .*weight has a hook"),
        (Scheme("bad", weight=hooked_after), r"bad cannot be trained: parameter .*bias has a hook"),
        (Scheme("bad", init=all_frozen), r"bad cannot be trained: none of \d+ parameters is trainable"),
    ],
)


@REFUSED
def test_what_cannot_be_trained_is_refused_where_it_is_built(scheme: Scheme, words: str) -> None:
    shape = torch.Size((1, 16, 16))
    for family in FAMILIES.values():
        with pytest.raises(UnsupportedError, match=words):
            family.build(scheme, 2, width=4, shape=shape, classes=3, seed=0)
    with pytest.raises(UnsupportedError, match=words):
        recipe(scheme, 4, shape, 3, seed=0)


@REFUSED
def test_the_contract_says_the_same(scheme: Scheme, words: str) -> None:
    first = next(iter(contract(scheme)))
    assert (first.name, first.ok) == ("builds", False)
    assert words.split(": ")[1].split(" ")[0] in first.message


def test_a_frozen_scheme_keeps_the_contract() -> None:
    checks = list(contract(Scheme("frozen", weight=weight_alone)))
    assert not [check for check in checks if not check.ok]


ENGINE: list[Callable[[nn.Module, Tensor, Tensor], object]] = [
    lambda network, x, y: train(network, [(x, y)], 0.1),
    lambda network, x, y: sweep(lambda seed: network, [Lane(1, 0.1)], Examples(x, y, 8), 1),
    lambda network, x, y: HessianOperator(network, x[None], y[None]),
    lambda network, x, y: output_moments(network, x[None], stacked=False),
    lambda network, x, y: can_stack(network, x, y),
]


@pytest.mark.parametrize("call", ENGINE)
def test_the_engine_refuses_networks_of_ones_own(call: Any) -> None:
    x, y = torch.randn(8, 3), torch.arange(8) % 2
    network = nn.Linear(3, 2)
    handle = network.weight.register_hook(lambda g: 2 * g)  # type: ignore[no-untyped-call]
    with pytest.raises(ValueError, match="parameter weight has a hook"):
        call(network, x, y)
    handle.remove()
    call(network, x, y)
    with pytest.raises(ValueError, match="none of 2 parameters is trainable"):
        call(network.requires_grad_(False), x, y)


class Halving(nn.Linear):
    """A linear layer whose own hook halves the gradient of its input."""

    def __init__(self, n: int) -> None:
        super().__init__(n, n)
        self.register_full_backward_hook(lambda module, to_input, to_output: (to_input[0] / 2,))


def test_hooks_of_modules_act_in_lanes() -> None:
    def network(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 5), Halving(5), nn.Linear(5, 10)).double()

    data, lanes = examples(), [Lane(1, 0.1), Lane(2, 0.1)]
    found = sweep(network, lanes, data, STEPS).losses
    for i, lane in enumerate(lanes):
        batches = [(data.x[row], data.y[row]) for row in data.order(lane.seed, STEPS)]
        expected = []
        own = network(lane.seed)
        for x, y in batches:
            loss = nn.functional.cross_entropy(own(x), y)
            gradients = torch.autograd.grad(loss, list(own.parameters()))
            with torch.no_grad():
                for p, g in zip(own.parameters(), gradients, strict=True):
                    p -= lane.rate * g
            expected.append(float(loss.detach()))
        assert found[:, i].tolist() == pytest.approx(expected, rel=1e-9)
