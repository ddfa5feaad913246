"""The contract of every normalizer: shape kept, differentiable, built from `num_features`."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.func import functional_call

from bnsuite.norms import NORMS, EvoNormS0, GroupNorm

BUILD = NORMS | {"group": partial(GroupNorm, groups=2), "evonorm-s0": partial(EvoNormS0, groups=2)}
NORM = pytest.mark.parametrize("name", BUILD)
SHAPE = pytest.mark.parametrize("shape", [(6, 4), (3, 4, 2), (2, 4, 3, 2)], ids=str)


def some(shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=draw, dtype=torch.float64)


def built(name: str, shape: tuple[int, ...]) -> nn.Module:
    if name == "instance" and len(shape) == 2:
        pytest.skip("needs positions")
    return BUILD[name](shape[1])


@NORM
@SHAPE
def test_shape_and_dtype_are_kept(name: str, shape: tuple[int, ...]) -> None:
    y = built(name, shape).double()(some(shape))
    assert (y.shape, y.dtype) == (shape, torch.float64)


@NORM
@SHAPE
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_gradients(name: str, shape: tuple[int, ...], training: bool) -> None:
    module = built(name, shape).double().train(training)
    if name in ("batchrenorm", "power", "online") and training:
        pytest.skip("has a gradient of its own: see test_zoo")
    names = [name for name, _ in module.named_parameters()]
    parameters = [(1 + 0.1 * some(p.shape, 1)).requires_grad_() for p in module.parameters()]

    def call(x: torch.Tensor, *values: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = functional_call(module, dict(zip(names, values, strict=True)), x)
        return y

    assert torch.autograd.gradcheck(call, (some(shape).requires_grad_(), *parameters))
    assert torch.autograd.gradgradcheck(call, (some(shape).requires_grad_(), *parameters))


@NORM
def test_gains_are_1_and_shifts_0(name: str) -> None:
    parameters = dict(BUILD[name](4).named_parameters())
    assert {float(p.detach().sum()) for key, p in parameters.items() if "weight" in key} <= {4.0}
    assert {float(p.detach().abs().sum()) for key, p in parameters.items() if "bias" in key} <= {0.0}
