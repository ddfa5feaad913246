"""Views of images: mirrored and shifted exactly as said, drawn by the seed, sides that alternate."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bnsuite.engine.augmentation import Views, alternating, augmented
from bnsuite.engine.lanes import Examples

IMAGES = torch.arange(3 * 2 * 5 * 6).view(3, 2, 5, 6)


def by_hand(image: Tensor, mirrored: bool, down: int, right: int) -> Tensor:
    """One image (C, H, W), mirrored, padded by reflection, and cut out again."""
    height, width = image.shape[1:]
    image = image.flip(-1) if mirrored else image
    padded = F.pad(image.double()[None], (3, 3, 3, 3), mode="reflect")[0]
    return padded[:, 3 - down :, 3 - right :][:, :height, :width]


def test_a_view_is_mirrored_then_shifted_and_reflects_at_the_border() -> None:
    moves = [(row, side, down, right) for row in (2, 0) for side in (0, 1) for down, right in SHIFTS]
    rows, sides, down, right = torch.tensor(moves).unbind(1)
    seen = augmented(IMAGES, Views(rows, sides.bool(), torch.stack([down, right], 1)))
    expected = [by_hand(IMAGES[row], bool(side), down, right) for row, side, down, right in moves]
    assert torch.equal(seen.double(), torch.stack(expected))
    assert seen.dtype == IMAGES.dtype
    assert seen.is_contiguous(memory_format=torch.channels_last)


SHIFTS = [(0, 0), (1, 0), (0, 2), (-3, 3), (2, -1)]


def test_down_and_right_are_down_and_right() -> None:
    one = Views(torch.tensor([0]), torch.tensor([False]), torch.tensor([[1, 2]]))
    assert torch.equal(augmented(IMAGES, one)[0, :, 1:, 2:], IMAGES[0, :, :-1, :-2])


@pytest.fixture
def views() -> Views:
    """Three epochs of seven images, three a step, and one step of a fourth."""
    return alternating(Examples(torch.zeros(7, 1, 4, 4), torch.zeros(7), 3), seed=5, steps=7, translation=2)


def test_the_seed_fixes_order_sides_and_shifts(views: Views) -> None:
    examples = Examples(torch.zeros(7, 1, 4, 4), torch.zeros(7), 3)
    again, other = (alternating(examples, seed, 7, 2) for seed in (5, 6))
    assert all(torch.equal(a, b) for a, b in zip(views, again, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(views, other, strict=True))
    assert torch.equal(views.chosen, examples.order(5, 7))


def test_an_image_changes_sides_with_every_epoch(views: Views) -> None:
    sides: dict[int, list[tuple[int, bool]]] = {}
    for step in range(7):
        for image, side in zip(views.chosen[step].tolist(), views.mirrored[step].tolist(), strict=True):
            sides.setdefault(image, []).append((step // 2, side))
    for seen in sides.values():
        (first, side), *rest = seen
        assert all((later != side) == bool((epoch - first) % 2) for epoch, later in rest)
    assert len({side for seen in sides.values() for epoch, side in seen if epoch == 0}) == 2


def test_shifts_reach_the_translation_and_no_further(views: Views) -> None:
    assert views.shifts.shape == (7, 3, 2)
    assert set(views.shifts.flatten().tolist()) == {-2, -1, 0, 1, 2}
    still = alternating(Examples(torch.zeros(7, 1, 4, 4), torch.zeros(7), 3), 5, 7, 0)
    assert not still.shifts.any()


def test_everything_lies_on_the_device_of_the_images() -> None:
    """Shown on a device without data, which refuses tensors of another."""
    images, labels = torch.zeros(7, 1, 4, 4, device="meta"), torch.zeros(7, device="meta")
    views = alternating(Examples(images, labels, 3), seed=5, steps=7, translation=2)
    one_step = Views(*(drawn[0] for drawn in views))
    assert {tensor.device for tensor in (*views, augmented(images, one_step))} == {images.device}
