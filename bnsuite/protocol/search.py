"""Searches: what each asks for next, given its trace, and what its trace says. No torch.

A search is a frozen set of settings with pure functions of a trace: `wanted` names the lanes to train next,
`score` reads samples and derived values. A task trains what is wanted; the audit takes the rows from a
record and scores them again.
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
"""How a lane ends that has a budget of steps and a goal."""


class Lane(NamedTuple):
    """One network in training."""

    seed: int
    rate: float


class Batch(NamedTuple):
    """Lanes that a search asks for next, and the depth of their networks where the search chooses it."""

    phase: str
    lanes: list[Lane]
    depth: int | None = None


class Strict(BaseModel):
    """Part of a record with exactly these fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Row(Strict):
    """One lane in a trace."""

    phase: str
    rate: Real
    seed: Whole
    outcome: Outcome

    @property
    def lane(self) -> Lane:
        return Lane(self.seed, self.rate)

    @property
    def dead(self) -> bool:
        """Whether the lane left the finite numbers."""
        return self.outcome is Outcome.NONFINITE

    def as_json(self) -> dict[str, Json]:
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
    """Part of a record that cannot be followed further; the message is the objection."""


RowT = TypeVar("RowT", bound=Row)
Model = TypeVar("Model", bound=BaseModel)


class Search(BaseModel, ABC, Generic[RowT]):
    """Settings of a search, from those of a task or of a record; other settings are ignored."""

    model_config = ConfigDict(frozen=True)

    tuning: tuple[Whole, ...]
    confirmation: tuple[Whole, ...]
    rates: tuple[Positive, ...]
    steps: Count

    @abstractmethod
    def row_type(self, phase: str) -> type[RowT]:
        """Type of the rows of a phase."""

    @abstractmethod
    def wanted(self, trace: Sequence[RowT]) -> Batch | None:
        """Name the lanes to train next; None when the search has ended."""

    @abstractmethod
    def faults(self, row: RowT) -> Iterator[Fault]:
        """Contradictions between the fields of one row, and with the settings."""

    @abstractmethod
    def objections(self, measured: Measurement, trace: Sequence[RowT]) -> Iterator[str]:
        """Objections to a measurement whose trace was followed: where, what was got, what it must be."""

    def follow(self, attempt: Callable[[Batch], Sequence[RowT]]) -> list[RowT]:
        """Run the search to its end: `attempt(batch)` gives a row per lane, in order. Returns the trace."""
        trace: list[RowT] = []
        while (batch := self.wanted(trace)) is not None:
            trace += attempt(batch)
        return trace


def phase_of(trace: Sequence[RowT], phase: str) -> list[RowT]:
    """Rows of one phase."""
    return [row for row in trace if row.phase == phase]


def read(model: type[Model], value: object, where: str) -> Model:
    """Read a part of a record as a model.

    Raises:
        FaultError: where it is, what was got, and what it must be.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join([where, *map(str, first["loc"])])
        raise FaultError(f"{place}: got {first['input']!r:.80}: {first['msg']}") from None


def differences(measured: Measurement, must: Findings) -> Iterator[str]:
    """Objections where samples and derived values are not those that follow from the trace."""
    for one, other in zip(measured.samples, must.samples, strict=False):
        for name in Sample.model_fields:
            if (a := getattr(one, name)) != (b := getattr(other, name)):
                yield f"samples[seed {other.seed}].{name}: got {a}, must be {b}, as the trace has it"
    got, wanted = measured.derived, must.derived
    for name in sorted({*got, *wanted}):
        if name not in wanted:
            yield f"derived.{name}: got {got[name]!r:.80}, must not be there"
        elif name not in got or got[name] != wanted[name]:
            yield f"derived.{name}: got {got.get(name)!r:.80}, must be {wanted[name]!r:.80}"


def number(value: float, digits: int = 6) -> float | None:
    """Round a value to significant digits, as traces hold it; None where it is not finite."""
    return float(f"{value:.{digits}g}") if math.isfinite(value) else None


def over_seeds(samples: Sequence[Sample], *path: str) -> list[float]:
    """Numbers in the details of samples at a path of names; seeds without one are left out."""
    numbers = []
    for sample in samples:
        value: Json = sample.detail
        for name in path:
            value = value.get(name) if isinstance(value, dict) else None
        if isinstance(value, (int, float)):
            numbers.append(float(value))
    return numbers


def middle(samples: Sequence[Sample], *path: str) -> float | None:
    """Median over seeds of the numbers at a path of names; None where no seed has one."""
    numbers = over_seeds(samples, *path)
    return median(numbers) if numbers else None


def log_grid(start: float, per_decade: int, count: int) -> list[float]:
    """start · 10^{k / per_decade}, k = 0 … count − 1.

    >>> log_grid(0.01, 2, 3)
    [0.01, 0.0316227766016838, 0.1]
    """
    return [float(f"{start * 10 ** (k / per_decade):.16g}") for k in range(count)]


def grid(rates: Sequence[float], seeds: Sequence[int]) -> list[Lane]:
    """One lane per rate and seed."""
    return [Lane(seed, rate) for rate in rates for seed in seeds]


def best_rate(lanes: Sequence[Lane], losses: Sequence[float | None], allowed: Sequence[bool]) -> float | None:
    """Rate of lowest mean final loss over its seeds, ties to the smaller; None if no rate is allowed.

    A rate is allowed where any of its lanes is; a lane that died (None, or not finite) makes its mean
    infinite.
    """
    mean: dict[float, float] = {}
    for rate in {lane.rate for lane, ok in zip(lanes, allowed, strict=True) if ok}:
        own = [loss for lane, loss in zip(lanes, losses, strict=True) if lane.rate == rate]
        finite = [loss for loss in own if loss is not None and math.isfinite(loss)]
        mean[rate] = sum(finite) / len(finite) if len(finite) == len(own) else math.inf
    return min(mean, key=lambda rate: (mean[rate], rate), default=None)
