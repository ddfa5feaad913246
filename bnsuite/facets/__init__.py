"""Facets: properties of a scheme, found by trying it and not by asking it; and its costs.

Properties of the normalizer (the identity, for a scheme without one) are tried on inputs (8, 32) and
(8, 32, 4, 4), or on one of them if it refuses the other. Those of the network are tried in `mlp`, or in the
first family that takes the scheme. Everything is in float64, on inputs of size 1 and of size 100. As in the
tasks, gradients are on in training mode and off in evaluation mode. Tolerances and steps follow the precision
in which the scheme computes.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor, nn

from bnsuite.engine.stack import can_stack
from bnsuite.engine.train import mean_cross_entropy, trainable
from bnsuite.facets.costs import costs_of
from bnsuite.facets.probe_network import Stage, epsilon, own_streams, rounding, stages
from bnsuite.networks import softplus
from bnsuite.networks.layered import CNN, MLP
from bnsuite.records.facets import COSTS, FACETS
from bnsuite.schemes import Scheme

T = TypeVar("T")

INVARIANCE_TOLERANCE = 1e-2
"""Relative tolerance of invariances, which ε breaks a little; independence must hold up to rounding."""

__all__ = ["COSTS", "FACETS", "Facets", "Stage", "facets_of", "gradient_gap", "own_streams", "stages"]


@dataclass(frozen=True)
class Facets:
    """Facets and costs of a scheme.

    Attributes:
        words: names in `FACETS` that hold, in its order.
        costs: name in `COSTS` → cost; empty if neither `cnn` nor `mlp` takes the scheme.
    """

    words: tuple[str, ...] = ()
    costs: dict[str, float] = field(default_factory=dict)


def facets_of(scheme: Scheme) -> Facets:
    """Try the facets of a scheme, and count its costs; every call gives the same result.

    A facet whose trial raises does not hold. Global random number generators are left as they were.
    """
    with own_streams():
        accepting = stages(scheme)
        trials = {word: partial(trial, scheme) for word, trial in _NORMALIZER_TRIALS.items()}
        for stage in accepting[:1]:
            trials |= {word: partial(trial, stage) for word, trial in _NETWORK_TRIALS.items()}
        holding = [word for word, trial in trials.items() if _or(trial, False)]
        layered = [stage for stage in accepting if stage.family in (MLP, CNN)]
        counted = max(layered, key=lambda stage: stage.family.convolutional, default=None)
        costs: dict[str, float] = _or(lambda: costs_of(counted), {}) if counted else {}
    return Facets(tuple(word for word in FACETS if word in (*holding, *scheme.facets)), costs)


def _or(trial: Callable[[], T], otherwise: T) -> T:
    try:
        return trial()
    except Exception:  # foreign code may raise anything; the facet does not hold then
        return otherwise


def _inputs(scheme: Scheme) -> Iterator[Tensor]:
    """Inputs that the normalizer takes; no channel has mean 0, and no element is near 0, where ε matters."""
    for shape in ((8, 32), (8, 32, 4, 4)):
        z = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        x = torch.where(z > 0, z + 1, z - 0.5)
        if _or(partial(_normalized, scheme, x), None) is not None:
            yield from (x, 100 * x)  # a normalizer may act differently on large values


def _normalized(scheme: Scheme, x: Tensor) -> Tensor:
    """Output of a new normalizer, which remembers nothing, in training mode."""
    torch.default_generator.manual_seed(0)
    out: Tensor = _normalizer(scheme, x)(x)
    return out.detach()


def _normalizer(scheme: Scheme, x: Tensor) -> nn.Module:
    return (scheme.norm or nn.Identity)(x.shape[1]).to(x.dtype)


def _rounding(scheme: Scheme) -> float:
    """Relative error of the normalizer's outputs that rounding may cause."""
    return rounding(max((epsilon(_normalizer(scheme, x), x) for x in _inputs(scheme)), default=0.0))


def _near(value: Tensor, expected: Tensor, tolerance: float) -> bool:
    """Tell whether the relative distance is at most `tolerance`; never if all expected values are 0."""
    size = float(expected.norm())
    return size > 0 and float((value - expected).norm()) <= tolerance * size


def _invariant(change: Callable[[Tensor], Tensor], scheme: Scheme) -> bool:
    """Tell whether the normalizer's output stays as `change` is applied to its input."""
    trials = [(_normalized(scheme, change(x)), _normalized(scheme, x)) for x in _inputs(scheme)]
    return bool(trials) and all(_near(*trial, INVARIANCE_TOLERANCE) for trial in trials)


