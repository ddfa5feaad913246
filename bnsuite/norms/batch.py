"""Normalizers whose statistics run over the batch."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call
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

    def stacked(self, params: Mapping[str, Tensor], buffers: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """R of them at once: they are one with R · C channels, as channels do not know of each other."""
        lanes, n, channels, *positions = x.shape
        state = {name: tensor.flatten() for name, tensor in [*params.items(), *buffers.items()]}
        wide = x.transpose(0, 1).reshape(n, lanes * channels, *positions)
        y: Tensor = functional_call(self, state, (wide,))
        return y.view(n, lanes, channels, *positions).transpose(0, 1)


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
            mean = x.flatten(0, -2).mean(0)
            centered = x - mean  # torch.var is slow under `vmap`
            std = (centered.flatten(0, -2).square().mean(0) + self.eps).sqrt()
            r = (std.detach() / self.running_std).clamp(1 / self.r_max, self.r_max)
            d = ((mean.detach() - self.running_mean) / self.running_std).clamp(-self.d_max, self.d_max)
            _move(self.running_mean, mean, self.momentum)
            _move(self.running_std, std, self.momentum)
            y = centered * (r / std) + d
        else:
            y = (x - self.running_mean) / self.running_std
        return (self.weight * y + self.bias).movedim(-1, 1)


class PowerNorm(nn.Module):
    """y_c = γ_c x̂_c + β_c, x̂_c = x_c / √(ψ²_c + ε), with ψ²_c a running mean of x²_c (momentum 0.1).

    Training, too, divides by ψ of the batches before. The gradient to x is (g − ν x̂) / ψ, with g that to x̂
    and ν = mean(g x̂) / (mean x̂² + ε) over batch and positions. Theirs nears this ratio from one backward
    pass to the next; here it is there at once, so that a gradient depends on no earlier one. Not here
    either: the paper's warm-up by statistics of the batch, its scaling of each sample ahead.
    x is (N, C, *S). Source: Shen et al., arXiv 2003.07845, where this is PN; PN-V has the batch's own ψ.
    """

    running_square: Tensor

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        self.eps, self.momentum = eps, momentum
        self.weight = nn.Parameter(torch.ones(num_features))
        self.bias = nn.Parameter(torch.zeros(num_features))
        self.register_buffer("running_square", torch.ones(num_features))

    def forward(self, input: Tensor) -> Tensor:
        x = input.movedim(1, -1)
        y = x * (self.running_square + self.eps).rsqrt()
        if self.training:
            y = _without_own_direction(y, self.eps)
            _move(self.running_square, x.detach().flatten(0, -2).square().mean(0), self.momentum)
        return (self.weight * y + self.bias).movedim(-1, 1)


class OnlineNorm(nn.Module):
    """y = z / √(mean_c z² + ε), z_c = γ_c x̂_c + β_c, x̂_c = (x_c − μ_c) / √(σ²_c + ε).

    In training μ, σ² of each sample are those before it, and move by it: with m, v the mean and variance of
    x_c over its positions, σ² ← a σ² + (1 − a) (v + a (m − μ)²), μ ← a μ + (1 − a) m, a = 0.999, from 1 and
    0. This is the paper's forward pass, sample by sample, with its layer scaling, mean_c being over channels
    and positions. Its backward pass is two controllers that drive mean(g̃ x̂) and mean(g') to 0 from sample to
    sample; here is the state they settle in, within the batch: with g the gradient to x̂,
    g̃ = g − x̂ mean(g x̂) / (mean x̂² + ε), then g' = g̃ / σ − mean(g̃ / σ) to x. Not here: controllers that
    remember, since then a gradient would depend on the earlier ones.
    x is (N, C, *S). Source: Chiley et al., arXiv 1905.05894.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, num_features: int, eps: float = 1e-5, decay: float = 0.999) -> None:
        super().__init__()
        self.eps, self.decay = eps, decay
        self.weight = nn.Parameter(torch.ones(num_features))
        self.bias = nn.Parameter(torch.zeros(num_features))
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features))

    def forward(self, input: Tensor) -> Tensor:
        x = input.movedim(1, -1)
        positions, shape = tuple(range(1, x.dim() - 1)), (len(x), *[1] * (x.dim() - 2), -1)
        mean, var = self.running_mean, self.running_var
        if self.training:
            now = x.detach().mean(positions) if positions else x.detach()  # (N, C)
            mean = self._stream(self.running_mean, now)
            moves = self.decay * (now - mean).square()
            if positions:
                moves = moves + x.detach().var(positions, correction=0)
            var = self._stream(self.running_var, moves)
            mean, var = mean.view(shape), var.view(shape)
            center = x.flatten(0, -2).mean(0)
            x = x - (center - center.detach())  # the gradient loses its mean
        y = (x - mean) * (var + self.eps).rsqrt()
        if self.training:
            y = _without_own_direction(y, self.eps)
        z = self.weight * y + self.bias
        squares = z.square().mean((*positions, -1), keepdim=True)
        return (z * (squares + self.eps).rsqrt()).movedim(-1, 1)

    def _stream(self, running: Tensor, values: Tensor) -> Tensor:
        """The running value before each of the samples (N, C); it is left as it is after all of them."""
        step = torch.arange(len(values) + 1, dtype=values.dtype, device=values.device).unsqueeze(1)
        weights = ((1 - self.decay) * self.decay ** (step - 1 - step[:-1].mT)).tril(-1)  # (N + 1, N)
        all_ = weights @ values + self.decay**step * running
        running.copy_(all_[-1])
        return all_[:-1]


def _without_own_direction(y: Tensor, eps: float) -> Tensor:
    """y itself; its gradient g becomes g − y mean(g y) / (mean y² + ε), means over all but channels."""
    rms = (y.flatten(0, -2).square().mean(0) + eps).sqrt()
    return y * (rms.detach() / rms)


def _move(running: Tensor, value: Tensor, momentum: float) -> None:
    """running ← (1 − momentum) running + momentum value, in place, for one or for stacked ones."""
    running.mul_(1 - momentum).add_(value.detach(), alpha=momentum)
