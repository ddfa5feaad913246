"""Data sets by path: which files make up the two parts, their content hash, and how they are read."""

import hashlib
import os
import re
import shlex
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bnsuite.datasets import npz
from bnsuite.datasets.images import TESTS, Arrays, DataError, ImageRow, Part, decode, needed, one_line

Kind = Literal["parquet", "folders", "npz"]

WANTED = (
    "a folder with train*.parquet and test*.parquet, a folder with train/CLASS/*.png and test/CLASS/*.png "
    "(or .jpg, .bmp, .webp, .tif, .pgm), or an .npz file with x_train, y_train, x_test, y_test"
)
PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".pgm", ".ppm")
LABELS = ("label", "labels", "fine_label")
"""Names of a label column, by precedence; a single integer column may have any name."""

FORMAT = "bnsuite images 1"
"""Version of the decoding: changed when equal files would give other tensors."""

_SHARD = re.compile(r"-(\d+)-of-(\d+)$")


@dataclass(frozen=True)
class Files:
    """Files of a data set, in the order of reading.

    Attributes:
        root: path of the data set.
        kind: form of the files.
        train, test: files of the two parts; for .npz, one file holds both.
        left: names of further parts that lie there and are not read.
        to_rgb: whether images are converted to RGB.
    """

    root: Path
    kind: Kind
    train: tuple[Path, ...]
    test: tuple[Path, ...]
    left: tuple[str, ...] = ()
    to_rgb: bool = False

    def content(self) -> str:
        """Return the SHA-256 over kind, conversion, and part, bytes and (in folders) place of each file."""
        digest = hashlib.sha256(f"{FORMAT} {self.kind}{' to RGB' if self.to_rgb else ''}".encode())
        for part, paths in (("train", self.train), ("test", self.test)):
            for path in paths:
                place = path.name if path == self.root else path.relative_to(self.root).as_posix()
                try:
                    with path.open("rb") as file:
                        inner = hashlib.file_digest(file, "sha256").hexdigest()
                except OSError as error:
                    raise unreadable(path, error) from error
                # fsencode: a file's name need not be Unicode
                digest.update(os.fsencode(f"\n{part} {inner} {place if self.kind == 'folders' else ''}"))
        return digest.hexdigest()

    def read(self, begin: Callable[[int], Callable[[], None]]) -> Arrays:
        """Read and decode all images.

        Args:
            begin: called with the number of images; returns a function that is called for each image.

        Raises:
            DataError: what is wrong, in which file and row.
        """
        if self.kind == "npz":
            if self.to_rgb:
                raise DataError(f"{self.root}: --to-rgb converts image files, not arrays. Leave it out.")
            return npz.read(self.root)
        parts = [
            (_parquet if self.kind == "parquet" else _folders)(paths) for paths in (self.train, self.test)
        ]
        return decode(parts, begin(sum(part.count for part in parts)), to_rgb=self.to_rgb)


def unreadable(path: Path, error: OSError) -> DataError:
    """Return the error for a file that the system does not let us read."""
    return DataError(f"{path}: cannot be read ({error.strerror or error}). Check that it is there and yours.")


