"""Data sets in one .npz file: find and read the arrays of the two parts."""

from pathlib import Path
from typing import Any, NamedTuple
from zipfile import ZipFile, is_zipfile

import numpy as np
from numpy.typing import NDArray

from bnsuite.datasets.images import TESTS, Arrays, DataError, Labels, Pixels, check_memory, one_line

STYLES = (("x_{}", "y_{}"), ("{}_x", "{}_y"), ("{}_images", "{}_labels"))
"""Names of the images and labels of a part: as in Keras, reversed, and as in MedMNIST."""

LARGE, DENSEST = 2**30, 100
"""Archives that unpack to more than `LARGE` bytes and more than `DENSEST` times their size are refused."""


class Layout(NamedTuple):
    """Names of the arrays of a data set, and of further parts.

    Attributes:
        train, test: names of the images and labels.
        left: names of further parts, which are not read.
    """

    train: tuple[str, str]
    test: tuple[str, str]
    left: tuple[str, ...]


def layout(path: Path) -> Layout:
    """Find the arrays by their names, without reading them.

    Raises:
        DataError: the file is no zip archive, or has none of the layouts.
    """
    if not is_zipfile(path):  # of which numpy would say that it can be unpickled
        raise DataError(f"{path}: is no .npz file, which is a zip archive. Write it anew, by numpy.savez.")
    try:
        with ZipFile(path) as held:
            members = [name.removesuffix(".npy") for name in held.namelist() if name.endswith(".npy")]
    except Exception as error:  # of zipfile, several kinds
        raise _broken(path, error) from error

    def named(style: tuple[str, str], part: str) -> tuple[str, str]:
        return style[0].format(part), style[1].format(part)

    for style in STYLES:
        found = [part for part in ("train", *TESTS) if {*named(style, part)} <= {*members}]
        if "train" in found and len(found) > 1:
            return Layout(named(style, "train"), named(style, found[1]), tuple(found[2:]))
    raise DataError(
        f"{path}: holds {', '.join(members)[:160] or 'no arrays'}, "
        "wanted x_train, y_train, x_test and y_test (or train_images, train_labels and so on). "
        "Save them under these names."
    )


def read(path: Path) -> Arrays:
    """Read the arrays of an .npz file; nothing in it is unpickled.

    Raises:
        DataError: what is wrong, in which array.
    """
    train, test, _ = layout(path)
    names = (*train, *test)
    try:
        with np.load(path, allow_pickle=False) as held:
            unpacked = sum(held.zip.getinfo(f"{name}.npy").file_size for name in names)
            _check_size(path, unpacked)
            arrays = [np.asarray(held[f"{name}.npy"]) for name in names]
    except DataError:
        raise
    except Exception as error:  # of zipfile, zlib and numpy, a dozen kinds
        raise _broken(path, error) from error
    parts: list[tuple[Pixels, Labels]] = []
    for x, y in ((0, 1), (2, 3)):
        images = _pixels(arrays[x], f"{path}, {names[x]}")
        labels = _labels(arrays[y], f"{path}, {names[y]}")
        if len(images) != len(labels):
            raise DataError(
                f"{path}: {names[x]} has {len(images)} images, and {names[y]} {len(labels)} labels. "
                "Wanted is one label an image."
            )
        parts.append((images, labels))
    return Arrays(*parts[0], *parts[1])


def _broken(path: Path, error: BaseException) -> DataError:
    return DataError(
        f"{path}: cannot be read as .npz ({one_line(error)}). Write it anew, by numpy.savez, with plain "
        "numbers and no objects."
    )


def _check_size(path: Path, unpacked: int) -> None:
    packed = path.stat().st_size
    if unpacked > LARGE and unpacked > DENSEST * packed:
        raise DataError(
            f"{path}: {packed:,} bytes unpack to {unpacked:,}, which is no image data. "
            "If it is, write it unpacked, by numpy.savez."
        )
    check_memory(2 * unpacked, str(path))  # as stored, and as images


def _pixels(array: NDArray[Any], where: str) -> Pixels:
    """Turn (N, height, width) or (N, height, width, channels) into (N, channels, height, width)."""
    if array.dtype.kind not in "buif":
        raise DataError(f"{where}: got {array.dtype}, wanted integers, floats or booleans. Convert them.")
    if array.ndim and not len(array):
        raise DataError(f"{where}: holds no images. Wanted is one at least.")
    images = array[..., None] if array.ndim == 3 else array
    if images.ndim != 4 or not images.size or images.shape[3] > 4:
        raise DataError(
            f"{where}: got the shape {array.shape}, wanted (N, height, width) or (N, height, width, "
            "channels) with 1 to 4 channels. Channels stand last: numpy.moveaxis(x, 1, -1)."
        )
    if array.dtype != np.uint8:
        with np.errstate(over="ignore"):
            images = images.astype(np.float32)
        if len(bad := np.flatnonzero(~np.isfinite(images).all((1, 2, 3)))):
            raise DataError(
                f"{where}, row {bad[0]} from 0: holds a number that is not finite in float32. "
                "Mend or remove it."
            )
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2))


def _labels(array: NDArray[Any], where: str) -> Labels:
    if array.dtype.kind not in "ui":  # numpy's own hierarchy counts timedelta64 among the integers
        raise DataError(f"{where}: got {array.dtype}, wanted integers. Number the classes from 0.")
    labels = array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array
    if labels.ndim != 1:
        raise DataError(f"{where}: got the shape {array.shape}, wanted (N,), one number an image.")
    if len(bad := np.flatnonzero((labels < 0) | (labels >= 2**31))):
        raise DataError(
            f"{where}, row {bad[0]} from 0: got the label {labels[bad[0]]}, wanted an integer from 0. "
            "Number the classes."
        )
    return labels.astype(np.int64)
