"""Run: plan the cells, skip what the store has, measure the rest, store one record each."""

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
from bnsuite.execute.measure import failed, measure
from bnsuite.execute.plan import Device, ForeignScheme, Job, plan, resolve_device
from bnsuite.execute.pool import THREAD_VARIABLES, WORKER_ENVIRONMENT, Failed, side_by_side
from bnsuite.records import Cell, Record, Store
from bnsuite.schemes import Scheme


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
            yield failed(job, record.reason)
        elif record is not None:
            yield record


def _measure_in_worker(job: Job, report: Callable[[str], None], end: float, threads: int) -> Record | None:
    if time.monotonic() >= end:  # a clock common to all processes; a worker takes seconds to start
        return None
    torch.set_num_threads(threads)
    return measure(job, report)
