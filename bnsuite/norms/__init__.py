"""Normalizers: modules built from `num_features` that map (N, C, *S) to the same shape."""

from collections.abc import Callable

from torch import nn

from bnsuite.norms.batch import BatchNorm
from bnsuite.norms.sample import LayerNorm

NORMS: dict[str, Callable[[int], nn.Module]] = {
    "identity": nn.Identity,
    "batch": BatchNorm,
    "layer": LayerNorm,
}
"""Every normalizer by name; a new one is one file entry and one line here."""

__all__ = ["NORMS", "BatchNorm", "LayerNorm"]
