"""Decode images with their labels into arrays; errors name the file and row."""

import io
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bnsuite.text import printable

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "TIFF", "PPM")
"""File formats that are read, by Pillow's names (PPM includes PGM). Others, such as EPS, start programs."""

NARROW = {"1": 1, "L": 1, "RGB": 3}
WIDE = {"I;16": 1, "I;16B": 1, "I": 1, "F": 1}
"""Pillow's mode → channels; up to 8 bits per channel (`NARROW`) are kept as uint8, more as float32."""

MODES = NARROW | WIDE

TESTS = ("test", "validation", "valid", "val")
"""Names of the test part, by precedence."""

NAMED = 3
"""Number of images that a message names."""

Pixels = NDArray[np.uint8] | NDArray[np.float32]
Labels = NDArray[np.int64]


class DataError(ValueError):
    """Data set that cannot be used. The message is one line: where, what was got, wanted, what to do."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(printable(message).splitlines()))  # a file's name may hold line breaks


class ImageRow(NamedTuple):
    """Stored example: its place (for messages), an encoded image and a label."""

    where: str
    image: Any
    label: Any


@dataclass(frozen=True)
class Part:
    """Training or test part: the number of its rows, and a function that reads them."""

    count: int
    rows: Callable[[], Iterator[ImageRow]]


class Arrays(NamedTuple):
    """Data set before standardization.

    Attributes:
        train_x, test_x: (N, channels, height, width), uint8, or float32 where the source has other numbers.
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
    """Return the error for an optional package that is not installed."""
    return DataError(f"images are read by packages that are not here ({error}): pip install 'bnsuite[data]'")


def decode(parts: Sequence[Part], tick: Callable[[], None] = lambda: None, *, to_rgb: bool = False) -> Arrays:
    """Decode the images of a training and a test part.

    Args:
        parts: the training and the test part.
        tick: called for each image.
        to_rgb: convert images of 8 bits in any mode, such as CMYK or a palette, to RGB; transparency is lost.

    Raises:
        DataError: an image is broken; images differ in size or mode; a label is not a class number.
    """
    seen = _Seen()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about metadata; an image that is too large is an error
        train, test = (_decoded(part, seen, tick, to_rgb) for part in parts)
    if seen.odd:
        raise DataError(seen.told(sum(part.count for part in parts)))
    return Arrays(*train, *test)


@dataclass
class _Seen:
    """First readable image, and all images of another size or mode."""

    where: str = ""
    size: tuple[int, int] = (0, 0)
    mode: str = ""
    odd: list[tuple[str, tuple[int, int], str]] = field(default_factory=list)

    def fits(self, where: str, image: "Image") -> bool:
        """Tell whether the image has the size and mode of the first; note it where not."""
        if not self.where and image.mode in MODES:
            self.where, self.size, self.mode = where, image.size, image.mode
        alike = (image.size, image.mode) == (self.size, self.mode)
        if not alike:
            self.odd.append((where, image.size, image.mode))
        return alike

    def told(self, total: int) -> str:
        """Return the message about odd images: how many, the first of them, what to do."""
        names = ", ".join(f"{where} is {_kind(size, mode)}" for where, size, mode in self.odd[:NAMED])
        more = ", …" if len(self.odd) > NAMED else ""
        like = f"not {_kind(self.size, self.mode)} as {self.where}"
        if not self.where:
            like = "of a mode that is not read"
        modes = {self.mode or "RGB", *(mode for _, _, mode in self.odd)}
        if self.where and any(size != self.size for _, size, _ in self.odd):
            do = "Bring all images to one size"
        elif modes & {*WIDE}:
            do = "Bring all images to one mode"
        else:
            do = "Convert all images to RGB with --to-rgb"
        return f"{len(self.odd)} of {total} images are {like}: {names}{more}. {do}."


def _decoded(part: Part, seen: _Seen, tick: Callable[[], None], to_rgb: bool) -> tuple[Pixels, Labels]:
    pixels: Pixels | None = None
    labels: list[int] = []
    for i, row in enumerate(part.rows()):
        image = _opened(row, to_rgb)
        labels.append(_class_number(row))
        if seen.fits(row.where, image):
            read = np.asarray(image).reshape(image.height, image.width, -1)  # (height, width, channels)
            if pixels is None:
                shape = (part.count, MODES[image.mode], image.height, image.width)
                kind = np.dtype(np.float32 if image.mode in WIDE else np.uint8)
                check_memory(int(np.prod(shape, dtype=float)) * (kind.itemsize + 4), row.where)
                pixels = np.empty(shape, kind)
            pixels[i] = read.transpose(2, 0, 1)
            if image.mode == "F" and not np.isfinite(pixels[i]).all():
                raise DataError(f"{row.where}: holds a number that is not finite. Mend or remove it.")
        tick()
    return np.empty(0, np.uint8) if pixels is None else pixels, np.array(labels, np.int64)


def check_memory(wanted: int, where: str) -> None:
    """Raise DataError where `wanted` bytes are more than the memory of this machine."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if wanted > memory:
        got, most = (f"{size / 2**30:,.1f} GiB" for size in (wanted, memory))
        raise DataError(
            f"{where}: the images take {got} of memory, and this machine has {most}. "
            "Bring fewer or smaller images."
        )


def _opened(row: ImageRow, to_rgb: bool) -> "Image":
    """Decode the image of a row; DataError where any part of it is broken."""
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError as error:
        raise needed(error) from error
    if not isinstance(row.image, bytes) or not row.image:
        raise DataError(f"{row.where}: has no image bytes (got {row.image!r:.40}). Store the encoded image.")
    warnings.simplefilter("error", Image.DecompressionBombWarning)
    try:
        image: Image.Image = Image.open(io.BytesIO(row.image), formats=FORMATS)
        image.load()
        if to_rgb and image.mode not in ("RGB", *WIDE):
            image = image.convert("RGB")
    except UnidentifiedImageError as error:
        raise DataError(
            f"{row.where}: its {len(row.image)} bytes are no PNG, JPEG, BMP, WebP, TIFF or PGM image. "
            "Replace or remove it."
        ) from error
    except Exception as error:  # of Pillow and the libraries below it, a dozen kinds
        raise DataError(
            f"{row.where}: the image is broken ({one_line(error)}). Replace or remove it."
        ) from error
    if to_rgb and image.mode in WIDE:
        raise DataError(
            f"{row.where}: got an image of mode {image.mode}, of more than 8 bits, which RGB would clip. "
            "Leave --to-rgb out."
        )
    return image


def _kind(size: tuple[int, int], mode: str) -> str:
    return f"{size[0]}×{size[1]} {mode}"


def _class_number(row: ImageRow) -> int:
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
    """Raise DataError where the two parts cannot be standardized or learned as one data set."""
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
    """Return channels, height and width as text, such as `3×32×32`."""
    return "×".join(map(str, images.shape[1:]))


def one_line(error: BaseException) -> str:
    """Return the message of an exception in one line of at most 160 characters, or its type."""
    return " ".join(str(error).split())[:160] or type(error).__name__
