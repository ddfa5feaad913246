"""Data sets by path: which files make up the two parts, their content hash, and how they are read."""

import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from zipfile import is_zipfile

import numpy as np
from numpy.typing import NDArray

from bnsuite.datasets.images import Arrays, DataError, Labels, Part, Pixels, Row, decode, needed, one_line

if TYPE_CHECKING:
    import pyarrow.parquet as pq

Kind = Literal["parquet", "folders", "npz"]

WANTED = (
    "a folder with train*.parquet and test*.parquet, a folder with train/CLASS/*.png and test/CLASS/*.png "
    "(or .jpg), or an .npz file with x_train, y_train, x_test, y_test"
)
TESTS = ("test", "validation")
"""What the test part may be called; the first that is there."""

PICTURES = (".png", ".jpg", ".jpeg")
LABELS = ("label", "labels", "fine_label")
"""Names of a label column, the first that is there; of a single integer column any other will do."""

FORMAT = "bnsuite images 1"
"""Changed when the same files would give other tensors."""

_SHARD = re.compile(r"-(\d+)-of-(\d+)$")
_CHUNK = 2**20


@dataclass(frozen=True)
class Files:
    """The files of a data set, those of its training and those of its test part, in the order of reading."""

    root: Path
    kind: Kind
    train: tuple[Path, ...]
    test: tuple[Path, ...]

    def content(self) -> str:
        """SHA-256 over kind, part, place below the root and bytes of every file."""
        digest = hashlib.sha256(f"{FORMAT} {self.kind}".encode())
        for part, paths in (("train", self.train), ("test", self.test)):
            for path in paths:
                place = path.name if path == self.root else path.relative_to(self.root).as_posix()
                try:
                    with path.open("rb") as file:
                        inner = hashlib.file_digest(file, "sha256").hexdigest()
                except OSError as error:
                    raise unreadable(path, error) from error
                digest.update(f"\n{part} {inner} {place if self.kind == 'folders' else ''}".encode())
        return digest.hexdigest()

    def read(self, begin: Callable[[int], Callable[[], None]]) -> Arrays:
        """The arrays; `begin` is told the number of images, and gives what is called for each.

        Raises:
            DataError: what is wrong, in which file and row.
        """
        if self.kind == "npz":
            return _npz(self.root)
        parts = [
            (_parquet if self.kind == "parquet" else _folders)(paths) for paths in (self.train, self.test)
        ]
        return decode(parts, begin(sum(part.count for part in parts)))


def unreadable(path: Path, error: OSError) -> DataError:
    return DataError(f"{path}: cannot be read ({error.strerror or error}). Check that it is there and yours.")


def find_files(path: Path) -> Files:
    """What lies at a path.

    - Parquet in the Hugging Face image layout, in the folder or in `data/` below it: `train.parquet`, or
      `train-00000-of-00002.parquet` and so on, and likewise `test` or `validation`; a column of images
      struct<bytes, path> and an integer column of labels;
    - folders of PNG or JPEG files: `train/CLASS/NAME.png`; classes are numbered in the order of their names;
    - an .npz file: x_train and x_test, (N, height, width) or (N, height, width, channels), uint8 or floating;
      y_train and y_test, (N,) or (N, 1), integers. train_x and so on will do as well.

    Where both `test` and `validation` are there, `test` is taken. Nothing is split off by itself.

    Raises:
        DataError: nothing of the kind is there, or a part of it is missing.
    """
    try:
        if not path.exists():
            raise DataError(f"{path}: no such file or folder. Wanted is {WANTED}.")
        if path.is_file():
            if path.suffix != ".npz":
                raise DataError(f"{path}: a data set is not such a file. Wanted is {WANTED}.")
            return Files(path, "npz", (path,), ())
        for folder in (path, path / "data"):
            if folder.is_dir() and any(one.suffix == ".parquet" for one in folder.iterdir()):
                train, test = _parts(folder, _shards, "*.parquet")
                return Files(path, "parquet", train, test)
        if (path / "train").is_dir():
            train, test = _parts(path, _pictures, "/CLASS/*.png")
            _same_classes(path, train, test)
            return Files(path, "folders", train, test)
    except OSError as error:
        raise unreadable(path, error) from error
    raise DataError(f"{path}: holds no data set. Wanted is {WANTED}.")


