"""mean_shift: do shifts of the output's means make its outliers?"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, final

import torch
from hessian_eigenthings import CurvatureOperator
from torch import Tensor

from bnsuite.engine.curvature import Spectrum
from bnsuite.engine.lanes import Lane
from bnsuite.engine.moments import orthonormal, output_moments, projected, random_orthonormal, share
from bnsuite.protocol.search import middle, over_seeds
from bnsuite.records import Json, Measurement, Outcome, Sample
from bnsuite.specs import SPECS, TaskSpec
from bnsuite.tasks._checkpoint import Checkpoint, Diagnostic, Partition, described, too_sharp
from bnsuite.tasks._task import Subject

SPANS = ("means", "means_and_variances")
"""Names of the spans in a sample's detail: of the gradients of the means, and of both moments."""


@final
@dataclass(frozen=True, kw_only=True)
class MeanShift(Diagnostic):
    """Share of the top C − 1 Hessian eigenspace that moves the means of the outputs, at matched loss.

    f_c(x) are the logits, one per class, E and Var their mean and variance over all examples of the
    partition, Q an orthonormal basis of the span of ∇E[f_1] … ∇E[f_C] in parameter space and V the
    eigenvectors of λ_1 … λ_k, k = C − 1: the value is ‖Qᵀ V‖²_F / k, from 0 to 1. Derived: the share with
    ∇Var[f_c] added to the span, the share for a random subspace of either dimension (about dim / P), and
    λ_max of (I − QQᵀ) H (I − QQᵀ), over λ_max. A seed with one of the k residuals above `tolerance` is
    `unconverged`. `subspace_error` bounds the sine of the largest angle between V and the true space,
    ‖R‖_F / (λ_k − λ_{k+1}) (Davis & Kahan), R the residual vectors.

    Source: R. Karakida et al., arXiv 1906.02926: in wide random networks the gradients of the outputs'
    means span the space of the largest eigenvalues of the Fisher matrix.
    """

    spec: ClassVar[TaskSpec] = SPECS["mean_shift"]

    def __call__(self, subject: Subject) -> Measurement:
        measure = partial(self._sample, subject, self.partition(subject))
        samples = self.at_matched_loss(subject, measure, "share")
        return self.measurement(samples, _derived(samples))

    def _sample(
        self, subject: Subject, partition: Partition, lane: Lane, checkpoint: Checkpoint
    ) -> Sample | None:
        """Measure the sample of one seed; None: the rate was too large for its curvature."""
        network, k = checkpoint.network, subject.data.classes - 1
        operator = self.hessian(subject, network, partition)
        spectrum = self.top(operator, k + 1, lane.seed)
        if too_sharp(lane, spectrum):
            return None
        tops = spectrum.top[:k]
        residual = max(e.residual for e in tops) if len(tops) == k else math.inf
        detail: dict[str, Json] = {
            **described(lane, checkpoint, partition, spectrum),
            "subspace_error": _angle(spectrum, k),
            "lambda_max": tops[0].value,
        }
        if residual > self.tolerance:
            return Sample(seed=lane.seed, value=None, outcome=Outcome.UNCONVERGED, detail=detail)
        vectors = torch.stack([e.vector for e in tops if e.vector is not None])
        moments = output_moments(network, partition.x, stacked=subject.stacked)
        means = orthonormal(moments.means)
        for name, span in zip(SPANS, (means, orthonormal(torch.cat(moments))), strict=True):
            detail[name] = self._share_in(operator, span, vectors, tops[0].value, lane.seed)
        return Sample(seed=lane.seed, value=_mean_share(vectors, means), detail=detail)

    def _share_in(
        self, operator: CurvatureOperator, span: Tensor, vectors: Tensor, sharpest: float, seed: int
    ) -> dict[str, Json]:
        """Compute the eigenspace's share in a span and in a random one; λ_max with the span projected out."""
        left = self.top(projected(operator, span), 1, seed).top[0]
        chance = _mean_share(vectors, random_orthonormal(len(span), span, seed))
        shares: dict[str, Json] = {"rank": len(span), "share": _mean_share(vectors, span), "random": chance}
        if left.residual <= self.tolerance:
            shares |= {"lambda_max": left.value, "ratio": left.value / sharpest}
        return {**shares, "residual": left.residual}


def _mean_share(vectors: Tensor, span: Tensor) -> float:
    """Compute ‖Q V‖²_F / k for k rows of V, and Q of orthonormal rows."""
    return float(share(vectors, span).mean())


def _angle(spectrum: Spectrum, k: int) -> float | None:
    """Compute ‖R‖_F / (λ_k − λ_{k+1}); None if it bounds nothing."""
    if len(spectrum.top) <= k:
        return None
    below = spectrum.top[k]
    gap = spectrum.top[k - 1].value - below.value - abs(below.value) * below.residual
    error = math.hypot(*(e.residual * e.value for e in spectrum.top[:k]))
    return error / gap if error < gap else None


def _derived(samples: Sequence[Sample]) -> dict[str, Json]:
    """Compute medians over seeds of the numbers in the samples' details."""
    residuals = [residual for span in SPANS for residual in over_seeds(samples, span, "residual")]
    return {
        "lambda_max": middle(samples, "lambda_max"),
        **{
            f"{span}_{name}": middle(samples, span, name)
            for span in SPANS
            for name in ("share", "random", "rank", "lambda_max", "ratio")
        },
        "max_residual": max(residuals, default=None),
    }
