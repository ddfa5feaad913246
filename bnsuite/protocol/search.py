"""Search: frozen settings with pure functions of a trace. No torch.

`wanted` names the lanes to train next; `score` reads samples and derived values from the trace. A task trains
the lanes; the audit takes their rows from a record and scores them again.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from statistics import median
from typing import Annotated, Generic, Literal, NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bnsuite.records import Json, Measurement, Outcome, Sample

Whole = Annotated[int, Field(strict=True)]
Count = Annotated[int, Field(strict=True, ge=1, le=10**9)]
Real = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Positive = Annotated[float, Field(strict=True, allow_inf_nan=False, gt=0)]
AtLeast0 = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=0)]
Share = Annotated[float, Field(strict=True, ge=0, le=1)]


Fate = Literal[Outcome.OK, Outcome.STUCK, Outcome.NONFINITE]
"""Outcome of a lane that has a budget of steps and a goal."""


class Lane(NamedTuple):
    """One network in training."""

    seed: int
    rate: float


class Batch(NamedTuple):
    """Lanes that a search asks for next, and the depth of their networks if the search chooses it."""

    phase: str
    lanes: list[Lane]
    depth: int | None = None


class Strict(BaseModel):
    """Part of a record with exactly these fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class LaneRow(Strict):
    """Row of a trace: one lane and its outcome."""

    phase: str
    rate: Real
    seed: Whole
    outcome: Outcome

    @property
    def lane(self) -> Lane:
        """Seed and rate."""
        return Lane(self.seed, self.rate)

    @property
    def dead(self) -> bool:
        """Whether a loss of the lane was not finite."""
        return self.outcome is Outcome.NONFINITE

    def as_json(self) -> dict[str, Json]:
        """Convert to the form that traces have in records."""
        return self.model_dump(mode="json")


class Findings(NamedTuple):
    """Result of a search: a sample per confirmation seed, and the values derived next to them."""

    samples: list[Sample]
    derived: dict[str, Json]


class Fault(NamedTuple):
    """Contradiction within a trace: the field, what was got, and what it must be."""

    field: str
    got: object
    must: str


class FaultError(Exception):
    """Raised at a part of a record from which an audit cannot go on; the message is the objection."""


RowT = TypeVar("RowT", bound=LaneRow)
Model = TypeVar("Model", bound=BaseModel)


class Search(BaseModel, ABC, Generic[RowT]):
    """Settings of a search, from those of a task or of a record; other settings are ignored.

    Attributes:
        tuning: seeds for the choice of a rate.
        confirmation: seeds of the samples.
        rates: learning rates of the tuning lanes.
        steps: training steps per lane.
    """

    model_config = ConfigDict(frozen=True)

    tuning: Annotated[
        tuple[Whole, ...], Field(min_length=1)
    ]  # a batch without a lane would be asked for forever
    confirmation: Annotated[tuple[Whole, ...], Field(min_length=1)]
    rates: Annotated[tuple[Positive, ...], Field(min_length=1)]
    steps: Count

    @abstractmethod
    def row_type(self, phase: str) -> type[RowT]:
        """Return the type of the rows of a phase."""

    @abstractmethod
    def wanted(self, trace: Sequence[RowT]) -> Batch | None:
        """Name the lanes to train next; None when the search has ended."""

    @abstractmethod
    def faults(self, row: RowT) -> Iterator[Fault]:
        """Find contradictions between the fields of one row, and with the settings."""

    @abstractmethod
    def objections(self, measured: Measurement, trace: Sequence[RowT]) -> Iterator[str]:
        """Find objections to a measurement whose trace was followed: where, what was got, what it must be."""

    def follow(self, attempt: Callable[[Batch], Sequence[RowT]]) -> list[RowT]:
        """Run the search to its end and return its trace; `attempt(batch)` gives a row per lane, in order."""
        trace: list[RowT] = []
        while (batch := self.wanted(trace)) is not None:
            trace += attempt(batch)
        return trace


