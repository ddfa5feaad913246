"""Batch norm against its formula and against torch's own."""

import pytest
import torch
from torch import Tensor, nn

from bnsuite.norms import BatchNorm

RIVALS = [((8, 4), nn.BatchNorm1d), ((8, 4, 5), nn.BatchNorm1d), ((8, 4, 3, 2), nn.BatchNorm2d)]


def some(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    return 3 + 2 * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def pair(rival: type[nn.Module]) -> tuple[nn.Module, nn.Module]:
    ours, theirs = BatchNorm(4).double(), rival(4).double()
    with torch.no_grad():
        for module in (ours, theirs):
            module.weight.copy_(torch.linspace(0.5, 2, 4))
            module.bias.copy_(torch.linspace(-1, 1, 4))
    return ours, theirs


@pytest.mark.parametrize(("shape", "rival"), RIVALS, ids=str)
def test_against_torch_in_training_and_evaluation(shape: tuple[int, ...], rival: type[nn.Module]) -> None:
    ours, theirs = pair(rival)
    for seed in range(3):
        x, x2 = some(shape, seed).requires_grad_(), some(shape, seed).requires_grad_()
        y, y2 = ours(x), theirs(x2)
        assert torch.allclose(y, y2, rtol=1e-12, atol=1e-12)
        y.square().sum().backward()
        y2.square().sum().backward()
        assert x.grad is not None
        assert x2.grad is not None
        assert torch.allclose(x.grad, x2.grad, rtol=1e-10, atol=1e-12)
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    for name, value in theirs.state_dict().items():
        assert torch.allclose(ours.state_dict()[name], value, rtol=1e-12), name
    assert torch.allclose(ours.eval()(some(shape, 9)), theirs.eval()(some(shape, 9)), rtol=1e-12)


@pytest.mark.parametrize(("shape", "rival"), RIVALS, ids=str)
def test_against_its_formula(shape: tuple[int, ...], rival: type[nn.Module]) -> None:
    ours, x = pair(rival)[0], some(shape)
    by_channel = x.movedim(1, 0).flatten(1)  # (C, N·S)
    mean, variance = by_channel.mean(1), by_channel.var(1, correction=0)
    each = [1, 4, *[1] * (len(shape) - 2)]
    gain, shift = ours.weight.view(each), ours.bias.view(each)
    expected = gain * (x - mean.view(each)) / (variance.view(each) + 1e-5).sqrt() + shift
    assert torch.allclose(ours(x), expected, rtol=1e-12)
    unbiased = by_channel.var(1)
    assert torch.allclose(ours.running_mean, 0.1 * mean)
    assert torch.allclose(ours.running_var, 0.9 + 0.1 * unbiased)


def test_one_dimension_is_refused() -> None:
    with pytest.raises(ValueError, match=r"BatchNorm needs \(N, C, \*S\): got 1 dimension"):
        BatchNorm(4)(torch.zeros(4))
