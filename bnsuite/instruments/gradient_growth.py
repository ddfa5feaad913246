"""gradient_growth: how gradients grow from layer to layer of a person's own model."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from bnsuite.instruments._problem import Data, Loss, Mode, Problem
from bnsuite.names import lookup

SHOWN = 8
"""Number of layers that the text of a profile lists: half of them from each end if there are more."""


class Layer(NamedTuple):
    """Squared gradient norms of one layer.

    Attributes:
        name: its name in `model.named_modules()`.
        hidden: ‖∂L/∂h‖² of its output h, over all examples and all of its calls.
        weights: ‖∂L/∂W‖² of its parameters of more than one dimension; None: it has none.
    """

    name: str
    hidden: float
    weights: float | None


@dataclass(frozen=True)
class GradientProfile:
    """Squared gradient norms of the layers, in the order in which they are called, and their growth.

    Attributes:
        layers: the layers, the one next to the input first.
        growth: β of ‖∂L/∂h_l‖² ∝ β^(−l), the factor per layer towards the input, by the least-squares line
            through log ‖∂L/∂h_l‖² over all layers l; None: a gradient is 0 or not finite. Above 1 gradients
            explode towards the input, below 1 they vanish.
        residual: root mean square of the residuals of log ‖∂L/∂h_l‖²; e^residual is the typical factor by
            which a layer is off the line.
    """

    layers: tuple[Layer, ...]
    growth: float | None
    residual: float | None

    def __str__(self) -> str:
        law = "no rate: a gradient is 0 or not finite"
        if self.growth is not None and self.residual is not None:
            law = (
                f"‖∂L/∂h‖² grows {self.growth:.4g} times per layer "
                f"towards the input, residual {self.residual:.2f}"
            )
        lines = [f"{len(self.layers)} layers, {law}"]
        half = SHOWN // 2
        shown = [*self.layers] if len(self.layers) <= SHOWN else [*self.layers[:half], *self.layers[-half:]]
        width = max(len(layer.name) for layer in shown)
        for i, layer in enumerate(shown):
            if i == half and len(self.layers) > SHOWN:
                lines.append(f"  … {len(self.layers) - SHOWN} more")
            weights = "" if layer.weights is None else f"  ‖∂L/∂W‖² {layer.weights:.3e}"
            lines.append(f"  {layer.name:<{width}}  ‖∂L/∂h‖² {layer.hidden:.3e}{weights}")
        return "\n".join(lines)


def gradient_growth(
    model: nn.Module,
    loss: Loss,
    data: Data,
    *,
    layers: Sequence[str] | None = None,
    mode: Mode | None = None,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
) -> GradientProfile:
    """Measure ‖∂L/∂h‖² and ‖∂L/∂W‖² of every layer, and the rate at which the former grows per layer.

    The model is left as it was. Gradients with respect to frozen parameters are measured too: they belong
    to the function. Source: G. Yang et al., arXiv 1902.08129.

    Args:
        model: any module; see `bnsuite.sharpness` for its limits.
        loss: (outputs, targets) → the mean over the minibatch.
        data: one minibatch (x, y), or several of any sizes; see `bnsuite.sharpness`.
        layers: names of modules in `model.named_modules()`; None: every innermost module with a parameter
            of more than one dimension (in a network of residual blocks, name the blocks).
        mode: "train", "eval", or None: training mode as each submodule has it.
        seed: seed of the model's random numbers.
        dtype: precision of the computation.

    Raises:
        ValueError: as `bnsuite.sharpness`; a layer that the model does not have or call; fewer than 2 layers.

    >>> import torch
    >>> from torch import nn
    >>> model = nn.Sequential(*(nn.Linear(1, 1, bias=False) for _ in range(4)))
    >>> for layer in model:
    ...     _ = nn.init.constant_(layer.weight, 2.0)
    >>> profile = gradient_growth(model, nn.MSELoss(), (torch.ones(1, 1), torch.zeros(1, 1)))
    >>> print(profile)  # ∂L/∂h_l = 2 · 16 · 2^(4 − l), and ∂L/∂W_l = 2 · 16 · 8
    4 layers, ‖∂L/∂h‖² grows 4 times per layer towards the input, residual 0.00
      0  ‖∂L/∂h‖² 6.554e+04  ‖∂L/∂W‖² 6.554e+04
      1  ‖∂L/∂h‖² 1.638e+04  ‖∂L/∂W‖² 6.554e+04
      2  ‖∂L/∂h‖² 4.096e+03  ‖∂L/∂W‖² 6.554e+04
      3  ‖∂L/∂h‖² 1.024e+03  ‖∂L/∂W‖² 6.554e+04
    """
    problem = Problem(model, loss, data, mode, seed, dtype)
    network = problem.network.requires_grad_()
    modules = dict(network.named_modules())
    names = [name for name in modules if _has_weights(network, name)] if layers is None else [*layers]
    outputs: dict[str, list[Tensor]] = {}
    for name in names:
        lookup("layer", name, modules).register_forward_hook(partial(_keep, outputs, name))
    params = dict(network.named_parameters())
    hidden = dict[str, float]()
    weights = {p: torch.zeros_like(p) for p in params.values()}
    for i in range(len(problem)):
        with torch.enable_grad():
            value = problem.loss(i, params)
        kept = [(name, h) for name, calls in outputs.items() for h in calls]
        gradients = torch.autograd.grad(value, [*(h for _, h in kept), *weights], materialize_grads=True)
        for (name, _), gradient in zip(kept, gradients, strict=False):
            hidden[name] = hidden.get(name, 0.0) + float(gradient.square().sum())
        for p, gradient in zip(weights, gradients[len(kept) :], strict=True):
            weights[p] += gradient
        outputs.clear()
    if layers is None:  # a module around others, such as one that holds positions, is no layer
        hidden = {name: square for name, square in hidden.items() if not _is_around(name, hidden)}
    elif silent := [name for name in names if name not in hidden]:
        raise ValueError(f"layer {silent[0]!r} is not called by the model. Leave it out.")
    if len(hidden) < 2:
        raise ValueError(
            f"a growth per layer needs 2 layers at least: got {', '.join(hidden) or 'none'}. "
            "Name more modules as layers."
        )
    profile = tuple(
        Layer(name, square, _square(weights[p] for p in modules[name].parameters() if p.dim() > 1))
        for name, square in hidden.items()
    )
    return GradientProfile(profile, *_growth([*hidden.values()]))


def _square(tensors: Iterable[Tensor]) -> float | None:
    """Sum the squares of all tensors, None if there are none."""
    squares = [float(tensor.square().sum()) for tensor in tensors]
    return sum(squares) if squares else None


def _has_weights(network: nn.Module, name: str) -> bool:
    """Tell whether a module owns a parameter of more than one dimension, or has one parametrized."""
    module = network.get_submodule(name)
    own = any(p.dim() > 1 for p in module.parameters(recurse=False))
    return (own or is_parametrized(module)) and "parametrizations" not in name.split(".")


def _is_around(name: str, others: Iterable[str]) -> bool:
    return any(other != name and (not name or other.startswith(f"{name}.")) for other in others)


def _keep(outputs: dict[str, list[Tensor]], name: str, _module: nn.Module, _args: object, output: Any) -> Any:
    """Store a layer's output (of a tuple its first part) and pass on a copy, which may be overwritten."""
    first = output[0] if isinstance(output, tuple) else output
    outputs.setdefault(name, []).append(first)
    return (first.clone(), *output[1:]) if isinstance(output, tuple) else first.clone()


def _growth(squares: list[float]) -> tuple[float | None, float | None]:
    """Fit β and the residual of the line through the logarithms."""
    if not all(0 < square < math.inf for square in squares):
        return None, None
    depths, logs = np.arange(len(squares)), np.log(squares)
    line = np.polyfit(depths, logs, 1)
    left = logs - np.polyval(line, depths)
    return math.exp(-line[0]), float(np.sqrt(np.mean(left**2)))
