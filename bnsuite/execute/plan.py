"""Plan: which cells a run asks for, each as a job with all that it takes to measure it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import torch

from bnsuite.datasets import DATASETS, DataError, Source, find
from bnsuite.facets import Facets
from bnsuite.names import lookup
from bnsuite.networks import FAMILIES
from bnsuite.profiles import Profile, load_profile, profile_names
from bnsuite.records import Cell, Measurement
from bnsuite.records.record import make_key
from bnsuite.records.store import FILE_NAME
from bnsuite.schemes import SCHEMES, Scheme, find_scheme
from bnsuite.settings import written
from bnsuite.specs import RANKED, SPECS
from bnsuite.tasks import TASKS, Task

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
        for task in sorted(dict.fromkeys(tasks or ranked), key=lambda name: -SPECS[name].weight)
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
            f"{task.spec.name}. Give more of them, or --set batch=N with N at most {data.train}."
        )
    if data.train and (goal := task.reached_by_guessing(data.train_counts, data.test_counts)):
        raise DataError(f"{data.name}: {goal}")
    source = scheme.source_hash()  # here, since a worker may not see the source of a script's own class
    key = make_key(
        cell,
        task_version=task.spec.version,
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
