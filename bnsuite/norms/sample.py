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
