"""Execute: plan the cells, skip what the store has, measure the rest, store one record each."""

import math
import os
import time
import traceback
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import torch

from bnsuite.datasets import DATASETS, DataError, Source, find
from bnsuite.facets import FACETS, Facets, facets_of
from bnsuite.names import lookup
from bnsuite.networks import FAMILIES, UnsupportedError
from bnsuite.processes import THREAD_VARIABLES, WORKER_ENVIRONMENT, Failed, side_by_side
from bnsuite.profiles import Profile, load_profile, profile_names
from bnsuite.provenance import environment, reproducible
from bnsuite.records import RANKED, Cell, Measurement, Outcome, Provenance, Record, Store
from bnsuite.records.record import make_key
from bnsuite.records.store import FILE_NAME
from bnsuite.schemes import SCHEMES, Scheme, find_scheme
from bnsuite.settings import written
from bnsuite.tasks import TASKS, Subject, Task

Device = Literal["auto", "cpu", "cuda"]


class DeviceError(Exception):
    """The device that was asked for is not there."""


class Answer(NamedTuple):
    """What was measured, and whether networks trained stacked, where it came so far."""

    measured: Measurement
    stacked: bool | None = None


class ForeignScheme(Protocol):
    """A scheme whose code never runs in this process: it is asked, and answers (see `submission`)."""

    @property
    def name(self) -> str: ...

    @property
    def about(self) -> str: ...

    @property
    def facets(self) -> Facets: ...

    def source_hash(self) -> str:
        """SHA-256 over what defines the scheme."""

    def answer(self, job: "Job", report: Callable[[str], None]) -> Answer:
        """Measure one cell, elsewhere; what goes wrong is an outcome."""


@dataclass(frozen=True)
class Job:
    """A cell with what it takes to measure it."""

    cell: Cell
    scheme: Scheme | ForeignScheme
    task: Task
    key: str
    scheme_source: str
    data: Source


@dataclass(frozen=True)
class Event:
    """What happened to a cell: `found` so far, or the `record` that ends it (`new`, or kept from before)."""

    cell: Cell
    found: str = ""
    record: Record | None = None
    new: bool = False


Observer = Callable[[Event], None]


def run(
    profile: str = "quick",
    *,
    tasks: Sequence[str] | None = None,
    schemes: Sequence[str | Scheme | ForeignScheme] | None = None,
    families: Sequence[str] | None = None,
    datasets: Sequence[str | Path | Source] | None = None,
    device: Device = "auto",
    records: Path | str = "results",
    force: bool = False,
    workers: int = 1,
    time_limit: float = math.inf,
    observe: Observer | None = None,
    **settings: object,
) -> list[Record]:
    """Measure what the profile asks for and the folder does not have yet; one record a cell.

    Args:
        profile: smoke, quick, standard or full.
        tasks, schemes, families, datasets: by default the ranked tasks, and what the profile has. A scheme
            is the name of a built-in one, or any `Scheme`, whose records carry the facet `unchecked`: the
            contract of `bnsuite check` is not tried. A data set is a name of `DATASETS`, a `Path`, or a
            `Source` from `datasets.find`.
        records: folder of the records; finished cells in it are kept and not measured again.
        force: measure again what is there; the old record stays.
        workers: processes that measure side by side, each with its share of the cores; 1 stays in this
            process.
        time_limit: seconds after which no cell is started; cells under way finish.
        observe: called with an `Event` whenever something is known.
        settings: of the tasks, in place of the profile's: `activation="tanh", batch=16`. The records then
            carry a profile name of their own, `quick+activation=tanh+batch=16`.

    Returns:
        The records of all planned cells, in the order of the plan; of the finished ones where the time
        limit ended the run. A cell that failed has outcome `error` and its traceback in `error`.

    Raises:
        UnknownNameError: a name that does not exist.
        DataError: a data set that cannot be had.
        ValueError: a setting that cannot be.
        DeviceError: no GPU where one was asked for.
        RecordError: a record that cannot be read or written.
    """
    jobs = plan(profile, tasks, schemes, families, datasets, resolve_device(device), settings)
    return run_jobs(jobs, records, force=force, workers=workers, time_limit=time_limit, observe=observe)


