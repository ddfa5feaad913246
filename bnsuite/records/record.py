"""Record: the immutable JSON result of one cell, with all its parts."""

import hashlib
import json
import sys
from enum import StrEnum
from typing import Annotated, Literal, Self, TypeGuard

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

SCHEMA_VERSION = 2
"""Version of the fields of `Record`, raised when one is added or changed. Older records stay readable."""

ADDED = {2: {"about", "costs"}}
"""Version → fields that it added. The id of an older record is the hash of the fields that it had."""

SUITE_VERSION = 1
"""Version of the protocol. Records of two suite versions are never compared."""

CALIBRATION = "calibration"
"""Task of a record that holds the readings of `bnsuite calibrate` and measures no scheme."""

Json = JsonValue
Better = Literal["higher", "lower"]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class Outcome(StrEnum):
    """How a lane or a cell ended. Every outcome is a result and is stored; only `error` is measured again."""

    sentence: str  # what the outcome says of the value, in words
    bound: Literal["lower", "upper"] | None  # kind of bound that the value is; None: it is not a bound

    OK = "ok", "measured"
    CAPPED = "capped", "passes everywhere tried: the value is a lower bound", "lower"
    FLOOR = "floor", "fails everywhere tried: the value is an upper bound", "upper"
    TIMEOUT = "timeout", "did not finish in its budget: the value is the budget, a lower bound", "lower"
    STUCK = "stuck", "stayed finite and did not reach its target in its budget"
    NONFINITE = "nonfinite", "left the finite numbers"
    UNCONVERGED = "unconverged", "the estimator missed its tolerance"
    UNSUPPORTED = "unsupported", "cannot be built for this family"
    OOM = "oom", "ran out of memory"
    ERROR = "error", "failed with an exception"

    def __new__(cls, value: str, sentence: str = "", bound: Literal["lower", "upper"] | None = None) -> Self:
        outcome = str.__new__(cls, value)
        outcome._value_ = value
        outcome.sentence, outcome.bound = sentence, bound
        return outcome

    @property
    def has_value(self) -> bool:
        """Whether a value goes with the outcome; with the others it is None."""
        return self is Outcome.OK or self.bound is not None


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Cell(_Frozen):
    """Unit of work: one cell gives one record; runs are resumed and distributed by cells."""

    task: str
    scheme: str
    family: str
    dataset: str
    profile: str
    device: Literal["cpu", "cuda"]

    def __str__(self) -> str:
        _, *changed = self.profile.split("+")
        return " ".join([self.task, self.scheme, f"{self.family}/{self.dataset}", *changed])


class _Valued(_Frozen):
    """Value and outcome; the value is a number exactly where `outcome.has_value`."""

    value: Finite | None
    outcome: Outcome = Outcome.OK
    low: Finite | None = None
    high: Finite | None = None

    @model_validator(mode="after")
    def _value_goes_with_outcome(self) -> Self:
        if self.outcome.has_value != (self.value is not None):
            raise ValueError(f"outcome {self.outcome} and value {self.value} do not go together")
        return self


class Sample(_Valued):
    """Result of one confirmation seed.

    `value` is in the record's unit. With the outcomes `capped`, `floor` and `timeout` it is a bound, with
    `ok` a number, with all others None. `low` and `high` are the bracket in which the search ended.
    """

    seed: int
    detail: dict[str, JsonValue] = {}


class Measurement(_Valued):
    """Result of a task: the median over seeds and what it rests on, without provenance.

    `low` and `high` are the order-statistic interval of the median, with the probability `coverage`.
    """

    coverage: Finite | None = None
    samples: tuple[Sample, ...] = ()
    derived: dict[str, JsonValue] = {}
    trace: tuple[dict[str, JsonValue], ...] = ()
    error: str | None = None


