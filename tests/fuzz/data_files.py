"""A fuzzer of data sets by path: small sound ones of every layout, then broken in one to three places.

`STRATEGY` draws a case as plain data; `try_one` writes it into a folder, asks for the data set, and checks
what comes of it: "accepted" with sound tensors, or "refused" in one line. Anything else is an AssertionError.
"""

import io
import os
import shutil
import warnings
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from bnsuite import datasets
from bnsuite.datasets import DataError, find

Array = NDArray[Any]


class Case(NamedTuple):
    """A data set to write: its layout, and each mutation with the numbers that it is drawn with."""

    layout: str
    seed: int
    side: int
    channels: int
    classes: int
    to_rgb: bool
    mutations: tuple[tuple[str, int], ...]


class Arrays(NamedTuple):
    """Images (N, side, side) or (N, side, side, channels), and labels (N,), of both parts."""

    x_train: Array
    y_train: Array
    x_test: Array
    y_test: Array


DTYPES = (
    "uint8",
    "uint16",
    ">u2",
    "int8",
    "int64",
    "uint64",
    "bool",
    "float16",
    "float32",
    ">f8",
    "complex64",
)
ODD_DTYPES = ("m8[s]", "M8[D]", "S3", "U2", "O", "V4", "longdouble", "f8,i4")
EXTREMES = (np.nan, np.inf, -np.inf, 1e308, -1e308, 3e38, 1e-45, 1e-308, 2.0**63, -1.0, 0.0, 1e12)
LABELS = (-1, 2**31, 2**31 - 1, 2**63 - 1, -(2**63), 99, 1)
NAMES = ("ü (v2)", "a\nb", "a\\b", ".hidden", "-x", " ", "n" * 250, "\udcff", "[red]", "a\u2028b", "x.npz")
MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I", "F", "I;16", "HSV", "LAB")
KINDS = ("PNG", "BMP", "TIFF", "PPM", "WEBP", "JPEG", "GIF", "TGA", "EPS")

OF_ARRAYS = ("dtype", "odd dtype", "extreme", "labels", "shape", "constant", "huge offset", "fewer labels")
OF_BYTES = ("truncate", "flip", "empty", "insert")
MUTATIONS = {
    "npz": (*OF_ARRAYS, *OF_BYTES, "names", "header", "missing", "compressed", "raw member"),
    "folders": (*OF_BYTES, "mode", "kind", "odd name", "missing", "resized", "stray", "val", "link"),
    "parquet": (*OF_BYTES, "mode", "kind", "missing", "resized", "null", "types", "path", "val", "labels"),
}


@st.composite
def _cases(draw: st.DrawFn) -> Case:
    layout = draw(st.sampled_from(sorted(MUTATIONS)))
    mutation = st.tuples(st.sampled_from(MUTATIONS[layout]), st.integers(0, 2**31))
    return Case(
        layout,
        seed=draw(st.integers(0, 2**16)),
        side=draw(st.integers(2, 4)),
        channels=draw(st.sampled_from((1, 3))),
        classes=draw(st.integers(2, 3)),
        to_rgb=draw(st.booleans()) and draw(st.booleans()),
        mutations=tuple(draw(st.lists(mutation, max_size=3))),
    )


STRATEGY: st.SearchStrategy[Case] = _cases()