def find_files(path: Path) -> Files:
    """Find the files of a data set at a path.

    - Parquet in the Hugging Face image layout, in the folder or in `data/` below it: `train.parquet`, or
      `train-00000-of-00002.parquet` and so on, and likewise `test`; a column of images
      struct<bytes, path> and an integer column of labels;
    - folders of image files (see `PICTURES`): `train/CLASS/NAME.png`; classes are numbered in the order of
      their names;
    - an .npz file: x_train and x_test, (N, height, width) or (N, height, width, channels), of integers,
      floats or booleans; y_train and y_test, (N,) or (N, 1), integers. The names train_x, … and
      train_images, train_labels, … are read as well.

    The test part is the first of `TESTS` that is there; none is split off the training part.

    Raises:
        DataError: no data set is there, or a part of it is missing.
    """
    try:
        if not path.exists():
            raise DataError(f"{path}: no such file or folder. Wanted is {WANTED}.")
        if not path.is_dir():
            if path.suffix != ".npz" or not path.is_file():  # a pipe or a device may have no end
                raise DataError(f"{path}: a data set is not such a file. Wanted is {WANTED}.")
            return Files(path, "npz", (path,), (), npz.layout(path).left)
        for folder in (path, path / "data"):
            if folder.is_dir() and any(one.suffix == ".parquet" for one in folder.iterdir()):
                return Files(path, "parquet", *_parts(folder, _shards, "*.parquet"))
        if (path / "train").is_dir():
            train, test, left = _parts(path, _pictures, "/CLASS/*.png")
            _same_classes(path, train, test)
            return Files(path, "folders", train, test, left)
        archives = sorted(one for one in path.iterdir() if one.suffix == ".npz") if path.is_dir() else []
    except OSError as error:
        raise unreadable(path, error) from error
    near = f" Give its file: --dataset {shlex.quote(str(archives[0]))}" if archives else ""
    raise DataError(f"{path}: holds no data set. Wanted is {WANTED}.{near}")


def _parts(
    folder: Path, look: Callable[[Path, str], tuple[Path, ...]], rest: str
) -> tuple[tuple[Path, ...], tuple[Path, ...], tuple[str, ...]]:
    """Find the files of the training and of the test part, and the names of further parts."""
    there = [name for name in TESTS if (folder / name).is_dir() or _named(folder, name)]
    train = look(folder, "train")
    test = look(folder, there[0]) if there else ()
    for part, found in (("training", train), ("test", test)):
        if not found:
            wanted = f"train{rest}" if part == "training" else f"{TESTS[0]}{rest} (or {', '.join(TESTS[1:])})"
            raise DataError(
                f"{folder}: has no {part} part, wanted {wanted}. Put one there; none is split off."
            )
    return train, test, tuple(there[1:])


def _named(folder: Path, part: str) -> list[Path]:
    """Return the Parquet files of a part, by their names."""
    named = re.compile(rf"{part}([-_.].*)?")
    return sorted(p for p in folder.iterdir() if p.suffix == ".parquet" and named.fullmatch(p.stem))


def _shards(folder: Path, part: str) -> tuple[Path, ...]:
    """Return the Parquet files of a part; DataError where a shard is missing or is no regular file."""
    found = _named(folder, part)
    for path in found:
        if not path.is_file():  # a pipe or a device may have no end
            raise DataError(f"{path}: is no regular file. Put the Parquet file itself there.")
    numbers = [shard.groups() if (shard := _SHARD.search(path.stem)) else ("", "1") for path in found]
    totals = {int(total) for _, total in numbers}
    if len(totals) > 1 or any(total != len(found) for total in totals):
        of = " or ".join(map(str, sorted(totals)))
        raise DataError(
            f"{folder}: holds {len(found)} Parquet files of the part {part}, and by their names it has {of}: "
            f"{', '.join(path.name for path in found)[:160]}. Complete them, or remove the others."
        )
    return tuple(found)


def _pictures(folder: Path, part: str) -> tuple[Path, ...]:
    """Return the image files of a part, by class; DataError for other files."""
    found: list[Path] = []
    for place in _visible(folder / part) if (folder / part).is_dir() else ():
        if not place.is_dir():
            raise DataError(f"{place}: wanted a folder for each class in {part}/. Move the file into one.")
        pictures = _visible(place)
        for one in pictures:
            if one.suffix.lower() not in PICTURES or not one.is_file():
                raise DataError(f"{one}: a class holds {', '.join(PICTURES)} files alone. Move it elsewhere.")
        found += pictures
    return tuple(found)


def _visible(folder: Path) -> list[Path]:
    return sorted(one for one in folder.iterdir() if not one.name.startswith("."))


