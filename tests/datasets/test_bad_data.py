"""Bad files: one line that names the file and the row, and nothing is cached."""

import io
import os
import re
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from small_sets import as_folders, as_npz, as_parquet, encoded, images, labels, rows, table

from bnsuite.datasets import DataError, find

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\nshowpage\n"
JPEG = encoded(images(1, 0)[0].repeat(12, 0).repeat(12, 1), "JPEG")


def _row(number: int, **changes: Any) -> Callable[[Path], Path]:
    """A Parquet set whose training row of that number is changed."""

    def make(place: Path) -> Path:
        changed = rows(12, 0)
        changed[number] |= changes
        pq.write_table(table(changed), as_parquet(place) / "train.parquet")
        return place

    return make


def _image(image: bytes | None) -> Callable[[Path], Path]:
    return _row(7, img={"bytes": image, "path": "a.png"})


def _of_mode(mode: str) -> bytes:
    file = io.BytesIO()
    Image.new(mode, (5, 4)).save(file, "PNG")
    return file.getvalue()


def _columns(**columns: Any) -> Callable[[Path], Path]:
    def make(place: Path) -> Path:
        pq.write_table(pa.table(columns), as_parquet(place) / "test.parquet")
        return place

    return make


def _numbered(numbers: list[int], part: str = "train", n: int = 12) -> Callable[[Path], Path]:
    def make(place: Path) -> Path:
        changed = [{**row, "label": number} for row, number in zip(rows(n, 0), numbers, strict=True)]
        pq.write_table(table(changed), as_parquet(place) / f"{part}.parquet")
        return place

    return make


def _cut(place: Path) -> Path:
    path = as_parquet(place) / "train.parquet"
    path.write_bytes(path.read_bytes()[:-40])
    return place


def _scrambled(place: Path) -> Path:
    path = as_parquet(place) / "train.parquet"
    held = bytearray(path.read_bytes())
    held[4:400] = bytes(396)
    path.write_bytes(held)
    return place


def _without(name: str) -> Callable[[Path], Path]:
    def make(place: Path) -> Path:
        (as_parquet(place) / name).unlink()
        return place

    return make


def _folders(change: Callable[[Path], object]) -> Callable[[Path], Path]:
    def make(place: Path) -> Path:
        change(as_folders(place))
        return place

    return make


def _npz(**changes: Any) -> Callable[[Path], Path]:
    return lambda place: as_npz(place, **changes)


def _not_npz(place: Path) -> Path:
    path = place.with_name("bad.npz")
    path.write_bytes(b"no zip")
    return path


def _torn_npz(place: Path) -> Path:
    path = as_npz(place)
    with zipfile.ZipFile(path) as held:
        start = held.getinfo("x_train.npy").header_offset
    torn = bytearray(path.read_bytes())
    torn[start + 300] ^= 1
    path.write_bytes(torn)
    return path


def _infinite(place: Path) -> Path:
    x = images(12, 0).astype(float)
    x[3, 0, 0, 0] = np.inf
    return as_npz(place, x_train=x)


def _flat(place: Path) -> Path:
    x = images(12, 0)
    x[..., 1] = 7
    return as_npz(place, x_train=x)


def _raw_npz(place: Path) -> Path:
    path = place.with_name("bad.npz")
    with zipfile.ZipFile(path, "w") as held:
        for name in ("x_train", "y_train", "x_test", "y_test"):
            held.writestr(name, b"text")
    return path


def _loop(place: Path) -> Path:
    path = place.with_name("bad.npz")
    path.symlink_to(path.name)
    return path


def _pipe(place: Path) -> Path:
    path = place.with_name("bad.npz")
    os.mkfifo(path)
    return path


def _pipes(place: Path) -> Path:
    path = as_parquet(place) / "train.parquet"
    path.unlink()
    os.mkfifo(path)
    return place


def _devices(place: Path) -> Path:
    path = as_parquet(place) / "train.parquet"
    path.unlink()
    path.symlink_to("/dev/zero")
    return place


def _empty_test_class(place: Path) -> None:
    for image in (place / "test" / "class-2").iterdir():
        image.unlink()


def _remove_test(place: Path) -> None:
    (place / "test").rename(place / "tests")


