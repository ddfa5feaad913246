"""Normalizers: modules built from `num_features` that map (N, C, *S) to the same shape.

Beside them TLU, an activation; branch scales, built from (num_features, depth); weight
parametrizations; initializations.
"""

from collections.abc import Callable

from torch import nn

from bnsuite.norms.batch import (
    BatchNorm,
    BatchRenorm,
    GhostBatchNorm,
    MeanOnlyBatchNorm,
    OnlineNorm,
    PowerNorm,
)
from bnsuite.norms.elementwise import Derf, DyT, LayerScale, OverAlpha, OverDepth, ScalarBias, SkipInit
from bnsuite.norms.inits import deepnorm, fixup
from bnsuite.norms.sample import (
    TLU,
    EvoNormS0,
    FilterResponseNorm,
    GroupNorm,
    InstanceNorm,
    LayerNorm,
    RMSNorm,
)
from bnsuite.norms.weights import scaled_weight_standardization, weight_norm, weight_standardization

NORMS: dict[str, Callable[[int], nn.Module]] = {
    "identity": nn.Identity,
    "batch": BatchNorm,
    "layer": LayerNorm,
    "mean-only": MeanOnlyBatchNorm,
    "ghostbatch": GhostBatchNorm,
    "batchrenorm": BatchRenorm,
    "power": PowerNorm,
    "online": OnlineNorm,
    "rms": RMSNorm,
    "group": GroupNorm,
    "instance": InstanceNorm,
    "frn": FilterResponseNorm,
    "evonorm-s0": EvoNormS0,
    "dyt": DyT,
    "derf": Derf,
    "scalar-bias": ScalarBias,
}
"""Every normalizer by name; a new one is one file entry and one line here."""

__all__ = [
    "NORMS",
    "TLU",
    "BatchNorm",
    "BatchRenorm",
    "Derf",
    "DyT",
    "EvoNormS0",
    "FilterResponseNorm",
    "GhostBatchNorm",
    "GroupNorm",
    "InstanceNorm",
    "LayerNorm",
    "LayerScale",
    "MeanOnlyBatchNorm",
    "OnlineNorm",
    "OverAlpha",
    "OverDepth",
    "PowerNorm",
    "RMSNorm",
    "ScalarBias",
    "SkipInit",
    "deepnorm",
    "fixup",
    "scaled_weight_standardization",
    "weight_norm",
    "weight_standardization",
]
