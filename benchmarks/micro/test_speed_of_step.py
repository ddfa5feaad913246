"""One training step of one network and of stacked ones: MLP, width 64, 8 layers, batch 128."""

from collections.abc import Callable

import pytest
import torch
from torch.func import functional_call

from bnsuite.datasets import digits
from bnsuite.engine.stack import Stack
from bnsuite.engine.train import parameters_of, training_step
from bnsuite.networks import FAMILIES
from bnsuite.schemes import REFERENCES, SCHEMES

DEPTH, WIDTH, BATCH = 8, 64, 128
Benchmark = Callable[[Callable[[], object]], object]


@pytest.mark.parametrize("scheme", REFERENCES)
def test_single(benchmark: Benchmark, scheme: str) -> None:
    network, x, y = _setting(scheme)
    params, rate = parameters_of(network), torch.tensor(0.01)
    benchmark(
        lambda: training_step(
            lambda params, x: functional_call(network, params, (x,)), params, None, x, y, rate, 0.0
        )
    )


@pytest.mark.parametrize("lanes", [2, 18])
@pytest.mark.parametrize("scheme", REFERENCES)
def test_stacked(benchmark: Benchmark, scheme: str, lanes: int) -> None:
    network, x, y = _setting(scheme)
    stack = Stack([network] * lanes, range(lanes), stacked=True)
    xs, ys = x.expand(lanes, *x.shape).contiguous(), y.expand(lanes, -1).contiguous()
    rate = torch.full((lanes,), 0.01)
    benchmark(lambda: training_step(stack.forward, stack.params, None, xs, ys, rate, 0.0))


def _setting(scheme: str) -> tuple[torch.nn.Module, torch.Tensor, torch.Tensor]:
    data = digits()
    network = FAMILIES["mlp"].build(
        SCHEMES[scheme], DEPTH, width=WIDTH, shape=data.shape, classes=data.classes, seed=1
    )
    return network, data.train_x[:BATCH], data.train_y[:BATCH]