def phase_of(trace: Sequence[RowT], phase: str) -> list[RowT]:
    """Select the rows of one phase."""
    return [row for row in trace if row.phase == phase]


def read_part(model: type[Model], value: object, where: str) -> Model:
    """Read a part of a record as a model.

    Args:
        model: model that the part must fit.
        value: the part.
        where: its place in the record, for the message.

    Raises:
        FaultError: it does not fit; says where, what was got, and what it must be.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join([where, *map(str, first["loc"])])
        raise FaultError(f"{place}: got {first['input']!r:.80}: {first['msg']}") from None


def differences(measured: Measurement, must: Findings) -> Iterator[str]:
    """Find samples and derived values that do not follow from the trace."""
    for sample, expected in zip(measured.samples, must.samples, strict=False):
        for name in Sample.model_fields:
            if (got := getattr(sample, name)) != (wanted := getattr(expected, name)):
                yield f"samples[seed {expected.seed}].{name}: got {got}, must be {wanted}, as in the trace"
    derived, must_derive = measured.derived, must.derived
    for name in sorted({*derived, *must_derive}):
        if name not in must_derive:
            yield f"derived.{name}: got {derived[name]!r:.80}, must not be there"
        elif name not in derived or derived[name] != must_derive[name]:
            yield f"derived.{name}: got {derived.get(name)!r:.80}, must be {must_derive[name]!r:.80}"


def rounded(value: float, digits: int = 6) -> float | None:
    """Round a value to significant digits, as in traces; None: it is not finite."""
    return float(f"{value:.{digits}g}") if math.isfinite(value) else None


def over_seeds(samples: Sequence[Sample], *path: str) -> list[float]:
    """Collect the numbers at a path of names in the details of samples; seeds without one are left out."""
    numbers = []
    for sample in samples:
        value: Json = sample.detail
        for name in path:
            value = value.get(name) if isinstance(value, dict) else None
        if isinstance(value, (int, float)):
            numbers.append(float(value))
    return numbers


def middle(samples: Sequence[Sample], *path: str) -> float | None:
    """Compute the median over seeds of the numbers at a path of names; None: no seed has one."""
    numbers = over_seeds(samples, *path)
    return median(numbers) if numbers else None


def log_grid(start: float, per_decade: int, count: int) -> list[float]:
    """Compute the rates start · 10^{k / per_decade}, k = 0 … count − 1.

    Args:
        start: first rate.
        per_decade: rates per decade.
        count: number of rates.

    >>> log_grid(0.01, 2, 3)
    [0.01, 0.0316227766016838, 0.1]
    """
    return [float(f"{start * 10 ** (k / per_decade):.16g}") for k in range(count)]


def grid(rates: Sequence[float], seeds: Sequence[int]) -> list[Lane]:
    """Build one lane per rate and seed, rate by rate."""
    return [Lane(seed, rate) for rate in rates for seed in seeds]


def best_rate(lanes: Sequence[Lane], losses: Sequence[float | None], allowed: Sequence[bool]) -> float | None:
    """Find the rate of lowest mean final loss over its seeds, ties to the smaller; None: no rate is allowed.

    Args:
        lanes: seeds and rates.
        losses: final loss of each lane; None, or a loss that is not finite, makes its rate's mean infinite.
        allowed: whether each lane is allowed; a rate is if any of its lanes is.
    """
    mean: dict[float, float] = {}
    for rate in {lane.rate for lane, ok in zip(lanes, allowed, strict=True) if ok}:
        own = [loss for lane, loss in zip(lanes, losses, strict=True) if lane.rate == rate]
        finite = [loss for loss in own if loss is not None and math.isfinite(loss)]
        mean[rate] = sum(finite) / len(finite) if len(finite) == len(own) else math.inf
    return min(mean, key=lambda rate: (mean[rate], rate), default=None)
