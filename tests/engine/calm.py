"""Curves that may be compared to many digits: only those that do not grow."""

import torch
from torch import Tensor


def assert_calm(losses: Tensor) -> None:
    """Losses (steps,) or (steps, lanes) stay finite and below twice the first.

    A curve that explodes multiplies rounding, which differs between processors.
    """
    assert bool(torch.isfinite(losses).all())
    assert bool((losses <= 2 * losses[0]).all()), losses.max(0)
