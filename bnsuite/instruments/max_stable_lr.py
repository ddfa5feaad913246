"""max_stable_lr: the largest learning rate at which a person's own training still learns."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from bnsuite.protocol.search import best_rate, grid, log_grid
from bnsuite.records import Outcome


class TriedRate(NamedTuple):
    """One run of the training function.

    Attributes:
        rate: its learning rate.
        first: its first loss.
        final: the mean of the last 10 % of its losses.
        outcome: `ok` if it learned, `stuck` if not, `nonfinite` if a loss was not finite.
    """

    rate: float
    first: float
    final: float
    outcome: Outcome


@dataclass(frozen=True)
class StableRate:
    """Largest stable learning rate, with every run that it is counted from.

    Attributes:
        value: the largest stable rate; None: the best rate does not learn.
        next: the next rate of the grid above `value`, between which the boundary lies; None: there is none.
        outcome: `ok`; `capped`: every rate from the best one up to `high` learns, so the boundary lies
            above; `stuck`: no rate from the best one up learns; `nonfinite`: no run stays finite.
        best: the rate of lowest final loss, from which rates are counted; None: no run stays finite.
        tried: every run, by rising rate.
    """

    value: float | None
    next: float | None
    outcome: Outcome
    best: float | None
    tried: tuple[TriedRate, ...]

    def __repr__(self) -> str:
        learning = sum(run.outcome is Outcome.OK for run in self.tried)
        return (
            f"StableRate(value={self.value}, next={self.next}, outcome={self.outcome.value!r}, "
            f"best={self.best}, {learning} of {len(self.tried)} tried rates learn)"
        )


def max_stable_lr(
    train: Callable[[float], Iterable[float]],
    *,
    low: float,
    high: float,
    per_decade: int = 12,
    loss_ratio: float = 0.5,
    target: float | None = None,
) -> StableRate:
    """Find the largest learning rate at which a training function still learns.

    Runs it at the rates low · 10^{k / per_decade} up to `high`. A run learns if every loss is finite and
    the mean of the last 10 % of its losses is at most `loss_ratio` times its first loss, or at most
    `target`. With n runs that learn among those from the best rate b (lowest final loss) up, the largest
    stable rate is b · 10^{(n − 1) / per_decade}: counted, because the boundary of stability is ragged and a
    first failure is an extreme value.

    Args:
        train: learning rate → the loss before each step, as numbers; it should start from the same network
            and see the same batches at every rate. A run that diverges may end early, with NaN or infinity
            as its last loss, or raise OverflowError or FloatingPointError.
        low: smallest rate of the grid, above 0.
        high: largest rate, at least `low`.
        per_decade: rates per decade.
        loss_ratio: largest final loss, as a share of the first one; unused with a `target`.
        target: largest final loss, in units of the loss.

    Raises:
        ValueError: impossible ends or numbers of rates; a run without losses, or a first loss of 0 or below
            without a `target`.

    >>> def train(rate):  # gradient descent on λ θ²/2, λ = 10, which is stable up to 2/λ
    ...     theta, losses = 1.0, []
    ...     for _ in range(100):
    ...         losses.append(5 * theta**2)
    ...         theta -= rate * 10 * theta
    ...     return losses
    >>> stable = max_stable_lr(train, low=0.01, high=1)
    >>> round(stable.value, 3), round(stable.next, 3), str(stable.outcome)
    (0.178, 0.215, 'ok')
    """
    if not 0 < low <= high < math.inf or per_decade < 1:
        raise ValueError(
            f"a grid of rates has 0 < low <= high and 1 rate per decade at least: got low={low}, "
            f"high={high}, per_decade={per_decade}."
        )
    rates = log_grid(low, per_decade, math.floor(per_decade * math.log10(high / low) + 1e-9) + 1)
    tried = tuple(_run(train, rate, loss_ratio, target) for rate in rates)
    alive = [run.outcome is not Outcome.NONFINITE for run in tried]
    best = best_rate(grid(rates, [0]), [run.final for run in tried], alive)
    if best is None:
        return StableRate(None, None, Outcome.NONFINITE, None, tried)
    above = [run for run in tried if run.rate >= best]
    stable = sum(run.outcome is Outcome.OK for run in above)
    if not stable:
        return StableRate(None, None, Outcome.STUCK, best, tried)
    value = above[stable - 1].rate
    if stable == len(above):
        return StableRate(value, None, Outcome.CAPPED, best, tried)
    return StableRate(value, above[stable].rate, Outcome.OK, best, tried)


def _run(
    train: Callable[[float], Iterable[float]], rate: float, loss_ratio: float, target: float | None
) -> TriedRate:
    try:
        losses = [float(loss) for loss in train(rate)]
    except (OverflowError, FloatingPointError):
        losses = [math.nan]
    if not losses:
        raise ValueError(f"training gives a loss per step: got none at rate {rate:g}. Return the losses.")
    last = losses[-math.ceil(len(losses) / 10) :]
    first, final = losses[0], sum(last) / len(last)
    if not all(map(math.isfinite, losses)):
        return TriedRate(rate, first, math.inf, Outcome.NONFINITE)
    if target is None and first <= 0:
        raise ValueError(f"a share of the first loss needs one above 0: got {first:g}. Give a target.")
    learned = final <= (loss_ratio * first if target is None else target)
    return TriedRate(rate, first, final, Outcome.OK if learned else Outcome.STUCK)
