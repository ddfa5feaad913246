"""The digits: split sizes, strata, standardization, checksum."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from bnsuite.datasets import DATASETS, digits, find, in_file, standardize

CHECKSUM = "3069f954820a42df38764c182a75c077932a02aac14f954f70bfc1d810df41cc"
"""Of the digits as they were when the first records were measured: a change here changes every key."""


def test_split_sizes() -> None:
    data = digits()
    assert data.train_x.shape == (1437, 1, 8, 8)
    assert data.test_x.shape == (360, 1, 8, 8)
    assert data.train_y.shape == (1437,)
    assert data.test_y.shape == (360,)
    assert (data.shape, data.classes) == (torch.Size([1, 8, 8]), 10)
    assert (data.train_x.dtype, data.train_y.dtype) == (torch.float32, torch.int64)


def test_stratified() -> None:
    data = digits()
    total = np.bincount(load_digits().target) / 1797
    for labels in (data.train_y, data.test_y):
        share = torch.bincount(labels, minlength=10) / len(labels)
        assert np.allclose(share, total, atol=1.5 / len(labels))


def test_standardized_by_the_training_part_alone() -> None:
    data = digits()
    train = data.train_x.double()
    assert abs(float(train.mean())) < 1e-6
    assert float(train.std(correction=0)) == pytest.approx(1, abs=1e-6)
    test = data.test_x.double()
    assert abs(float(test.mean())) > 1e-4
    assert abs(float(test.std(correction=0)) - 1) > 1e-4


def test_train_and_test_are_the_real_images_each_once() -> None:
    data = digits()
    images = load_digits().data
    together = torch.cat([data.train_x, data.test_x]).flatten(1).double()
    raw = torch.as_tensor(images)
    mean, deviation = -float(together.min()), 0.0
    levels = torch.unique(together.round(decimals=4))
    assert len(levels) == len(torch.unique(raw)) == 17
    deviation = 16 / float(levels[-1] - levels[0])
    back = ((together + mean) * deviation).round()
    assert sorted(map(tuple, back.tolist())) == sorted(map(tuple, raw.tolist()))


def test_one_mean_and_deviation_a_channel() -> None:
    generator = torch.Generator().manual_seed(0)
    scale = torch.tensor([1.0, 10.0]).view(1, 2, 1, 1)
    x = torch.randn(50, 2, 3, 3, generator=generator) * scale + scale
    y = torch.arange(50) % 5
    data = standardize("made", (x[:40], y[:40]), (x[40:], y[40:]))
    assert torch.allclose(data.train_x.mean((0, 2, 3)), torch.zeros(2), atol=1e-5)
    assert torch.allclose(data.train_x.std((0, 2, 3), correction=0), torch.ones(2), atol=1e-5)
    mean, deviation = x[:40].mean((0, 2, 3)), x[:40].std((0, 2, 3), correction=0)
    expected = (x[40:] - mean.view(1, 2, 1, 1)) / deviation.view(1, 2, 1, 1)
    assert torch.allclose(data.test_x, expected, atol=1e-5)
    assert data.classes == 5


def test_checksum_is_stable() -> None:
    assert digits().checksum == digits.__wrapped__().checksum == CHECKSUM


@pytest.mark.parametrize("part", ["train_x", "train_y", "test_x", "test_y"])
def test_checksum_sees_every_tensor(part: str) -> None:
    data = digits()
    changed = getattr(data, part).clone()
    changed.view(-1)[0] += 1
    assert dataclasses.replace(data, **{part: changed}).checksum != data.checksum


def test_checksum_forgives_rounding() -> None:
    data = digits()
    moved = dataclasses.replace(data, train_x=data.train_x.double() + 1e-12)
    assert moved.checksum == data.checksum


def test_to_a_device_changes_nothing_else() -> None:
    data = digits()
    moved = data.to("cpu")
    assert moved.checksum == data.checksum
    assert (moved.name, moved.classes) == (data.name, data.classes)


def test_every_data_set_says_what_it_is() -> None:
    assert all(known.about.endswith(".") for known in DATASETS.values())
    assert DATASETS["digits"].classes == digits().classes
    assert DATASETS["digits"].find().load() is digits()


def test_the_digits_in_a_file_are_the_digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BNSUITE_CACHE", str(tmp_path))
    stored = in_file(find("digits"))
    assert stored.file is not None
    assert in_file(stored) is stored
    loaded, built = stored.load(), digits()
    for part in ("train_x", "train_y", "test_x", "test_y"):
        assert torch.equal(getattr(loaded, part), getattr(built, part))
