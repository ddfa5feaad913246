"""Small data sets of each kind: 12 images to train and 6 to test, 4×5, three classes."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

Images = NDArray[np.uint8]
CLASSES = 3


def images(n: int, seed: int, channels: int = 3) -> Images:
    """(n, 4, 5, channels), or (n, 4, 5) where there is one."""
    shape = (n, 4, 5, channels)[: 3 + (channels > 1)]
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def labels(n: int) -> NDArray[np.int64]:
    return np.arange(n) % CLASSES


def encoded(image: Images, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind)
    return file.getvalue()


def table(rows: list[dict[str, Any]], label: pa.DataType | None = None) -> pa.Table:
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    return pa.Table.from_pylist(rows, pa.schema([("img", kind), ("label", label or pa.int64())]))


def rows(n: int, seed: int, channels: int = 3) -> list[dict[str, Any]]:
    return [
        {"img": {"bytes": encoded(image), "path": None}, "label": int(label)}
        for image, label in zip(images(n, seed, channels), labels(n), strict=True)
    ]


def as_parquet(place: Path, channels: int = 3) -> Path:
    place.mkdir(parents=True)
    pq.write_table(table(rows(12, 0, channels)), place / "train.parquet")
    pq.write_table(table(rows(6, 1, channels)), place / "test.parquet")
    return place


def as_folders(place: Path, channels: int = 3) -> Path:
    for part, n, seed in (("train", 12, 0), ("test", 6, 1)):
        for i, (image, label) in enumerate(zip(images(n, seed, channels), labels(n), strict=True)):
            folder = place / part / f"class-{label}"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{i:02}.png").write_bytes(encoded(image))
    return place


def as_npz(place: Path, channels: int = 3, **changes: Any) -> Path:
    held: dict[str, Any] = {"x_train": images(12, 0, channels), "y_train": labels(12)}
    held |= {"x_test": images(6, 1, channels), "y_test": labels(6)}
    path = place.with_name(f"{place.name}.npz")
    np.savez(path, **{name: value for name, value in {**held, **changes}.items() if value is not None})
    return path


KINDS: dict[str, Callable[[Path, int], Path]] = {
    "parquet": as_parquet,
    "folders": as_folders,
    "npz": as_npz,
}
