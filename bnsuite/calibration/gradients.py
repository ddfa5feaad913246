"""Known cases of gradients at initialization: from arXiv 1902.08129, and simulated for this project."""

import math
from functools import cache, partial

import torch
from torch import nn

from bnsuite.calibration._case import SEEDS, Accept, KnownCase, absolute, at_least, relative, value_of
from bnsuite.datasets import Dataset
from bnsuite.networks import FAMILIES, Network
from bnsuite.norms import BatchNorm
from bnsuite.schemes import SCHEMES, Scheme
from bnsuite.tasks import Subject
from bnsuite.tasks.first_step import FirstStep
from bnsuite.tasks.gradient_growth import GradientGrowth
from bnsuite.tasks.overflow_depth import OverflowDepth
from bnsuite.tasks.scale_law import ScaleLaw
from bnsuite.theory import gradient_growth


def gaussian(n: int, width: int, scale: float = 1.0, classes: int = 10) -> Dataset:
    """Draw n inputs of `width` independent normal numbers.

    Args:
        n: number of inputs.
        width: numbers per input.
        scale: their standard deviation.
        classes: number of classes, which take turns.
    """
    draw = torch.Generator().manual_seed(0)
    x, y = scale * torch.randn(n, 1, 1, width, generator=draw), torch.arange(n) % classes
    return Dataset("gaussian", x, y, x, y, classes)


def mlp(scheme: Scheme, batch: int, scale: float = 1.0) -> Subject:
    """Build a subject of MLPs on one batch of Gaussian inputs.

    Args:
        scheme: normalization scheme.
        batch: number of inputs.
        scale: standard deviation of the inputs.
    """
    return Subject(scheme, FAMILIES["mlp"], gaussian(batch, 256, scale))


def _exact(num_features: int) -> nn.Module:
    return BatchNorm(num_features, eps=1e-12)


@torch.no_grad()
def _tenfold(network: nn.Module) -> None:
    """Multiply the hidden weights by 10."""
    assert isinstance(network, Network)
    for layer in network.weights():
        for weight in layer:
            weight.mul_(10)


def growth(scheme: Scheme, activation: str, batch: int, width: int = 1000, depth: int = 40) -> float:
    """Measure β by `gradient_growth`, median over the calibration's seeds.

    Args:
        scheme: normalization scheme.
        activation: name of φ.
        batch: number of inputs.
        width: channels of the hidden layers.
        depth: number of layers.
    """
    task = GradientGrowth(
        width=width, batch=batch, tuning=(), confirmation=SEEDS, depth=depth, activation=activation
    )
    return value_of(task(mlp(scheme, batch)).value)


def over_theory(activation: str, batch: int) -> float:
    """Divide measured β of batch norm by that of the theory, for settings that no published table has."""
    return growth(SCHEMES["batchnorm"], activation, batch) / gradient_growth("batch", activation, batch)


def residual_ratio(depth: int) -> float:
    """Measure ‖∂L/∂h_1‖² / ‖∂L/∂h_L‖² for h_1 of variance 1, at a batch so large that it matters little."""
    task = GradientGrowth(width=384, batch=512, tuning=(), confirmation=SEEDS, depth=depth)
    return value_of(task(mlp(SCHEMES["residual-batchnorm"], 512, math.sqrt(0.5))).derived["first_to_last"])


@cache
def first_step() -> dict[str, float]:
    """Measure the relative gradient after one step and the growth of ‖W_2‖, in 100 layers of batch norm."""
    task = FirstStep(width=384, batch=128, tuning=(), confirmation=SEEDS, depth=100, rate=0.1)
    measured = task(mlp(Scheme("frozen", partial(BatchNorm, eps=1e-3, affine=False)), 128))
    return {"value": value_of(measured.value), "growth": value_of(measured.derived["weight_growth"])}


def overflow() -> float:
    """Measure the depth of overflow of batch norm in float32, in layers."""
    task = OverflowDepth(
        width=256, batch=128, tuning=(), confirmation=SEEDS[:1], depths=(120, 480), half=(1, 1), ratio=1.03
    )
    return value_of(task(mlp(SCHEMES["batchnorm"], 128)).value)


@cache
def scale_law() -> tuple[float, float, float]:
    """Measure the exponents of ‖∂L/∂W‖ and ‖∂L/∂h‖, and |cos(W, ∇W)|, for batch norm without ε."""
    task = ScaleLaw(width=64, batch=32, tuning=(), confirmation=SEEDS[:1])
    return task.exponents(mlp(Scheme("exact", _exact), 32), SEEDS[0])


_WIDE = "width 1000, 40 layers"


CASES: tuple[KnownCase, ...] = (
    *(
        KnownCase(
            "gradient_growth",
            f"{scheme}, {activation}, batch {batch}, {_WIDE}",
            partial(growth, SCHEMES[scheme], activation.lower(), batch),
            accept,
        )
        for scheme, activation, batch, accept in (
            ("batchnorm", "ReLU", 128, relative(1.4797, 0.02)),
            ("batchnorm", "ReLU", 16, relative(1.590, 0.03)),
            ("batchnorm", "linear", 16, absolute(1.0769, 0.01)),
            ("batchnorm", "tanh", 128, relative(1.186, 0.015)),
            ("none", "ReLU", 128, absolute(1, 0.03)),
            ("layernorm", "ReLU", 128, absolute(1, 0.03)),
        )
    ),
    *(
        KnownCase(
            "gradient_growth",
            f"batchnorm, {activation}, batch {batch}, {_WIDE}: over the theory",
            partial(over_theory, activation, batch),
            absolute(1, 0.03),
        )
        for activation, batch in (("leaky_relu", 24), ("erf", 48))
    ),
    KnownCase(
        "gradient_growth",
        "batchnorm, hidden weights × 10 over × 1",
        lambda: (
            growth(Scheme("tenfold", _exact, init=_tenfold), "relu", 16, 256, 24)
            / growth(Scheme("exact", _exact), "relu", 16, 256, 24)
        ),
        absolute(1, 1e-3),
    ),
    *(
        KnownCase(
            "gradient_growth",
            f"residual-batchnorm, {depth} layers: first over last",
            partial(residual_ratio, depth),
            relative(expected, 0.1),
        )
        for depth, expected in ((17, 31.8), (257, 1619))
    ),
    KnownCase(
        "first_step",
        "batchnorm, γ and β frozen, 100 layers, rate .1: ‖W_2‖ grows by",
        lambda: first_step()["growth"],
        at_least(1e5),
    ),
    KnownCase(
        "first_step",
        "relative gradient of layer 2 over the last",
        lambda: first_step()["value"],
        Accept(1e-4, 1e-5, 1e-3),
    ),
    KnownCase(
        "overflow_depth", "batchnorm, batch 128, width 256: Σ g² in float32", overflow, relative(226, 0.15)
    ),
    KnownCase("scale_law", "exponent of the weight gradient", lambda: scale_law()[0], absolute(-1, 1e-4)),
    KnownCase(
        "scale_law",
        "exponent of the gradient before the normalizer",
        lambda: scale_law()[1],
        absolute(-1, 1e-4),
    ),
    KnownCase("scale_law", "|cos(W, ∇W)|", lambda: scale_law()[2], absolute(0, 1e-4)),
)
