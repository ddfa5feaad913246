"""first_step: what does one SGD step do to the gradients of each layer?"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple, final

from torch import Tensor

from bnsuite.engine.train import train
from bnsuite.networks import Network
from bnsuite.protocol.search import rounded
from bnsuite.records import Json, Measurement
from bnsuite.specs import SPECS, TaskSpec
from bnsuite.tasks._initial import AtInitialization, backward, finite_sample, norm, ratio, with_medians
from bnsuite.tasks._task import Subject


@final
@dataclass(frozen=True, kw_only=True)
class FirstStep(AtInitialization):
    """(‖∇W_2‖/‖W_2‖) / (‖∇W_L‖/‖W_L‖) after one step W ← W − η ∇W on the first minibatch.

    At 1 every layer would move by the same share of itself. If gradients explode at initialization (they
    are large at layer 2), the step makes W_2 huge, and with a normalizer that ignores the scale its relative
    gradient vanishes afterwards. Derived: the value before the step, ‖∇W_2‖/‖∇W_L‖ before and after, and
    the factor by which ‖W_2‖ grows. In float64; all parameters are moved. Source: Yang, on arXiv 1805.11604.

    Attributes:
        depth: L, the number of layers.
        rate: η, the learning rate.
    """

    spec: ClassVar[TaskSpec] = SPECS["first_step"]

    depth: int = 100
    rate: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        self.at_least("depth", 3, "where layer 2 is not the last")

    def __call__(self, subject: Subject) -> Measurement:
        samples, trace = [], list[dict[str, Json]]()
        for seed in self.confirmation:
            x, y = self.minibatch(subject, seed)
            network = self.network(subject, self.depth, seed)
            before = _norms(network, x, y)
            train(network, [(x, y)], self.rate)
            after = _norms(network, x, y)
            value = _relative(after)
            detail = {
                "before": rounded(_relative(before)),
                "gradient_before": rounded(ratio(before.gradients[1], before.gradients[-1])),
                "gradient_after": rounded(ratio(after.gradients[1], after.gradients[-1])),
                "weight_growth": rounded(ratio(after.weights[1], before.weights[1])),
            }
            samples.append(finite_sample(seed, value, detail))
            subject.report(f"{value:.3g}")
            rows = zip(*before, *after, strict=True)
            for layer, (g, w, g_after, w_after) in enumerate(rows, start=1):
                row: dict[str, Json] = {"phase": "layers", "seed": seed, "layer": layer}
                row |= {"gradient": rounded(g), "gradient_after": rounded(g_after)}
                trace.append(row | {"weight": rounded(w), "weight_after": rounded(w_after)})
        return with_medians(self.measurement(samples, trace=trace))


class _Norms(NamedTuple):
    """‖∂L/∂W_l‖ and ‖W_l‖ by layer, from the input's side."""

    gradients: list[float]
    weights: list[float]


def _norms(network: Network, x: Tensor, y: Tensor) -> _Norms:
    gradients = [norm(gradient) for gradient in backward(network, x, y).weights]
    return _Norms(gradients, [norm(layer) for layer in network.weights()])


def _relative(norms: _Norms) -> float:
    """Divide the relative gradient of layer 2 by that of the last; NaN if the last has none."""
    return ratio(*(ratio(norms.gradients[i], norms.weights[i]) for i in (1, -1)))
