"""Cache of decoded data sets, by the hash of the files that they were decoded from.

`HASH.tensors` holds train_x, train_y, test_x and test_y one after the other in numpy's .npy format, before
standardization; `HASH.json` holds its SHA-256 and what is expensive to compute; `NAME.name.json` the hash of
a set by name. Every file is written next to its place and renamed.
"""

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from bnsuite.datasets.images import Arrays, DataError, check
from bnsuite.datasets.tensors import Dataset, standardize
from bnsuite.records.store import atomic_file, write_atomically

VERSION = 2
"""Version of the files in the cache; files of another version are written anew."""

FAR = 1e6
"""Largest distance of a test number from the training mean, in standard deviations.

Among n training numbers it is at most √n, and the checksum is exact up to 9e12.
"""


@dataclass(frozen=True)
class CachedTensors:
    """Cached data set, not loaded.

    Attributes:
        file: tensors.
        sha256: hash of `file`.
        checksum: `Dataset.checksum` of the standardized tensors.
        train_counts, test_counts: images per class in the two parts.
    """

    file: Path
    sha256: str
    checksum: str
    train_counts: tuple[int, ...]
    test_counts: tuple[int, ...]


def folder() -> Path:
    """Return `datasets` below $BNSUITE_CACHE, else below $XDG_CACHE_HOME/bnsuite, else ~/.cache/bnsuite."""
    if own := os.environ.get("BNSUITE_CACHE"):
        return Path(own, "datasets").absolute()
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home, "bnsuite", "datasets").absolute()


def entry(content: str) -> CachedTensors | None:
    """Find the entry of a content hash; None where it is missing or incomplete."""
    file = folder() / f"{content}.tensors"
    try:
        known = json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))
        if known["version"] != VERSION or known["bytes"] != file.stat().st_size:
            return None
        counts = (tuple(map(int, known[part])) for part in ("train_counts", "test_counts"))
        return CachedTensors(file, str(known["sha256"]), str(known["checksum"]), *counts)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def keep(content: str, arrays: Arrays, where: str) -> CachedTensors:
    """Check arrays, compute their checksum and write them into the cache.

    Args:
        content: hash of the files that the arrays were decoded from.
        arrays: the data set.
        where: its name or path, for messages.

    Raises:
        DataError: the arrays are no data set (nothing is written), or the cache cannot be written.
    """
    check(arrays, where)
    data = _standardized("", arrays)
    check_scale(data, where)
    checksum = data.checksum
    del data
    train_counts, test_counts = (
        tuple(np.bincount(y, minlength=arrays.classes).tolist()) for y in (arrays.train_y, arrays.test_y)
    )
    file = folder() / f"{content}.tensors"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        sha256 = _write(file, arrays)
        known = {
            "version": VERSION,
            "bytes": file.stat().st_size,
            "sha256": sha256,
            "checksum": checksum,
            "train_counts": train_counts,
            "test_counts": test_counts,
            "decoder": _decoder(),
        }
        write_atomically(file.with_suffix(".json"), json.dumps(known, indent=1) + "\n")
    except OSError as error:
        raise unwritable(error) from error
    return CachedTensors(file, sha256, checksum, train_counts, test_counts)


def named(name: str) -> CachedTensors | None:
    """Find the entry of a data set by name; None where there is none."""
    try:
        content = json.loads((folder() / f"{name}.name.json").read_text(encoding="utf-8"))["content"]
        return entry(str(content))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def keep_name(name: str, content: str) -> None:
    """Store the content hash of a data set by name."""
    try:
        write_atomically(folder() / f"{name}.name.json", json.dumps({"content": content}) + "\n")
    except OSError as error:
        raise unwritable(error) from error


def unwritable(error: OSError) -> DataError:
    """Return the error for a cache that cannot be written."""
    return DataError(
        f"{folder()}: cannot write the cache ({error.strerror or error}). "
        "Free or unlock it, or name another folder in the environment variable BNSUITE_CACHE."
    )


def load(name: str, file: Path, sha256: str) -> Dataset:
    """Load the standardized tensors of a cached file, after checking its hash.

    Args:
        name: name of the data set.
        file: file of the cache.
        sha256: hash of that file when it was written.

    Raises:
        DataError: the file is missing or changed.
    """
    try:
        with file.open("rb") as held:
            if hashlib.file_digest(held, "sha256").hexdigest() != sha256:
                raise DataError(
                    f"{file}: the cached tensors of {name} are not what was written. Remove the file, "
                    "and run the command again."
                )
            held.seek(0)
            arrays = Arrays(*(np.load(held, allow_pickle=False) for _ in Arrays._fields))
    except OSError as error:
        raise DataError(
            f"{file}: the cached tensors of {name} cannot be read ({error.strerror or error}). "
            "Run the command again, or name another folder in BNSUITE_CACHE."
        ) from error
    return _standardized(name, arrays)


def check_scale(data: Dataset, where: str) -> None:
    """Raise DataError where a test image is more than `FAR` deviations from the training mean."""
    low, high = data.test_x.aminmax()
    if bool(max(-low, high) <= FAR):
        return
    sizes = data.test_x.flatten(1).abs().amax(1)
    row = int(sizes.argmax())
    raise DataError(
        f"{where}: row {row} from 0 of the test part is {float(sizes[row]):.3g} deviations from the training "
        "mean. Scale both parts alike."
    )


def _standardized(name: str, arrays: Arrays) -> Dataset:
    train_x, train_y, test_x, test_y = map(torch.from_numpy, arrays)
    return standardize(name, (train_x, train_y), (test_x, test_y))


def _write(file: Path, arrays: Arrays) -> str:
    """Write all arrays or nothing, and return the SHA-256 of the file."""
    with atomic_file(file) as held:
        for array in arrays:
            np.save(held, array, allow_pickle=False)
        held.seek(0)
        return hashlib.file_digest(held, "sha256").hexdigest()


def _decoder() -> str:
    """Return the versions of the image decoders, which may differ in the pixels of lossy formats."""
    try:
        import PIL
        from PIL import features
    except ImportError:
        return "none"
    return f"Pillow {PIL.__version__}, libjpeg-turbo {features.version('libjpeg_turbo')}"