def _parts(
    folder: Path, look: Callable[[Path, str], tuple[Path, ...]], rest: str
) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    train = look(folder, "train")
    test = next((found for name in TESTS if (found := look(folder, name))), ())
    for part, found in (("training", train), ("test", test)):
        if not found:
            names = ("train",) if part == "training" else TESTS
            wanted = " or ".join(f"{name}{rest}" for name in names)
            raise DataError(
                f"{folder}: has no {part} part, wanted {wanted}. Put one there; none is split off."
            )
    return train, test


def _shards(folder: Path, part: str) -> tuple[Path, ...]:
    """The Parquet files of a part; DataError where one of several is missing."""
    named = re.compile(rf"{part}([-_.].*)?")
    found = sorted(p for p in folder.iterdir() if p.suffix == ".parquet" and named.fullmatch(p.stem))
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
    """The image files of a part, by class; DataError for a class without any, and for other files."""
    found: list[Path] = []
    for place in _visible(folder / part) if (folder / part).is_dir() else ():
        if not place.is_dir():
            raise DataError(f"{place}: wanted a folder for each class in {part}/. Move the file into one.")
        pictures = _visible(place)
        for one in pictures:
            if one.suffix.lower() not in PICTURES or not one.is_file():
                raise DataError(f"{one}: a class holds {', '.join(PICTURES)} files alone. Move it elsewhere.")
        if not pictures:
            raise DataError(f"{place}: is empty. Put the images of the class there, or remove the folder.")
        found += pictures
    return tuple(found)


def _visible(folder: Path) -> list[Path]:
    return sorted(one for one in folder.iterdir() if not one.name.startswith("."))


def _same_classes(root: Path, train: tuple[Path, ...], test: tuple[Path, ...]) -> None:
    ours, theirs = ({path.parent.name for path in paths} for paths in (train, test))
    if odd := sorted(ours ^ theirs):
        has, lacks = ("train", "test") if odd[0] in ours else ("test", "train")
        raise DataError(
            f"{root}: the class {odd[0]!r} is in the {has} part and not in the {lacks} part. "
            "Wanted are the same class folders in both."
        )


def _folders(paths: tuple[Path, ...]) -> Part:
    numbers = {name: i for i, name in enumerate(sorted({path.parent.name for path in paths}))}

    def rows() -> Iterator[Row]:
        for path in paths:
            try:
                yield Row(str(path), path.read_bytes(), numbers[path.parent.name])
            except OSError as error:
                raise unreadable(path, error) from error

    return Part(len(paths), rows)


