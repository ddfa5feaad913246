"""Augmentation on the device: which images a training step sees, mirrored and shifted, in one gather."""

from typing import NamedTuple

import torch
from torch import Tensor

from bnsuite.engine.lanes import Examples


class Views(NamedTuple):
    """Images of a set as they are seen: a step's (N,), or those of all steps (steps, N)."""

    chosen: Tensor  # (…, N) rows of the set
    mirrored: Tensor  # (…, N) bool
    shifts: Tensor  # (…, N, 2) pixels down and to the right, less than a side


def alternating(examples: Examples, seed: int, steps: int, translation: int) -> Views:
    """The views of every step, on the device of the examples; order, sides and shifts are fixed by the seed.

    An image's side is drawn for its first epoch and changes with every epoch, so that any two epochs in a
    row show both (source: Jordan, arXiv 2404.00498). Shifts are uniform in ±`translation` pixels.
    """
    draw = torch.Generator().manual_seed(seed)
    n, device = len(examples.x), examples.x.device
    first = torch.randint(2, (n,), generator=draw, dtype=torch.bool).to(device)
    shape = (steps, examples.batch, 2)
    shifts = torch.randint(-translation, translation + 1, shape, generator=draw).to(device)
    chosen = examples.order(seed, steps)
    epochs = torch.arange(steps, device=device) // (n // examples.batch)
    return Views(chosen, first[chosen] ^ (epochs % 2 == 1)[:, None], shifts)


def render(images: Tensor, views: Views) -> Tensor:
    """The views (N, C, H, W) of images (M, C, H, W): mirrored, then shifted; the border reflects.

    Channels last in memory, and fastest where the images are too.
    """
    height, width = images.shape[-2:]
    down, right = views.shifts.unsqueeze(-1).unbind(-2)  # (N, 1) each
    rows = _reflected(torch.arange(height, device=images.device) - down, height)  # (N, H)
    columns = _reflected(torch.arange(width, device=images.device) - right, width)  # (N, W)
    columns = torch.where(views.mirrored.unsqueeze(-1), width - 1 - columns, columns)
    pixels = images.permute(0, 2, 3, 1)  # (M, H, W, C)
    seen = pixels[views.chosen[:, None, None], rows[:, :, None], columns[:, None, :]]
    return seen.permute(0, 3, 1, 2)


def _reflected(position: Tensor, size: int) -> Tensor:
    """Where a position beyond the border of 0 … size − 1 lies when it is folded back."""
    last = size - 1
    return last - (last - position.abs()).abs()
