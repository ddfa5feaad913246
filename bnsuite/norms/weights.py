"""Normalizers of weights: each takes a layer and returns it, its weight W a function of another.

W_i are the n weights (the fan-in) of output i.
"""

import math

from torch import Tensor, nn
from torch.nn.utils.parametrize import register_parametrization


class WeightNorm(nn.Module):
    """W_i = g_i V_i / |V_i|: (g (out, 1, …), V (out, in, …)) → W, with g_i = |W_i| at the start.

    As torch's, which `vmap` can only loop over. Source: Salimans & Kingma, arXiv 1602.07868.
    """

    def forward(self, gain: Tensor, direction: Tensor) -> Tensor:
        return direction * (gain / _norm(direction))

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        return _norm(weight), weight


class Standardized(nn.Module):
    """W_i = gain (V_i − μ_i) / √(n σ²_i + ε): V → W, with μ_i, σ²_i over the weights of output i."""

    def __init__(self, gain: float, eps: float = 1e-4) -> None:
        super().__init__()
        self.gain, self.eps = gain, eps

    def forward(self, weight: Tensor) -> Tensor:
        inputs = tuple(range(1, weight.dim()))
        centered = weight - weight.mean(inputs, keepdim=True)
        squares = centered.square().sum(inputs, keepdim=True)  # n σ²
        return centered * (self.gain * (squares + self.eps).rsqrt())


def weight_norm(layer: nn.Module) -> nn.Module:
    """`WeightNorm` of the layer's weight, which stays what it is."""
    return register_parametrization(layer, "weight", WeightNorm())


def weight_standardization(layer: nn.Module) -> nn.Module:
    """`Standardized` with gain √2: |W_i| is that of a He normal weight.

    The source, Qiao et al., arXiv 1903.10520, has no such scale, √(2 / n): there a normalizer follows.
    """
    return register_parametrization(layer, "weight", Standardized(math.sqrt(2)))


def scaled_weight_standardization(layer: nn.Module) -> nn.Module:
    """`Standardized` with gain √(2 / (1 − 1/π)), with which variance survives ReLU and a layer.

    It is the same in layers that ReLU does not precede. Source: Brock et al., arXiv 2101.08692.
    """
    return register_parametrization(layer, "weight", Standardized(math.sqrt(2 / (1 - 1 / math.pi))))


def _norm(weight: Tensor) -> Tensor:
    return weight.square().sum(tuple(range(1, weight.dim())), keepdim=True).sqrt()
