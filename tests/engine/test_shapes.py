"""What would be misread is refused: sizes, labels, dtypes; a loss of one's own; stacking is found out."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bnsuite.engine.curvature import HessianOperator, extreme_eigenvalues
from bnsuite.engine.lanes import Examples, Lane, Stack, can_stack, sweep
from bnsuite.engine.moments import output_moments
from bnsuite.engine.train import mean_cross_entropy, train

N, D, C = 32, 5, 3


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(D, 6), nn.Tanh(), nn.Linear(6, C)).double()


def data() -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(1)
    return torch.randn(N, D, generator=draw, dtype=torch.float64), torch.arange(N) % C


X, Y = data()
LANES = [Lane(1, 0.1), Lane(2, 0.1)]


def squares(logits: Tensor, y: Tensor) -> Tensor:
    """Mean over N of ‖f(x) − y‖² / 2, per lane: (R, N, C), (R, N, C) → (R,)."""
    return (logits - y).square().sum(-1).mean(-1) / 2


def hessian(x: Tensor = X[None], y: Tensor = Y[None], **more: Any) -> HessianOperator:
    return HessianOperator(network(), x, y, **more)


def trained(x: Tensor = X, y: Tensor = Y, batch: int = 8, lanes: list[Lane] = LANES, **more: Any) -> Tensor:
    return sweep(network, lanes, Examples(x, y, batch), more.pop("steps", 3), **more).losses


REFUSED: list[tuple[Callable[[], object], str]] = [
    (lambda: hessian(X, Y), "x is (M, N, …), M minibatches of N examples each: got (32, 5). Give a single"),
    (lambda: hessian(X[None], Y), "got x (1, 32, 5) and y (32,). Give a single minibatch as x[None]"),
    (lambda: hessian(X[:, None], Y[None]), "got x (32, 1, 5) and y (1, 32)"),
    (lambda: hessian(X.view(4, 8, D), Y[:-4].view(4, 7)), "got x (4, 8, 5) and y (4, 7)"),
    (lambda: hessian(y=X[None]), "y is (M, N), one label per example: got (1, 32, 5). Give class indices"),
    (lambda: hessian(y=Y[None].int()), "class indices as torch.int64: got torch.int32. Use y.long()"),
    (lambda: hessian(y=Y[None] - 100), "class indices from 0: got -100. Leave such examples out"),
    (lambda: hessian(X[None].float()), "x is torch.float32, the network torch.float64: convert one"),
    (lambda: hessian(X[None].to("meta")), "x is on meta, the network on cpu"),
    (
        lambda: hessian(stacked=True, loss=lambda f, y: mean_cross_entropy(f, y).mean()),
        "one number per minibatch, (1,): got ()",
    ),
    (lambda: output_moments(network(), X, stacked=False), "M minibatches of N examples each: got (32, 5)"),
    (lambda: output_moments(network(), X[None].float(), stacked=False), "x is torch.float32"),
    (lambda: Examples(X, Y[:-1], 8), "one row per example: got x (32, 5) and y (31,)"),
    (lambda: Examples(X, Y, 0), "a batch has at least 1 example: got 0"),
    (lambda: trained(y=Y.int()), "class indices as torch.int64: got torch.int32"),
    (lambda: trained(y=Y.double()), "class indices as torch.int64: got torch.float64"),
    (lambda: trained(y=-Y), "class indices from 0: got -2"),
    (lambda: trained(y=Y[:, None]), "one label per example: got (32, 1)"),
    (lambda: trained(X.float()), "x is torch.float32, the network torch.float64"),
    (lambda: trained(lanes=[]), "at least 1 lane and 1 step: got 0 lanes and 3 steps"),
    (lambda: trained(steps=0), "at least 1 lane and 1 step: got 2 lanes and 0 steps"),
    (lambda: trained(loss=lambda f, y: f.sum()), "one number per lane, (3,): got ()"),
    (lambda: can_stack(network(), X, Y[:-1]), "one row per example"),
    (lambda: can_stack(network(), X.float(), Y), "x is torch.float32"),
    (lambda: train(network(), [(X, Y[:-1])], 0.1), "one row per example: got x (32, 5) and y (31,)"),
    (lambda: train(network(), [(X, Y.double())], 0.1), "class indices as torch.int64: got torch.float64"),
    (lambda: train(network(), [(X.float(), Y)], 0.1), "x is torch.float32"),
    (lambda: train(network(), [], 0.1), "at least 1 batch: got none"),
    (lambda: Stack([network()] * 2, [1], stacked=True), "got 2 networks and 1 seeds"),
    (lambda: Stack([], [], stacked=False), "got 0 networks and 0 seeds"),
]


@pytest.mark.parametrize(("call", "words"), REFUSED)
def test_what_would_be_misread_is_refused(call: Callable[[], object], words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        call()


def test_minibatches_of_one_size_have_the_hessian_of_all_examples() -> None:
    """Without batch statistics the partition changes nothing."""
    whole, parts = (
        extreme_eigenvalues(operator, seed=0, tolerance=1e-8).top[0].value
        for operator in (hessian(), hessian(X.view(4, 8, D), Y.view(4, 8)))
    )
    assert parts == pytest.approx(whole, rel=1e-9)


@pytest.mark.parametrize("stacked", [None, True, False])
def test_a_loss_of_ones_own(stacked: bool | None) -> None:
    """Least squares of a linear map: H is the second moment of x in each output, whatever the targets."""
    linear = nn.Linear(D, C, bias=False).double()
    targets = torch.randn(4, 8, C, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    operator = HessianOperator(linear, X.view(4, 8, D), targets, stacked=stacked, loss=squares)
    truth = torch.linalg.eigvalsh(X.T @ X / N)[-1]
    assert extreme_eigenvalues(operator, seed=0).top[0].value == pytest.approx(float(truth), rel=1e-6)


@pytest.mark.parametrize("stacked", [None, True, False])
def test_a_sweep_with_a_loss_of_ones_own(stacked: bool | None) -> None:
    targets = torch.randn(N, C, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    examples = Examples(X, targets, 8)
    found = sweep(network, LANES, examples, 3, stacked=stacked, loss=squares)
    assert bool(found.accuracies.isnan().all())
    for i, lane in enumerate(LANES):
        own, expected = network(lane.seed), []
        optimizer = torch.optim.SGD(own.parameters(), lr=lane.rate)
        for chosen in examples.order(lane.seed, 3):
            optimizer.zero_grad()
            loss = (own(X[chosen]) - targets[chosen]).square().sum(-1).mean() / 2
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            expected.append(float(loss.detach()))
        assert found.losses[:, i].tolist() == pytest.approx(expected, rel=1e-12)


class Branching(nn.Module):
    """Branches on its data, which `vmap` refuses."""

    def forward(self, x: Tensor) -> Tensor:
        return x / 2 if x.detach().std().item() > 1 else x


@pytest.mark.parametrize(("middle", "stacks"), [(nn.Tanh, True), (Branching, False)])
def test_stacking_is_found_out(middle: Any, stacks: bool) -> None:
    def build(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(D, 6), middle(), nn.Linear(6, C)).double()

    def losses(stacked: bool | None) -> Tensor:
        return sweep(build, LANES, Examples(X, Y, 8), 3, stacked=stacked).losses

    assert can_stack(build(1), X, Y) is stacks
    assert torch.equal(losses(None), losses(stacks))
    v = torch.ones(6 * (D + 1) + C * 7, dtype=torch.float64)
    found, expected = (
        HessianOperator(build(1), X[None], Y[None], stacked=s).matvec(v) for s in (None, stacks)
    )
    assert torch.equal(found, expected)
