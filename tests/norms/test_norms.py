"""The contract of every normalizer: shape kept, differentiable, built from `num_features`."""

import pytest
import torch
from torch import nn
from torch.func import functional_call

from bnsuite.norms import NORMS

NORM = pytest.mark.parametrize("norm", NORMS.values(), ids=NORMS)
SHAPE = pytest.mark.parametrize("shape", [(6, 4), (3, 4, 2), (2, 4, 3, 2)], ids=str)


def some(shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=draw, dtype=torch.float64)


@NORM
@SHAPE
def test_shape_and_dtype_are_kept(norm: type[nn.Module], shape: tuple[int, ...]) -> None:
    y = norm(4).double()(some(shape))
    assert (y.shape, y.dtype) == (shape, torch.float64)


@NORM
@SHAPE
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_gradients(norm: type[nn.Module], shape: tuple[int, ...], training: bool) -> None:
    module = norm(4).double().train(training)
    names = [name for name, _ in module.named_parameters()]
    parameters = [(1 + 0.1 * some(p.shape, 1)).requires_grad_() for p in module.parameters()]

    def call(x: torch.Tensor, *values: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = functional_call(module, dict(zip(names, values, strict=True)), x)
        return y

    assert torch.autograd.gradcheck(call, (some(shape).requires_grad_(), *parameters))
    assert torch.autograd.gradgradcheck(call, (some(shape).requires_grad_(), *parameters))


@NORM
def test_gains_are_1_and_shifts_0(norm: type[nn.Module]) -> None:
    assert {float(p.detach().sum()) for name, p in norm(4).named_parameters() if "weight" in name} <= {4.0}
    assert {float(p.detach().abs().sum()) for name, p in norm(4).named_parameters() if "bias" in name} <= {
        0.0
    }