BAD: dict[str, tuple[Callable[[Path], Path], str]] = {
    "no such path": (lambda place: place, "bad: no such file or folder. Wanted is a folder with train"),
    "another file": (lambda place: as_parquet(place) / "test.parquet", "a data set is not such a file"),
    "an empty folder": (lambda place: place.mkdir() or place, "bad: holds no data set. Wanted is"),
    "no test part": (
        _without("test.parquet"),
        "has no test part, wanted test*.parquet (or validation, valid, val). Put one",
    ),
    "no training part": (_without("train.parquet"), "has no training part, wanted train*.parquet. Put one"),
    "a corrupt end": (_cut, "train.parquet: cannot be read as Parquet ("),
    "a corrupt page": (_scrambled, "train.parquet: cannot be read as Parquet ("),
    "a truncated image": (
        _image(JPEG[:-20]),
        "train.parquet, row 7 from 0: the image is broken (image file is",
    ),
    "no image": (_image(b"text"), "row 7 from 0: its 4 bytes are no PNG, JPEG, BMP, WebP, TIFF or PGM image"),
    "no bytes": (_image(None), "row 7 from 0: has no image bytes (got None)"),
    "another size": (
        _image(encoded(images(1, 0)[0].repeat(2, 0))),
        "train.parquet, row 7 from 0 is 5×8 RGB. Bring all images to one size.",
    ),
    "gray among RGB": (
        _image(encoded(images(1, 0, 1)[0])),
        "0 is 5×4 L. Convert all images to RGB with --to-rgb.",
    ),
    "a palette": (_image(_of_mode("P")), "row 7 from 0 is 5×4 P. Convert all images to RGB"),
    "transparency": (_image(_of_mode("RGBA")), "row 7 from 0 is 5×4 RGBA. Convert all images"),
    "a missing label": (_row(5, label=None), "train.parquet, row 5 from 0: has no label. Give it one"),
    "a negative label": (
        _row(5, label=-1),
        "train.parquet, row 5 from 0: got the label -1, wanted an integer",
    ),
    "labels that are no integers": (
        _columns(img=[{"bytes": JPEG}], label=["cat"]),
        "test.parquet: wanted one column of integer labels, named label. It has img:",
    ),
    "no label column": (_columns(img=[{"bytes": JPEG}]), "test.parquet: wanted one column of integer labels"),
    "no image column": (
        _columns(label=[1]),
        "test.parquet: got 0 columns of images, wanted one, struct<bytes",
    ),
    "no rows": (
        _columns(img=pa.array([], pa.struct([("bytes", pa.binary())])), label=pa.array([], pa.int64())),
        "test.parquet: has no rows",
    ),
    "a gap in the classes": (_numbered([0, 2] * 6), "labels go up to 2, and class 1 has no training image"),
    "one class": (_numbered([0] * 12), "got one class, wanted two or more"),
    "another class in the test part": (
        _numbered([0, 1, 2, 3, 1, 2], "test", 6),
        "row 3 from 0 of the test part is of class 3, and those of the training part are 0 to 2",
    ),
    "an empty class": (
        _folders(lambda place: (place / "train" / "zoo").mkdir()),
        "class 'zoo' has no images in train/ and no images in test/. Remove its empty folder.",
    ),
    "an empty class of the test part": (
        _folders(_empty_test_class),
        "class 'class-2' has 4 images in train/ and no images in test/. Put some into test/class-2/.",
    ),
    "a class in one part": (
        _folders(lambda place: (place / "test" / "class-2").rename(place / "test" / "other")),
        "class 'class-2' has 4 images in train/ and no images in test/. Put some into test/class-2/.",
    ),
    "a stray file": (
        _folders(lambda place: (place / "train" / "class-0" / "notes.txt").touch()),
        "notes.txt: a class holds .png, .jpg, .jpeg, .bmp,",
    ),
    "a file beside the classes": (
        _folders(lambda place: (place / "train" / "notes.txt").touch()),
        "notes.txt: wanted a folder for each class in train/",
    ),
    "an empty file": (
        _folders(lambda place: (place / "train" / "class-1" / "01.png").write_bytes(b"")),
        "01.png: has no image bytes (got b'')",
    ),
    "folders without a test": (
        _folders(_remove_test),
        "has no test part, wanted test/CLASS/*.png (or validation, valid, val)",
    ),
    "other names": (
        _npz(x_test=None, xtest=1),
        "holds x_train, y_train, y_test, xtest, wanted x_train, y_train",
    ),
    "pickled objects": (
        _npz(y_train=np.array([{}] * 12)),
        "bad.npz: cannot be read as .npz (Object arrays cannot be loaded when allow_pickle=False)",
    ),
    "no zip": (_not_npz, "bad.npz: is no .npz file, which is a zip archive. Write it anew"),
    "a torn npz": (_torn_npz, "bad.npz: cannot be read as .npz (Bad CRC-32"),
    "no images": (
        _npz(x_train=images(12, 0)[:0], y_train=np.arange(0)),
        "bad.npz, x_train: holds no images. Wanted",
    ),
    "complex images": (
        _npz(x_train=images(12, 0) * 1j),
        "x_train: got complex128, wanted integers, floats or booleans",
    ),
    "labels that are times": (
        _npz(y_train=labels(12).astype("m8[s]")),
        "y_train: got timedelta64[s], wanted integers",
    ),
    "a number beyond float32": (
        _npz(x_train=images(12, 0) * 1e300),
        "x_train, row 0 from 0: holds a number that is not finite in float32",
    ),
    "a test part of another scale": (
        _npz(x_train=images(12, 0) / 1e30, x_test=images(6, 1) * 1e30),
        "bad.npz: row 0 from 0 of the test part is inf deviations from the training mean. Scale both",
    ),
    "members that are no arrays": (_raw_npz, "bad.npz: holds no arrays, wanted x_train"),
    "a link to itself": (_loop, "bad.npz: leads to no file (Symlink loop"),
    "a name that no file can have": (lambda place: place.with_name("bad" * 99), "File name too long"),
    "a NUL in the name": (lambda place: place / "a\0b.npz", "leads to no file (embedded null byte)"),
    "a pipe": (_pipe, "bad.npz: a data set is not such a file"),
    "a pipe among the files": (_pipes, "train.parquet: is no regular file. Put the Parquet file itself"),
    "a device among the files": (_devices, "train.parquet: is no regular file. Put the Parquet file itself"),
    "a line break in a name": (
        _folders(lambda place: (place / "train" / "class-0" / "a\nb.png").write_bytes(b"x")),
        "a b.png: its 1 bytes are no PNG",
    ),
    "EPS by the name of a PNG": (_image(EPS), "row 7 from 0: its 33 bytes are no PNG, JPEG"),
    "16 bits among 8": (
        _image(_of_mode("I;16")),
        "1 of 18 images are not 5×4 RGB as",
    ),
    "channels first": (
        _npz(x_train=images(12, 0).transpose(0, 3, 1, 2)),
        "x_train: got the shape (12, 3, 4, 5), wanted (N, height, width) or",
    ),
    "flattened images": (_npz(x_test=images(6, 1).reshape(6, -1)), "x_test: got the shape (6, 60), wanted"),
    "an infinite pixel": (_infinite, "x_train, row 3 from 0: holds a number that is not finite"),
    "floating labels": (_npz(y_test=labels(6) / 2), "y_test: got float64, wanted integers"),
    "a negative label in npz": (_npz(y_test=labels(6) - 1), "y_test, row 0 from 0: got the label -1"),
    "labels one-hot": (_npz(y_train=np.eye(12, 3, dtype=int)), "y_train: got the shape (12, 3), wanted (N,)"),
    "fewer labels": (_npz(y_train=labels(11)), "x_train has 12 images, and y_train 11 labels"),
    "another size of test": (
        _npz(x_test=images(6, 1)[:, :3]),
        "test images are 3×3×5, and training images 3×4×5",
    ),
    "a constant channel": (_flat, "channel 1 has one value in all training images"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_one_is_one_line_and_nothing_is_cached(tmp_path: Path, cached: Path, kind: str) -> None:
    make, words = BAD[kind]
    path = make(tmp_path / "bad")
    with pytest.raises(DataError, match=re.escape(words)) as refused:
        find(path)
    assert "\n" not in str(refused.value)
    assert str(tmp_path / "bad") in str(refused.value)
    assert not cached.exists()


def test_without_the_extra_the_line_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = as_parquet(tmp_path / "parquet"), as_folders(tmp_path / "folders")
    for module, path in zip(("pyarrow", "PIL"), paths, strict=True):
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(DataError, match=r"pip install 'bnsuite\[data\]'"):
            find(path)