def try_one(case: Case, folder: Path) -> str:
    """Write a case into a new folder below `folder` and ask for it, with a cache of its own.

    Returns:
        "accepted" or "refused".

    Raises:
        AssertionError: a traceback, a message of several lines, or nonsense that was accepted.
    """
    place = folder / "case"
    shutil.rmtree(os.fsencode(place), ignore_errors=True)
    place.mkdir(parents=True)
    with mock.patch.dict(os.environ, BNSUITE_CACHE=str(place / "cache")), mock.patch("os.fsync"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of numpy, about the casts that we ask for
            path = WRITERS[case.layout](case, place / "set", np.random.default_rng(case.seed))
        datasets._loaded.cache_clear()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                source = find(path, to_rgb=case.to_rgb)
        except DataError as error:
            refused = str(error)
        except Exception as error:
            raise AssertionError(f"{type(error).__name__}: {error} for {case}") from error
        else:
            _sound(case, source, source.load())
            return "accepted"
    assert len(refused.splitlines()) == 1, f"several lines: {refused!r}"
    assert refused.isprintable(), f"not printable: {refused!r}"
    return "refused"


def _sound(case: Case, source: datasets.Source, data: datasets.Dataset) -> None:
    """Check what was accepted against the definition of a data set."""
    for x, y, counts in (
        (data.train_x, data.train_y, source.train_counts),
        (data.test_x, data.test_y, source.test_counts),
    ):
        assert x.dtype == torch.float32, case
        assert bool(torch.isfinite(x).all()), f"not finite: {case}"
        assert len(x) == len(y) == sum(counts) > 0, f"counts: {case}"
        assert x.shape[1:] == data.shape, f"shapes: {case}"
        assert int(y.min()) >= 0, f"labels: {case}"
        assert int(y.max()) < data.classes == len(counts), f"labels: {case}"
        assert y.bincount(minlength=data.classes).tolist() == list(counts), f"counts: {case}"
    assert all(source.train_counts), f"a class without images: {case}"
    mean, deviation = (
        data.train_x.double().mean((0, 2, 3)),
        data.train_x.double().std((0, 2, 3), correction=0),
    )
    assert float(mean.abs().max()) < 1e-4, f"mean {mean}: {case}"
    assert float((deviation - 1).abs().max()) < 1e-4, f"deviation {deviation}: {case}"
    assert data.checksum == source.checksum, f"checksum: {case}"


def _arrays(case: Case, rng: np.random.Generator) -> Arrays:
    shape = (case.side, case.side, case.channels)[: 2 + (case.channels > 1)]
    n, m = 2 * case.classes + 2, case.classes + 1
    x = rng.integers(0, 256, (n + m, *shape), dtype=np.uint8)
    y = np.arange(n + m) % case.classes
    return Arrays(x[:n], y[:n], x[n:], np.arange(m) % case.classes)


def _broken(content: bytes, mutation: str, number: int) -> bytes:
    at = number % max(1, len(content))
    if mutation == "truncate":
        return content[:at]
    if mutation == "flip":
        return (
            content[:at] + bytes([content[at] ^ (1 << number % 8)]) + content[at + 1 :] if content else b"x"
        )
    if mutation == "insert":
        return content[:at] + number.to_bytes(8, "little") + content[at:]
    return b""


def _array(arrays: Arrays, mutation: str, number: int) -> Arrays:
    """One array changed; which, and how, by the number."""
    held = arrays._asdict()
    x, y = ("x_train", "y_train") if number % 2 else ("x_test", "y_test")
    pick = number // 2
    if mutation == "dtype":
        kinds = [*held] if pick % 3 else [y]
        held |= {name: held[name].astype(DTYPES[pick % len(DTYPES)]) for name in kinds}
    elif mutation == "odd dtype":
        name, kind = (x, y)[pick % 2], ODD_DTYPES[pick // 2 % len(ODD_DTYPES)]
        empty = kind in ("V4", "f8,i4") or held[name].dtype.kind in "mM"  # dates fit no short text
        held[name] = np.zeros(held[name].shape, kind) if empty else held[name].astype(kind)
    elif mutation == "extreme":
        held[x] = held[x].astype(np.float64)
        held[x].flat[pick % held[x].size] = EXTREMES[pick % len(EXTREMES)]
    elif mutation == "labels":
        held[y] = held[y].astype(np.int64)
        held[y].flat[pick % held[y].size] = LABELS[pick % len(LABELS)]
    elif mutation == "shape":
        shapes: tuple[Callable[[Array], Array], ...] = (
            lambda a: a.reshape(len(a), -1),
            lambda a: a[:0],
            lambda a: a[..., :1],
            lambda a: a[None],
            lambda a: a.T,
            lambda a: np.array(3),
            lambda a: np.repeat(a[..., None], 5, -1),
        )
        name = (x, y)[pick % 2]
        held[name] = shapes[pick // 2 % len(shapes)](held[name])
    elif mutation == "constant":
        held[x] = np.full_like(held[x], pick % 2)
    elif mutation == "huge offset":
        held[x] = held[x].astype(np.float64) * 10.0 ** (pick % 80 - 40) + 10.0 ** (pick // 80 % 40)
    else:
        held[y] = held[y][:-1]
    return Arrays(**held)


def _npz(case: Case, place: Path, rng: np.random.Generator) -> Path:
    arrays = _arrays(case, rng)
    for mutation, number in case.mutations:
        if mutation in OF_ARRAYS and arrays.y_train.size and arrays.y_test.size:
            try:
                arrays = _array(arrays, mutation, number)
            except (TypeError, ValueError, OverflowError):  # numpy itself refuses
                continue
    styles = ("x_{0}", "y_{0}"), ("{0}_x", "{0}_y"), ("{0}_images", "{0}_labels")
    images, labels = styles[case.seed % 3]
    held = {
        images.format("train"): arrays.x_train,
        labels.format("train"): arrays.y_train,
        images.format("test"): arrays.x_test,
        labels.format("test"): arrays.y_test,
    }
    members = {}
    for name, array in held.items():
        file = io.BytesIO()
        np.lib.format.write_array(file, array)
        members[f"{name}.npy"] = file.getvalue()
    packed = zipfile.ZIP_STORED
    for mutation, number in case.mutations:
        name = [*members][number % len(members)]
        if mutation == "names":
            members[(name.replace("test", "val"), name.upper(), f"a/{name}")[number // 4 % 3]] = members.pop(
                name
            )
        elif mutation == "header":
            old = (b"'shape': (", b"False", b"'descr'", b"}", b"|u1", b"<i8")[number // 4 % 6]
            new = (b"'shape': (9", b"True", b"'d'", b"", b"'|O'", b"<M8", b"(" * 99)[number // 24 % 7]
            members[name] = members[name].replace(old, new, 1)
        elif mutation == "missing" and len(members) > 1:
            del members[name]
        elif mutation == "compressed":
            packed = zipfile.ZIP_DEFLATED
        elif mutation == "raw member":
            members[name.removesuffix(".npy")] = members.pop(name)
    path = place.with_suffix(".npz")
    with zipfile.ZipFile(path, "w", packed) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    for mutation, number in case.mutations:
        if mutation in OF_BYTES:
            path.write_bytes(_broken(path.read_bytes(), mutation, number))
    return path


def _encoded(case: Case, image: Array, changes: list[tuple[str, int]]) -> bytes:
    """The image as a file of the suffix .png, changed by what concerns one image."""
    made, kind = Image.fromarray(image), "PNG"
    for mutation, number in changes:
        try:
            if mutation == "mode":
                made = made.convert(MODES[number % len(MODES)])
            elif mutation == "resized":
                made = made.resize((1 + number % 5, 1 + number // 5 % 5))
            elif mutation == "kind":
                kind = KINDS[number % len(KINDS)]
        except ValueError:  # no such conversion
            continue
    file = io.BytesIO()
    try:
        made.save(file, kind)
    except (OSError, ValueError, KeyError):  # not in this format
        file = io.BytesIO()
        Image.fromarray(image).save(file, "PNG")
    content = file.getvalue()
    for mutation, number in changes:
        if mutation in OF_BYTES:
            content = _broken(content, mutation, number)
    return content


def _of_images(case: Case, count: int) -> dict[int, list[tuple[str, int]]]:
    """The mutations of single images, by the number of the image; every image for even numbers of a mode."""
    found: dict[int, list[tuple[str, int]]] = {i: [] for i in range(count)}
    for mutation, number in case.mutations:
        if mutation in ("mode", "kind", "resized", *OF_BYTES):
            everywhere = mutation not in OF_BYTES and number % 2 == 0
            for i in range(count) if everywhere else [number // 2 % count]:
                found[i].append((mutation, number // 2))
    return found


def _folders(case: Case, place: Path, rng: np.random.Generator) -> Path:
    arrays = _arrays(case, rng)
    changes = _of_images(case, len(arrays.x_train) + len(arrays.x_test))
    files: list[Path] = []
    for part, xs, ys in (("train", arrays.x_train, arrays.y_train), ("test", arrays.x_test, arrays.y_test)):
        for image, label in zip(xs, ys, strict=True):
            path = place / part / f"class{label}" / f"{len(files):02}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(_encoded(case, image, changes[len(files)]))
            files.append(path)
    for mutation, number in case.mutations:
        path, name = files[number % len(files)], NAMES[number // 64 % len(NAMES)]
        if not path.exists():
            continue
        if mutation == "odd name":
            old = path if number % 2 else path.parent
            with suppress(OSError):  # gone already, or the new name taken
                old.rename(old.with_name(f"{name}.png" if number % 2 and name != "x.npz" else name))
        elif mutation == "missing":
            path.unlink()
        elif mutation == "stray":
            (path.parent if number % 2 else path.parent.parent).joinpath("Thumbs.db").touch()
        elif mutation == "val" and (place / "test").exists():
            (place / "test").rename(place / ("val", "valid", "validation", "tests")[number % 4])
        elif mutation == "link":
            path.unlink()
            if number // 32 % 2:
                os.mkfifo(path)
            else:
                path.symlink_to(("/dev/zero", path.name, "nowhere", "..")[number // 64 % 4])
    return place


def _parquet(case: Case, place: Path, rng: np.random.Generator) -> Path:
    arrays = _arrays(case, rng)
    changes = _of_images(case, len(arrays.x_train) + len(arrays.x_test))
    place.mkdir()
    done = 0
    of_files = [(m, n) for m, n in case.mutations if m in OF_BYTES and n % 3 == 0]
    for part, xs, ys in (("train", arrays.x_train, arrays.y_train), ("test", arrays.x_test, arrays.y_test)):
        images: list[bytes | None] = []
        for image in xs:
            mine = [] if of_files else changes[done]
            images.append(_encoded(case, image, mine))
            done += 1
        labels: list[Any] = ys.tolist()
        number_type, bytes_type, paths = pa.int64(), pa.binary(), [b"a"] * len(xs)
        for mutation, number in case.mutations:
            if (number % 2 == 0) != (part == "test"):
                continue
            at = number // 2 % len(xs)
            if mutation == "null":
                images[at], labels[at] = (None, labels[at]) if number // 2 % 2 else (images[at], None)
            elif mutation == "labels":
                labels[at] = LABELS[number // 2 % len(LABELS)]
            elif mutation == "types":
                number_type = (pa.float64(), pa.string(), pa.uint64(), pa.bool_(), pa.int8())[number // 2 % 5]
                bytes_type = (pa.binary(), pa.large_binary(), pa.list_(pa.uint8()))[number // 10 % 3]
            elif mutation == "path":
                paths[at] = b"\xff\xfe"
        raw = pa.array(paths, pa.binary())
        texts = pa.Array.from_buffers(pa.string(), len(paths), raw.buffers())
        held = [list(one) if one and pa.types.is_list(bytes_type) else one for one in images]
        try:
            column = pa.StructArray.from_arrays([pa.array(held, bytes_type), texts], ["bytes", "path"])
            told = pa.array([str(label) for label in labels] if number_type == pa.string() else labels)
            table = pa.table({"image": column, "label": told.cast(number_type)})
        except (pa.ArrowException, OverflowError):  # no such value in that type
            table = pa.table({"label": [0]})
        pq.write_table(table, place / f"{part}.parquet")
    for mutation, number in case.mutations:
        path = place / ("train.parquet", "test.parquet")[number % 2]
        if not path.exists():
            continue
        if (mutation, number) in of_files:
            path.write_bytes(_broken(path.read_bytes(), mutation, number))
        elif mutation == "missing":
            path.unlink()
        elif mutation == "val":
            path.rename(path.with_stem(("val", "valid-00000-of-00001", "train-00000-of-00002")[number % 3]))
    return place


WRITERS: dict[str, Callable[[Case, Path, np.random.Generator], Path]] = {
    "npz": _npz,
    "folders": _folders,
    "parquet": _parquet,
}
