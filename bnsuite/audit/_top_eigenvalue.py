"""top_eigenvalue: every λ within its own error, at a step, a rate and a cost that can be."""

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Annotated

from pydantic import Field

from bnsuite.audit._trace import (
    ROUNDING,
    AtLeast0,
    Count,
    Learning,
    Positive,
    Real,
    Share,
    Strict,
    Trace,
    differences,
    lost,
    one_limit,
    rate_rows,
    read,
)
from bnsuite.protocol import EDGE, HALVINGS, WINDOW, beside_sharpness, sharpness
from bnsuite.protocol.search import best_rate, grid
from bnsuite.records import Json, Measurement, Outcome, Sample

SLACK = 1e-9
"""Relative rounding of eigenvalues that are equal but for it."""


class _Settings(Learning):
    rate: Positive
    tolerance: Positive
    max_products: Annotated[int, Field(strict=True)]
    eigenvalues: Annotated[int, Field(strict=True, ge=0)]
    beside: Annotated[int, Field(strict=True, ge=0)]


class _AtInit(Strict):
    value: Real
    residual: AtLeast0


class _AtBest(_AtInit):
    rate: Real
    edge: Real


class _Beside(Strict):
    at_init: _AtInit | None = None
    at_best_rate: _AtBest | None = None


class _Detail(_Beside):
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


def objections(
    measured: Measurement,
    settings: Mapping[str, Json],
    *,
    classes: int | None = None,
    **_: object,
) -> Iterator[str]:
    """What does not follow from the samples' own details, and from the trace of tuning."""
    own = read(_Settings, settings, "settings")
    trace = Trace(measured.trace)
    lanes = grid(own.rates, own.tuning)
    rows = rate_rows(trace, "tune", lanes, own.limit(classes))
    trace.end()
    yield from one_limit(rows)
    claimed = measured.derived.get("best_rate")
    losses = [lost(row.loss, 1 - ROUNDING * (row.rate == claimed)) for row in rows]
    best = best_rate(lanes, losses, [not row.dead for row in rows])
    samples = []
    for i, sample in enumerate(measured.samples):
        where = f"samples[seed {sample.seed}].detail"
        at_all = sample.outcome in (Outcome.STUCK, Outcome.NONFINITE)
        found = read(_Beside if at_all else _Detail, sample.detail, where)
        yield from (f"{where}.{each}" for each in _beside(found, i < own.beside, best))
        if isinstance(found, _Detail):
            listed = (own.eigenvalues or classes) if i == 0 else 1
            yield from (f"{where}.{each}" for each in _checkpoint(found, own, listed))
            value = found.eigenvalues[0]
            samples.append(sharpness(sample.seed, value, found.residual, own.tolerance, sample.detail))
        else:
            samples.append(Sample(seed=sample.seed, value=None, outcome=sample.outcome, detail=sample.detail))
    yield from differences(measured, samples, beside_sharpness(measured.samples, best))


def _beside(found: _Beside, wanted: bool, best: float | None) -> Iterator[str]:
    """What stands beside, at the first seeds only: λ at initialization, and at the best rate."""
    if (found.at_init is not None) != wanted:
        yield f"at_init: got {found.at_init}, must be {'there' if wanted else 'left out'}"
    if (there := found.at_best_rate) is None:
        return
    if not wanted:
        yield "at_best_rate: got one, must be left out"
    if there.rate != best:
        yield f"at_best_rate.rate: got {there.rate}, must be the best rate {best}"
    elif there.edge != there.rate * there.value / 2:
        yield f"at_best_rate.edge: got {there.edge}, must be {there.rate * there.value / 2}, rate · λ/2"


def _checkpoint(found: _Detail, own: _Settings, listed: int | None) -> Iterator[str]:
    """Objections to what one seed measured at its checkpoint; `listed` eigenvalues are asked for."""
    most = {own.rate / 2**k: own.steps * 2**k for k in range(HALVINGS + 1)}  # steps by rate
    if found.rate not in most:
        yield f"rate: got {found.rate}, must be {own.rate} / 2^k, k from 0 to {HALVINGS}"
    elif not WINDOW <= found.step <= most[found.rate]:
        yield f"step: got {found.step}, must be from {WINDOW} to {most[found.rate]} at rate {found.rate}"
    top, bottom = found.eigenvalues, found.lambda_min
    if found.rate * top[0] / 2 > EDGE:
        yield f"eigenvalues: got {top[0]}, must be at most {2 * EDGE / found.rate}, where its rate bears it"
    if found.residuals[:1] != [found.residual]:
        yield f"residual: got {found.residual}, must be that of the first eigenvalue, {found.residuals[:1]}"
    yield from _counts(found, own, listed)
    ends = [*top, bottom] if bottom is not None else top
    slack = SLACK * max(map(abs, ends))
    if any(b > a + slack for a, b in pairwise(ends)):
        yield f"eigenvalues: got {ends}, must descend, and lambda_min last"


def _counts(found: _Detail, own: _Settings, listed: int | None) -> Iterator[str]:
    """Products are those of Lanczos, a Ritz value each, and one more for each end that is certified."""
    n, below = len(found.eigenvalues), found.lambda_min is not None
    if len(found.residuals) != n or (found.lambda_min_residual is not None) != below:
        yield f"residuals: got {len(found.residuals)}, must be one for each of {n} eigenvalues and lambda_min"
    steps = found.products - 1 - below
    if not 1 <= steps <= max(1, own.max_products):
        yield f"products: got {found.products}, must be from {2 + below} to {own.max_products + 1 + below}"
    if listed is not None and n != min(listed, steps):
        yield f"eigenvalues: got {n}, must be {min(listed, steps)} at {found.products} products"
    if listed is not None and below != (listed > 1):
        yield f"lambda_min: got {found.lambda_min}, must be {'there' if listed > 1 else 'left out'}"
