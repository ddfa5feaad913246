"""Run: plan the cells, skip those that the store has, measure the others and store a record of each."""

import math
import os
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from bnsuite.datasets import Source
from bnsuite.execute.measure import failed_record, measure
from bnsuite.execute.plan import Device, ForeignScheme, Job, plan, resolve_device
from bnsuite.execute.pool import THREAD_VARIABLES, WORKER_ENVIRONMENT, Failed, side_by_side
from bnsuite.records import Cell, Record, Store
from bnsuite.schemes import Scheme


@dataclass(frozen=True)
class Event:
    """News of a cell.

    Attributes:
        cell: the cell.
        found: progress so far, in a few words.
        record: record of the finished cell; None: not finished yet.
        new: whether the record was measured just now; otherwise the folder had it.
    """

    cell: Cell
    found: str = ""
    record: Record | None = None
    new: bool = False


Observer = Callable[[Event], None]
"""Callback that gets every event."""


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
    """Measure the cells of a profile that the folder does not have yet, one record per cell.

    Args:
        profile: smoke, quick, standard or full.
        tasks: names of tasks; None: the ranked tasks.
        schemes: names of built-in schemes, or any `Scheme`. Records of the latter carry the facet
            `unchecked`, since the contract of `bnsuite check` is not tried. None: those of the profile.
        families: names of families; None: the default families of the profile.
        datasets: names of `DATASETS`, a `Path`, or a `Source` from `datasets.find`; None: those of the
            profile.
        device: cpu, cuda, or auto for a GPU if there is one.
        records: folder of the records; finished cells in it are kept and not measured again.
        force: measure cells again that the folder has; old records stay.
        workers: processes that measure in parallel, each with its share of the cores; 1: this process alone.
        time_limit: seconds after which no cell is started; cells under way finish.
        observe: called with an `Event` for all news.
        settings: settings of the tasks that replace those of the profile, such as `activation="tanh",
            batch=16`. The records then carry a profile name of their own, `quick+activation=tanh+batch=16`.

    Returns:
        Records of all planned cells, in the order of the plan; without unfinished cells if the time limit
        ended the run. A cell that failed has outcome `error` and its traceback in `error`.

    Raises:
        UnknownNameError: a name that does not exist.
        DataError: a data set cannot be read.
        ValueError: a setting is out of its range.
        DeviceError: there is no GPU, and one was asked for.
        RecordError: a record cannot be read or written.
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
    """Measure the planned jobs that the folder does not have yet (`run` plans them first).

    Args:
        jobs: what `execute.plan.plan` returned.
        records: folder of the records.
        force: measure cells again that the folder has; old records stay.
        workers: processes that measure in parallel; 1: this process alone.
        time_limit: seconds after which no cell is started.
        observe: called with an `Event` for all news.

    Returns:
        Records of the finished cells, in the order of the jobs.

    Raises:
        ValueError: workers below 1, or a time limit that is negative or NaN.
        RecordError: a record cannot be read or written.
    """
    if workers < 1:
        raise ValueError(f"workers: got {workers}, wanted 1 at least. Leave it out for one.")
    if not time_limit >= 0:
        raise ValueError(f"time limit: got {time_limit} s, wanted 0 or more. Leave it out for none.")
    end = time.monotonic() + time_limit
    store = Store(records)
    store.check_writable()
    observe = observe or (lambda _: None)
    done = {} if force else {job.key: kept for job in jobs if (kept := store.result(job.key, job.cell))}
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


def _measure_all(
    jobs: Sequence[Job], workers: int, end: float, observe: Observer
) -> Generator[Record, None, None]:
    """Yield records as cells finish, from this process or from workers; starts no cell after `end`."""
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
            yield failed_record(job, record.reason)
        elif record is not None:
            yield record


def _measure_in_worker(job: Job, report: Callable[[str], None], end: float, threads: int) -> Record | None:
    if time.monotonic() >= end:  # all processes share this clock; a worker takes seconds to start
        return None
    torch.set_num_threads(threads)
    return measure(job, report)
