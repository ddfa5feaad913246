"""scale_law: what does the scale of its input do to the gradients before a normalizer?"""

import math
from dataclasses import dataclass, replace
from typing import ClassVar, final

import torch

from bnsuite.networks import Network
from bnsuite.records import Measurement
from bnsuite.schemes import Scheme
from bnsuite.specs import SPECS, TaskSpec
from bnsuite.tasks._initial import AtInitialization, backward, finite_sample, norm, ratio, slope, with_medians
from bnsuite.tasks._task import Subject

SCALES = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Factors a by which the weights of the middle layer are multiplied."""


@final
@dataclass(frozen=True, kw_only=True)
class ScaleLaw(AtInitialization):
    """p in ‖∂L/∂W‖ ∝ a^p, W the weights of the middle layer, multiplied by a = 1 … 16.

    Least-squares line in logarithms, at initialization. A normalizer that ignores the scale of its input
    has p = −1, since BN(ax) = BN(x) and so ∇BN(ax) = ∇BN(x)/a, and W ⟂ ∇W (Euler). Derived: the exponent of
    ∂L/∂h at the layer's output, |cos(W, ∇W)|, and both exponents of this network without its normalizer.
    Source: Santurkar et al., arXiv 1805.11604, and Yang's note on it.

    Attributes:
        depth: number of layers.
    """

    spec: ClassVar[TaskSpec] = SPECS["scale_law"]

    depth: int = 8

    def __call__(self, subject: Subject) -> Measurement:
        bare = replace(subject, scheme=without_norm(subject.scheme))
        samples = []
        for seed in self.confirmation:
            weights, hidden, cosine = self.exponents(subject, seed)
            detail: dict[str, float | None] = {"hidden_exponent": hidden, "cosine": cosine}
            if subject.scheme.norm is not None:
                detail["without_norm"], detail["without_norm_hidden"], _ = self.exponents(bare, seed)
            samples.append(finite_sample(seed, weights, detail))
            subject.report(f"p = {weights:.4g}")
        return with_medians(self.measurement(samples))

    def exponents(self, subject: Subject, seed: int) -> tuple[float, float, float]:
        """Fit the exponents of ‖∂L/∂W‖ and ‖∂L/∂h‖ in the scale, and compute |cos(W, ∇W)| at scale 1."""
        x, y = self.minibatch(subject, seed)
        middle = self.depth // 2
        weights, hidden = list[float](), list[float]()
        cosine = math.nan
        for scale in SCALES:
            network = scaled(self.network(subject, self.depth, seed), middle, scale)
            gradients = backward(network, x, y)
            weights.append(norm(gradients.weights[middle]))
            hidden.append(norm(gradients.hidden[middle]))
            if scale == 1:
                flat = torch.cat([matrix.detach().flatten() for matrix in network.weights()[middle]])
                cosine = ratio(abs(float(flat @ gradients.weights[middle])), norm(flat) * weights[0])
        logs = [math.log(scale) for scale in SCALES]
        slopes = (
            slope(logs, [math.log(value) for value in values]) if min(values) > 0 else math.nan
            for values in (weights, hidden)
        )
        return (*slopes, cosine)  # type: ignore[return-value]


@torch.no_grad()
def scaled(network: Network, layer: int, scale: float) -> Network:
    """Multiply the weights of one hidden layer, in place.

    Args:
        network: network that is changed and returned.
        layer: hidden layer, counted from 0.
        scale: factor a.
    """
    for matrix in network.weights()[layer]:
        matrix.mul_(scale)
    return network


def without_norm(scheme: Scheme) -> Scheme:
    """Remove the normalizer from a scheme; its topology stays."""
    return replace(scheme, norm=None)
