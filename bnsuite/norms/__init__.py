"""Normalizers: modules built from `num_features` that map (N, C, *S) to the same shape.

Beside them TLU, an activation; branch scales, built from (num_features, depth); weight
parametrizations.
"""

from collections.abc import Callable

from torch import nn

from bnsuite.norms.batch import BatchNorm, BatchRenorm, GhostBatchNorm, MeanOnlyBatchNorm
from bnsuite.norms.elementwise import Derf, DyT, LayerScale, OverDepth, SkipInit
from bnsuite.norms.sample import TLU, FilterResponseNorm, GroupNorm, InstanceNorm, LayerNorm, RMSNorm
from bnsuite.norms.weights import scaled_weight_standardization, weight_norm, weight_standardization

NORMS: dict[str, Callable[[int], nn.Module]] = {
    "identity": nn.Identity,
    "batch": BatchNorm,
    "layer": LayerNorm,
    "mean-only": MeanOnlyBatchNorm,
    "ghostbatch": GhostBatchNorm,
    "batchrenorm": BatchRenorm,
    "rms": RMSNorm,
    "group": GroupNorm,
    "instance": InstanceNorm,
    "frn": FilterResponseNorm,
    "dyt": DyT,
    "derf": Derf,
}
"""Every normalizer by name; a new one is one file entry and one line here."""

__all__ = [
    "NORMS",
    "TLU",
    "BatchNorm",
    "BatchRenorm",
    "Derf",
    "DyT",
    "FilterResponseNorm",
    "GhostBatchNorm",
    "GroupNorm",
    "InstanceNorm",
    "LayerNorm",
    "LayerScale",
    "MeanOnlyBatchNorm",
    "OverDepth",
    "RMSNorm",
    "SkipInit",
    "scaled_weight_standardization",
    "weight_norm",
    "weight_standardization",
]