def run_jobs(
    jobs: Sequence[Job],
    records: Path | str,
    *,
    force: bool = False,
    workers: int = 1,
    time_limit: float = math.inf,
    observe: Observer | None = None,
) -> list[Record]:
    """Measure planned jobs that the folder does not have yet; `run` plans them first.

    Returns:
        The records of the finished cells, in the order of the jobs: all, but for a time limit.

    Raises:
        ValueError: workers below 1, or a time limit that is negative or no number.
    """
    if workers < 1:
        raise ValueError(f"workers: got {workers}, wanted 1 at least. Leave it out for one.")
    if not time_limit >= 0:
        raise ValueError(f"time limit: got {time_limit} s, wanted 0 or more. Leave it out for none.")
    end = time.monotonic() + time_limit
    store = Store(records)
    store.check_writable()
    observe = observe or (lambda event: None)
    done = {} if force else {job.key: found for job in jobs if (found := store.result(job.key, job.cell))}
    for job in jobs:
        if job.key in done:
            observe(Event(job.cell, record=done[job.key]))
    waiting = [job for job in jobs if job.key not in done]
    for job in waiting:
        store.check_names(job.cell)
    with closing(_measure_all(waiting, workers, end, observe)) as measured:
        for record in measured:
            store.add(record)
            done[record.key] = record
            observe(Event(record.cell, record=record, new=True))
    return [done[job.key] for job in jobs if job.key in done]


def plan(
    profile: str,
    tasks: Sequence[str] | None,
    schemes: Sequence[str | Scheme | ForeignScheme] | None,
    families: Sequence[str] | None,
    datasets: Sequence[str | Path | Source] | None,
    device: Literal["cpu", "cuda"],
    settings: Mapping[str, object] | None = None,
) -> list[Job]:
    """The cells of a run, the tasks that take longest first."""
    budget = load_profile(profile)
    chosen = [_scheme(scheme) for scheme in (schemes or budget.schemes)]
    names = [scheme.name for scheme in chosen]
    if len(set(names)) < len(names):
        raise ValueError(f"schemes have names of their own: got {', '.join(names)}")
    for family in families or ():
        lookup("family", family, FAMILIES)
        lookup(f"family of profile {profile}", family, budget.families)
    for task in tasks or ():
        lookup("task", task, TASKS)
        if task not in budget.tasks:
            having = [name for name in profile_names() if task in load_profile(name).tasks]
            raise ValueError(
                f"profile {profile} has no task {task!r}: --profile {' or '.join(having)} has it"
            )
    sources = _sources(datasets or budget.datasets)
    ranked = [task for task in RANKED if task in budget.tasks]
    jobs = [
        _job(budget, task, scheme, family, source, device, settings or {})
        for task in sorted(dict.fromkeys(tasks or ranked), key=lambda name: -TASKS[name].weight)
        for family in dict.fromkeys(families or budget.default_families)
        for source in sources
        for scheme in chosen
        if budget.asks(task, family)
    ]
    if not jobs:
        raise ValueError(f"nothing to measure: profile {profile} has none of these tasks for these families")
    return jobs


def _sources(datasets: Sequence[str | Path | Source]) -> list[Source]:
    """Data sets that are ready, each once; all names are looked up before anything is decoded."""
    for dataset in datasets:
        if isinstance(dataset, str):
            lookup("dataset", dataset, DATASETS)
    asked = dict.fromkeys(datasets)
    found = [*dict.fromkeys(one if isinstance(one, Source) else find(one) for one in asked)]
    names = [source.name for source in found]
    if len(set(names)) < len(names):
        raise DataError(f"data sets have names of their own: got {', '.join(names)}. Rename one of them.")
    return found


def _scheme(scheme: str | Scheme | ForeignScheme) -> Scheme | ForeignScheme:
    if isinstance(scheme, str):
        return find_scheme(scheme)
    if scheme.name in SCHEMES and scheme != SCHEMES[scheme.name]:
        raise ValueError(f"{scheme.name!r} is a built-in scheme: give yours a name of its own")
    return scheme


