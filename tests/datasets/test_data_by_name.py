"""Data by name, with a stand-in for the download: what is asked of the Hub, and when nothing is."""

import dataclasses
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import datasets as hugging_face
import numpy as np
import pytest
import torch
from small_sets import as_parquet, images, labels

from bnsuite import datasets
from bnsuite.datasets import DATASETS, DataError, Known, find, hub

SMALL = dataclasses.replace(hub.CIFAR10, classes=3, train=12, test=6, shape=(3, 4, 5))


def _split(n: int, seed: int) -> hugging_face.Dataset:
    kinds = {"img": hugging_face.Image(), "label": hugging_face.ClassLabel(names=["a", "b", "c"])}
    held = {"img": list(images(n, seed)), "label": labels(n).tolist()}
    return hugging_face.Dataset.from_dict(held, hugging_face.Features(kinds))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ids and revisions that were downloaded: small sets of three classes."""
    ids: list[str] = []

    def load_dataset(id: str, revision: str) -> Any:
        ids.append(f"{id}@{revision[:7]}")
        return hugging_face.DatasetDict({"train": _split(12, 0), "test": _split(6, 1)})

    monkeypatch.setattr(hugging_face, "load_dataset", load_dataset)
    return ids


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Put a small set under the name cifar10."""

    def put(**changes: Any) -> None:
        hosted = dataclasses.replace(SMALL, **changes)
        known = Known("Small.", 3, partial(datasets._hosted, "cifar10", hosted))
        monkeypatch.setitem(DATASETS, "cifar10", known)

    put()
    return put


def test_downloaded_once_and_then_without_the_library(
    asked: list[str], small: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    source = find("cifar10")
    assert asked == ["uoft-cs/cifar10@0b27149"]
    monkeypatch.setitem(sys.modules, "datasets", None)  # no import, and so no network
    assert find("cifar10") == source
    data = source.load()
    assert (data.name, data.classes, data.checksum) == ("cifar10", 3, source.checksum)
    assert torch.equal(data.test_y, torch.from_numpy(labels(6)))
    assert source.checksum == find(as_parquet(tmp_path / "mine")).checksum


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"train": 13}, r"has 12 images in its part train, wanted 13\. It was changed"),
        ({"classes": 10}, r"has \(3, 4, 5\) in 3 classes, wanted \(3, 4, 5\) in 10"),
        ({"shape": (3, 32, 32)}, r"has \(3, 4, 5\) in 3 classes, wanted \(3, 32, 32\) in 3"),
        ({"label": "fine_label"}, r"cifar10: has no column fine_label"),
    ],
)
def test_what_is_not_what_it_is_known_as_is_refused(
    asked: list[str], small: Any, changes: Any, words: str, cached: Any
) -> None:
    small(**changes)
    with pytest.raises(DataError, match=words):
        find("cifar10")
    assert not cached.exists()


def test_no_network_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_dataset(id: str, revision: str) -> Any:
        raise ConnectionError(f"Couldn't reach\n{id}")

    monkeypatch.setattr(hugging_face, "load_dataset", load_dataset)
    with pytest.raises(
        DataError, match=r"mnist: cannot be downloaded as ylecun/mnist \(ConnectionError: Couldn't"
    ):
        find("mnist")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"pip install 'bnsuite\[data\]'"):
        find("cifar100")


def test_the_sets_are_as_they_were_published() -> None:
    hosted = {name: DATASETS[name].find.args[1] for name in DATASETS if name != "digits"}  # type: ignore[attr-defined]
    assert {name: one.id for name, one in hosted.items()} == {
        "cifar10": "uoft-cs/cifar10",
        "cifar100": "uoft-cs/cifar100",
        "mnist": "ylecun/mnist",
        "fashion-mnist": "zalando-datasets/fashion_mnist",
    }
    assert all(one.classes == DATASETS[name].classes for name, one in hosted.items())
    sizes = {name: one.train * int(np.prod(one.shape)) for name, one in hosted.items()}
    assert sizes["cifar10"] == sizes["cifar100"] == 50_000 * 3072
    assert sizes["mnist"] == sizes["fashion-mnist"] == 60_000 * 784
