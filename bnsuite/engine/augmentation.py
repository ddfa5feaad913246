"""Augmentation on the device: images of a training step, mirrored and shifted in one gather."""

from typing import NamedTuple

import torch
from torch import Tensor

from bnsuite.engine.lanes import Examples


class Views(NamedTuple):
    """Augmented views of images: those of one step (N,), or of all steps (steps, N)."""

    chosen: Tensor  # (…, N) indices of the images
    mirrored: Tensor  # (…, N) bool
    shifts: Tensor  # (…, N, 2) pixels down and to the right, each smaller than the image


def alternating(examples: Examples, seed: int, steps: int, translation: int) -> Views:
    """Draw the views of every step; order, mirroring and shifts follow from the seed.

    Whether an image is mirrored is drawn for its first epoch and alternates with every epoch, so that any two
    epochs in a row show both sides (source: Jordan, arXiv 2404.00498). Shifts are uniform in ±`translation`.

    Args:
        examples: the images; views are on their device.
        seed: seed of the random numbers.
        steps: number of steps.
        translation: largest shift, in pixels.
    """
    draw = torch.Generator().manual_seed(seed)
    n, device = len(examples.x), examples.x.device
    mirrored_first = torch.randint(2, (n,), generator=draw, dtype=torch.bool).to(device)
    shape = (steps, examples.batch, 2)
    shifts = torch.randint(-translation, translation + 1, shape, generator=draw).to(device)
    chosen = examples.order(seed, steps)
    epochs = torch.arange(steps, device=device) // (n // examples.batch)
    return Views(chosen, mirrored_first[chosen] ^ (epochs % 2 == 1)[:, None], shifts)


def augmented(images: Tensor, views: Views) -> Tensor:
    """Views (N, C, H, W) of images (M, C, H, W): mirrored, then shifted, with reflection at the border.

    The result has channels last in memory; fastest when the images have too.
    """
    height, width = images.shape[-2:]
    down, right = views.shifts.unsqueeze(-1).unbind(-2)  # (N, 1) each
    rows = _reflected(torch.arange(height, device=images.device) - down, height)  # (N, H)
    columns = _reflected(torch.arange(width, device=images.device) - right, width)  # (N, W)
    columns = torch.where(views.mirrored.unsqueeze(-1), width - 1 - columns, columns)
    pixels = images.permute(0, 2, 3, 1)  # (M, H, W, C)
    gathered = pixels[views.chosen[:, None, None], rows[:, :, None], columns[:, None, :]]
    return gathered.permute(0, 3, 1, 2)


def _reflected(position: Tensor, size: int) -> Tensor:
    """Fold positions beyond the border of 0 … size − 1 back inside."""
    last = size - 1
    return last - (last - position.abs()).abs()
