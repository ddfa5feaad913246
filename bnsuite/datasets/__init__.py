"""Data sets by name or by path, as tensors standardized on the training part."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, lru_cache, partial
from pathlib import Path

import torch

from bnsuite.datasets import tensor_cache
from bnsuite.datasets.files import find_files
from bnsuite.datasets.hub import CIFAR10, CIFAR100, FASHION, MNIST, Hosted, read
from bnsuite.datasets.images import Arrays, DataError, one_line
from bnsuite.datasets.tensors import Dataset, standardize
from bnsuite.names import lookup

__all__ = ["DATASETS", "DataError", "Dataset", "Known", "Source", "digits", "find", "standardize"]


@dataclass(frozen=True)
class Source:
    """Data set that is ready to be loaded, in this or in another process.

    Attributes:
        name: name in records.
        checksum: `Dataset.checksum` of the standardized tensors.
        file: cached tensors; None for the digits, which come with scikit-learn.
        sha256: hash of `file`.
        train_counts, test_counts: images per class in the two parts; empty where not known.
        left: names of further parts that lie there and are not used.
    """

    name: str
    checksum: str
    file: Path | None = None
    sha256: str = ""
    train_counts: tuple[int, ...] = ()
    test_counts: tuple[int, ...] = ()
    left: tuple[str, ...] = ()

    @property
    def train(self) -> int:
        """Number of training images; 0 where not known."""
        return sum(self.train_counts)

    def load(self) -> Dataset:
        """Load the tensors; the last set stays in memory, since a run has many cells of one set.

        Raises:
            DataError: the cached file is missing or changed.
        """
        return _loaded(self)


@lru_cache(maxsize=1)
def _loaded(source: Source) -> Dataset:
    return digits() if source.file is None else tensor_cache.load(source.name, source.file, source.sha256)


@cache
def digits() -> Dataset:
    """scikit-learn's 1,797 real handwritten digits, 8×8: 1,437 to train, 360 to test, stratified.

    Source: E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI, 1998.
    """
    train_x, train_y, test_x, test_y = map(torch.as_tensor, _digits_arrays())
    return standardize("digits", (train_x, train_y), (test_x, test_y))


def _digits_arrays() -> Arrays:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    train_x, test_x, train_y, test_y = train_test_split(
        images.reshape(-1, 1, 8, 8), labels, test_size=360, stratify=labels, random_state=0
    )
    return Arrays(train_x, train_y.astype("int64"), test_x, test_y.astype("int64"))


def in_file(source: Source) -> Source:
    """Return a source with a cached file: writes one for the digits, returns others unchanged."""
    if source.file is not None:
        return source
    kept = tensor_cache.keep(source.checksum, _digits_arrays(), source.name)
    return replace(source, file=kept.file, sha256=kept.sha256)


@cache
def _digits() -> Source:
    data = digits()
    train, test = (tuple(y.bincount().tolist()) for y in (data.train_y, data.test_y))
    return Source("digits", data.checksum, train_counts=train, test_counts=test)


def _hosted(name: str, hosted: Hosted) -> Source:
    """Find a set by name: in the cache without a network, else download, decode and cache it."""
    found = tensor_cache.named(name)
    if found is None:
        with _bar(name) as begin:
            content, arrays = read(name, hosted, begin)
        found = tensor_cache.keep(content, arrays, name)
        tensor_cache.keep_name(name, content)
    return _source(name, found)


def _source(name: str, known: tensor_cache.CachedTensors, left: tuple[str, ...] = ()) -> Source:
    return Source(name, known.checksum, known.file, known.sha256, known.train_counts, known.test_counts, left)


@dataclass(frozen=True)
class Known:
    """Data set by name: what it is, and the function that finds it."""

    about: str
    classes: int
    find: Callable[[], Source]


_HOSTED = (
    ("cifar10", CIFAR10, "60,000 photographs of 10 kinds of things, 32×32 RGB (Krizhevsky 2009)"),
    ("cifar100", CIFAR100, "60,000 photographs of 100 kinds, 32×32 RGB (Krizhevsky 2009)"),
    ("mnist", MNIST, "70,000 handwritten digits, 28×28 (LeCun et al. 1998)"),
    ("fashion-mnist", FASHION, "70,000 articles of fashion, 28×28 (arXiv 1708.07747)"),
)

DATASETS: dict[str, Known] = {
    "digits": Known((digits.__doc__ or "").splitlines()[0], 10, _digits),
    **{
        name: Known(f"{about}; downloaded.", hosted.classes, partial(_hosted, name, hosted))
        for name, hosted, about in _HOSTED
    },
}
"""Name → data set.

Sources: A. Krizhevsky, "Learning multiple layers of features from tiny images", 2009 (cifar10, cifar100);
Y. LeCun et al., "Gradient-based learning applied to document recognition", 1998 (mnist); H. Xiao et al.,
"Fashion-MNIST", arXiv 1708.07747. They lie at https://huggingface.co/datasets/, by the ids in `hub`.
"""


def find(wanted: str | Path, *, to_rgb: bool = False) -> Source:
    """Find a data set by a name in `DATASETS` or by path (see `files.find_files`); decode and cache it.

    Args:
        wanted: a name, or a path.
        to_rgb: convert every image of a data set by path to RGB.

    Raises:
        UnknownNameError: the name is not in the table.
        DataError: the data set cannot be used: where, what was got, what was wanted, what to do.
    """
    if isinstance(wanted, str):
        return lookup("dataset", wanted, DATASETS).find()
    name = name_of(wanted)
    files = replace(find_files(wanted), to_rgb=to_rgb)
    content = files.content()
    found = tensor_cache.entry(content)
    if found is None:
        with _bar(name) as begin:
            arrays = files.read(begin)
        found = tensor_cache.keep(content, arrays, str(wanted))
    return _source(name, found, files.left)


def name_of(path: Path) -> str:
    """Return the name in records of the data set at a path: that of its folder or file, fit for file names.

    Raises:
        DataError: no letter or digit is left, or it is the name of a built-in set.
    """
    try:
        place = path.resolve()
    except (OSError, RuntimeError, ValueError) as error:  # a link to itself; a character that no name has
        raise DataError(f"{path}: leads to no file ({one_line(error)}). Check the path.") from error
    own = place.stem if place.suffix == ".npz" else place.name
    name = re.sub(r"[^\w.-]+", "-", own.lower()).strip("-.")[:80]
    if not name:
        raise DataError(f"{path}: gives no name to a data set. Rename it, with letters or digits.")
    if name in DATASETS:
        raise DataError(
            f"{path}: {name!r} is the name of a built-in data set, for which records of these files "
            f"would pass. Rename it, such as {name}-mine; or ask for the built-in one by --dataset {name}."
        )
    return name


@contextmanager
def _bar(name: str) -> Iterator[Callable[[int], Callable[[], None]]]:
    """Show a progress bar on a terminal: called with the number of images; then its result for each."""
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}", markup=False), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_interactive) as progress:

        def begin(count: int) -> Callable[[], None]:
            task = progress.add_task(f"decoding {name}", total=count)
            return lambda: progress.advance(task)

        yield begin
