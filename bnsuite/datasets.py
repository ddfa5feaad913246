"""Data sets: tensors on a device, standardized by the training part."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor


@dataclass(frozen=True)
class Dataset:
    """A classification set of images, split once and for all.

    Attributes:
        train_x, test_x: (N, channels, height, width), float32; one mean and deviation a channel, both
            of the training part, were taken out of each.
        train_y, test_y: (N,) class numbers, int64.
    """

    name: str
    train_x: Tensor
    train_y: Tensor
    test_x: Tensor
    test_y: Tensor
    classes: int

    @property
    def shape(self) -> torch.Size:
        """(channels, height, width) of one input."""
        return self.train_x.shape[1:]

    @property
    def checksum(self) -> str:
        """SHA-256 over the tensors, split and standardization included, rounded to 1e-6."""
        digest = hashlib.sha256()
        for tensor in (self.train_x, self.train_y, self.test_x, self.test_y):
            digest.update(str(tuple(tensor.shape)).encode())
            digest.update((tensor.double() * 1e6).round().to(torch.int64).cpu().numpy().tobytes())
        return digest.hexdigest()

    def to(self, device: torch.device | str) -> "Dataset":
        train = self.train_x.to(device), self.train_y.to(device)
        test = self.test_x.to(device), self.test_y.to(device)
        return Dataset(self.name, *train, *test, classes=self.classes)


def standardize(name: str, train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor]) -> Dataset:
    """Dataset of images (N, channels, height, width) of any dtype, standardized on the training part."""
    train_x, test_x = train[0].double(), test[0].double()
    deviation, mean = torch.std_mean(train_x, dim=(0, 2, 3), keepdim=True, correction=0)
    parts = [((x - mean) / deviation).float() for x in (train_x, test_x)]
    return Dataset(name, parts[0], train[1], parts[1], test[1], classes=int(train[1].max()) + 1)


@cache
def digits() -> Dataset:
    """scikit-learn's 1,797 real handwritten digits, 8×8: 1,437 to train, 360 to test, stratified.

    Source: E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI, 1998.
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    train_x, test_x, train_y, test_y = train_test_split(
        images.reshape(-1, 1, 8, 8), labels, test_size=360, stratify=labels, random_state=0
    )

    def tensors(x: object, y: object) -> tuple[Tensor, Tensor]:
        return torch.as_tensor(x), torch.as_tensor(y, dtype=torch.int64)

    return standardize("digits", tensors(train_x, train_y), tensors(test_x, test_y))


DATASETS: dict[str, Callable[[], Dataset]] = {"digits": digits}
"""Every data set by name."""
