"""Data by path: each kind gives the very pixels, decoded once; what is cached is checked."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from small_sets import KINDS, as_folders, as_npz, as_parquet, encoded, images, labels, rows, table

from bnsuite import datasets
from bnsuite.datasets import DataError, files, find, tensor_cache
from bnsuite.datasets.files import find_files
from bnsuite.datasets.images import ImageRow, Part, decode


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_gives_the_very_pixels(tmp_path: Path, kind: str, channels: int) -> None:
    data = find(KINDS[kind](tmp_path / "Mine", channels)).load()
    assert (data.name, data.classes, data.shape) == ("mine", 3, torch.Size([channels, 4, 5]))
    train, test = (
        torch.from_numpy(images(n, seed, channels)).reshape(n, 4, 5, channels).movedim(-1, 1).double()
        for n, seed in ((12, 0), (6, 1))
    )
    deviation, mean = torch.std_mean(train, dim=(0, 2, 3), keepdim=True, correction=0)
    for x, y, raw in ((data.train_x, data.train_y, train), (data.test_x, data.test_y, test)):
        order = torch.argsort(torch.from_numpy(labels(len(raw))), stable=True)
        order = order if kind == "folders" else torch.arange(len(raw))
        assert torch.equal(y, torch.from_numpy(labels(len(raw)))[order])
        assert torch.allclose(x.double(), ((raw - mean) / deviation)[order], atol=1e-6)


def test_the_checksum_of_a_plan_is_that_of_the_tensors(tmp_path: Path) -> None:
    source = find(as_parquet(tmp_path / "mine"))
    assert source.checksum == source.load().checksum
    assert source.checksum == find(as_npz(tmp_path / "other")).checksum


def test_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = as_parquet(tmp_path / "mine")
    first = find(path)
    monkeypatch.setattr(files, "decode", None)
    assert find(path) == first
    moved = shutil.copytree(path, tmp_path / "elsewhere")
    again = find(moved)
    assert (again.name, again.file, again.checksum) == ("elsewhere", first.file, first.checksum)
    pq.write_table(table(rows(12, 5)), moved / "train.parquet")
    with pytest.raises(TypeError, match="not callable"):
        find(moved)


def test_shards_are_read_in_their_order_and_below_data(tmp_path: Path) -> None:
    whole, place = find(as_parquet(tmp_path / "whole")), tmp_path / "shards" / "data"
    place.mkdir(parents=True)
    for i, part in enumerate((rows(12, 0)[:5], rows(12, 0)[5:])):
        pq.write_table(table(part), place / f"train-{i:05}-of-00002.parquet")
    shutil.copy(tmp_path / "whole" / "test.parquet", place / "validation.parquet")
    assert find(place.parent).checksum == whole.checksum
    (place / "train-00000-of-00002.parquet").unlink()
    with pytest.raises(
        DataError, match="holds 1 Parquet files of the part train, and by their names it has 2"
    ):
        find(place.parent)


def test_test_comes_before_validation(tmp_path: Path) -> None:
    path = as_parquet(tmp_path / "mine")
    (path / "validation.parquet").write_bytes(b"not looked at")
    assert [one.name for one in find_files(path).test] == ["test.parquet"]


def test_floating_images_and_other_names(tmp_path: Path) -> None:
    scaled = {"x_train": images(12, 0) / 255, "x_test": images(6, 1).astype(np.float32) / 255}
    data = find(as_npz(tmp_path / "floats", **scaled, y_train=labels(12)[:, None])).load()
    plain = find(as_npz(tmp_path / "plain")).load()
    assert torch.allclose(data.train_x, plain.train_x, atol=1e-5)
    renamed = dict.fromkeys(("x_train", "y_train", "x_test", "y_test"))
    more = {"train_x": images(12, 0), "train_y": labels(12), "test_x": images(6, 1), "test_y": labels(6)}
    assert find(as_npz(tmp_path / "turned", **renamed, **more)).checksum == plain.checksum


@pytest.mark.parametrize(
    ("folder", "name"),
    [("My Set (2)", "my-set-2"), ("_x+y", "_x-y"), ("Ünder.v1", "ünder.v1"), ("a" * 99, "a" * 80)],
)
def test_the_name_is_made_to_fit(tmp_path: Path, folder: str, name: str) -> None:
    assert datasets.name_of(tmp_path / folder) == name


def test_the_name_of_another_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"'cifar10' is the name of a built-in data set.* such as cifar10-mine"
    ):
        find(as_parquet(tmp_path / "CIFAR10"))
    with pytest.raises(DataError, match="gives no name"):
        find(tmp_path / "(…)")


def test_where_the_cache_lies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("BNSUITE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert tensor_cache.folder() == tmp_path / "bnsuite" / "datasets"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert tensor_cache.folder() == tmp_path / "home" / ".cache" / "bnsuite" / "datasets"


def test_cached_tensors_that_were_changed_are_refused(tmp_path: Path) -> None:
    path = as_parquet(tmp_path / "mine")
    source = find(path)
    assert source.file is not None
    held = bytearray(source.file.read_bytes())
    held[300] ^= 1
    source.file.write_bytes(held)
    with pytest.raises(
        DataError, match=r"tensors of mine are not what was written\. Remove the file, and run"
    ):
        source.load()
    source.file.write_bytes(held[:-1])  # not all of it: written anew
    assert find(path).load().checksum == source.checksum
    source.file.unlink()
    with pytest.raises(DataError, match="cannot be read"):
        datasets.Source(source.name, "", source.file).load()
    assert find(path) == source


def test_what_is_cached_is_written_whole(
    tmp_path: Path, cached: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = as_parquet(tmp_path / "mine")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", _full)
        with pytest.raises(DataError, match=r"cannot write the cache.*BNSUITE_CACHE"):
            find(path)
    assert [*cached.iterdir()] == []
    find(path)
    first = {one.name: one.read_bytes() for one in cached.iterdir()}
    shutil.rmtree(cached)
    find(path)
    assert {one.name: one.read_bytes() for one in cached.iterdir()} == first
    (known,) = cached.glob("*.json")
    known.write_text(json.dumps({**json.loads(known.read_text()), "version": 0}))
    assert find(path).file is not None


def _full(handle: int) -> None:
    raise OSError(28, "No space left on device")


def test_each_image_ticks_the_bar(tmp_path: Path) -> None:
    ticks: list[int] = []

    def begin(count: int) -> Callable[[], None]:
        assert count == 18
        return lambda: ticks.append(1)

    find_files(as_folders(tmp_path / "mine")).read(begin)
    assert len(ticks) == 18


def test_jpegs_decode_near_what_they_show() -> None:
    smooth = np.linspace(0, 255, 16 * 16).reshape(16, 16).astype(np.uint8)
    part = Part(1, lambda: iter([ImageRow("one", encoded(smooth, "JPEG"), 0)]))
    found = decode([part, part])
    assert np.abs(found.train_x[0, 0].astype(int) - smooth).max() <= 8


def test_real_jpegs() -> None:
    place = os.environ.get("BNSUITE_TEST_DATA")
    if not place:
        pytest.skip("BNSUITE_TEST_DATA does not name a folder with cifar10-jpeg/test.parquet")
    path = Path(place, "cifar10-jpeg", "test.parquet")
    part = files._parquet((path,))
    assert part.count == 10_000
    first = Part(400, lambda: (row for row, _ in zip(part.rows(), range(400), strict=False)))
    found = decode([first, first])
    assert found.train_x.shape == (400, 3, 32, 32)
    assert found.classes == 10
    assert 100 < found.train_x.mean() < 140  # of photographs
    neighbours = np.corrcoef(found.train_x[..., 1:].ravel(), found.train_x[..., :-1].ravel())[0, 1]
    assert neighbours > 0.9