def _job(
    budget: Profile,
    task: str,
    scheme: Scheme | ForeignScheme,
    family: str,
    source: Source,
    device: Literal["cpu", "cuda"],
    settings: Mapping[str, object],
) -> Job:
    own = TASKS[task](**budget.settings(task, family))
    changed: dict[str, Any] = {name: own.parse(name, value) for name, value in sorted(settings.items())}
    built = replace(own, **changed)
    changes = [written(name, value) for name, value in changed.items() if value != getattr(own, name)]
    profile = "+".join([budget.name, *changes])
    if not FILE_NAME.fullmatch(profile):
        raise ValueError(
            f"settings: got {len(profile)} characters, wanted 200 at most, since they name the folder of the "
            f"records, {profile[:40]!r}… Give fewer or shorter values."
        )
    cell = Cell(
        task=task,
        scheme=scheme.name,
        family=family,
        dataset=source.name,
        profile=profile,
        device=device,
    )
    return _keyed(cell, scheme, built, source)


def job_of(
    cell: Cell, settings: Mapping[str, object], scheme: Scheme | ForeignScheme, data: Source | None = None
) -> Job:
    """The job of a cell with settings as a record holds them, whatever its profile says today.

    Args:
        data: its data set, where that is none by name, or is here already.

    Raises:
        UnknownNameError, ValueError: for names and settings that this version does not have.
    """
    task = lookup("task", cell.task, TASKS)
    lookup("family", cell.family, FAMILIES)
    data = data or find(cell.dataset)
    parsed: dict[str, Any] = {name: task.parse(name, value) for name, value in settings.items()}
    return _keyed(cell, scheme, task(**parsed), data)


def _keyed(cell: Cell, scheme: Scheme | ForeignScheme, task: Task, data: Source) -> Job:
    if task.draws and 0 < data.train < task.batch:
        raise DataError(
            f"{data.name}: has {data.train} images to train on, fewer than the batch of {task.batch} of "
            f"{task.name}. Give more of them, or --set batch=N with N at most {data.train}."
        )
    if data.train and (goal := task.reached_by_guessing(data.train_counts, data.test_counts)):
        raise DataError(f"{data.name}: {goal}")
    source = scheme.source_hash()  # here, since a worker may not see the source of a script's own class
    key = make_key(
        cell,
        task_version=task.version,
        settings=task.settings,
        scheme_source=source,
        dataset_checksum=data.checksum,
    )
    return Job(cell, scheme, task, key, source, data)


def resolve_device(device: str) -> Literal["cpu", "cuda"]:
    """cpu or cuda; `auto` takes a GPU where there is one."""
    if device == "cpu" or (device == "auto" and not torch.cuda.is_available()):
        return "cpu"
    if not torch.cuda.is_available():
        raise DeviceError(
            "no GPU: torch sees none here. Use --device cpu, or install a CUDA build of torch "
            "and check the driver with nvidia-smi."
        )
    return "cuda"


