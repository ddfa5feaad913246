"""Memory: how many lanes train together, and what happens when they do not fit."""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch

T = TypeVar("T")
Result = TypeVar("Result")

CPU_LANES = 32
"""Lanes that train together on a CPU, so that they fit its caches."""

MAX_CUDA_LANES = 128
"""Upper limit on a GPU: larger stacks are no faster, and tensors stay below 2^31 elements."""

MARGIN = 0.2
"""Share of a GPU's free memory kept for what one training step does not show, such as evaluation."""


def lanes_that_fit(train_one: Callable[[], object], device: torch.device) -> int:
    """Count the lanes that train together; on a GPU from its free memory and the peak of training one.

    Args:
        train_one: trains a single lane; called on a GPU only.
        device: where the lanes train.
    """
    if device.type != "cuda":
        return CPU_LANES
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    train_one()
    bytes_per_lane = torch.cuda.max_memory_allocated(device) - before
    cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    free = torch.cuda.mem_get_info(device)[0] + cached
    return max(1, min(MAX_CUDA_LANES, int((1 - MARGIN) * free / bytes_per_lane)))


def in_halves(train: Callable[[Sequence[T]], Result], lanes: Sequence[T]) -> Iterator[Result]:
    """Train all lanes together; where memory runs out, train their halves one after the other.

    Args:
        train: trains the lanes that it gets, together.
        lanes: at least one.

    Yields:
        What `train` returns for each part, in the order of the lanes.

    Raises:
        torch.OutOfMemoryError: a single lane does not fit.
    """
    try:
        result = train(lanes)
    except torch.OutOfMemoryError:
        if len(lanes) == 1:
            raise
    else:
        yield result
        return
    # Outside the handler: only now the error is gone, and with it the tensors that its frames held.
    middle = len(lanes) // 2
    for half in (lanes[:middle], lanes[middle:]):
        yield from in_halves(train, half)
