"""One call for R copies of a module: equal formulas where `vmap` is slow, `vmap` for everything else."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.modules.batchnorm import _BatchNorm

Tensors = Mapping[str, Tensor]
Part = Callable[[Tensor], Tensor]
"""A module, or a function, of one tensor."""


class Way(NamedTuple):
    """How a part of the network is called, and where its tensors are: by its own names, the network's."""

    compose: Callable[..., Tensor] | None
    rule: "Rule | None"
    params: dict[str, str]
    buffers: dict[str, str]


class StackedCall:
    """The forward pass of a network at stacked parameters and buffers, each (R, *shape).

    A module that defines, beside its `forward`,

    - `compose(x, apply)` only calls its parts by `apply` and combines tensors elementwise, so that it works
      on stacked tensors as they are;
    - `stacked(params, buffers, x)` is a `Rule`, as are those in `RULES`.

    Any other module or function is called under one `vmap`.
    """

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self._ways: dict[nn.Module, Way] = {}
        self._params = {id(p): name for name, p in network.named_parameters()}
        self._buffers = {id(b): name for name, b in network.named_buffers()}

    def __call__(self, params: Tensors, buffers: Tensors, x: Tensor) -> Tensor:
        """params and buffers by name, x (R, N, …) → (R, N, …); updates buffers in place."""

        def apply(part: Part, x: Tensor) -> Tensor:
            if not isinstance(part, nn.Module):
                mapped: Tensor = vmap(part)(x)
                return mapped
            way = self._ways.get(part) or self._way(part)
            if way.compose:
                return way.compose(part, x, apply)
            own = {name: params[full] for name, full in way.params.items()}
            state = {name: buffers[full] for name, full in way.buffers.items()}
            ruled = way.rule(part, own, state, x) if way.rule else None
            return _mapped(part, own, state, x) if ruled is None else ruled

        return apply(self._network, x)

    def _way(self, part: nn.Module) -> Way:
        """Hooks and parametrizations change what a class computes; so does a `forward` of its own."""
        owner = vars(next(base for base in type(part).__mro__ if "forward" in vars(base)))
        hooks = part._forward_pre_hooks, part._forward_hooks, part._backward_pre_hooks, part._backward_hooks
        plain = not (any(hooks) or hasattr(part, "parametrizations"))
        self._ways[part] = Way(
            owner.get("compose") if plain else None,
            owner.get("stacked", RULES.get(type(part).forward)) if plain else None,
            {name: self._params[id(p)] for name, p in part.named_parameters()},
            {name: self._buffers[id(b)] for name, b in part.named_buffers()},
        )
        return self._ways[part]


def _mapped(part: nn.Module, params: Tensors, buffers: Tensors, x: Tensor) -> Tensor:
    y: Tensor = vmap(lambda *args: functional_call(part, args[:2], args[2:]))(params, buffers, x)
    return y


def _elementwise(module: Any, params: Tensors, buffers: Tensors, x: Tensor) -> Tensor:
    out: Tensor = module(x)
    return out


def laid(params: Tensors) -> dict[str, Tensor]:
    """Stacked parameters, of which matrices (R, out, in) lie in memory as (R, in, out).

    So do the gradients that `_linear` gives them, and an update runs through both in order.
    """
    return {name: p.mT.contiguous().mT if p.dim() == 3 else p for name, p in params.items()}


def _linear(module: Any, params: Tensors, buffers: Tensors, x: Tensor) -> Tensor | None:
    """y = x Wᵀ + b: x (R, N, …, in), W (R, out, in), b (R, out)."""
    if params["weight"].stride(0) == 0:  # one that all share
        return F.linear(x, *(p[0] for p in params.values()))
    weight, bias = params["weight"].mT, params.get("bias")
    rows = x.flatten(1, -2)
    y = torch.bmm(rows, weight) if bias is None else torch.baddbmm(bias.unsqueeze(1), rows, weight)
    return y if x.dim() == 3 else y.view(*x.shape[:-1], -1)


def _flatten(module: Any, params: Tensors, buffers: Tensors, x: Tensor) -> Tensor:
    start, end = (dim + 1 if dim >= 0 else dim for dim in (module.start_dim, module.end_dim))
    return x.flatten(start, end)


def _batch_norm(module: Any, params: Tensors, buffers: Tensors, x: Tensor) -> Tensor | None:
    """Batch norm of R networks with C channels, x (R, N, C, *S), is that of one with R · C channels."""
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


Rule = Callable[[Any, Tensors, Tensors, Tensor], Tensor | None]
"""(module, its parameters, its buffers, x (R, N, …)) → what `vmap` over the module gives; None: not here."""

RULES: dict[Callable[..., Any], Rule] = {
    nn.Linear.forward: _linear,
    nn.Flatten.forward: _flatten,
    _BatchNorm.forward: _batch_norm,
    **{
        module.forward: _elementwise
        for module in (nn.Identity, nn.ReLU, nn.Softplus, nn.GELU, nn.SiLU, nn.Tanh, nn.Sigmoid)
    },
}
"""Rules of torch's modules, by the `forward` that they stand for."""
