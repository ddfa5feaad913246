"""Measure one job and return one record. Whatever goes wrong becomes the outcome of the record."""

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


def failed_record(job: Job, reason: str) -> Record:
    """Build the record of a cell that no worker could finish, with outcome `error`.

    Facets of the scheme are not measured: the scheme may end this process, too.
    """
    facets = Facets() if isinstance(job.scheme, Scheme) else job.scheme.facets
    answer = Answer(without_value(Outcome.ERROR, reason))
    flags = environment(torch.device(job.cell.device))
    return _sealed(job, answer, flags, datetime.now(UTC), 0.0, facets)


def measure(job: Job, report: Callable[[str], None]) -> Record:
    """Measure one cell, here or in its sandbox; `report` gets its progress, a few words at a time."""
    started, clock = datetime.now(UTC), time.perf_counter()
    device = torch.device(job.cell.device)
    report("started")
    with reproducible(device):
        flags = environment(device)
    answer_job = answer_here if isinstance(job.scheme, Scheme) else job.scheme.answer
    answer = answer_job(job, report)
    about = flags, started, round(time.perf_counter() - clock, 3), _facets(job)
    try:
        return _sealed(job, answer, *about)
    except ValueError as error:  # such as a NaN among the derived values
        measured = without_value(Outcome.ERROR, relative_traceback(error))
        return _sealed(job, answer._replace(measured=measured), *about)


def answer_here(job: Job, report: Callable[[str], None]) -> Answer:
    """Measure one cell in this process; errors become outcomes of the answer."""
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
    subject = Subject(job.scheme, FAMILIES[job.cell.family], job.data.load().to(device), lambda _line: None)
    with reproducible(device):
        values = job.task.second_opinion(subject)
    return SecondOpinion(job.task.confirmation[0], *values) if values else None


def out_of_memory(error: Exception) -> bool:
    """Tell whether an error means that memory ran out; on a CPU torch raises a plain RuntimeError."""
    typed = isinstance(error, (torch.OutOfMemoryError, MemoryError))
    return typed or (isinstance(error, RuntimeError) and "can't allocate memory" in str(error))


_FACETS: dict[str, Facets] = {}
"""Facets by source of the scheme, kept since a scheme has several cells."""


def _facets(job: Job) -> Facets:
    if not isinstance(job.scheme, Scheme):
        return job.scheme.facets
    if job.scheme_source not in _FACETS:
        _FACETS[job.scheme_source] = facets_of(job.scheme)
    facets = _FACETS[job.scheme_source]
    if SCHEMES.get(job.scheme.name) == job.scheme:
        return facets
    return Facets(tuple(word for word in FACETS if word in (*facets.words, "unchecked")), facets.costs)


def _sealed(
    job: Job, answer: Answer, flags: Mapping[str, Any], started: datetime, duration_s: float, facets: Facets
) -> Record:
    provenance = Provenance(
        **flags,
        scheme_source=job.scheme_source,
        dataset_checksum=job.data.checksum,
        stacked=answer.stacked,
        seeds={"tuning": list(job.task.tuning), "confirmation": list(job.task.confirmation)},
        started=started.isoformat(timespec="milliseconds"),
        duration_s=duration_s,
    )
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
    """Build a measurement that has an outcome and an error text in place of a value.

    The text names no path of this machine: the working folder becomes `.`, the home folder `~`.
    """
    for place, short in ((Path.cwd(), "."), (Path.home(), "~")):
        error = error.replace(f"{place}{os.sep}", f"{short}{os.sep}")
    return Measurement(value=None, outcome=outcome, low=None, high=None, error=error)


def relative_traceback(error: BaseException) -> str:
    """Format a traceback with file names relative to their package."""
    lines = []
    for frame in traceback.extract_tb(error.__traceback__):
        parts = Path(frame.filename).parts
        roots = [i for i, part in enumerate(parts[:-1]) if part in ("site-packages", "bnsuite")]
        short = "/".join(parts[roots[-1] :]) if roots else parts[-1]
        lines.append(f"{short.removeprefix('site-packages/')}:{frame.lineno} {frame.name}: {frame.line}")
    return "\n".join([*lines, f"{type(error).__name__}: {error}"])
