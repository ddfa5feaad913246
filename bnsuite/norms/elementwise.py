"""Functions of each element in place of a normalizer, and branch scales; none has statistics."""

import torch
from torch import Tensor, nn


class DyT(nn.Module):
    """y_c = γ_c tanh(α x_c) + β_c, with one α, learned from ½.

    x is (N, C, *S). Source: Zhu et al., arXiv 2503.10622.
    """

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(num_features))
        self.bias = nn.Parameter(torch.zeros(num_features))
        self.alpha = nn.Parameter(torch.tensor(0.5))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.tanh(self.alpha * x.movedim(1, -1))
        return (self.weight * y + self.bias).movedim(-1, 1)


class Derf(nn.Module):
    """y_c = γ_c erf(α x_c + s) + β_c, with one α, learned from ½, and one s, learned from 0.

    x is (N, C, *S). Source: Chen et al., arXiv 2512.10938.
    """

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(num_features))
        self.bias = nn.Parameter(torch.zeros(num_features))
        self.alpha = nn.Parameter(torch.tensor(0.5))
        self.shift = nn.Parameter(torch.tensor(0.0))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.erf(self.alpha * x.movedim(1, -1) + self.shift)
        return (self.weight * y + self.bias).movedim(-1, 1)


class ScalarBias(nn.Module):
    """x + a, with one a, learned from 0.

    x is (N, C, *S). Source: Zhang et al., arXiv 1901.09321 (Fixup).
    """

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.tensor(0.0))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.bias


class LayerScale(nn.Module):
    """α_l x: y_c = γ_c x_c, with γ_c learned from 10⁻⁵.

    x is (N, C, *S). Source: Touvron et al., arXiv 2103.17239.
    """

    def __init__(self, num_features: int, depth: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.full((num_features,), 1e-5))

    def forward(self, x: Tensor) -> Tensor:
        return (self.gain * x.movedim(1, -1)).movedim(-1, 1)


class SkipInit(nn.Module):
    """α_l x, with one α_l a branch, learned from `start`: 0, or Fixup's 1.

    x is (N, C, *S). Source: De & Smith, arXiv 2002.10444.
    """

    def __init__(self, num_features: int, depth: int, start: float = 0.0) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.tensor(start))

    def forward(self, x: Tensor) -> Tensor:
        return self.alpha * x


class OverDepth(nn.Module):
    """x / L, with L the depth of the network."""

    def __init__(self, num_features: int, depth: int) -> None:
        super().__init__()
        self.depth = depth

    def forward(self, x: Tensor) -> Tensor:
        return x / self.depth


class OverAlpha(nn.Module):
    """x / α, with α, 1 until then, set by `deepnorm`: it alone knows how many branches there are."""

    alpha: Tensor

    def __init__(self, num_features: int, depth: int) -> None:
        super().__init__()
        self.register_buffer("alpha", torch.tensor(1.0))

    def forward(self, x: Tensor) -> Tensor:
        return x / self.alpha
