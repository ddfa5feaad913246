"""Normalizers whose statistics stay within one sample."""

from torch import Tensor, nn


class LayerNorm(nn.LayerNorm):
    """y = γ (x − μ) / √(σ² + ε) + β, with μ, σ² over the C channels at each position of each sample.

    torch's own layer norm, over dimension 1 of x (N, C, *S). Source: Ba et al., arXiv 1607.06450.
    """

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.movedim(1, -1)).movedim(-1, 1)
