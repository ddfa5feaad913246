"""Search of `top_eigenvalue`: rates are tuned; each λ_max follows from the detail of its own sample."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Annotated

from pydantic import Field

from bnsuite.protocol.search import (
    AtLeast0,
    Count,
    Findings,
    Positive,
    Real,
    Share,
    Strict,
    Whole,
    differences,
    middle,
    over_seeds,
    read_part,
)
from bnsuite.protocol.stable_lr import RateRow, RateTuning, rate_objections
from bnsuite.records import Json, Measurement, Outcome, Sample

WINDOW = 5
"""Steps over which the loss is averaged to decide that a checkpoint is reached."""

EDGE = 0.5
"""Value of rate · λ_max/2 above which the rate, not the loss, sets λ_max (1 is the edge of stability)."""

HALVINGS = 8
"""Upper limit on halvings of a checkpoint's rate; each doubles the budget of steps."""

SLACK = 1e-9
"""Largest relative difference, by rounding, of equal eigenvalues."""


class _AtInit(Strict):
    value: Real
    residual: AtLeast0


class _AtBest(_AtInit):
    rate: Real
    edge: Real


class _Extras(Strict):
    """Eigenvalues at other checkpoints, at the first seeds only."""

    at_init: _AtInit | None = None
    at_best_rate: _AtBest | None = None


class _Detail(_Extras):
    step: Count
    rate: Positive
    loss: AtLeast0
    accuracy: Share
    residual: AtLeast0
    products: Count
    eigenvalues: Annotated[list[Real], Field(min_length=1)]
    residuals: list[AtLeast0]
    lambda_min: Real | None = None
    lambda_min_residual: AtLeast0 | None = None


