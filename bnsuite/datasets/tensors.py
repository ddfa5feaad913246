"""Data set as standardized tensors; standardization and checksum work in slices, to save memory."""

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor

AT_ONCE = 2**22
"""Numbers per slice that is worked on in double precision."""


@dataclass(frozen=True)
class Dataset:
    """Images for classification, in a training and a test part, standardized.

    Attributes:
        name: name in records.
        train_x, test_x: (N, channels, height, width), float32, standardized per channel with the mean and
            deviation of the training part.
        train_y, test_y: (N,) class numbers, int64.
        classes: number of classes.
    """

    name: str
    train_x: Tensor
    train_y: Tensor
    test_x: Tensor
    test_y: Tensor
    classes: int

    @property
    def shape(self) -> torch.Size:
        """Shape of one input: (channels, height, width)."""
        return self.train_x.shape[1:]

    @property
    def checksum(self) -> str:
        """SHA-256 over the tensors, split and standardization included, rounded to 1e-6."""
        digest = hashlib.sha256()
        for tensor in (self.train_x, self.train_y, self.test_x, self.test_y):
            digest.update(str(tuple(tensor.shape)).encode())
            for part in _parts(tensor):
                digest.update((part.double() * 1e6).round().to(torch.int64).cpu().numpy().tobytes())
        return digest.hexdigest()

    def to(self, device: torch.device | str) -> "Dataset":
        train = self.train_x.to(device), self.train_y.to(device)
        test = self.test_x.to(device), self.test_y.to(device)
        return Dataset(self.name, *train, *test, classes=self.classes)


def standardize(name: str, train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor]) -> Dataset:
    """Standardize images on their training part: (x − μ_c) / σ_c.

    μ_c is the mean and σ_c² = Σ (x − μ_c)² / n the variance of channel c over the training part, in double
    precision.

    Args:
        name: name of the data set.
        train: images (N, channels, height, width) of any dtype, and class numbers (N,).
        test: the same for the test part.
    """
    mean, deviation = _moments(train[0])

    def standard(images: Tensor) -> Tensor:
        made = torch.empty(images.shape, dtype=torch.float32)
        for source, target in zip(_parts(images), _parts(made), strict=True):
            target.copy_((source.double() - mean) / deviation)
        return made

    return Dataset(
        name, standard(train[0]), train[1], standard(test[0]), test[1], classes=int(train[1].max()) + 1
    )


def _moments(images: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean and deviation of each channel, (1, channels, 1, 1) each."""
    over, n = (0, 2, 3), images[:, 0].numel()
    mean = sum((x.double().sum(over, keepdim=True) for x in _parts(images)), torch.tensor(0.0)) / n
    squares = ((x.double() - mean).square().sum(over, keepdim=True) for x in _parts(images))
    return mean, (sum(squares, torch.tensor(0.0)) / n).sqrt()


def _parts(tensor: Tensor) -> tuple[Tensor, ...]:
    """Return slices along the first dimension, of at most `AT_ONCE` numbers or one row."""
    return torch.split(tensor, max(1, AT_ONCE // max(1, tensor[:1].numel())))
