"""Forward and backward pass of each normalizer alone."""

from collections.abc import Callable

import pytest
import torch

from bnsuite.norms import NORMS

SHAPES = {"NC": (128, 64), "NCHW": (32, 64, 8, 8)}
Benchmark = Callable[[Callable[[], object]], object]

pytestmark = [pytest.mark.parametrize("norm", NORMS), pytest.mark.parametrize("shape", SHAPES)]


def test_forward(benchmark: Benchmark, norm: str, shape: str) -> None:
    module, x = _setting(norm, shape)
    with torch.no_grad():
        benchmark(lambda: module(x))


def test_backward(benchmark: Benchmark, norm: str, shape: str) -> None:
    """Backward pass alone, through one graph that is kept."""
    module, x = _setting(norm, shape)
    x.requires_grad_()
    inputs = [x, *module.parameters()]
    out = module(x) * 1.0  # a graph also where the normalizer hands its input through
    cotangent = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
    benchmark(lambda: torch.autograd.grad(out, inputs, cotangent, retain_graph=True))


def _setting(norm: str, shape: str) -> tuple[torch.nn.Module, torch.Tensor]:
    if (norm, shape) == ("instance", "NC"):
        pytest.skip("needs positions")
    x = torch.randn(SHAPES[shape], generator=torch.Generator().manual_seed(0))
    return NORMS[norm](x.shape[1]), x