class SharpnessSearch(RateTuning):
    """Tuning of the scheme's own best rate, and the rules that every λ_max follows.

    Attributes:
        rate: learning rate of a checkpoint, before it is halved.
        tolerance: largest residual of a λ_max.
        max_products: limit on the steps of Lanczos.
        eigenvalues: number of eigenvalues listed for the first seed; 0: as many as classes.
        beside: number of seeds, from the first, with λ_max at other checkpoints.
    """

    rate: Positive
    tolerance: Positive
    max_products: Whole
    eigenvalues: Annotated[int, Field(strict=True, ge=0)]
    beside: Annotated[int, Field(strict=True, ge=0)]

    def sample(self, seed: int, detail: Mapping[str, Json]) -> Sample:
        """Build a sample: λ_max ± |λ_max| · residual; `unconverged` with a residual above the tolerance."""
        checked = _Detail.model_validate(detail)
        value, error = checked.eigenvalues[0], abs(checked.eigenvalues[0]) * checked.residual
        if checked.residual > self.tolerance:
            return Sample(seed=seed, value=None, outcome=Outcome.UNCONVERGED, detail=dict(detail))
        return Sample(seed=seed, value=value, low=value - error, high=value + error, detail=dict(detail))

    def derived(self, trace: Sequence[RateRow], samples: Sequence[Sample]) -> dict[str, Json]:
        """Derive the best rate, medians over seeds at the other checkpoints, and the largest residual."""
        places = (("residual",), ("at_init", "residual"), ("at_best_rate", "residual"))
        return {
            "best_rate": self.best(trace),
            "at_init": middle(samples, "at_init", "value"),
            "at_best_rate": middle(samples, "at_best_rate", "value"),
            "edge_ratio": middle(samples, "at_best_rate", "edge"),
            "lambda_min": middle(samples, "lambda_min"),
            "max_residual": max((r for place in places for r in over_seeds(samples, *place)), default=None),
        }

    def objections(self, measured: Measurement, trace: Sequence[RateRow]) -> Iterator[str]:
        yield from rate_objections(trace)
        best, rescored = self.best(trace), []
        for i, sample in enumerate(measured.samples):
            where = f"samples[seed {sample.seed}].detail"
            ended_before = sample.outcome in (Outcome.STUCK, Outcome.NONFINITE)
            detail = read_part(_Extras if ended_before else _Detail, sample.detail, where)
            yield from (f"{where}.{line}" for line in _extras(detail, i < self.beside, best))
            if isinstance(detail, _Detail):
                listed = (self.eigenvalues or self.classes) if i == 0 else 1
                yield from (f"{where}.{line}" for line in self._checkpoint(detail, listed))
                rescored.append(self.sample(sample.seed, sample.detail))
            else:
                gone = Sample(seed=sample.seed, value=None, outcome=sample.outcome, detail=sample.detail)
                rescored.append(gone)
        yield from differences(measured, Findings(rescored, self.derived(trace, measured.samples)))

    def _checkpoint(self, detail: _Detail, listed: int | None) -> Iterator[str]:
        """Find objections to the checkpoint of one seed, for which `listed` eigenvalues are wanted."""
        budgets = {self.rate / 2**k: self.steps * 2**k for k in range(HALVINGS + 1)}  # steps by rate
        if detail.rate not in budgets:
            yield f"rate: got {detail.rate}, must be {self.rate} / 2^k, k from 0 to {HALVINGS}"
        elif not WINDOW <= detail.step <= budgets[detail.rate]:
            must = f"from {WINDOW} to {budgets[detail.rate]} at rate {detail.rate}"
            yield f"step: got {detail.step}, must be {must}"
        top, bottom = detail.eigenvalues, detail.lambda_min
        if detail.rate * top[0] / 2 > EDGE:
            most_sharp = 2 * EDGE / detail.rate
            yield f"eigenvalues: got {top[0]}, must be at most {most_sharp}, allowed by its rate"
        if detail.residuals[:1] != [detail.residual]:
            first = detail.residuals[:1]
            yield f"residual: got {detail.residual}, must be that of the first eigenvalue, {first}"
        yield from self._counts(detail, listed)
        ends = [*top, bottom] if bottom is not None else top
        slack = SLACK * max(map(abs, ends))
        if any(b > a + slack for a, b in pairwise(ends)):
            yield f"eigenvalues: got {ends}, must descend, and lambda_min last"

    def _counts(self, detail: _Detail, listed: int | None) -> Iterator[str]:
        """Find objections to counts: a product per Ritz value of Lanczos, and one per certified end."""
        n, below = len(detail.eigenvalues), detail.lambda_min is not None
        if len(detail.residuals) != n or (detail.lambda_min_residual is not None) != below:
            got = len(detail.residuals)
            yield f"residuals: got {got}, must be one for each of {n} eigenvalues and lambda_min"
        steps, most = detail.products - 1 - below, self.max_products
        if not 1 <= steps <= max(1, most):
            yield f"products: got {detail.products}, must be from {2 + below} to {most + 1 + below}"
        if listed is not None and n != min(listed, steps):
            yield f"eigenvalues: got {n}, must be {min(listed, steps)} at {detail.products} products"
        if listed is not None and below != (listed > 1):
            yield f"lambda_min: got {detail.lambda_min}, must be {'there' if listed > 1 else 'left out'}"


def _extras(detail: _Extras, wanted: bool, best: float | None) -> Iterator[str]:
    """Find objections to λ_max at initialization and at the best rate, which only the first seeds have."""
    if (detail.at_init is not None) != wanted:
        yield f"at_init: got {detail.at_init}, must be {'there' if wanted else 'left out'}"
    if (at_best := detail.at_best_rate) is None:
        return
    if not wanted:
        yield "at_best_rate: got one, must be left out"
    if at_best.rate != best:
        yield f"at_best_rate.rate: got {at_best.rate}, must be the best rate {best}"
    elif at_best.edge != at_best.rate * at_best.value / 2:
        yield f"at_best_rate.edge: got {at_best.edge}, must be {at_best.rate * at_best.value / 2}, rate · λ/2"