def _mean_centering(scheme: Scheme) -> bool:
    def centered(y: Tensor) -> bool:
        over = [(axis, *range(2, y.dim())) for axis in (0, 1)]
        return any(bool((y.mean(dims).abs() < zero * y.abs().mean()).all()) for dims in over)

    outputs = [_normalized(scheme, x) for x in _inputs(scheme)]
    zero = max(1e-6, _rounding(scheme))
    return bool(outputs) and all(map(centered, outputs))


def _per_position(scheme: Scheme) -> bool:
    inputs = [x for x in _inputs(scheme) if x.dim() > 2]
    tolerance = _rounding(scheme)
    for x in inputs:
        changed = x.clone()
        changed[..., 0, 0] *= -2
        others, expected = (_normalized(scheme, z).flatten(2)[..., 1:] for z in (changed, x))
        if not _near(others, expected, tolerance):
            return False
    return bool(inputs)


_NORMALIZER_TRIALS: dict[str, Callable[[Scheme], bool]] = {
    "scale-invariant": partial(_invariant, lambda x: 2 * x),
    "shift-invariant": partial(_invariant, lambda x: x + x.abs().mean()),
    "mean-centering": _mean_centering,
    "per-position": _per_position,
}


def _logits(stage: Stage, x: Tensor, training: bool = True) -> Tensor:
    """Logits of a new network with moved parameters: a gain that starts at 0 hides what it multiplies."""
    torch.default_generator.manual_seed(0)
    with torch.set_grad_enabled(training):
        out: Tensor = stage.network(moved=True).train(training)(x)
    return out.detach()


def _batch_independent(stage: Stage) -> bool:
    def alone(x: Tensor) -> bool:
        logits = _logits(stage, x)  # compared with logits among other examples, after and before
        after, before = torch.cat([x[:4], -2 * x[4:]]), torch.cat([-2 * x[:4], x[4:]])
        pairs = (_logits(stage, after)[:4], logits[:4]), (_logits(stage, before)[4:], logits[4:])
        return all(_near(*pair, tolerance) for pair in pairs)

    x, tolerance = stage.data()[0], stage.rounding
    return alone(x) and alone(100 * x)


def _train_eval_agreement(stage: Stage) -> bool:
    x, tolerance = stage.data()[0], stage.rounding
    return all(_near(_logits(stage, z, training=False), _logits(stage, z), tolerance) for z in (x, 100 * x))


def _batch_1(stage: Stage) -> bool:
    network, (x, y) = stage.network(moved=True), stage.data(1)
    torch.autograd.backward(mean_cross_entropy(network(x), y))
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    hidden = [p.grad for block in network.weights() for p in block if p.grad is not None]
    reached = any(float(g.abs().max()) > 1e-8 for g in hidden)  # more than rounding
    return reached and all(bool(g.isfinite().all()) for g in gradients)


def gradient_gap(stage: Stage) -> float:
    """Relative difference between gradient and slope of the output, with softplus for ReLU; 0 is exact.

    Median over 5 directions in parameter space, so that a kink along one of them does not count; then the
    minimum over `Stage.steps`. A gap up to `Stage.tolerance` may be rounding.
    """
    x = stage.data()[0]
    draw = torch.Generator().manual_seed(0)
    mix = torch.randn(len(x), 4, generator=draw, dtype=x.dtype)

    def value(move: list[Tensor], h: float) -> tuple[Tensor, list[nn.Parameter]]:
        torch.default_generator.manual_seed(0)
        network = stage.network(activation=softplus, moved=True)
        with torch.no_grad():
            for p, v in zip(trainable(network).values(), move, strict=False):
                p.add_(h * v)
        return (mix * network(x)).sum(), list(trainable(network).values())

    start, parameters = value([], 0.0)
    gradient = torch.autograd.grad(start, parameters, materialize_grads=True)

    def gap(move: list[Tensor], h: float) -> float:
        slope = float((value(move, h)[0] - value(move, -h)[0]).detach()) / (2 * h)
        claimed = sum(float((g * v).sum()) for g, v in zip(gradient, move, strict=True))
        return abs(claimed - slope) / max(abs(claimed), abs(slope), 1e-12)

    moves = [[torch.randn(p.shape, generator=draw, dtype=p.dtype) for p in parameters] for _ in range(5)]
    return min(sorted(gap(move, h) for move in moves)[2] for h in stage.steps)


_NETWORK_TRIALS: dict[str, Callable[[Stage], bool]] = {
    "batch-independent": _batch_independent,
    "batch-1": _batch_1,
    "train-eval-agreement": _train_eval_agreement,
    "stackable": lambda stage: can_stack(stage.network(2), *stage.data(32)),
    "own-gradient": lambda stage: gradient_gap(stage) > stage.tolerance,
}