def _same_classes(root: Path, train: tuple[Path, ...], test: tuple[Path, ...]) -> None:
    """Raise DataError for a class that has no images in one of the parts."""
    parts = [paths[0].parent.parent.name for paths in (train, test)]
    counts = [Counter(path.parent.name for path in paths) for paths in (train, test)]
    for name in sorted({place.name for part in parts for place in _visible(root / part)}):
        numbers = [count[name] for count in counts]
        if all(numbers):
            continue
        told = " and ".join(f"{n or 'no'} images in {part}/" for n, part in zip(numbers, parts, strict=True))
        do = f"Put some into {parts[numbers.index(0)]}/{name}/" if any(numbers) else "Remove its empty folder"
        raise DataError(f"{root}: class {name!r} has {told}. {do}.")


def _folders(paths: tuple[Path, ...]) -> Part:
    numbers = {name: i for i, name in enumerate(sorted({path.parent.name for path in paths}))}

    def rows() -> Iterator[ImageRow]:
        for path in paths:
            try:
                yield ImageRow(str(path), path.read_bytes(), numbers[path.parent.name])
            except OSError as error:
                raise unreadable(path, error) from error

    return Part(len(paths), rows)


def _parquet(paths: tuple[Path, ...]) -> Part:
    """Return the rows of Parquet files, one file after the other."""
    try:
        import pyarrow.parquet as pq
    except ImportError as error:
        raise needed(error) from error

    count = 0
    for path in paths:
        with _of_parquet(path), pq.ParquetFile(path) as file:
            columns_of(file.schema_arrow, str(path))
            count += file.metadata.num_rows
    if not count:
        raise DataError(f"{paths[0]}: has no rows. Wanted is one for each image.")

    def rows() -> Iterator[ImageRow]:
        for path in paths:
            with _of_parquet(path), pq.ParquetFile(path) as file:
                columns = columns_of(file.schema_arrow, str(path))
                start = 0
                for batch in file.iter_batches(1024, columns=list(columns)):
                    yield from rows_of(batch, columns, str(path), start)
                    start += batch.num_rows
                if start != file.metadata.num_rows:
                    raise ValueError(f"has {start} rows, and by its end {file.metadata.num_rows}")

    return Part(count, rows)


@contextmanager
def _of_parquet(path: Path) -> Iterator[None]:
    """Turn the exceptions of pyarrow, of a dozen kinds, into a DataError."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:
        raise DataError(
            f"{path}: cannot be read as Parquet ({one_line(error)}). Fetch or write it anew."
        ) from error


def columns_of(schema: Any, where: str) -> tuple[str, str]:
    """Return the names of the image and of the label column of an Arrow schema."""
    import pyarrow as pa

    def is_image(kind: pa.DataType) -> bool:
        if not pa.types.is_struct(kind) or (index := kind.get_field_index("bytes")) < 0:
            return False
        held = kind.field(index).type
        return bool(pa.types.is_binary(held) or pa.types.is_large_binary(held))

    told = ", ".join(f"{field.name}: {field.type}" for field in schema)[:200]
    images = [field.name for field in schema if is_image(field.type)]
    if len(images) != 1:
        raise DataError(
            f"{where}: got {len(images)} columns of images, wanted one, struct<bytes, path>. It has {told}."
        )
    whole = [field.name for field in schema if pa.types.is_integer(field.type)]
    alone = whole[0] if len(whole) == 1 else None
    label = next((name for name in LABELS if name in schema.names), alone)
    if label is None or label not in whole:
        raise DataError(
            f"{where}: wanted one column of integer labels, named label. It has {told}. "
            "Rename it, or write the numbers of the classes."
        )
    return images[0], label


def rows_of(batch: Any, columns: tuple[str, str], where: str, start: int) -> Iterator[ImageRow]:
    """Yield the rows of an Arrow record batch; the first has the number `start`."""
    image, label = (batch.column(name) for name in columns)
    held = image.flatten()[image.type.get_field_index("bytes")]  # alone: a path need not be Unicode
    for i, (encoded, number) in enumerate(zip(held.to_pylist(), label.to_pylist(), strict=True), start):
        yield ImageRow(f"{where}, row {i} from 0", encoded, number)
