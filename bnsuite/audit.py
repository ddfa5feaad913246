"""Audit: check an untrusted measurement for consistency with its trace and for possible values. No torch.

The value is computed again from the samples, and the samples from the trace by the task's own `protocol`;
numbers that no machine can measure are refused. So no single number of a record can be changed alone.

Not caught:

- an invention that is consistent: curves nobody trained, a whole trace moved to another threshold;
- a number that no other number depends on: a loss of a confirmation lane of `max_depth`, an accuracy below
  the target before a curve reaches it, the losses of rates that are not best, a λ at initialization with its
  median, a race somewhat slower or faster than it was;
- which of two rates is best if their mean losses agree to 5 digits, or their mean steps exactly.

Isolation and audit protect the machine and the consistency of a record, not its number: a re-run does that
(`verification`).
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta

from pydantic import BaseModel, ValidationError

from bnsuite.protocol.search import Batch, FaultError, Lane, RowT, Search, read_part
from bnsuite.records import (
    CALIBRATION,
    SCHEMA_VERSION,
    SUITE_VERSION,
    Better,
    Json,
    Measurement,
    Outcome,
    Record,
)
from bnsuite.records.facets import COSTS, FACETS
from bnsuite.records.store import FILE_NAME, started
from bnsuite.settings import faults
from bnsuite.specs import SPECS
from bnsuite.statistics import summarize
from bnsuite.text import printable

CLASSES = {"digits": 10, "cifar10": 10, "cifar100": 100, "mnist": 10, "fashion-mnist": 10}
"""Data set → number of classes C, to check the limit of the loss (½ ln C by default) too."""

SKEW = timedelta(hours=1)
"""Largest difference of the clocks of two machines."""

SMALLEST, LARGEST = 1e-300, 1e300
"""Limits of the magnitude of a number other than 0: axes divide and square what they show."""

DEEPEST = 32
"""Upper limit on levels of lists and objects within each other."""

LENGTH = 200
"""Upper limit on the characters of a text, except those in `LENGTHS`."""

LENGTHS = {"about": 1000, "question": 1000, "error": 20_000}
"""Place of a text that may be longer → upper limit on its characters."""

LONGEST_S = 1e8
"""Upper limit on the seconds of a measurement: three years."""

MOST_THREADS = 100_000

COSTLIEST = 1e12
"""Upper limit on a cost; every cost is at least 0, that of scheme `none`."""

FAILED = (Outcome.ERROR, Outcome.UNSUPPORTED, Outcome.OOM)
"""Outcomes of a cell that measured nothing."""


def objections(
    measured: Measurement,
    task: str,
    settings: Mapping[str, Json],
    *,
    better: Better,
    dataset: str | None = None,
    duration_s: float | None = None,
) -> list[str]:
    """List objections to a measurement, one per line: where, what was got, what it must be.

    Args:
        measured: the measurement.
        task: name of its task.
        settings: settings of the task, from the auditor and not from the measurement.
        better: whether higher or lower is better.
        dataset: name of the data set, for its number of classes; None: not known.
        duration_s: seconds that the measurement took by the auditor's clock; None: not known.

    Returns:
        An empty list if the measurement is sound.
    """
    infinite = [f"{place}: got {value}, must be finite" for place, value in _infinite(measured)]
    if infinite:
        return infinite  # numbers that are not finite have no JSON and cannot be compared
    try:
        measured = Measurement.model_validate(measured.model_dump(mode="json", warnings=False))
    except ValidationError as error:
        return [f"{fault['loc']}: got {fault['input']!r:.80}: {fault['msg']}" for fault in error.errors()]
    if refused := [f"settings: {fault}" for fault in faults(task, settings)]:
        return refused
    if measured.outcome in FAILED:
        return list(_nothing_measured(measured))
    lines = [*_summary_faults(measured, settings, better)]
    if (spec := SPECS.get(task)) and spec.search and not any(line.startswith("seeds") for line in lines):
        known = {
            "classes": CLASSES.get(dataset or ""),
            "duration_s": duration_s,
            "chosen": measured.derived.get("rate"),  # tuning breaks ties by accuracies that no trace has
        }
        try:
            search = read_part(spec.search, {**settings, **known}, "settings")
            lines += search.objections(measured, followed(search, measured.trace))
        except FaultError as fault:
            lines.append(str(fault))
    return lines


def followed(search: Search[RowT], rows: Sequence[Mapping[str, Json]]) -> list[RowT]:
    """Read the rows of a trace in the order in which a search asks for them.

    Raises:
        FaultError: a row is missing, left over, contradicts itself, or is not the one that is asked for.
    """
    taken = 0

    def attempt(batch: Batch) -> list[RowT]:
        return [take(batch, lane) for lane in batch.lanes]

    def take(batch: Batch, lane: Lane) -> RowT:
        nonlocal taken
        depth = {} if batch.depth is None else {"depth": batch.depth}
        wanted = {"phase": batch.phase, **depth, "rate": lane.rate, "seed": lane.seed}
        if taken == len(rows):
            raise FaultError(f"trace: got {taken} rows, must go on with {wanted}")
        where = f"trace[{taken}]"
        row = read_part(search.row_type(batch.phase), rows[taken], where)
        for name, must in wanted.items():
            if (got := getattr(row, name)) != must:
                raise FaultError(f"{where}.{name}: got {got}, must be {must}")
        for field, got, must in search.faults(row):
            raise FaultError(f"{where}.{field}: got {got}, must be {must}")
        taken += 1
        return row

    trace = search.follow(attempt)
    if taken < len(rows):
        raise FaultError(f"trace: got {len(rows)} rows, must end after {taken}")
    return trace


def objections_to(record: Record) -> list[str]:
    """List objections to a whole record; for calibrations only hashes, names and limits are checked.

    Settings are taken from the record; whether they are those of its profile is checked by tables.
    """
    hashes = [
        f"{name}: got {got}, must be {must}, the hash of the fields it covers"
        for name, got, must in _hashes(record)
        if got != must
    ]
    if infinite := [f"{place}: got {value}, must be finite" for place, value in _infinite(record)]:
        return [*hashes, *infinite]
    if record.task == CALIBRATION:
        return [*hashes, *_name_faults(record), *beyond(record)]
    return [
        *hashes,
        *_name_faults(record),
        *_version_faults(record),
        *_provenance_faults(record),
        *beyond(record),
        *objections(
            Measurement(**{name: getattr(record, name) for name in Measurement.model_fields}),
            record.task,
            record.settings,
            better=record.better,
            dataset=record.dataset,
            duration_s=record.provenance.duration_s,
        ),
    ]


def _hashes(record: Record) -> Iterator[tuple[str, str, str]]:
    try:
        yield "key", record.key, record.expected_key()
        yield "id", record.id, record.expected_id()
    except ValueError:  # numbers that are not finite have no JSON
        yield "id", record.id, "that of finite numbers"


def _name_faults(record: Record) -> Iterator[str]:
    """Find names that no file may have: pages are named after them."""
    for field in ("scheme", "profile", "family", "dataset", "task"):
        if not FILE_NAME.fullmatch(name := getattr(record, field)):
            yield f"{field}: got {name!r:.80}, must be a name that a file may have"


def _version_faults(record: Record) -> Iterator[str]:
    """Find objections to task and versions."""
    if (spec := SPECS.get(record.task)) and spec.ranked:
        for name in ("unit", "better", "question"):
            if (got := getattr(record, name)) != (must := getattr(spec, name)):
                yield f"{name}: got {got!r:.80}, must be {must!r}, that of {record.task}"
        if record.task_version != spec.version:
            yield f"task_version: got {record.task_version}, must be {spec.version}"
    if record.suite_version != SUITE_VERSION:
        yield f"suite_version: got {record.suite_version}, must be {SUITE_VERSION}"
    if not 1 <= record.schema_version <= SCHEMA_VERSION:
        yield f"schema_version: got {record.schema_version}, must be 1 to {SCHEMA_VERSION}"


def _provenance_faults(record: Record) -> Iterator[str]:
    """Find objections to seeds, time, threads and hashes of the provenance."""
    about = record.provenance
    seeds = {name: record.settings.get(name) for name in ("tuning", "confirmation")}
    if about.seeds != seeds:
        yield f"provenance.seeds: got {about.seeds}, must be {seeds}"
    moment, now = started(record), datetime.now(UTC)
    if not datetime(2020, 1, 1, tzinfo=UTC) <= moment <= now + SKEW:
        yield f"provenance.started: got {about.started!r:.80}, must be a time up to {now:%Y-%m-%d %H:%M} UTC"
    if about.duration_s < 0:
        yield f"provenance.duration_s: got {about.duration_s}, must be at least 0"
    if about.threads < 1:
        yield f"provenance.threads: got {about.threads}, must be at least 1"
    for name in ("scheme_source", "dataset_checksum"):
        if len(got := getattr(about, name)) != 64 or set(got) - set("0123456789abcdef"):
            yield f"provenance.{name}: got {got!r:.80}, must be a SHA-256 of 64 hexadecimal digits"


def _summary_faults(measured: Measurement, settings: Mapping[str, Json], better: Better) -> Iterator[str]:
    """Find objections, for any task, to the seeds and to the summary of the samples."""
    seeds = [sample.seed for sample in measured.samples]
    if seeds != settings.get("confirmation"):
        yield f"seeds: got {seeds}, must be {settings.get('confirmation')}, those of confirmation"
    if measured.error is not None:
        yield f"error: got {measured.error!r:.80}, must be None with {measured.outcome}"
    for name, must in summarize(measured.samples, better)._asdict().items():
        if (got := getattr(measured, name)) != must:
            yield f"{name}: got {got}, must be {must}, that of the samples"


def _nothing_measured(measured: Measurement) -> Iterator[str]:
    """Find objections to a cell that failed, which has an error and nothing else."""
    for name in ("value", "low", "high", "coverage"):
        if (got := getattr(measured, name)) is not None:
            yield f"{name}: got {got}, must be None with {measured.outcome}"
    for name in ("samples", "derived", "trace"):
        if got := getattr(measured, name):
            yield f"{name}: got {len(got)}, must be empty with {measured.outcome}"
    if not measured.error:
        yield f"error: got {measured.error!r}, must say what happened with {measured.outcome}"


def _infinite(measured: Measurement) -> Iterator[tuple[str, float]]:
    """Find numbers that are not finite, with their places; not by recursion, as the depth is not trusted."""
    waiting: list[tuple[str, object]] = [(name, value) for name, value in measured]
    while waiting:
        place, value = waiting.pop()
        if isinstance(value, float) and not math.isfinite(value):
            yield place, value
        elif isinstance(value, (BaseModel, dict)):
            waiting += [(f"{place}.{name}", part) for name, part in dict(value).items()]
        elif isinstance(value, (list, tuple)):
            waiting += [(f"{place}[{i}]", part) for i, part in enumerate(value)]


def beyond(record: Record) -> Iterator[str]:
    """Find limits that a record breaks: where, what was got, what it must be."""
    for place, value, depth in _values(record):
        if depth > DEEPEST:
            yield f"{place:.80}: got more than {DEEPEST} lists and objects within each other"
        elif isinstance(value, str) and printable(value) != value:
            yield f"{place:.80}: got {value!r:.80}, must hold no control characters"
        elif isinstance(value, str) and len(value) > (most := LENGTHS.get(place, LENGTH)):
            yield f"{place:.80}: got {len(value)} characters, must be at most {most}"
        elif isinstance(value, (int, float)) and value and not SMALLEST <= abs(value) <= LARGEST:
            yield f"{place:.80}: got {value!r:.40}, must be 0 or of magnitude {SMALLEST} to {LARGEST}"
    yield from _facet_faults(record)
    about = record.provenance
    if record.device == "cpu" and (about.gpu, about.driver) != (None, None):
        yield f"provenance.gpu: got {about.gpu or about.driver!r:.80}, must be None on a CPU"
    if record.device == "cuda" and not about.gpu:
        yield f"provenance.gpu: got {about.gpu!r}, must be the name of the GPU"
    if not about.cpu.strip():
        yield f"provenance.cpu: got {about.cpu!r}, must be the name of the processor"
    if about.duration_s > LONGEST_S or about.threads > MOST_THREADS:
        got = f"{about.threads} threads and {about.duration_s} s"
        yield f"provenance: got {got}, must be at most {MOST_THREADS} and {LONGEST_S:g}"


def _facet_faults(record: Record) -> Iterator[str]:
    """Find objections to facets and costs, which describe the scheme."""
    for word in record.facets:
        if word not in FACETS:
            yield f"facets: got {word!r:.80}, must be among {', '.join(FACETS)}"
    if len(set(record.facets)) < len(record.facets):
        yield "facets: got one twice, must be there once"
    for cost, value in record.costs.items():
        if cost not in COSTS:
            yield f"costs: got {cost!r:.80}, must be among {', '.join(COSTS)}"
        elif not 0 <= value <= COSTLIEST:
            yield f"costs.{cost}: got {value}, must be between 0 and {COSTLIEST:g}"


def _values(record: Record) -> Iterator[tuple[str, object, int]]:
    """List each key, and each value that holds no other, with its place and level; not by recursion."""
    waiting: list[tuple[str, object, int]] = [(name, value, 0) for name, value in record]
    while waiting:
        place, value, depth = waiting.pop()
        items: list[tuple[str, object]] = []
        if isinstance(value, (BaseModel, dict)):
            items = [(f"{place}.{name}", part) for name, part in dict(value).items()]
            if isinstance(value, dict):
                yield from ((f"{place}, a key", name, depth) for name in value)
        elif isinstance(value, (list, tuple)):
            items = [(f"{place}[{i}]", part) for i, part in enumerate(value)]
        if not items or depth > DEEPEST:
            yield place, value, depth
        else:
            waiting += [(where, part, depth + 1) for where, part in items]
