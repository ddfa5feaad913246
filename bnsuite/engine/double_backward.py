"""Norms and softplus with a second derivative that is cheap to repeat in new directions.

A Hessian product differentiates the gradient. In every product torch's own formulas compute again what does
not depend on the direction. The operations here keep that, and pass over the activations about a third as
often.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode


class Twice(TorchFunctionMode):
    """Context in which batch, layer and group norm and softplus have cheap second derivatives.

    Values and derivatives equal torch's but for rounding.

    Raises:
        NotImplementedError: a third derivative is asked for.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        call: Callable[..., Any] = INSTEAD.get(func, func)
        return call(*args, **(kwargs or {}))


class _Operation(torch.autograd.Function):
    """Base of the operations: `forward` returns the value, then what the derivatives keep."""

    generate_vmap_rule = True

    @classmethod
    def of(cls, *args: Any) -> Tensor:
        value: Tensor = cls.apply(*args)[0]  # type: ignore[no-untyped-call]
        return value


class _Standardized(_Operation):
    """y = (x − mean) s over some dimensions, s = 1 / √(var + ε)."""

    @staticmethod
    def forward(x: Tensor, over: tuple[int, ...], eps: float) -> tuple[Tensor, Tensor]:  # y, s
        centered = x - x.mean(over, keepdim=True)
        s = (centered.square().mean(over, keepdim=True) + eps).rsqrt()
        return centered * s, s

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: tuple[Tensor, Tensor]) -> None:
        x, ctx.over, _ = inputs
        ctx.save_for_backward(x, *output)
        ctx.mark_non_differentiable(output[1])

    @staticmethod
    def backward(ctx: Any, g: Tensor, _: Tensor) -> tuple[Tensor, None, None]:
        x, y, s = ctx.saved_tensors
        if torch.is_grad_enabled():
            return _Slope.of(g, x, y.detach(), s, ctx.over), None, None
        return _projected(g, y, ctx.over)[0].mul_(s), None, None


class _Slope(_Operation):
    """Gradient of `_Standardized`: dx = s P(g) with P(g) = g − mean g − y mean(g y)."""

    @staticmethod
    def forward(g: Tensor, _x: Tensor, y: Tensor, s: Tensor, over: tuple[int, ...]) -> tuple[Tensor, ...]:
        projected, along = _projected(g, y, over)
        return s * projected, projected, along

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: tuple[Tensor, ...]) -> None:
        _, _, y, s, ctx.over = inputs
        ctx.save_for_backward(y, s, *output[1:])
        ctx.mark_non_differentiable(*output[1:])

    @staticmethod
    def backward(ctx: Any, v: Tensor, *_: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        """To g: s P(v). To x: −s² (y mean(v P(g)) + P(v) mean(g y) + P(g) mean(v y))."""
        _refuse_a_third()
        y, s, projected, along = ctx.saved_tensors
        to_g, v_along = _projected(v, y, ctx.over)
        to_g = to_g.mul_(s)
        to_x = y * (-s.square() * (v * projected).mean(ctx.over, keepdim=True))
        to_x = torch.addcmul(torch.addcmul(to_x, to_g, -s * along), projected, -s.square() * v_along)
        return to_g, to_x, None, None, None


def _projected(g: Tensor, y: Tensor, over: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """P(g) and mean(g y)."""
    along = (g * y).mean(over, keepdim=True)
    return torch.addcmul(g - g.mean(over, keepdim=True), y, -along), along


class _Softplus(_Operation):
    @staticmethod
    def forward(x: Tensor, beta: float, threshold: float) -> tuple[Tensor, Tensor]:
        scaled = beta * x
        return F.softplus(x, beta, threshold), torch.sigmoid(scaled).masked_fill(scaled > threshold, 1.0)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: tuple[Tensor, Tensor]) -> None:
        x, ctx.beta, _ = inputs
        ctx.save_for_backward(x, output[1])
        ctx.mark_non_differentiable(output[1])

    @staticmethod
    def backward(ctx: Any, g: Tensor, _: Tensor) -> tuple[Tensor, None, None]:
        x, slope = ctx.saved_tensors
        if torch.is_grad_enabled():
            return _Bend.of(g, x, slope, ctx.beta), None, None
        return g * slope, None, None


class _Bend(_Operation):
    """Gradient of `_Softplus`: dx = g σ with σ = σ(β x); its derivative by x is g β σ (1 − σ)."""

    @staticmethod
    def forward(g: Tensor, _x: Tensor, slope: Tensor, beta: float) -> tuple[Tensor, Tensor]:
        dx = g * slope
        return dx, beta * dx * (1 - slope)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: tuple[Tensor, Tensor]) -> None:
        ctx.save_for_backward(inputs[2], output[1])
        ctx.mark_non_differentiable(output[1])

    @staticmethod
    def backward(ctx: Any, v: Tensor, _: Tensor) -> tuple[Tensor, Tensor, None, None]:
        _refuse_a_third()
        slope, bend = ctx.saved_tensors
        return v * slope, v * bend, None, None


def _refuse_a_third() -> None:
    # With `once_differentiable`, `autograd.grad` would miss the error if another path led to the input.
    if torch.is_grad_enabled():
        raise NotImplementedError(
            "within `Twice` a gradient is differentiated once: got create_graph=True. "
            "Leave `Twice` for higher derivatives."
        )


# torch passes each argument of its norms on, defaults included.


def _batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
) -> Tensor:
    if not training:
        return F.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
    F.batch_norm(input.detach(), running_mean, running_var, None, None, True, momentum, eps)
    y = _Standardized.of(input, (0, *range(2, input.dim())), eps)
    shape = (-1, *[1] * (input.dim() - 2))
    return _affine(y, *(None if p is None else p.view(shape) for p in (weight, bias)))


def _layer_norm(
    input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None, bias: Tensor | None, eps: float
) -> Tensor:
    over = tuple(range(-len(normalized_shape), 0))
    return _affine(_Standardized.of(input, over, eps), weight, bias)


def _group_norm(
    input: Tensor, num_groups: int, weight: Tensor | None, bias: Tensor | None, eps: float
) -> Tensor:
    groups = input.reshape(len(input), num_groups, -1)
    y = _Standardized.of(groups, (-1,), eps).view(input.shape)
    shape = (-1, *[1] * (input.dim() - 2))
    return _affine(y, *(None if p is None else p.view(shape) for p in (weight, bias)))


def _affine(y: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    y = y if weight is None else y * weight
    return y if bias is None else y + bias


def _softplus(input: Tensor, beta: float = 1, threshold: float = 20) -> Tensor:
    return _Softplus.of(input, beta, threshold)


INSTEAD: dict[Callable[..., Any], Callable[..., Tensor]] = {
    F.batch_norm: _batch_norm,
    F.layer_norm: _layer_norm,
    F.group_norm: _group_norm,
    F.softplus: _softplus,
}
"""torch function → its replacement inside `Twice`."""
