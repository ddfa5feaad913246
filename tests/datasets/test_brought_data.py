"""Data as people bring them: what is accepted, and with which words what is not."""

import math
import os
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from small_sets import CLASSES, as_folders, as_npz, as_parquet, encoded, images, labels

from bnsuite.datasets import DataError, find, npz, tensor_cache
from bnsuite.datasets import images as decoding
from bnsuite.datasets.files import find_files

NONE = dict.fromkeys(("x_train", "y_train", "x_test", "y_test"))


def gray(n: int, seed: int) -> NDArray[np.uint8]:
    return images(n, seed, 1)


def as_files(
    place: Path, convert: Callable[[NDArray[np.uint8], int], Image.Image], suffix: str, test: str = "test"
) -> Path:
    """Folders of gray images that were converted, each by its number."""
    for part, n, seed in (("train", 12, 0), (test, 6, 1)):
        for i, (image, label) in enumerate(zip(gray(n, seed), labels(n), strict=True)):
            path = place / part / f"class-{label}" / f"{i:02}{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            convert(image, i).save(path)
    return place


def plain(image: NDArray[np.uint8], i: int) -> Image.Image:
    return Image.fromarray(image)


def test_medmnist_is_read_and_its_val_part_is_left_alone(tmp_path: Path) -> None:
    parts = {"train": (12, 0), "val": (6, 2), "test": (6, 1)}
    held: dict[str, Any] = {f"{part}_images": gray(*size) for part, size in parts.items()}
    held |= {f"{part}_labels": labels(n)[:, None].astype(np.uint8) for part, (n, _) in parts.items()}
    source = find(as_npz(tmp_path / "medmnist", **NONE, **held))
    assert source.left == ("val",)
    assert source.checksum == find(as_npz(tmp_path / "plain", 1)).checksum
    assert (source.train_counts, source.test_counts) == ((4, 4, 4), (2, 2, 2))
    del held["test_images"]
    source = find(as_npz(tmp_path / "without", **NONE, **held))
    assert (source.left, source.load().test_x.shape) == ((), (6, 1, 4, 5))


@pytest.mark.parametrize("part", ["validation", "valid", "val"])
def test_other_names_of_the_test_part(tmp_path: Path, part: str) -> None:
    place = as_files(tmp_path / "folders", plain, ".png", part)
    source = find(place)
    assert (source.train, sum(source.test_counts), source.left) == (12, 6, ())
    shutil.copytree(place / part, place / "test")
    again = find(place)
    assert (again.checksum, again.left) == (source.checksum, (part,))
    parquet = as_parquet(tmp_path / "parquet")
    (parquet / "test.parquet").rename(parquet / f"{part}-00000-of-00001.parquet")
    assert sum(find(parquet).test_counts) == 6


@pytest.mark.parametrize("kind", ["uint16", "int64", ">i4", "float16", "float64"])
def test_numbers_of_every_kind_are_the_same_images(tmp_path: Path, kind: str) -> None:
    wanted = find(as_npz(tmp_path / "bytes")).checksum
    brought = as_npz(
        tmp_path / "brought", x_train=images(12, 0).astype(kind), x_test=images(6, 1).astype(kind)
    )
    assert find(brought).checksum == wanted


def test_no_number_wraps_or_is_clipped(tmp_path: Path) -> None:
    wide = {"x_train": gray(12, 0) * np.uint16(257), "x_test": gray(6, 1) * np.uint16(257)}
    assert find(as_npz(tmp_path / "uint16", 1, **wide)).checksum == find(as_npz(tmp_path / "a", 1)).checksum
    raw = npz.read(as_npz(tmp_path / "again", 1, **wide))
    assert (raw.train_x.dtype, raw.train_x.max()) == (np.float32, gray(12, 0).max() * 257.0)


def test_booleans_are_zeros_and_ones(tmp_path: Path) -> None:
    truths = {"x_train": gray(12, 0) > 127, "x_test": gray(6, 1) > 127}
    raw = npz.read(as_npz(tmp_path / "truths", 1, **truths))
    assert np.array_equal(raw.train_x[:, 0], truths["x_train"].astype(float))
    assert find(as_npz(tmp_path / "again", 1, **truths)).load().train_x.unique().numel() == 2


