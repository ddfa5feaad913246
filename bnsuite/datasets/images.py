"""Encoded images with their labels → arrays; whatever is wrong with one is told by its file and row."""

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL.Image import Image

MODES = {"L": 1, "RGB": 3}
"""Channels of an image, by Pillow's name of its mode."""

Pixels = NDArray[np.uint8] | NDArray[np.float32]
Labels = NDArray[np.int64]


class DataError(ValueError):
    """A data set that cannot be had. The message is one line: where, what was got, wanted, what to do."""


class Row(NamedTuple):
    """One example as it is stored: where it stands, for messages, an encoded image, and a label."""

    where: str
    image: Any
    label: Any


@dataclass(frozen=True)
class Part:
    """The training or the test part: how many rows it has, and what reads them."""

    count: int
    rows: Callable[[], Iterator[Row]]


class Arrays(NamedTuple):
    """A data set before standardization.

    Attributes:
        train_x, test_x: (N, channels, height, width), uint8, or float32 where the source has that.
        train_y, test_y: (N,) class numbers, int64.
    """

    train_x: Pixels
    train_y: Labels
    test_x: Pixels
    test_y: Labels

    @property
    def classes(self) -> int:
        return int(self.train_y.max()) + 1


def needed(error: ImportError) -> DataError:
    """What to say where an optional package is not installed."""
    return DataError(f"images are read by packages that are not here ({error}): pip install 'bnsuite[data]'")


def decode(parts: Sequence[Part], tick: Callable[[], None] = lambda: None) -> Arrays:
    """The arrays of a training and a test part; `tick` is called for each image.

    Raises:
        DataError: an image that is broken, or not of the size and mode of the first; a label that is no
            class number.
    """
    train, test = parts
    train_x, train_y, first = _decoded(train, None, tick)
    test_x, test_y, _ = _decoded(test, first, tick)
    return Arrays(train_x, train_y, test_x, test_y)


def _decoded(
    part: Part, first: "tuple[str, Image] | None", tick: Callable[[], None]
) -> "tuple[Pixels, Labels, tuple[str, Image]]":
    labels = np.empty(part.count, np.int64)
    pixels: Pixels | None = None
    for i, row in enumerate(part.rows()):
        image = _opened(row)
        first = first or (row.where, image)
        like, wanted = first
        if (image.size, image.mode) != (wanted.size, wanted.mode):
            raise DataError(
                f"{row.where}: got {_kind(image)}, wanted {_kind(wanted)} as in {like}. "
                "Bring all images to one size and mode."
            )
        if pixels is None:
            pixels = np.empty((part.count, MODES[image.mode], image.height, image.width), np.uint8)
        read = np.asarray(image).reshape(image.height, image.width, -1)  # (height, width, channels)
        pixels[i] = read.transpose(2, 0, 1)
        labels[i] = _class_number(row)
        tick()
    assert pixels is not None  # a part has rows
    assert first is not None
    return pixels, labels, first


def _opened(row: Row) -> "Image":
    """The decoded image of a row; one of its pixels is as good as lost in a broken file."""
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError as error:
        raise needed(error) from error
    if not isinstance(row.image, bytes) or not row.image:
        raise DataError(f"{row.where}: has no image bytes (got {row.image!r:.40}). Store the encoded image.")
    try:
        image = Image.open(io.BytesIO(row.image))
        image.load()
    except UnidentifiedImageError as error:
        raise DataError(
            f"{row.where}: its {len(row.image)} bytes are no image that Pillow knows. Replace or remove it."
        ) from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(
            f"{row.where}: the image is broken ({one_line(error)}). Replace or remove it."
        ) from error
    if image.mode not in MODES:
        raise DataError(
            f"{row.where}: got an image of mode {image.mode}, wanted L (gray) or RGB, 8 bits each. "
            'Convert it: image.convert("RGB").'
        )
    return image


def _kind(image: "Image") -> str:
    return f"{image.width}×{image.height} {image.mode}"


def _class_number(row: Row) -> int:
    if row.label is None:
        raise DataError(f"{row.where}: has no label. Give it one, 0 or above, or remove the row.")
    if isinstance(row.label, bool) or not isinstance(row.label, (int, np.integer)):
        raise DataError(f"{row.where}: got the label {row.label!r:.40}, wanted an integer from 0.")
    if not 0 <= int(row.label) < 2**31:
        raise DataError(
            f"{row.where}: got the label {row.label}, wanted an integer from 0. Number the classes."
        )
    return int(row.label)


def check(arrays: Arrays, where: str) -> None:
    """Raise DataError where the two parts do not make a data set that can be learned and standardized."""
    if arrays.train_x.shape[1:] != arrays.test_x.shape[1:]:
        got, wanted = (shape(part) for part in (arrays.test_x, arrays.train_x))
        raise DataError(
            f"{where}: test images are {got}, and training images {wanted}. Bring them to one size."
        )
    present = np.unique(arrays.train_y)
    if len(present) < 2:
        raise DataError(f"{where}: got one class, wanted two or more. Check the labels of the training part.")
    if len(gaps := np.flatnonzero(present != np.arange(len(present)))):
        raise DataError(
            f"{where}: labels go up to {present[-1]}, and class {gaps[0]} has no training image. "
            "Number the classes from 0, without gaps."
        )
    if len(stray := np.flatnonzero(arrays.test_y >= len(present))):
        raise DataError(
            f"{where}: row {stray[0]} from 0 of the test part is of class {arrays.test_y[stray[0]]}, "
            f"and those of the training part are 0 to {len(present) - 1}. Number both parts alike."
        )
    over = (0, 2, 3)
    if len(flat := np.flatnonzero(arrays.train_x.max(over) == arrays.train_x.min(over))):
        raise DataError(
            f"{where}: channel {flat[0]} has one value in all training images, and cannot be standardized. "
            "Leave that channel out."
        )


def shape(images: Pixels) -> str:
    """Channels, height and width, in words."""
    return "×".join(map(str, images.shape[1:]))


def one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__
