"""What tests of the contract share: stages, parts of a network, training, torch's settings."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from bnsuite.engine.train import mean_cross_entropy, trainable
from bnsuite.facets.probe_network import Stage
from bnsuite.networks import FAMILIES, Network
from bnsuite.schemes import Scheme


class BrokenError(Exception):
    """The contract does not hold; the message says got, wanted, do."""


def broken(got: str, wanted: str, do: str) -> BrokenError:
    return BrokenError(f"got {got}; wanted {wanted}. {do}")


def accepting(scheme: Scheme) -> list[Stage]:
    """A stage of each family that does not refuse the scheme, one at least.

    What else a scheme raises there is for the test to meet.
    """

    def accepts(stage: Stage) -> bool:
        try:
            return stage.refusal() is None
        except Exception:
            return True

    found = [stage for family in FAMILIES.values() if accepts(stage := Stage(scheme, family))]
    if not found:
        raise broken("no family", "one at least that takes the scheme", "See the test `builds`")
    return found


def parts(network: Network) -> dict[str, nn.Module]:
    """The scheme's own modules that keep the shape of what they are given: all but weights."""
    kinds = ("norms.", "activations.", "branches.")
    found = {
        name: module
        for name, module in network.named_modules()
        if name.count(".") == 1 and name.startswith(kinds)
    }
    inner = {name: module for name, module in network.named_modules() if name.endswith(".activation")}
    return found | inner


def watched(network: Network, watch: Callable[[str, Tensor, Tensor], None]) -> Network:
    """The network with `watch(name, input, output)` called for each of its `parts`."""

    def hook(name: str) -> Callable[[nn.Module, Any, Any], None]:
        return lambda module, given, out: watch(f"{name} ({type(module).__name__})", given[0], out)

    for name, module in parts(network).items():
        module.register_forward_hook(hook(name))
    return network


def loose(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Tensors that modules hold and that are neither parameters nor buffers, by name."""
    for prefix, module in network.named_modules():
        for name, value in vars(module).items():
            values = value if isinstance(value, (list, tuple)) else [value]
            for tensor in values if name[:1] != "_" or isinstance(value, Tensor) else ():
                if isinstance(tensor, Tensor):
                    yield f"{prefix}.{name}", tensor


def train(stage: Stage, network: nn.Module, steps: int = 2, seed: int = 0, rate: float = 0.05) -> list[float]:
    """Plain steps in place; the loss before each."""
    losses = []
    for step in range(steps):
        losses.append(descend(network, *stage.data(seed=100 * seed + step), rate))
    return losses


def descend(network: nn.Module, x: Tensor, y: Tensor, rate: float = 0.05) -> float:
    loss = mean_cross_entropy(network.train()(x), y)
    parameters = list(trainable(network).values())
    gradient = torch.autograd.grad(loss, parameters, materialize_grads=True)
    with torch.no_grad():
        for p, g in zip(parameters, gradient, strict=True):
            p.sub_(rate * g)
    return float(loss.detach())


def differ(found: Tensor, expected: Tensor, tolerance: float = 1e-9) -> bool:
    """Beyond rounding; NaN beside NaN does not."""
    return not torch.allclose(found, expected, rtol=tolerance, atol=tolerance, equal_nan=True)


SETTINGS: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "the default dtype": (torch.get_default_dtype, torch.set_default_dtype),
    "the default device": (torch.get_default_device, torch.set_default_device),
    "gradient mode": (torch.is_grad_enabled, torch.set_grad_enabled),
    "the number of threads": (torch.get_num_threads, torch.set_num_threads),
    "deterministic algorithms": (
        torch.are_deterministic_algorithms_enabled,
        torch.use_deterministic_algorithms,
    ),
    "anomaly detection": (torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly),
    "the precision of float32 products": (
        torch.get_float32_matmul_precision,
        torch.set_float32_matmul_precision,
    ),
}
"""Torch's global settings: how each is read and set."""


def settings_now() -> dict[str, Any]:
    return {name: read() for name, (read, _) in SETTINGS.items()}


@contextmanager
def settings_kept() -> Iterator[None]:
    """Whatever is changed inside is put back."""
    before = settings_now()
    try:
        yield
    finally:
        for name, value in settings_now().items():
            if value != before[name]:
                SETTINGS[name][1](before[name])
