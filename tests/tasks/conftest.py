"""Small made-up problem, and lanes with prescribed curves."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from bnsuite.datasets import Dataset, standardize
from bnsuite.engine.lanes import Curves, Lane
from bnsuite.networks import FAMILIES
from bnsuite.schemes import SCHEMES
from bnsuite.tasks import Subject, Task


def blobs(test_seed: int = 1) -> Dataset:
    """Draw four classes of 2×2 images, 64 to train and 32 to test, the test part from a seed of its own."""
    centres = 2 * torch.randn(4, 1, 2, 2, generator=torch.Generator().manual_seed(7))

    def part(n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        draw = torch.Generator().manual_seed(seed)
        y = torch.arange(n) % 4
        return centres[y] + torch.randn(n, 1, 2, 2, generator=draw), y

    return standardize("blobs", part(64, 0), part(32, test_seed))


@pytest.fixture
def make_subject() -> Callable[..., Subject]:
    def make(scheme: str = "none", test_seed: int = 1, **changes: Any) -> Subject:
        return Subject(SCHEMES[scheme], FAMILIES["mlp"], blobs(test_seed), **changes)

    return make


@pytest.fixture
def subject(make_subject: Callable[..., Subject]) -> Subject:
    return make_subject()


Fate = Callable[[int, Lane], tuple[float, float]]


@pytest.fixture
def lanes_that(monkeypatch: pytest.MonkeyPatch) -> Callable[[Fate], list[tuple[int, list[Lane], int]]]:
    """Replace training: lanes keep the (loss, accuracy) that `fate(depth, lane)` gives.

    A NaN loss starts halfway. Returns the list of requested sweeps: (depth, lanes, steps).
    """

    def install(fate: Fate) -> list[tuple[int, list[Lane], int]]:
        asked: list[tuple[int, list[Lane], int]] = []

        def sweep(
            self: Task, subject: Subject, depth: int, lanes: Sequence[Lane], steps: int, **more: object
        ) -> Curves:
            asked.append((depth, list(lanes), steps))
            losses, accuracies = torch.ones(2, steps, len(lanes), dtype=torch.float64)
            for i, lane in enumerate(lanes):
                loss, accuracy = fate(depth, lane)
                tail = slice(-math.ceil(steps / 10), None)
                losses[tail, i], accuracies[tail, i] = loss, accuracy
                if math.isnan(loss):
                    losses[steps // 2 :, i] = accuracies[steps // 2 :, i] = math.nan
            return Curves(losses, accuracies)

        monkeypatch.setattr(Task, "sweep", sweep)
        return asked

    return install