def _measure_all(
    jobs: Sequence[Job], workers: int, end: float, observe: Observer
) -> Generator[Record, None, None]:
    """Records as they come, from this process or from worker processes; from `end` on no cell is started."""
    workers = min(workers, len(jobs))
    if workers <= 1:
        for job in jobs:
            if time.monotonic() >= end:
                return
            yield measure(job, lambda found, job=job: observe(Event(job.cell, found)))  # type: ignore[misc]
        return

    threads = max(1, (os.cpu_count() or 1) // workers)
    results = side_by_side(
        partial(_measure_in_worker, end=end, threads=threads),
        jobs,
        workers,
        lambda job, found: observe(Event(job.cell, found)),
        {**WORKER_ENVIRONMENT, **dict.fromkeys(THREAD_VARIABLES, str(threads))},
    )
    for job, record in results:
        if isinstance(record, Failed):
            yield _failed(job, record.reason)
        elif record is not None:
            yield record


def _measure_in_worker(job: Job, report: Callable[[str], None], end: float, threads: int) -> Record | None:
    if time.monotonic() >= end:  # a clock common to all processes; a worker takes seconds to start
        return None
    torch.set_num_threads(threads)
    return measure(job, report)


def _failed(job: Job, reason: str) -> Record:
    """Record of a cell that no worker could finish; its facets are not tried here, where they may end us."""
    facets = Facets() if isinstance(job.scheme, Scheme) else job.scheme.facets
    answer = Answer(without_value(Outcome.ERROR, reason))
    flags = environment(torch.device(job.cell.device))
    return _sealed(job, answer, _provenance(job, flags, answer, datetime.now(UTC), 0.0), facets)


def measure(job: Job, report: Callable[[str], None]) -> Record:
    """Measure one cell. What goes wrong in it becomes its record's outcome."""
    started, clock = datetime.now(UTC), time.perf_counter()
    device = torch.device(job.cell.device)
    report("started")
    with reproducible(device):
        flags = environment(device)
    of = answer_here if isinstance(job.scheme, Scheme) else job.scheme.answer
    answer = of(job, report)
    duration_s = round(time.perf_counter() - clock, 3)
    provenance = _provenance(job, flags, answer, started, duration_s)
    try:
        return _sealed(job, answer, provenance, _facets(job))
    except ValueError as error:  # a NaN among what stands beside the value
        failed = without_value(Outcome.ERROR, relative_traceback(error))
        return _sealed(job, answer._replace(measured=failed), provenance, _facets(job))


def _provenance(
    job: Job, flags: Mapping[str, Any], answer: Answer, started: datetime, duration_s: float
) -> Provenance:
    return Provenance(
        **flags,
        scheme_source=job.scheme_source,
        dataset_checksum=job.data.checksum,
        stacked=answer.stacked,
        seeds={"tuning": list(job.task.tuning), "confirmation": list(job.task.confirmation)},
        started=started.isoformat(timespec="milliseconds"),
        duration_s=duration_s,
    )


def answer_here(job: Job, report: Callable[[str], None]) -> Answer:
    """Measure one cell in this process."""
    assert isinstance(job.scheme, Scheme)
    device = torch.device(job.cell.device)
    data = job.data.load()
    subject = Subject(job.scheme, FAMILIES[job.cell.family], data.to(device), report)
    stacked: bool | None = None
    with reproducible(device):
        try:
            stacked = subject.stacked
            measured = job.task(subject)
        except UnsupportedError as error:
            measured = without_value(Outcome.UNSUPPORTED, str(error))
        except Exception as error:
            if out_of_memory(error):
                measured = without_value(Outcome.OOM, str(error))
            else:
                measured = without_value(Outcome.ERROR, relative_traceback(error))
    return Answer(measured, stacked)


def out_of_memory(error: Exception) -> bool:
    """Whether memory was all that it lacked; torch has no class of its own for a CPU's."""
    ours = isinstance(error, (torch.OutOfMemoryError, MemoryError))
    return ours or (isinstance(error, RuntimeError) and "can't allocate memory" in str(error))


_FACETS: dict[str, Facets] = {}  # of this process, by source: a scheme has several cells


def _facets(job: Job) -> Facets:
    if not isinstance(job.scheme, Scheme):
        return job.scheme.facets
    if job.scheme_source not in _FACETS:
        _FACETS[job.scheme_source] = facets_of(job.scheme)
    found = _FACETS[job.scheme_source]
    if SCHEMES.get(job.scheme.name) == job.scheme:
        return found
    return Facets(tuple(word for word in FACETS if word in (*found.words, "unchecked")), found.costs)


def _sealed(job: Job, answer: Answer, provenance: Provenance, facets: Facets) -> Record:
    return Record(
        **dict(answer.measured),
        **job.cell.model_dump(),
        id="",
        key="",
        task_version=job.task.version,
        question=job.task.question,
        about=job.scheme.about,
        facets=facets.words,
        costs=facets.costs,
        settings=job.task.settings,
        unit=job.task.unit,
        better=job.task.better,
        provenance=provenance,
    ).sealed()


def without_value(outcome: Outcome, error: str) -> Measurement:
    """A record names no path of a machine."""
    for place, short in ((Path.cwd(), "."), (Path.home(), "~")):
        error = error.replace(f"{place}{os.sep}", f"{short}{os.sep}")
    return Measurement(value=None, outcome=outcome, low=None, high=None, error=error)


def relative_traceback(error: BaseException) -> str:
    """The traceback with file names from the package on."""
    lines = []
    for frame in traceback.extract_tb(error.__traceback__):
        parts = Path(frame.filename).parts
        roots = [i for i, part in enumerate(parts[:-1]) if part in ("site-packages", "bnsuite")]
        short = "/".join(parts[roots[-1] :]) if roots else parts[-1]
        lines.append(f"{short.removeprefix('site-packages/')}:{frame.lineno} {frame.name}: {frame.line}")
    return "\n".join([*lines, f"{type(error).__name__}: {error}"])
