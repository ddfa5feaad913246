"""Shared parts of the contract's tests: stages, parts of a network, training, torch's settings."""

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
    """Build the error of a test that fails.

    Args:
        got: what the scheme does.
        wanted: what the contract asks for.
        do: how to mend it.
    """
    return BrokenError(f"got {got}; wanted {wanted}. {do}")


def accepting(scheme: Scheme) -> list[Stage]:
    """Stages of the families that do not refuse the scheme.

    A family in which the scheme raises something else counts as accepting: the test will meet that error.

    Raises:
        BrokenError: every family refuses the scheme.
    """

    def accepts(stage: Stage) -> bool:
        try:
            return stage.refusal() is None
        except Exception:
            return True

    stages = [stage for family in FAMILIES.values() if accepts(stage := Stage(scheme, family))]
    if not stages:
        raise broken("no family", "one at least that takes the scheme", "See the test `builds`")
    return stages


def parts(network: Network) -> dict[str, nn.Module]:
    """Modules of the scheme that keep the shape of their input, by name: all but weight layers."""
    kinds = ("norms.", "activations.", "branches.")
    return {
        name: module
        for name, module in network.named_modules()
        if (name.count(".") == 1 and name.startswith(kinds)) or name.endswith(".activation")
    }


def watched(network: Network, watch: Callable[[str, Tensor, Tensor], None]) -> Network:
    """Make the network call `watch(name, input, output)` for each of its `parts`; returns the network."""

    def hook(name: str) -> Callable[[nn.Module, Any, Any], None]:
        return lambda module, inputs, out: watch(f"{name} ({type(module).__name__})", inputs[0], out)

    for name, module in parts(network).items():
        module.register_forward_hook(hook(name))
    return network


def loose(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Names and values of tensors in modules that are neither parameters nor buffers."""
    for prefix, module in network.named_modules():
        for name, value in vars(module).items():
            values = value if isinstance(value, (list, tuple)) else [value]
            for tensor in values if name[:1] != "_" or isinstance(value, Tensor) else ():
                if isinstance(tensor, Tensor):
                    yield f"{prefix}.{name}", tensor


def take_steps(stage: Stage, network: nn.Module, steps: int = 2) -> None:
    """Take steps of plain SGD in place.

    Args:
        stage: gives the data.
        network: network to train.
        steps: number of steps.
    """
    for step in range(steps):
        descend(network, *stage.data(seed=step))


def descend(network: nn.Module, x: Tensor, y: Tensor, rate: float = 0.05) -> float:
    """Take one step of plain SGD in place; returns the loss before it.

    Args:
        network: network to train.
        x: inputs (N, …).
        y: labels (N,).
        rate: learning rate.
    """
    loss = mean_cross_entropy(network.train()(x), y)
    parameters = list(trainable(network).values())
    gradient = torch.autograd.grad(loss, parameters, materialize_grads=True)
    with torch.no_grad():
        for p, g in zip(parameters, gradient, strict=True):
            p.sub_(rate * g)
    return float(loss.detach())


def differ(first: Tensor, second: Tensor, tolerance: float = 1e-9) -> bool:
    """Tell whether two tensors differ by more than rounding; two NaNs do not differ.

    Args:
        first: a tensor.
        second: a tensor of the same shape.
        tolerance: relative and absolute tolerance.
    """
    return not torch.allclose(first, second, rtol=tolerance, atol=tolerance, equal_nan=True)


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
"""Global setting of torch → functions that read and set it."""


def settings_now() -> dict[str, Any]:
    """Current values of torch's global settings."""
    return {name: read() for name, (read, _) in SETTINGS.items()}


@contextmanager
def settings_kept() -> Iterator[None]:
    """Context that restores torch's global settings at its end."""
    before = settings_now()
    try:
        yield
    finally:
        for name, value in settings_now().items():
            if value != before[name]:
                SETTINGS[name][1](before[name])
