"""spectrum: does its Hessian have outliers?"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from statistics import mean
from typing import ClassVar, final

import torch
from torch import Tensor, nn

from bnsuite.engine.curvature import Density, Spectrum, spectral_density
from bnsuite.engine.lanes import Lane
from bnsuite.engine.moments import share
from bnsuite.protocol.search import middle, over_seeds, rounded
from bnsuite.records import Json, Measurement, Outcome, Sample
from bnsuite.specs import SPECS, TaskSpec
from bnsuite.tasks._checkpoint import Checkpoint, Diagnostic, Partition, described, too_sharp
from bnsuite.tasks._task import Subject

OUTLIER = 2.0
"""Eigenvalues above this multiple of λ_C are counted as outliers."""

POINTS = 120
"""Number of points of the density's grid."""

MARGIN = 3.0
"""Kernel widths by which the grid goes beyond the quadrature's first and last node."""


@final
@dataclass(frozen=True, kw_only=True)
class HessianSpectrum(Diagnostic):
    """λ_1 / λ_C of the Hessian at matched loss, C the number of classes.

    With the C − 1 outliers that classification is known for, λ_C is the first of the bulk. Loss, partition
    and checkpoint are those of `top_eigenvalue`. λ_1 … λ_{C+1} are certified, each by its own vector; a
    seed is `unconverged` if the residual of λ_1 or of λ_C is above `tolerance`, or λ_C is not positive.
    Derived: the share of a minibatch gradient's energy in the space V of the top C eigenvectors, mean over
    the partition's minibatches of ‖Vᵀ g‖² / ‖g‖².

    For the first confirmation seed the density of all eigenvalues is estimated by stochastic Lanczos
    quadrature: trace rows "density", x in 1/learning rate, y in learning rate, `error` the standard error
    over probes. The grid is linear, since the kernel has one width everywhere: 120 points, closer than the
    kernel's width at the default. Bulk and outliers can both be seen if y is drawn to a log scale, since an
    outlier's bump has the area 1/P. The negative mass is the share of eigenvalues below 0 by more than the
    kernel's width: nearer to 0 a quadrature of this order cannot tell the signs.

    Sources: L. Sagun et al., arXiv 1706.04454; G. Gur-Ari et al., arXiv 1812.04754 (gradients);
    B. Ghorbani et al., arXiv 1901.10159 (density).

    Attributes:
        probes: number of Gaussian starts of the quadrature.
        order: number of nodes per start.
        kernel: standard deviation of the density's Gaussian kernel, as a fraction of the spectrum's width.
    """

    spec: ClassVar[TaskSpec] = SPECS["spectrum"]

    probes: int = 4
    order: int = 60
    kernel: float = 0.01

    def __call__(self, subject: Subject) -> Measurement:
        trace: list[dict[str, Json]] = []
        measure = partial(self._sample, subject, self.partition(subject), trace)
        samples = self.at_matched_loss(subject, measure, "λ_1/λ_C")
        return self.measurement(samples, _derived(samples), trace)

    def _sample(
        self,
        subject: Subject,
        partition: Partition,
        trace: list[dict[str, Json]],
        lane: Lane,
        checkpoint: Checkpoint,
    ) -> Sample | None:
        """Measure the sample of one seed; None: the rate was too large for its curvature."""
        network, classes, first = checkpoint.network, subject.data.classes, self.confirmation[0]
        operator = self.hessian(subject, network, partition)
        spectrum = self.top(operator, classes + 1, lane.seed)
        if too_sharp(lane, spectrum):
            return None
        initial = subject.network(self.depth, self.width, lane.seed, self.phi)
        detail: dict[str, Json] = {
            **described(lane, checkpoint, partition, spectrum),
            **self._ends(spectrum, classes),
            "gradient_share": self._gradient_share(subject, network, partition, spectrum),
            "at_init": self._ends(
                self.top(self.hessian(subject, initial, partition), classes + 1, lane.seed), classes
            ),
        }
        if lane.seed == first:
            subject.report("density")
            density = spectral_density(operator, self.order, range(self.probes))
            left, right = float(density.nodes.min()), float(density.nodes.max())
            width = self.kernel * (right - left)
            mass, error = density.mass(-math.inf, -width)
            detail |= {"width": width, "negative_mass": mass, "negative_mass_error": rounded(error)}
            if width > 0:  # else H is a multiple of the identity, whose density has no width
                grid = torch.linspace(
                    left - MARGIN * width, right + MARGIN * width, POINTS, dtype=torch.float64
                )
                trace += _density_rows(density, grid, width, lane.seed)
        low, value, high = _lambda_ratio(spectrum, classes)
        if value is None or max(_residuals(spectrum, classes)) > self.tolerance:
            return Sample(seed=lane.seed, value=None, outcome=Outcome.UNCONVERGED, detail=detail)
        return Sample(seed=lane.seed, value=value, low=low, high=high, detail=detail)

    def _ends(self, spectrum: Spectrum, classes: int) -> dict[str, Json]:
        """Describe the certified eigenvalues; what needs λ_C is None if λ_C is unsure or not positive."""
        values = [e.value for e in spectrum.top]
        ratio = _lambda_ratio(spectrum, classes)[1]
        sure = ratio is not None and max(_residuals(spectrum, classes)) <= self.tolerance
        return {
            "lambda_1": values[0],
            "eigenvalues": list(values),
            "residuals": [e.residual for e in spectrum.top],
            "residual": rounded(max(_residuals(spectrum, classes))),
            "products": spectrum.products,
            "ratio": ratio if sure else None,
            "gap": values[classes - 2] / values[classes - 1] if sure else None,
            "outliers": sum(value > OUTLIER * values[classes - 1] for value in values) if sure else None,
        }

    def _gradient_share(
        self, subject: Subject, network: nn.Module, partition: Partition, spectrum: Spectrum
    ) -> float | None:
        """Compute the share of the gradient's energy in the space of the top C, mean over minibatches."""
        certified = [e.vector for e in spectrum.top[: subject.data.classes] if e.vector is not None]
        vectors = torch.stack(certified)
        singles = (Partition(x[None], y[None]) for x, y in zip(*partition, strict=True))
        gradients = [self.hessian(subject, network, single).gradient for single in singles]
        return rounded(mean(float(share(g.unsqueeze(0), vectors)) for g in gradients))


