"""A trace that is not trusted: read row by row, in the order in which the protocol asks for lanes."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bnsuite.protocol import number
from bnsuite.protocol.search import Lane
from bnsuite.records import Json, Measurement, Outcome, Sample

Whole = Annotated[int, Field(strict=True)]
Count = Annotated[int, Field(strict=True, ge=1, le=10**9)]
Real = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Positive = Annotated[float, Field(strict=True, allow_inf_nan=False, gt=0)]
AtLeast0 = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=0)]
Share = Annotated[float, Field(strict=True, ge=0, le=1)]

ROUNDING = 1e-5
"""Twice the relative error of a loss in a trace, which has 6 significant digits."""


class FaultError(Exception):
    """What a trace says cannot be followed further. The message is the objection."""


class Strict(BaseModel):
    """Exactly these fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Settings(BaseModel):
    """The settings that a protocol needs; other settings are allowed. `bnsuite.settings` has their ranges."""

    model_config = ConfigDict(frozen=True)

    tuning: tuple[Whole, ...]
    confirmation: tuple[Whole, ...]
    rates: tuple[Positive, ...]
    steps: Count


class Learning(Settings):
    """Of a task for which a network has learned at a loss of at most `loss_ratio` · ln C."""

    loss_ratio: Positive = 0.5

    def limit(self, classes: int | None) -> float | None:
        """That loss, rounded as losses are, where C is known."""
        return number(self.loss_ratio * math.log(classes)) if classes else None


class Row(Strict):
    """A lane in a trace."""

    phase: str
    rate: Real
    seed: Whole
    outcome: Outcome

    @property
    def dead(self) -> bool:
        return self.outcome is Outcome.NONFINITE


class RateRow(Row):
    """A lane of `stable_lr`, and of the tuning of `top_eigenvalue`."""

    outcome: Literal[Outcome.OK, Outcome.STUCK, Outcome.NONFINITE]
    loss: AtLeast0 | None
    first_loss: AtLeast0 | None


Model = TypeVar("Model", bound=BaseModel)
OfRow = TypeVar("OfRow", bound=Row)


def read(model: type[Model], value: object, where: str) -> Model:
    """The value as a model, or `FaultError`: where it stands, what was got, what it must be."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join([where, *map(str, first["loc"])])
        raise FaultError(f"{place}: got {first['input']!r:.80}: {first['msg']}") from None


class Trace:
    """Rows in order, each taken once."""

    def __init__(self, rows: Sequence[Mapping[str, Json]]) -> None:
        self._rows = rows
        self._taken = 0

    def take(self, model: type[OfRow], phase: str, lanes: Iterable[Lane], **same: Json) -> Iterator[OfRow]:
        """The next row for each of the lanes, or `FaultError` where another stands there, or none."""
        for lane in lanes:
            where = f"trace[{self._taken}]"
            wanted = {"phase": phase, **same, "rate": lane.rate, "seed": lane.seed}
            if self._taken == len(self._rows):
                raise FaultError(f"trace: got {self._taken} rows, must go on with {wanted}")
            row = read(model, self._rows[self._taken], where)
            for name, must in wanted.items():
                if (got := getattr(row, name)) != must:
                    raise FaultError(f"{where}.{name}: got {got}, must be {must}")
            self._taken += 1
            yield row

    def end(self) -> None:
        """`FaultError` where rows are left."""
        if self._taken < len(self._rows):
            raise FaultError(f"trace: got {len(self._rows)} rows, must end after {self._taken}")

    def expect(self, ok: bool, name: str, got: object, must: str) -> None:
        """`FaultError` about the row taken last, unless ok."""
        if not ok:
            raise FaultError(f"trace[{self._taken - 1}].{name}: got {got}, must be {must}")


def rate_rows(trace: Trace, phase: str, lanes: Sequence[Lane], limit: float | None) -> list[RateRow]:
    """Rows of lanes that differ in rate and seed, each consistent with itself.

    nonfinite iff there is no final loss; a seed starts at one loss whatever its rate; ok up to the limit
    of the loss and stuck from there on, where `limit` (rounded as the trace is) is known.
    """
    starts: dict[int, float] = {}
    rows = []
    for row in trace.take(RateRow, phase, lanes):
        trace.expect(
            row.dead == (row.loss is None), "outcome", row.outcome, "nonfinite iff there is no final loss"
        )
        trace.expect(
            row.dead or row.first_loss is not None, "first_loss", None, "a number where one survived"
        )
        if row.first_loss is not None:
            start = starts.setdefault(row.seed, row.first_loss)
            # the sums behind one number may run in another order in a stack of another height
            same = math.isclose(row.first_loss, start, rel_tol=1e-3)
            trace.expect(same, "first_loss", row.first_loss, f"{start}, that of its seed at the first rate")
        if limit is not None and row.loss is not None:
            learns = row.loss <= limit if row.outcome is Outcome.OK else row.loss >= limit
            trace.expect(learns, "outcome", row.outcome, f"ok iff the loss {row.loss} is at most {limit}")
        rows.append(row)
    return rows


def one_limit(rows: Iterable[RateRow]) -> Iterator[str]:
    """An objection where no limit of the loss parts the lanes that learned from those that are stuck."""
    rows = list(rows)
    learned = max((r.loss for r in rows if r.outcome is Outcome.OK and r.loss is not None), default=0.0)
    stuck = min((r.loss for r in rows if r.outcome is Outcome.STUCK and r.loss is not None), default=math.inf)
    if learned > stuck:
        yield f"trace.outcome: got ok at a loss of {learned} and stuck at {stuck}, must part at one limit"


def lost(loss: float | None, factor: float = 1.0) -> float:
    """A final loss as a task has it: NaN for a lane that died."""
    return math.nan if loss is None else loss * factor


def differences(
    measured: Measurement, samples: Sequence[Sample], derived: Mapping[str, Json] | None = None
) -> Iterator[str]:
    """Objections where samples, and what stands beside, are not what follows from the trace."""
    for got, must in zip(measured.samples, samples, strict=False):
        for name in Sample.model_fields:
            if (a := getattr(got, name)) != (b := getattr(must, name)):
                yield f"samples[seed {must.seed}].{name}: got {a}, must be {b}, as the trace has it"
    if derived is not None:
        yield from differing(measured.derived, derived)


def differing(got: Mapping[str, Json], must: Mapping[str, Json]) -> Iterator[str]:
    """Objections where what stands beside is not what follows."""
    for name in sorted({*got, *must}):
        if name not in must:
            yield f"derived.{name}: got {got[name]!r:.80}, must not be there"
        elif name not in got or got[name] != must[name]:
            yield f"derived.{name}: got {got.get(name)!r:.80}, must be {must[name]!r:.80}"