def _parquet(paths: tuple[Path, ...]) -> Part:
    """The rows of Parquet files one after the other, counted from 0 in each."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise needed(error) from error

    def opened(path: Path) -> "pq.ParquetFile":
        try:
            return pq.ParquetFile(path)
        except (pa.ArrowException, OSError) as error:
            raise broken(path, error) from error

    def broken(path: Path, error: BaseException) -> DataError:
        return DataError(f"{path}: cannot be read as Parquet ({one_line(error)}). Fetch or write it anew.")

    count = 0
    for path in paths:
        with opened(path) as file:
            columns_of(file.schema_arrow, str(path))
            count += file.metadata.num_rows
    if not count:
        raise DataError(f"{paths[0]}: has no rows. Wanted is one for each image.")

    def rows() -> Iterator[Row]:
        for path in paths:
            with opened(path) as file:
                columns = columns_of(file.schema_arrow, str(path))
                batches = file.iter_batches(1024, columns=list(columns))
                start = 0
                while True:
                    try:
                        batch = next(batches, None)
                    except (pa.ArrowException, OSError) as error:
                        raise broken(path, error) from error
                    if batch is None:
                        break
                    yield from rows_of(batch, columns, str(path), start)
                    start += batch.num_rows

    return Part(count, rows)


def columns_of(schema: Any, where: str) -> tuple[str, str]:
    """Names of the image and of the label column of an Arrow schema."""
    import pyarrow as pa

    def is_image(kind: pa.DataType) -> bool:
        return bool(pa.types.is_struct(kind)) and kind.get_field_index("bytes") >= 0

    told = ", ".join(f"{field.name}: {field.type}" for field in schema)[:200]
    images = [field.name for field in schema if is_image(field.type)]
    if len(images) != 1:
        raise DataError(
            f"{where}: got {len(images)} columns of images, wanted one, struct<bytes, path>. It has {told}."
        )
    whole = [field.name for field in schema if pa.types.is_integer(field.type)]
    label = next((name for name in LABELS if name in schema.names), None)
    if label is None and len(whole) == 1:
        label = whole[0]
    if label is None or label not in whole:
        raise DataError(
            f"{where}: wanted one column of integer labels, named label. It has {told}. "
            "Rename it, or write the numbers of the classes."
        )
    return images[0], label


def rows_of(batch: Any, columns: tuple[str, str], where: str, start: int) -> Iterator[Row]:
    """The rows of an Arrow record batch, whose first has the number `start`."""
    images, labels = (batch.column(name).to_pylist() for name in columns)
    for i, (image, label) in enumerate(zip(images, labels, strict=True), start):
        yield Row(f"{where}, row {i} from 0", (image or {}).get("bytes"), label)


def _npz(path: Path) -> Arrays:
    """The arrays of an .npz file; nothing in it is unpickled."""
    if path.is_file() and not is_zipfile(path):  # of which numpy would say that it can be unpickled
        raise DataError(f"{path}: is no .npz file, which is a zip archive. Write it anew, by numpy.savez.")
    try:
        with np.load(path, allow_pickle=False) as held:
            names = next(
                (
                    found
                    for found in (
                        ("x_train", "y_train", "x_test", "y_test"),
                        ("train_x", "train_y", "test_x", "test_y"),
                    )
                    if {*found} <= {*held.files}
                ),
                None,
            )
            if names is None:
                raise DataError(
                    f"{path}: holds {', '.join(held.files)[:160] or 'nothing'}, "
                    "wanted x_train, y_train, x_test and y_test. Save them under these names."
                )
            arrays = [held[name] for name in names]
    except DataError:
        raise
    except Exception as error:  # of zipfile, zlib and numpy, a dozen kinds
        raise DataError(
            f"{path}: cannot be read as .npz ({one_line(error)}). Write it anew, by numpy.savez, with plain "
            "numbers and no objects."
        ) from error
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


def _pixels(array: NDArray[Any], where: str) -> Pixels:
    """(N, channels, height, width) of (N, height, width) or (N, height, width, channels)."""
    if array.dtype != np.uint8 and not np.issubdtype(array.dtype, np.floating):
        raise DataError(f"{where}: got {array.dtype}, wanted uint8 or floating. Convert it by .astype.")
    if array.ndim and not len(array):
        raise DataError(f"{where}: holds no images. Wanted is one at least.")
    images = array[..., None] if array.ndim == 3 else array
    if images.ndim != 4 or not images.size or images.shape[3] > 4:
        raise DataError(
            f"{where}: got the shape {array.shape}, wanted (N, height, width) or (N, height, width, "
            "channels) with 1 to 4 channels. Channels stand last: numpy.moveaxis(x, 1, -1)."
        )
    if array.dtype != np.uint8:
        images = images.astype(np.float32)
        if len(bad := np.flatnonzero(~np.isfinite(images).all((1, 2, 3)))):
            raise DataError(
                f"{where}, row {bad[0]} from 0: holds a number that is not finite. Mend or remove it."
            )
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2))


def _labels(array: NDArray[Any], where: str) -> Labels:
    if not np.issubdtype(array.dtype, np.integer):
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
