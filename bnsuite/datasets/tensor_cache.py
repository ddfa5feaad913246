"""The cache: decoded data sets as tensors, by the hash of what they were decoded from.

`HASH.tensors` holds train_x, train_y, test_x and test_y one after the other in numpy's .npy format, before
standardization; `HASH.json` its SHA-256 and what is expensive to know; `NAME.name.json` the hash of a set
that is known by name. Everything is written beside its place and renamed.
"""

import hashlib
import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from bnsuite.datasets.images import Arrays, DataError, check
from bnsuite.datasets.tensors import Dataset, standardize
from bnsuite.records.store import write_atomically

VERSION = 2
"""Of the files in the cache; those of another are written anew."""

FAR = 1e6
"""Deviations that no test number is away from the mean of the training part: no more than √n lie between
those of n training numbers, and the checksum is exact up to 9e12."""


@dataclass(frozen=True)
class Entry:
    """What the cache knows of a data set without loading it.

    Attributes:
        file: the tensors.
        sha256: of that file.
        checksum: of the standardized tensors, as `Dataset.checksum`.
        train_counts, test_counts: number of labels of each class in the two parts.
    """

    file: Path
    sha256: str
    checksum: str
    train_counts: tuple[int, ...]
    test_counts: tuple[int, ...]


def folder() -> Path:
    """`datasets` below $BNSUITE_CACHE, or else below $XDG_CACHE_HOME/bnsuite, or ~/.cache/bnsuite."""
    if own := os.environ.get("BNSUITE_CACHE"):
        return Path(own, "datasets").absolute()
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home, "bnsuite", "datasets").absolute()


def entry(content: str) -> Entry | None:
    """What the cache has of this content; None where it has nothing, or not all of it."""
    file = folder() / f"{content}.tensors"
    try:
        known = json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))
        if known["version"] != VERSION or known["bytes"] != file.stat().st_size:
            return None
        counts = (tuple(map(int, known[part])) for part in ("train_counts", "test_counts"))
        return Entry(file, str(known["sha256"]), str(known["checksum"]), *counts)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def keep(content: str, arrays: Arrays, where: str) -> Entry:
    """Check arrays, find their checksum and put them into the cache.

    Raises:
        DataError: they are no data set (then nothing is kept), or the cache cannot be written.
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
    return Entry(file, sha256, checksum, train_counts, test_counts)


def named(name: str) -> Entry | None:
    """What the cache has of a set that is known by name."""
    try:
        content = json.loads((folder() / f"{name}.name.json").read_text(encoding="utf-8"))["content"]
        return entry(str(content))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def keep_name(name: str, content: str) -> None:
    """Note the content of a set that is known by name."""
    try:
        write_atomically(folder() / f"{name}.name.json", json.dumps({"content": content}) + "\n")
    except OSError as error:
        raise unwritable(error) from error


def unwritable(error: OSError) -> DataError:
    return DataError(
        f"{folder()}: cannot write the cache ({error.strerror or error}). "
        "Free or unlock it, or name another folder in the environment variable BNSUITE_CACHE."
    )


def load(name: str, file: Path, sha256: str) -> Dataset:
    """The standardized tensors of a file of the cache, after a look at its hash.

    Raises:
        DataError: it is not there, or not what was written.
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
    """Write all or nothing; the SHA-256 of what was written, which is the same for the same arrays."""
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "w+b") as held:
            for array in arrays:
                np.save(held, array, allow_pickle=False)
            held.flush()
            os.fsync(held.fileno())
            held.seek(0)
            sha256 = hashlib.file_digest(held, "sha256").hexdigest()
        os.chmod(name, 0o644)  # the sandbox reads it as another user
        os.replace(name, file)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return sha256


def _decoder() -> str:
    """What decoded the images: a lossy one may look otherwise by another version."""
    try:
        import PIL
        from PIL import features
    except ImportError:
        return "none"
    return f"Pillow {PIL.__version__}, libjpeg-turbo {features.version('libjpeg_turbo')}"
