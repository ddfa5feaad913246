"""Layer norm against its formula and against torch's own: over C at each position of each sample."""

import pytest
import torch
from torch import Tensor, nn

from bnsuite.norms import LayerNorm

SHAPE = pytest.mark.parametrize("shape", [(8, 4), (8, 4, 5), (8, 4, 3, 2)], ids=str)


def some(shape: tuple[int, ...]) -> Tensor:
    return 3 + 2 * torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def module() -> LayerNorm:
    norm = LayerNorm(4).double()
    with torch.no_grad():
        norm.weight.copy_(torch.linspace(0.5, 2, 4))
        norm.bias.copy_(torch.linspace(-1, 1, 4))
    return norm


@SHAPE
def test_against_its_formula(shape: tuple[int, ...]) -> None:
    norm, x = module(), some(shape)
    each = [1, 4, *[1] * (len(shape) - 2)]
    mean, variance = x.mean(1, keepdim=True), x.var(1, keepdim=True, correction=0)
    expected = norm.weight.view(each) * (x - mean) / (variance + 1e-5).sqrt() + norm.bias.view(each)
    assert torch.allclose(norm(x), expected, rtol=1e-12)
    assert torch.allclose(norm.eval()(x), expected, rtol=1e-12)


@SHAPE
def test_against_torch_position_by_position(shape: tuple[int, ...]) -> None:
    norm, x = module(), some(shape)
    theirs = nn.LayerNorm(4).double()
    theirs.load_state_dict(norm.state_dict())
    y = norm(x).flatten(2) if len(shape) > 2 else norm(x).unsqueeze(2)
    flat = x.flatten(2) if len(shape) > 2 else x.unsqueeze(2)
    for position in range(flat.shape[2]):
        assert torch.allclose(y[..., position], theirs(flat[..., position]), rtol=1e-12)


def test_samples_do_not_see_one_another() -> None:
    norm, x = module(), some((8, 4, 3, 2))
    assert torch.allclose(norm(x)[:1], norm(x[:1]), rtol=1e-12)
