"""Lanes by memory: as many together as a GPU holds, fewer where it does not, the same curves."""

import math
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import pytest
import torch
from calm import assert_calm
from torch import Tensor, nn

from bnsuite.datasets import digits
from bnsuite.engine import lanes, memory
from bnsuite.engine.lanes import Curves, Examples, Lane, sweep
from bnsuite.engine.stack import Stack
from bnsuite.engine.train import Parameters, Sgd
from bnsuite.networks import FAMILIES
from bnsuite.schemes import SCHEMES
from bnsuite.tasks import Subject, Task
from bnsuite.tasks.smoothness import Smoothness
from bnsuite.tasks.time_to_accuracy import TimeToAccuracy

GIB = 2**30
CUDA = torch.device("cuda")
LANES = [Lane(seed, rate) for rate in (0.1, math.inf) for seed in (1, 2, 3)]
SEEDS: dict[str, Any] = {"width": 8, "batch": 64, "tuning": (1, 2), "confirmation": (101, 102, 103)}


class Gpu:
    """torch.cuda's memory, of which every lane takes `each`."""

    total, reserved, allocated, peak = 100 * GIB, 10 * GIB, 4 * GIB, 60 * GIB

    def __init__(self, each: float) -> None:
        self.each = int(each)

    def reset_peak_memory_stats(self, device: torch.device) -> None:
        self.peak = self.allocated

    def train_one(self) -> None:
        self.peak = max(self.peak, self.allocated + self.each)

    def memory_allocated(self, device: torch.device) -> int:
        return self.allocated

    def max_memory_allocated(self, device: torch.device) -> int:
        return self.peak

    def memory_reserved(self, device: torch.device) -> int:
        return self.reserved

    def mem_get_info(self, device: torch.device) -> tuple[int, int]:
        return self.total - self.reserved, self.total


@pytest.mark.parametrize(
    ("each", "together"),
    [(GIB, 76), (4 * GIB, 19), (0.1 * GIB, memory.MAX_CUDA_LANES), (200 * GIB, 1)],  # of 0.8 · (90 + 6) GiB
)
def test_a_gpu_takes_what_its_memory_holds(
    each: float, together: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = Gpu(each)
    monkeypatch.setattr(memory.torch, "cuda", gpu)
    assert memory.lanes_that_fit(gpu.train_one, CUDA) == together


def test_a_cpu_is_not_asked() -> None:
    assert memory.lanes_that_fit(pytest.fail, torch.device("cpu")) == memory.CPU_LANES


def test_a_single_lane_is_not_tried_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "lanes_that_fit", pytest.fail)
    data = digits()
    examples = Examples(data.train_x[:64], data.train_y[:64], batch=16)
    shape: dict[str, Any] = {"width": 6, "shape": data.shape, "classes": 10}
    sweep(
        lambda seed: FAMILIES["mlp"].build(SCHEMES["none"], 2, seed=seed, **shape),
        LANES[:1],
        examples,
        2,
        stacked=True,
    )


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_real_gpu_takes_more_small_lanes_than_large_ones() -> None:
    def take(mib: int) -> Callable[[], object]:
        return lambda: torch.empty(mib * 2**20, dtype=torch.uint8, device="cuda")

    small, large = (memory.lanes_that_fit(take(mib), CUDA) for mib in (1, 1024))
    assert large <= small == memory.MAX_CUDA_LANES


def fills_up(monkeypatch: pytest.MonkeyPatch, at_call: int, most: int = 2) -> list[int]:
    """From its call `at_call` on, a stack of more than `most` lanes lacks memory; the sizes that did."""
    lacked: list[int] = []
    calls: dict[Stack, int] = defaultdict(int)
    whole = Stack.forward

    def forward(self: Stack, params: Parameters, x: Tensor) -> Tensor:
        calls[self] += 1
        if len(x) > most and calls[self] >= at_call:
            lacked.append(len(x))
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(self, params, x)

    monkeypatch.setattr(Stack, "forward", forward)
    return lacked


@pytest.mark.parametrize("stacked", [True, False], ids=["stacked", "lane by lane"])
def test_where_memory_runs_out_halves_give_the_same_curves(
    stacked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = digits()
    examples = Examples(data.train_x[:64].double(), data.train_y[:64], batch=16)

    def build(seed: int) -> nn.Module:
        size: dict[str, Any] = {"width": 6, "shape": data.shape, "classes": 10}
        return FAMILIES["mlp"].build(SCHEMES["batchnorm"], 2, seed=seed, **size).double()

    def curves() -> Curves:
        return sweep(build, LANES, examples, 10, stacked=stacked, sgd=Sgd(momentum=0.9))

    whole = curves()
    lacked = fills_up(monkeypatch, at_call=2)
    parts = curves()
    assert lacked[:2] == [6, 3], "the first call went well, and with it the running statistics moved on"
    assert torch.allclose(parts.losses, whole.losses, rtol=1e-9, equal_nan=True)
    assert torch.allclose(parts.accuracies, whole.accuracies, equal_nan=True)
    assert_calm(whole.losses[:, :3])

    fills_up(monkeypatch, at_call=1, most=0)
    with pytest.raises(torch.OutOfMemoryError):
        curves()


@pytest.mark.parametrize(
    "task",
    [
        TimeToAccuracy(**SEEDS, rates=(0.1, 0.3), target=0.8, steps=12, every=2, depth=1),
        Smoothness(**SEEDS, depth=1, steps=9, beside=0),
    ],
    ids=lambda task: task.spec.name,
)
def test_a_task_that_starts_again_keeps_nothing_twice(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = Subject(SCHEMES["batchnorm"], FAMILIES["mlp"], digits())
    whole = task(subject)
    lacked = fills_up(monkeypatch, at_call=9)
    again = task(subject)
    assert lacked
    assert [sample.outcome for sample in again.samples] == [sample.outcome for sample in whole.samples]
    assert len(again.trace) == len(whole.trace)
    for new, old in zip(again.trace, whole.trace, strict=True):
        assert new.keys() == old.keys()
        assert new.get("step") == old.get("step")
        assert new.get("accuracy") == pytest.approx(old.get("accuracy"), abs=0.01)
