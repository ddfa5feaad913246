"""gradient_growth: do gradients explode or vanish with depth at initialization?"""

import math
from dataclasses import dataclass
from typing import ClassVar, final

from torch import nn

from bnsuite.networks.layered import MLP
from bnsuite.norms import BatchNorm, LayerNorm
from bnsuite.protocol.search import rounded
from bnsuite.records import Json, Measurement
from bnsuite.specs import SPECS, TaskSpec
from bnsuite.tasks._initial import AtInitialization, backward, finite_sample, ratio, slope, with_medians
from bnsuite.tasks._task import Subject
from bnsuite.theory import Norm, gradient_growth, imbalance_growth

_NORMS: dict[object, Norm] = {
    None: "identity",
    nn.Identity: "identity",
    BatchNorm: "batch",
    LayerNorm: "layer",
}
"""Normalizer → its name in `theory.gradient_growth`, which has the rate."""


@final
@dataclass(frozen=True, kw_only=True)
class GradientGrowth(AtInitialization):
    """β in ‖∂L/∂h_l‖² ∝ β^{L−l} at initialization, the growth of gradients per layer towards the input.

    Least-squares line through log ‖∂L/∂h_l‖² over the middle layers, L/5 … 7L/8, of one minibatch, in
    float64. At 1 gradients neither grow nor vanish. Derived: the rate of the weight gradients ‖∂L/∂W_l‖²;
    ‖∂L/∂h_1‖² / ‖∂L/∂h_L‖²; and, for a wide plain `mlp`, the rate of the theory
    (`theory.gradient_growth`) and the imbalance λ, below 1 of which the theory holds
    (`theory.imbalance_growth`). Source: Yang et al., arXiv 1902.08129.

    Attributes:
        depth: L, the number of layers.
    """

    spec: ClassVar[TaskSpec] = SPECS["gradient_growth"]

    depth: int = 40

    def __post_init__(self) -> None:
        super().__post_init__()
        self.at_least("depth", 4, "for a rate over several layers")

    def __call__(self, subject: Subject) -> Measurement:
        middle = range(max(1, round(self.depth / 5)), self.depth - max(1, round(self.depth / 8)) + 1)
        samples, trace = [], list[dict[str, Json]]()
        for seed in self.confirmation:
            gradients = backward(self.network(subject, self.depth, seed), *self.minibatch(subject, seed))
            hidden, weights = ([float(g.square().sum()) for g in by_layer] for by_layer in gradients)
            rates = [_rate(squares, middle) for squares in (hidden, weights)]
            detail = {"weight_growth": rates[1], "first_to_last": ratio(hidden[0], hidden[-1])}
            samples.append(finite_sample(seed, rates[0], detail))
            subject.report(f"β = {rates[0]:.4g}")
            trace += [
                {"phase": "layers", "seed": seed, "layer": layer, "hidden": rounded(h), "weights": rounded(w)}
                for layer, (h, w) in enumerate(zip(hidden, weights, strict=True), start=1)
            ]
        rate = self.theory(subject)
        is_batch = rate is not None and _NORMS[subject.scheme.norm] == "batch"
        imbalance = imbalance_growth(self.activation, self.batch) if is_batch else None
        return with_medians(self.measurement(samples, trace=trace), theory=rate, imbalance=imbalance)

    def theory(self, subject: Subject) -> float | None:
        """Compute β of wide layers, exact for an imbalance below 1; None: no theory covers the network."""
        scheme = subject.scheme
        bare = scheme.skip == "none" and not (scheme.init or scheme.weight or scheme.activation)
        if subject.family != MLP or not bare or scheme.norm not in _NORMS:
            return None
        norm = _NORMS[scheme.norm]
        if norm == "batch" and self.batch <= 3:
            return None
        return gradient_growth(norm, self.activation, self.batch)


def _rate(squares: list[float], middle: range) -> float:
    """Fit β to the squares of the middle layers, counted from 1; NaN if one is 0 or infinite."""
    fitted = [squares[layer - 1] for layer in middle]
    if not all(0 < square < math.inf for square in fitted):
        return math.nan
    return math.exp(-slope(list(middle), [math.log(square) for square in fitted]))