def _density_rows(density: Density, grid: Tensor, width: float, seed: int) -> list[dict[str, Json]]:
    """Evaluate the smoothed density on its grid, for the trace."""
    columns = (grid, *density.smoothed(grid, width))
    return [
        {"phase": "density", "seed": seed, "x": rounded(x), "y": rounded(y), "error": rounded(error)}
        for x, y, error in zip(*(column.tolist() for column in columns), strict=True)
    ]


def _residuals(spectrum: Spectrum, classes: int) -> tuple[float, float]:
    """Residuals of λ_1 and λ_C; infinite if Lanczos ended before it had C eigenvalues."""
    if len(spectrum.top) < classes:
        return math.inf, math.inf
    return spectrum.top[0].residual, spectrum.top[classes - 1].residual


def _lambda_ratio(spectrum: Spectrum, classes: int) -> tuple[float | None, float | None, float | None]:
    """Compute λ_1 / λ_C within its bounds, (low, value, high); None: λ_C may not be positive."""
    first, last = _residuals(spectrum, classes)
    if last >= 1 or first >= 1 or spectrum.top[classes - 1].value <= 0:
        return None, None, None
    value = spectrum.top[0].value / spectrum.top[classes - 1].value
    return value * (1 - first) / (1 + last), value, value * (1 + first) / (1 - last)


def _derived(samples: Sequence[Sample]) -> dict[str, Json]:
    """Compute medians over seeds of the numbers in the samples' details."""
    own = ("gap", "outliers", "gradient_share", "negative_mass", "lambda_1")
    residuals = over_seeds(samples, "residual") + over_seeds(samples, "at_init", "residual")
    return {
        **{name: middle(samples, name) for name in own},
        "at_init": middle(samples, "at_init", "ratio"),
        "at_init_outliers": middle(samples, "at_init", "outliers"),
        "lambda_1_at_init": middle(samples, "at_init", "lambda_1"),
        "max_residual": max(residuals, default=None),
    }
