"""Data sets of the Hugging Face Hub, read with its library `datasets`."""

import hashlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from bnsuite.datasets.files import FORMAT, rows_of
from bnsuite.datasets.images import Arrays, DataError, ImageRow, Part, decode, needed, one_line


@dataclass(frozen=True)
class Hosted:
    """Public data set: its place on the Hub, and what it must hold.

    Attributes:
        id: name on the Hub.
        revision: commit that is read; a commit cannot change.
        image, label: names of the columns.
        classes: number of classes.
        train, test: number of images.
        shape: (channels, height, width).
    """

    id: str
    revision: str
    image: str
    label: str
    classes: int
    train: int
    test: int
    shape: tuple[int, int, int]


CIFAR10 = Hosted(
    id="uoft-cs/cifar10",
    revision="0b2714987fa478483af9968de7c934580d0bb9a2",
    image="img",
    label="label",
    classes=10,
    train=50_000,
    test=10_000,
    shape=(3, 32, 32),
)
CIFAR100 = replace(
    CIFAR10,
    id="uoft-cs/cifar100",
    revision="aadb3af77e9048adbea6b47c21a81e47dd092ae5",
    label="fine_label",
    classes=100,
)
MNIST = Hosted(
    id="ylecun/mnist",
    revision="77f3279092a1c1579b2250db8eafed0ad422088c",
    image="image",
    label="label",
    classes=10,
    train=60_000,
    test=10_000,
    shape=(1, 28, 28),
)
FASHION = replace(
    MNIST, id="zalando-datasets/fashion_mnist", revision="531be5e2ccc9dba0c201ad3ae567a4f3d16ecdd2"
)


def fetch(name: str, hosted: Hosted) -> tuple[Any, Any]:
    """Return the training and the test part as `datasets.Dataset`, not decoded; download them if needed.

    Raises:
        DataError: they cannot be downloaded.
    """
    try:
        import datasets as hugging_face
    except ImportError as error:
        raise needed(error) from error
    if not sys.stderr.isatty():
        hugging_face.disable_progress_bars()
    try:
        found = hugging_face.load_dataset(hosted.id, revision=hosted.revision)
        plain = found.cast_column(hosted.image, hugging_face.Image(decode=False))
        return plain["train"], plain["test"]
    except Exception as error:  # of the network, the Hub and its library, many kinds
        raise DataError(
            f"{name}: cannot be downloaded as {hosted.id} ({type(error).__name__}: {one_line(error)}). "
            "Connect to the network once; or fetch its files and give their folder: --dataset PATH."
        ) from error


def read(name: str, hosted: Hosted, begin: Callable[[int], Callable[[], None]]) -> tuple[str, Arrays]:
    """Return the hash over the bytes and label of every image, and the arrays.

    Args:
        name: name of the data set in `DATASETS`.
        hosted: what the set must hold.
        begin: called with the number of images; returns a function that is called for each image.

    Raises:
        DataError: the set cannot be downloaded, or does not hold what `hosted` says.
    """
    digest = hashlib.sha256(f"{FORMAT} {name}".encode())

    def part(split: str, table: Any) -> Part:
        def rows() -> Iterator[ImageRow]:
            start = 0
            for batch in table.with_format("arrow").iter(1024):
                for row in rows_of(batch, (hosted.image, hosted.label), f"{name}, {split}", start):
                    inner = hashlib.sha256(row.image or b"").hexdigest()
                    digest.update(f"\n{split} {inner} {row.label}".encode())
                    yield row
                start += batch.num_rows

        return Part(len(table), rows)

    train, test = fetch(name, hosted)
    for column in (hosted.image, hosted.label):
        if column not in train.column_names:
            raise DataError(f"{name}: has no column {column}, as {hosted.id} should. Give its files by path.")
    for split, table, wanted in (("train", train, hosted.train), ("test", test, hosted.test)):
        if len(table) != wanted:
            raise _other(name, hosted, f"{len(table)} images in its part {split}", str(wanted))
    arrays = decode([part("train", train), part("test", test)], begin(len(train) + len(test)))
    got, wanted_ = (arrays.train_x.shape[1:], arrays.classes), (hosted.shape, hosted.classes)
    if got != wanted_:
        raise _other(name, hosted, "{} in {} classes".format(*got), "{} in {}".format(*wanted_))
    return digest.hexdigest(), arrays


def _other(name: str, hosted: Hosted, got: str, wanted: str) -> DataError:
    return DataError(
        f"{name}: {hosted.id} has {got}, wanted {wanted}. It was changed: give its files by path."
    )
