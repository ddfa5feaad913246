"""Normalizers whose statistics stay within one sample."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LayerNorm(nn.LayerNorm):
    """y = γ (x − μ) / √(σ² + ε) + β, with μ, σ² over the C channels at each position of each sample.

    torch's own layer norm, over dimension 1 of x (N, C, *S). Source: Ba et al., arXiv 1607.06450.
    """

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.movedim(1, -1)).movedim(-1, 1)

    def stacked(self, params: Mapping[str, Tensor], buffers: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """R of them at once: x (R, N, C, *S), parameters (R, C)."""
        channels_last = x.movedim(2, -1)
        y = F.layer_norm(channels_last, self.normalized_shape, eps=self.eps)
        shape = (len(x), *[1] * (x.dim() - 2), -1)
        return torch.addcmul(params["bias"].view(shape), y, params["weight"].view(shape)).movedim(-1, 2)


class RMSNorm(nn.RMSNorm):
    """y = γ x / √(mean x² + ε), with the mean over the C channels at each position of each sample.

    torch's own, over dimension 1 of x (N, C, *S). Source: Zhang & Sennrich, arXiv 1910.07467.
    """

    def __init__(self, num_features: int, eps: float = 1e-5) -> None:
        super().__init__(num_features, eps)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class GroupNorm(nn.GroupNorm):
    """y_c = γ_c (x_c − μ_g) / √(σ²_g + ε) + β_c, with μ_g, σ²_g over group g of channels and all positions.

    torch's own, with the number of groups second. x is (N, C, *S). Source: Wu & He, arXiv 1803.08494.
    """

    def __init__(self, num_features: int, groups: int = 8) -> None:
        _check_groups("GroupNorm", num_features, groups)
        super().__init__(groups, num_features)

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input)

    def stacked(self, params: Mapping[str, Tensor], buffers: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """R of them at once: x (R, N, C, *S), parameters (R, C)."""
        y = F.group_norm(x.flatten(0, 1), self.num_groups, eps=self.eps).view_as(x)
        shape = (len(x), 1, -1, *[1] * (x.dim() - 3))
        return torch.addcmul(params["bias"].view(shape), y, params["weight"].view(shape))


class EvoNormS0(nn.Module):
    """y_c = γ_c x_c σ(v_c x_c) / √(s²_g + ε) + β_c, with s²_g the variance over group g and all positions.

    Normalizer and activation in one: its scheme has no other, so that in the `transformer` the perceptron is
    linear behind it. x is (N, C, *S). Source: Liu et al., arXiv 2004.02967.
    """

    def __init__(self, num_features: int, groups: int = 8, eps: float = 1e-5) -> None:
        _check_groups("EvoNormS0", num_features, groups)
        super().__init__()
        self.groups, self.eps = groups, eps
        self.weight = nn.Parameter(torch.ones(num_features))
        self.bias = nn.Parameter(torch.zeros(num_features))
        self.v = nn.Parameter(torch.ones(num_features))

    def forward(self, input: Tensor) -> Tensor:
        x = input.movedim(1, -1)
        grouped = x.reshape(*x.shape[:-1], self.groups, -1)
        over = (*range(1, x.dim() - 1), -1)
        centered = grouped - grouped.mean(over, keepdim=True)  # torch.var is slow over few
        inverse = (centered.square().mean(over, keepdim=True) + self.eps).rsqrt()
        y: Tensor = (grouped * inverse).reshape(x.shape) * torch.sigmoid(self.v * x)
        return (self.weight * y + self.bias).movedim(-1, 1)


def _check_groups(norm: str, num_features: int, groups: int) -> None:
    if num_features % groups:
        raise ValueError(
            f"{norm} needs a width that its {groups} groups divide: got {num_features}."
            f" Choose such a width, or other groups: partial({norm}, groups=…)"
        )


class InstanceNorm(GroupNorm):
    """Group norm with one channel a group: μ_c, σ²_c over the positions of each sample's channel c.

    x is (N, C, *S), with two positions at least. Source: Ulyanov et al., arXiv 1607.08022.
    """

    def __init__(self, num_features: int) -> None:
        super().__init__(num_features, groups=num_features)

    def forward(self, input: Tensor) -> Tensor:
        if input.shape[2:].numel() < 2:
            raise ValueError(
                "InstanceNorm needs (N, C, *S) with 2 positions at least, since one value has no variance:"
                f" got {tuple(input.shape)}. Choose a family with positions, or another normalizer"
            )
        return super().forward(input)


class FilterResponseNorm(nn.Module):
    """y_c = γ_c x_c / √(ν²_c + 10⁻⁶ + |ε|) + β_c, with ν²_c = mean x²_c over the positions of each sample.

    ε starts at 10⁻⁴ and is learned, as the paper has it where there are few positions or none. Its activation
    is `TLU`. x is (N, C, *S). Source: Singh & Krishnan, arXiv 1911.09737.
    """

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(num_features))
        self.bias = nn.Parameter(torch.zeros(num_features))
        self.eps = nn.Parameter(torch.tensor(1e-4))

    def forward(self, input: Tensor) -> Tensor:
        x = input.movedim(1, -1)
        positions = tuple(range(1, x.dim() - 1))
        squares = x.square().mean(positions, keepdim=True) if positions else x.square()
        y = self.weight * (x * (squares + 1e-6 + self.eps.abs()).rsqrt()) + self.bias
        return y.movedim(-1, 1)


class TLU(nn.Module):
    """φ(x_c) = max(x_c, τ_c), with τ_c learned from 0: at the start it is ReLU.

    x is (N, C, *S). Source: Singh & Krishnan, arXiv 1911.09737.
    """

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.threshold = nn.Parameter(torch.zeros(num_features))

    def forward(self, x: Tensor) -> Tensor:
        return torch.maximum(x.movedim(1, -1), self.threshold).movedim(-1, 1)