def test_16_bit_images_are_floats(tmp_path: Path) -> None:
    wide = as_files(tmp_path / "png16", lambda x, i: Image.fromarray(x * np.uint16(257)), ".png")
    narrow = find(as_files(tmp_path / "png8", plain, ".png"))
    raw = find_files(wide).read(lambda count: lambda: None)
    assert (raw.train_x.dtype, raw.train_x.max()) == (np.float32, gray(12, 0).max() * 257.0)
    assert find(wide).checksum == narrow.checksum
    with pytest.raises(DataError, match=r"mode I;16, of more than 8 bits, which RGB would clip\. Leave"):
        find(wide, to_rgb=True)


@pytest.mark.parametrize("suffix", [".bmp", ".tif", ".tiff", ".pgm", ".webp"])
def test_files_of_every_format(tmp_path: Path, suffix: str) -> None:
    if suffix == ".webp":  # no gray, and no loss
        place = as_files(tmp_path / "set", lambda x, i: Image.fromarray(x).convert("RGB"), ".png")
        for path in place.rglob("*.png"):
            Image.open(path).save(path.with_suffix(suffix), lossless=True)
            path.unlink()
        wanted = as_files(tmp_path / "png", lambda x, i: Image.fromarray(x).convert("RGB"), ".png")
    else:
        place = as_files(tmp_path / "set", plain, suffix)
        wanted = as_files(tmp_path / "png", plain, ".png")
    assert find(place).checksum == find(wanted).checksum


def test_pillow_is_asked_for_these_formats_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    opened = Image.open
    monkeypatch.setattr(Image, "open", lambda file, **how: asked.append(how) or opened(file, **how))
    find(as_folders(tmp_path / "set"))
    assert asked == [{"formats": decoding.FORMATS}] * 18
    assert "EPS" not in decoding.FORMATS


def test_mixed_modes_are_counted_named_and_converted(tmp_path: Path) -> None:
    modes = ("RGB", "L", "CMYK", "RGBA")

    def mixed(image: NDArray[np.uint8], i: int) -> Image.Image:
        return Image.fromarray(image).convert(modes[i % 4] if i % 4 != 3 or i > 5 else "RGB")

    place = as_files(tmp_path / "mixed", mixed, ".tif")
    with pytest.raises(DataError) as refused:
        find(place)
    assert re.fullmatch(
        r"11 of 18 images are not 5×4 RGB as \S+00\.tif: \S+06\.tif is 5×4 CMYK, \S+09\.tif is 5×4 L, "
        r"\S+01\.tif is 5×4 L, …\. Convert all images to RGB with --to-rgb\.",
        str(refused.value),
    )
    source = find(place, to_rgb=True)
    data = source.load()
    assert data.shape == torch.Size([3, 4, 5])
    wanted = as_files(tmp_path / "rgb", lambda x, i: mixed(x, i).convert("RGB"), ".tif")
    assert source.checksum == find(wanted).checksum == find(place, to_rgb=True).checksum
    assert source.file != find(wanted).file
    with pytest.raises(DataError, match="--to-rgb converts image files, not arrays"):
        find(as_npz(tmp_path / "arrays"), to_rgb=True)


def test_a_converted_set_has_an_entry_of_its_own_in_the_cache(tmp_path: Path) -> None:
    place = as_folders(tmp_path / "gray", 1)
    one, three = find(place), find(place, to_rgb=True)
    assert (one.load().shape[0], three.load().shape[0]) == (1, 3)
    assert find(place) == one


def test_a_test_part_that_lacks_a_class_has_one_way_out(tmp_path: Path) -> None:
    place = as_folders(tmp_path / "set")
    kept = shutil.move(place / "test" / "class-2", tmp_path / "kept")
    with pytest.raises(DataError) as refused:
        find(place)
    (place / "test" / "class-2").mkdir()
    with pytest.raises(DataError) as again:
        find(place)
    assert str(again.value) == str(refused.value)
    assert str(refused.value).endswith("Put some into test/class-2/.")
    for path in Path(kept).iterdir():  # what it says to do
        shutil.move(path, place / "test" / "class-2")
    assert find(place).test_counts == (2,) * CLASSES


