"""One call for R copies of a module: a formula of its own where `vmap` is slow, `vmap` everywhere else."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.modules.batchnorm import _BatchNorm

Tensors = Mapping[str, Tensor]
Layer = Callable[[Tensor], Tensor]
"""Module or function of one tensor."""


class Dispatch(NamedTuple):
    """Way to call a module stacked, and the names of its tensors."""

    compose: Callable[..., Tensor] | None
    formula: "Formula | None"
    params: dict[str, str]  # name in the module → name in the network
    buffers: dict[str, str]  # name in the module → name in the network


class StackedCall:
    """Forward pass of a network at stacked parameters and buffers, each (R, *shape).

    A module may define one of these next to its `forward`:

    - `compose(x, apply)` calls its parts only through `apply` and combines tensors elementwise, so that it
      works on stacked tensors as it is;
    - `stacked(params, buffers, x)` is a `Formula`, like those in `FORMULAS`.

    Any other module or function is called under one `vmap`.
    """

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self._dispatches: dict[nn.Module, Dispatch] = {}
        self._params = {id(p): name for name, p in network.named_parameters()}
        self._buffers = {id(b): name for name, b in network.named_buffers()}

    def __call__(self, params: Tensors, buffers: Tensors, x: Tensor) -> Tensor:
        """Output (R, N, …) of every lane; updates buffers in place.

        Args:
            params: stacked parameters by name, each (R, *shape).
            buffers: stacked buffers by name, each (R, *shape).
            x: inputs (R, N, …).
        """

        def apply(layer: Layer, x: Tensor) -> Tensor:
            if not isinstance(layer, nn.Module):
                mapped: Tensor = vmap(layer)(x)
                return mapped
            dispatch = self._dispatches.get(layer) or self._dispatch(layer)
            if dispatch.compose:
                return dispatch.compose(layer, x, apply)
            own_params = {name: params[full] for name, full in dispatch.params.items()}
            own_buffers = {name: buffers[full] for name, full in dispatch.buffers.items()}
            y = dispatch.formula(layer, own_params, own_buffers, x) if dispatch.formula else None
            return _mapped(layer, own_params, own_buffers, x) if y is None else y

        return apply(self._network, x)

    def _dispatch(self, module: nn.Module) -> Dispatch:
        # Only the class that defines `forward` may say how to stack it; hooks and parametrizations change
        # what a module computes, so that neither `compose` nor a formula holds for it.
        owner = vars(next(base for base in type(module).__mro__ if "forward" in vars(base)))
        hooks = (
            *(module._forward_pre_hooks, module._forward_hooks),
            *(module._backward_pre_hooks, module._backward_hooks),
        )
        plain = not (any(hooks) or hasattr(module, "parametrizations"))
        self._dispatches[module] = Dispatch(
            owner.get("compose") if plain else None,
            owner.get("stacked", FORMULAS.get(type(module).forward)) if plain else None,
            {name: self._params[id(p)] for name, p in module.named_parameters()},
            {name: self._buffers[id(b)] for name, b in module.named_buffers()},
        )
        return self._dispatches[module]


def _mapped(module: nn.Module, params: Tensors, buffers: Tensors, x: Tensor) -> Tensor:
    y: Tensor = vmap(lambda *args: functional_call(module, args[:2], args[2:]))(params, buffers, x)
    return y


def _elementwise(module: Any, _params: Tensors, _buffers: Tensors, x: Tensor) -> Tensor:
    out: Tensor = module(x)
    return out


def transposed_in_memory(params: Tensors) -> dict[str, Tensor]:
    """Lay stacked matrices (R, out, in) out in memory as (R, in, out); their values and shapes do not change.

    The gradients that `_linear` gives have the same layout, so that an update runs through both in order.
    """
    return {name: p.mT.contiguous().mT if p.dim() == 3 else p for name, p in params.items()}


def _linear(_module: Any, params: Tensors, _buffers: Tensors, x: Tensor) -> Tensor | None:
    """y = x Wᵀ + b with x (R, N, …, in), W (R, out, in) and b (R, out)."""
    if params["weight"].stride(0) == 0:  # all lanes share one weight
        return F.linear(x, *(p[0] for p in params.values()))
    weight, bias = params["weight"].mT, params.get("bias")
    rows = x.flatten(1, -2)
    y = torch.bmm(rows, weight) if bias is None else torch.baddbmm(bias.unsqueeze(1), rows, weight)
    return y if x.dim() == 3 else y.view(*x.shape[:-1], -1)


def _flatten(module: Any, _params: Tensors, _buffers: Tensors, x: Tensor) -> Tensor:
    start, end = (dim + 1 if dim >= 0 else dim for dim in (module.start_dim, module.end_dim))
    return x.flatten(start, end)


def _batch_norm(module: Any, params: Tensors, buffers: Tensors, x: Tensor) -> Tensor | None:
    """Batch norm of x (R, N, C, *S) as batch norm of one network with R · C channels."""
    if module.momentum is None:
        return None
    lanes, n, channels, *positions = x.shape
    flat = {name: tensor.flatten() for name, tensor in [*params.items(), *buffers.items()]}
    y = F.batch_norm(
        x.transpose(0, 1).reshape(n, lanes * channels, *positions),
        flat.get("running_mean"),
        flat.get("running_var"),
        flat.get("weight"),
        flat.get("bias"),
        module.training or not module.track_running_stats,
        module.momentum,
        module.eps,
    )
    if module.training and module.track_running_stats:
        buffers["num_batches_tracked"].add_(1)
    return y.view(n, lanes, channels, *positions).transpose(0, 1)


Formula = Callable[[Any, Tensors, Tensors, Tensor], Tensor | None]
"""(module, its parameters, its buffers, x (R, N, …)) → output as of `vmap`; None: `vmap` has to do it."""

FORMULAS: dict[Callable[..., Any], Formula] = {
    nn.Linear.forward: _linear,
    nn.Flatten.forward: _flatten,
    _BatchNorm.forward: _batch_norm,
    **{
        module.forward: _elementwise
        for module in (nn.Identity, nn.ReLU, nn.Softplus, nn.GELU, nn.SiLU, nn.Tanh, nn.Sigmoid)
    },
}
"""`forward` of a torch module → its stacked formula."""
