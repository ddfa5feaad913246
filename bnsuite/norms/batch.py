"""Normalizers whose statistics run over the batch."""

from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm


class BatchNorm(_BatchNorm):
    """y_c = γ_c (x_c − μ_c) / √(σ²_c + ε) + β_c, with μ_c, σ²_c over batch and positions of channel c.

    In evaluation mode μ and σ² are their running means (momentum 0.1). torch's own batch norm, for
    any number of positions: x is (N, C, *S). Source: Ioffe & Szegedy, arXiv 1502.03167.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"BatchNorm needs (N, C, *S): got {input.dim()} dimension(s)")
