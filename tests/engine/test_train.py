"""The training step against torch.optim.SGD, in float64."""

import math

import pytest
import torch
import torch.nn.functional as F
from calm import assert_calm
from torch import Tensor, nn

from bnsuite.engine.train import (
    PLAIN,
    Sgd,
    accuracy,
    mean_cross_entropy,
    train,
)

STEPS, RATE = 12, 0.2


class Scalar(nn.Module):
    """A parameter without dimensions."""

    def __init__(self) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.tensor(0.5))

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.alpha * x)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    layers = [nn.Linear(5, 7), nn.BatchNorm1d(7), nn.Tanh(), Scalar(), nn.Linear(7, 3)]
    return nn.Sequential(*layers).double()


def batches() -> list[tuple[Tensor, Tensor]]:
    draw = torch.Generator().manual_seed(1)
    x = torch.randn(STEPS, 16, 5, generator=draw, dtype=torch.float64)
    return list(zip(x, torch.randint(3, (STEPS, 16), generator=draw), strict=True))


@pytest.mark.parametrize("warmup", [0, 5, 50])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_against_torch(momentum: float, warmup: int) -> None:
    ours, theirs = network(), network()
    losses = train(ours, batches(), RATE, Sgd(momentum, warmup))
    optimizer = torch.optim.SGD(theirs.parameters(), lr=RATE, momentum=momentum, nesterov=momentum > 0)
    expected = []
    for step, (x, y) in enumerate(batches()):
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1, (step + 1) / max(warmup, 1))
        optimizer.zero_grad()
        loss = F.cross_entropy(theirs(x), y)
        loss.backward()
        optimizer.step()
        expected.append(loss.item())
    assert_calm(losses)
    assert losses.tolist() == pytest.approx(expected, rel=1e-12)
    found = ours.state_dict()
    for name, value in theirs.state_dict().items():
        assert torch.allclose(found[name], value, rtol=1e-10, atol=1e-12), name
    assert found["1.num_batches_tracked"] == STEPS


def test_warm_up_is_linear_then_constant() -> None:
    assert [Sgd(warmup=4).factor(step) for step in range(6)] == [0.25, 0.5, 0.75, 1, 1, 1]
    assert [PLAIN.factor(step) for step in range(3)] == [1, 1, 1]


def test_cross_entropy_and_accuracy_are_a_lanes_own() -> None:
    draw = torch.Generator().manual_seed(2)
    logits = torch.randn(4, 6, 3, generator=draw, dtype=torch.float64)
    y = torch.randint(3, (4, 6), generator=draw)
    losses, right = mean_cross_entropy(logits, y), accuracy(logits, y)
    assert losses.shape == right.shape == (4,)
    for i in range(4):
        chances = logits[i].exp() / logits[i].exp().sum(-1, keepdim=True)
        picked = [chances[n, label].item() for n, label in enumerate(y[i].tolist())]
        assert losses[i].item() == pytest.approx(-sum(map(math.log, picked)) / 6)
        assert right[i].item() == sum(logits[i].argmax(-1) == y[i]).item() / 6
        assert mean_cross_entropy(logits[i], y[i]).item() == pytest.approx(losses[i].item())


@pytest.mark.parametrize(("right", "of", "share"), [(342, 360, 0.95), (7, 10, 0.7), (9, 10, 0.9)])
def test_a_share_is_the_number_that_is_written_so(right: int, of: int, share: float) -> None:
    """In float32, .95 is a little less than .95."""
    logits = torch.eye(2)[[0] * right + [1] * (of - right)]
    assert accuracy(logits, torch.zeros(of, dtype=torch.long)).item() == share
