"""max_depth: the climb is climbed again, the trace's rows in place of training."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from bnsuite.audit._trace import (
    AtLeast0,
    FaultError,
    Real,
    Row,
    Settings,
    Share,
    Trace,
    Whole,
    differences,
    read,
)
from bnsuite.protocol import deepest, number
from bnsuite.protocol.search import Lane
from bnsuite.records import Json, Measurement, Outcome


class _Settings(Settings):
    depths: tuple[Whole, Whole]
    ratio: Real
    target: Real


class _Row(Row):
    outcome: Literal[Outcome.OK, Outcome.STUCK, Outcome.NONFINITE]
    depth: Whole
    accuracy: Share | None
    loss: AtLeast0 | None


def objections(measured: Measurement, settings: Mapping[str, Json], **_: object) -> Iterator[str]:
    """What does not follow from the trace."""
    own = read(_Settings, settings, "settings")
    trace = Trace(measured.trace)
    target = number(own.target, 4) or 0.0  # accuracies are rounded so: one at the target may have been below

    def attempt(phase: str, depth: int, lanes: Sequence[Lane]) -> list[dict[str, Json]]:
        rows = []
        for row in trace.take(_Row, phase, lanes, depth=depth):
            trace.expect(row.dead == (row.loss is None), "loss", row.loss, "None iff nonfinite")
            trace.expect(row.dead == (row.accuracy is None), "accuracy", row.accuracy, "None iff nonfinite")
            if row.accuracy is not None:
                right = row.accuracy >= target if row.outcome is Outcome.OK else row.accuracy <= target
                must = f"ok iff the accuracy {row.accuracy} is at least {own.target}"
                trace.expect(right, "outcome", row.outcome, must)
            rows.append(row.model_dump())
        return rows

    try:
        samples, derived, _trace = deepest(
            depths=own.depths,
            ratio=own.ratio,
            rates=own.rates,
            tuning=own.tuning,
            confirmation=own.confirmation,
            attempt=attempt,
            report=lambda found: None,
        )
    except ValueError as error:
        raise FaultError(f"settings: {error}") from None
    trace.end()
    yield from differences(measured, samples, derived)
