"""Normalizers whose statistics run over the batch."""

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class BatchNorm(_BatchNorm):
    """y_c = γ_c (x_c − μ_c) / √(σ²_c + ε) + β_c, with μ_c, σ²_c over batch and positions of channel c.

    In evaluation mode μ and σ² are their running means (momentum 0.1). torch's own batch norm, for
    any number of positions: x is (N, C, *S). Source: Ioffe & Szegedy, arXiv 1502.03167.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"BatchNorm needs (N, C, *S): got {input.dim()} dimension(s)")


class GhostBatchNorm(BatchNorm):
    """Batch norm of each part of the batch by itself: ⌊N / 32⌋ parts of nearly equal size, at least 1.

    The running means are updated part by part. x is (N, C, *S). Source: Hoffer et al., arXiv 1705.08741.
    """

    def forward(self, input: Tensor) -> Tensor:
        parts = input.tensor_split(max(1, len(input) // 32)) if self.training else (input,)
        return torch.cat([*map(super().forward, parts)])


class MeanOnlyBatchNorm(nn.Module):
    """y_c = x_c − μ_c + β_c, with μ_c over batch and positions of channel c.

    In evaluation mode μ is its running mean (momentum 0.1). x is (N, C, *S). Source: Salimans & Kingma, arXiv
    1602.07868.
    """

    running_mean: Tensor

    def __init__(self, num_features: int, momentum: float = 0.1) -> None:
        super().__init__()
        self.momentum = momentum
        self.bias = nn.Parameter(torch.zeros(num_features))
        self.register_buffer("running_mean", torch.zeros(num_features))

    def forward(self, input: Tensor) -> Tensor:
        x, mean = input.movedim(1, -1), self.running_mean
        if self.training:
            mean = x.flatten(0, -2).mean(0)
            _move(self.running_mean, mean, self.momentum)
        return (x - mean + self.bias).movedim(-1, 1)


class BatchRenorm(nn.Module):
    """y_c = γ_c ((x_c − μ_c) / σ_c · r_c + d_c) + β_c, with μ_c and σ²_c − ε over batch and positions.

    r = σ / σ̄, clipped to [1/3, 3], and d = (μ − μ̄) / σ̄, clipped to [−5, 5], with μ̄ and σ̄ the running means
    of μ and σ (momentum 0.1), are constants to the gradient. In evaluation mode μ, σ are μ̄, σ̄, r = 1, d = 0.
    The limits are the paper's last ones from the first step on: it widens them over more steps than any
    profile trains. x is (N, C, *S). Source: Ioffe, arXiv 1702.03275.
    """

    running_mean: Tensor
    running_std: Tensor

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        r_max: float = 3.0,
        d_max: float = 5.0,
    ) -> None:
        super().__init__()
        self.eps, self.momentum, self.r_max, self.d_max = eps, momentum, r_max, d_max
        self.weight = nn.Parameter(torch.ones(num_features))
        self.bias = nn.Parameter(torch.zeros(num_features))
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_std", torch.ones(num_features))

    def forward(self, input: Tensor) -> Tensor:
        x = input.movedim(1, -1)
        if self.training:
            variance, mean = torch.var_mean(x.flatten(0, -2), 0, correction=0)
            std = (variance + self.eps).sqrt()
            r = (std.detach() / self.running_std).clamp(1 / self.r_max, self.r_max)
            d = ((mean.detach() - self.running_mean) / self.running_std).clamp(-self.d_max, self.d_max)
            _move(self.running_mean, mean, self.momentum)
            _move(self.running_std, std, self.momentum)
            y = (x - mean) / std * r + d
        else:
            y = (x - self.running_mean) / self.running_std
        return (self.weight * y + self.bias).movedim(-1, 1)


def _move(running: Tensor, value: Tensor, momentum: float) -> None:
    """running ← (1 − momentum) running + momentum value, in place, for one or for stacked ones."""
    running.mul_(1 - momentum).add_(value.detach(), alpha=momentum)
