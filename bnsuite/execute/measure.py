"""Measure: one job → one record. What goes wrong in it is the outcome of its record."""

import os
import time
import traceback
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from bnsuite.execute.plan import Answer, Job
from bnsuite.execute.provenance import environment, reproducible
from bnsuite.facets import FACETS, Facets, facets_of
from bnsuite.networks import FAMILIES, UnsupportedError
from bnsuite.records import Measurement, Outcome, Provenance, Record
from bnsuite.schemes import SCHEMES, Scheme
from bnsuite.tasks import Subject
from bnsuite.tasks.top_eigenvalue import TopEigenvalue
from bnsuite.verification import SecondOpinion


def failed(job: Job, reason: str) -> Record:
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


def second_opinion(job: Job) -> SecondOpinion | None:
    """Ask hessian-eigenthings for λ_max of one seed of a job.

    None: the task is not `top_eigenvalue`, its first seed has no value, or the scheme is foreign code, which
    does not run in this process.
    """
    if not isinstance(job.task, TopEigenvalue) or not isinstance(job.scheme, Scheme):
        return None
    device = torch.device(job.cell.device)
    subject = Subject(job.scheme, FAMILIES[job.cell.family], job.data.load().to(device), lambda found: None)
    with reproducible(device):
        values = job.task.second_opinion(subject)
    return SecondOpinion(job.task.confirmation[0], *values) if values else None


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
        task_version=job.task.spec.version,
        question=job.task.spec.question,
        about=job.scheme.about,
        facets=facets.words,
        costs=facets.costs,
        settings=job.task.settings,
        unit=job.task.spec.unit,
        better=job.task.spec.better,
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