def test_an_archive_that_unpacks_to_far_more_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "bomb.npz"
    zeros = np.zeros((400, 40, 40), np.uint8)
    held = {"x_train": zeros, "y_train": np.arange(400) % 2, "x_test": zeros, "y_test": np.arange(400) % 2}
    np.savez_compressed(path, **held)
    monkeypatch.setattr(npz, "LARGE", 2**20)
    monkeypatch.setattr(np.lib.npyio.NpzFile, "__getitem__", None)  # nothing is unpacked
    with pytest.raises(DataError, match=r"bytes unpack to 1,28\d,\d{3}, which is no image data\. If it is"):
        find(path)
    monkeypatch.undo()
    np.savez(path, **held)  # what it says to do
    monkeypatch.setattr(npz, "LARGE", 2**20)
    assert npz.read(path).train_x.shape == (400, 1, 40, 40)


def test_what_memory_does_not_hold_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pages = {"SC_PHYS_PAGES": 1, "SC_PAGE_SIZE": 600}
    monkeypatch.setattr(decoding.os, "sysconf", pages.__getitem__)
    for path in (as_npz(tmp_path / "set"), as_folders(tmp_path / "set"), as_parquet(tmp_path / "parquet")):
        with pytest.raises(DataError, match=r"take 0\.0 GiB of memory, and this machine has 0\.0 GiB"):
            find(path)


def test_a_header_that_promises_more_than_there_is(tmp_path: Path) -> None:
    path = as_npz(tmp_path / "set")
    with zipfile.ZipFile(path) as held:
        members = {name: held.read(name) for name in held.namelist()}
    members["x_train.npy"] = members["x_train.npy"].replace(b"(12, 4, 5, 3), }", b"(1200000000, 5, 3)}")
    with zipfile.ZipFile(path, "w") as held:
        for name, content in members.items():
            held.writestr(name, content)
    with pytest.raises(DataError, match=r"cannot be read as \.npz"):
        find(path)


def test_a_path_that_is_no_unicode_does_not_matter(tmp_path: Path) -> None:
    place = tmp_path / "set"
    place.mkdir()
    for part, n, seed in (("train", 12, 0), ("test", 6, 1)):
        raw = pa.array([b"\xff\xfe"] * n, pa.binary())
        paths = pa.Array.from_buffers(pa.string(), n, raw.buffers())
        bytes_ = pa.array([encoded(image) for image in images(n, seed)], pa.binary())
        column = pa.StructArray.from_arrays([bytes_, paths], ["bytes", "path"])
        pq.write_table(pa.table({"img": column, "label": labels(n)}), place / f"{part}.parquet")
    assert find(place).checksum == find(as_parquet(tmp_path / "plain")).checksum


def test_class_folders_whose_names_are_no_unicode(tmp_path: Path) -> None:
    place = as_folders(tmp_path / "set")
    wanted = find(place).checksum
    for part in ("train", "test"):
        old = bytes(place / part / "class-2")
        Path(old.decode()).rename(Path((old + b"\xff").decode(errors="surrogateescape")))
    assert find(place).checksum == wanted


def test_a_folder_deep_below_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    brought = as_npz(tmp_path / "set")
    monkeypatch.chdir(tmp_path)
    for _ in range(1500):
        os.mkdir("d")
        os.chdir("d")
    try:
        shutil.copy(brought, "set.npz")
        assert find(Path("set.npz")).train == 12
        with pytest.raises(DataError, match="holds no data set"):
            find(tmp_path / "d")
        with pytest.raises(DataError, match="File name too long"):
            find(tmp_path / "/".join("d" * 3000) / "set.npz")
    finally:  # deeper than pytest's own clean-up goes
        os.remove("set.npz")
        for _ in range(1500):
            os.chdir("..")
            os.rmdir("d")


def test_an_old_cache_is_written_anew(tmp_path: Path) -> None:
    source = find(as_npz(tmp_path / "set"))
    assert source.file is not None
    known = source.file.with_suffix(".json")
    known.write_text(known.read_text().replace(f'"version": {tensor_cache.VERSION}', '"version": 1'))
    assert tensor_cache.entry(source.file.stem) is None
    assert find(tmp_path / "set.npz") == source
    assert math.isfinite(float(source.load().train_x.sum()))


def test_a_folder_with_an_archive_is_told_the_archive(tmp_path: Path) -> None:
    place = tmp_path / "My Data (v2) ü"
    place.mkdir()
    (place / "set.npz").write_bytes(b"")
    with pytest.raises(DataError) as caught:
        find(place)
    assert str(caught.value).endswith(f"Give its file: --dataset '{place}/set.npz'")