class Provenance(_Frozen):
    """Code, data, machine and settings behind a number; holds no host name, user name or path."""

    package_version: str
    scheme_source: str = Field(description="SHA-256 over the sources that define the scheme")
    dataset_checksum: str = Field(description="SHA-256 over the tensors of the data set")
    commit: str | None = Field(description="git commit of the suite, where it runs from a checkout")
    dirty: bool | None = Field(description="whether the package differed from that commit")
    torch: str
    python: str
    os: str
    cpu: str
    gpu: str | None
    driver: str | None
    threads: int = Field(description="threads a torch operation may use")
    deterministic: bool = Field(description="torch.use_deterministic_algorithms was on")
    tf32: bool = Field(description="TensorFloat-32 was allowed")
    flush_subnormals: bool = Field(description="subnormal numbers were flushed to zero")
    stacked: bool | None = Field(description="lanes trained stacked (True) or lane by lane (False)")
    seeds: dict[str, list[int]]
    started: str = Field(description="UTC, ISO 8601")
    duration_s: Finite


class Record(Measurement):
    """Measurement of one cell. `key` identifies what was measured, `id` this one measurement of it."""

    id: str
    key: str
    schema_version: int = SCHEMA_VERSION
    suite_version: int = SUITE_VERSION
    task: str
    task_version: int
    question: str = Field(description="the task's question, in one sentence")
    scheme: str
    about: str = Field(default="", description="the scheme in one line")
    facets: tuple[str, ...] = Field(default=(), description="what holds of the scheme, found by trying")
    costs: dict[str, Finite] = Field(default={}, description="what the scheme adds, by the unit in the name")
    family: str
    dataset: str
    profile: str
    device: Literal["cpu", "cuda"]
    settings: dict[str, JsonValue]
    unit: str
    better: Better
    provenance: Provenance

    @model_validator(mode="after")
    def _holds_what_its_version_has(self) -> Self:
        if later := self._added_later() & self.model_fields_set:
            raise ValueError(f"a record of schema_version {self.schema_version} has no {min(later)}")
        return self

    def _added_later(self) -> set[str]:
        return set[str]().union(*(names for v, names in ADDED.items() if v > self.schema_version))

    @property
    def cell(self) -> Cell:
        return Cell(**{name: getattr(self, name) for name in Cell.model_fields})

    @property
    def n(self) -> int:
        """Number of confirmation seeds."""
        return len(self.samples)

    def expected_key(self) -> str:
        """Hash of everything that determines the measurement; equal on all machines."""
        return make_key(
            self.cell,
            task_version=self.task_version,
            suite_version=self.suite_version,
            settings=self.settings,
            scheme_source=self.provenance.scheme_source,
            dataset_checksum=self.provenance.dataset_checksum,
        )

    def expected_id(self) -> str:
        """Hash of the record without its id; differs from `id` where the record was edited."""
        return digest(self.model_dump(mode="json", exclude={"id"} | self._added_later()))[:16]

    def sealed(self) -> Self:
        """Copy of the record with key and id set from its content."""
        keyed = self.model_copy(update={"key": self.expected_key()})
        return keyed.model_copy(update={"id": keyed.expected_id()})


def make_key(
    cell: Cell,
    *,
    task_version: int,
    settings: dict[str, JsonValue],
    scheme_source: str,
    dataset_checksum: str,
    suite_version: int = SUITE_VERSION,
) -> str:
    """Return the key of a measurement: 32 digits of the SHA-256 over all arguments but the profile."""
    return digest(
        {
            **cell.model_dump(mode="json", exclude={"profile"}),
            "task_version": task_version,
            "suite_version": suite_version,
            "settings": settings,
            "scheme_source": scheme_source,
            "dataset_checksum": dataset_checksum,
        }
    )[:32]


def digest(value: JsonValue) -> str:
    """Return the SHA-256 of a JSON value in canonical form, in hexadecimal."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def is_number(value: object) -> TypeGuard[float]:
    """Tell whether a JSON value is a finite number; a trace that others wrote may hold anything."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def is_positive(value: object) -> TypeGuard[float]:
    """Tell whether a JSON value is a finite number above 0."""
    return is_number(value) and value > 0
