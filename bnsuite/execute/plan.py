"""Plan the cells of a run, each as a job that holds everything needed to measure it."""

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
"""Device as a user names it; auto: a GPU if there is one."""


class DeviceError(ValueError):
    """The requested device does not exist here."""


class Answer(NamedTuple):
    """Measurement of a cell, and whether its networks trained stacked (None: not known)."""

    measured: Measurement
    stacked: bool | None = None


class ForeignScheme(Protocol):
    """Scheme whose code never runs in this process: another process answers for it (see `submission`)."""

    @property
    def name(self) -> str:
        """Name of the scheme."""

    @property
    def about(self) -> str:
        """Description in one line."""

    @property
    def facets(self) -> Facets:
        """Facets and costs of the scheme."""

    def source_hash(self) -> str:
        """SHA-256 over what defines the scheme."""

    def answer(self, job: "Job", report: Callable[[str], None]) -> Answer:
        """Measure one cell in another process; whatever goes wrong becomes an outcome."""


AnyScheme = Scheme | ForeignScheme
"""Scheme of Python, measured in this process, or a foreign one."""


@dataclass(frozen=True)
class Job:
    """Cell with everything needed to measure it.

    Attributes:
        cell: names of task, scheme, family, data set, profile and device.
        scheme: the scheme.
        task: the task with its settings.
        key: hash of everything that defines the cell's number; records with one key answer one question.
        scheme_source: SHA-256 over what defines the scheme.
        data: the data set.
    """

    cell: Cell
    scheme: AnyScheme
    task: Task
    key: str
    scheme_source: str
    data: Source


def plan(
    profile: str,
    tasks: Sequence[str] | None,
    schemes: Sequence[str | AnyScheme] | None,
    families: Sequence[str] | None,
    datasets: Sequence[str | Path | Source] | None,
    device: Literal["cpu", "cuda"],
    settings: Mapping[str, object] | None = None,
) -> list[Job]:
    """Plan the cells of a run, those of the longest tasks first.

    Args:
        profile: name of a profile.
        tasks: names of tasks; None: the ranked tasks of the profile.
        schemes: names or schemes; None: those of the profile.
        families: names of families; None: the default families of the profile.
        datasets: names, paths or data sets; None: those of the profile.
        device: where the cells are measured.
        settings: settings that replace those of the profile.

    Raises:
        UnknownNameError: a name that does not exist.
        DataError: a data set cannot be read, or does not fit a task.
        ValueError: a setting is out of range, two schemes share a name, or nothing is left to measure.
    """
    budget = load_profile(profile)
    known_schemes = [_scheme(scheme) for scheme in (schemes or budget.schemes)]
    names = [scheme.name for scheme in known_schemes]
    if len(set(names)) < len(names):
        raise ValueError(f"schemes have names of their own: got {', '.join(names)}")
    for family in families or ():
        lookup("family", family, FAMILIES)
        if family not in budget.families:
            raise ValueError(
                f"profile {profile} has no family {family!r}: it has {', '.join(budget.families)}. Name the "
                "family under [families] of the profile, or take a profile that has it."
            )
    for task in tasks or ():
        lookup("task", task, TASKS)
        if task not in budget.tasks:
            others = [name for name in profile_names() if task in load_profile(name).tasks]
            raise ValueError(
                f"profile {profile} has no task {task!r}: --profile {' or '.join(others)} has it"
            )
    sources = _sources(datasets or budget.datasets)
    ranked = [task for task in RANKED if task in budget.tasks]
    jobs = [
        _job(budget, task, scheme, family, source, device, settings or {})
        for task in sorted(dict.fromkeys(tasks or ranked), key=lambda name: -SPECS[name].weight)
        for family in dict.fromkeys(families or budget.default_families)
        for source in sources
        for scheme in known_schemes
        if budget.asks(task, family)
    ]
    if not jobs:
        raise ValueError(f"nothing to measure: profile {profile} has none of these tasks for these families")
    return jobs


def _sources(datasets: Sequence[str | Path | Source]) -> list[Source]:
    """Make the data sets ready, each once; looks all names up before it decodes anything."""
    for dataset in datasets:
        if isinstance(dataset, str):
            lookup("dataset", dataset, DATASETS)
    ready = (dataset if isinstance(dataset, Source) else find(dataset) for dataset in dict.fromkeys(datasets))
    sources = [*dict.fromkeys(ready)]
    names = [source.name for source in sources]
    if len(set(names)) < len(names):
        raise DataError(f"data sets have names of their own: got {', '.join(names)}. Rename one of them.")
    return sources


def _scheme(scheme: str | AnyScheme) -> AnyScheme:
    if isinstance(scheme, str):
        return find_scheme(scheme)
    if scheme.name in SCHEMES and scheme != SCHEMES[scheme.name]:
        raise ValueError(f"{scheme.name!r} is a built-in scheme: give yours a name of its own")
    return scheme


def _job(
    budget: Profile,
    task: str,
    scheme: AnyScheme,
    family: str,
    source: Source,
    device: Literal["cpu", "cuda"],
    settings: Mapping[str, object],
) -> Job:
    by_profile = TASKS[task](**budget.settings(task, family))
    changed: dict[str, Any] = {
        name: by_profile.parse(name, value) for name, value in sorted(settings.items())
    }
    changes = [written(name, value) for name, value in changed.items() if value != getattr(by_profile, name)]
    profile = "+".join([budget.name, *changes])
    if not FILE_NAME.fullmatch(profile):
        raise ValueError(
            f"settings: got {len(profile)} characters, wanted 200 at most, since they name the records' "
            f"folder, {profile[:40]!r}… Give fewer or shorter values."
        )
    cell = Cell(
        task=task,
        scheme=scheme.name,
        family=family,
        dataset=source.name,
        profile=profile,
        device=device,
    )
    return _keyed(cell, scheme, replace(by_profile, **changed), source)


def job_of(cell: Cell, settings: Mapping[str, object], scheme: AnyScheme, data: Source | None = None) -> Job:
    """Build the job of a cell with the settings of a record, whatever its profile says today.

    Args:
        cell: the cell.
        settings: settings of the task, as a record holds them.
        scheme: the scheme.
        data: the data set; None: found by the cell's name of it.

    Raises:
        UnknownNameError: a name that this version does not have.
        ValueError: a setting that this version does not have, or that is out of its range.
    """
    task = lookup("task", cell.task, TASKS)
    lookup("family", cell.family, FAMILIES)
    data = data or find(cell.dataset)
    parsed: dict[str, Any] = {name: task.parse(name, value) for name, value in settings.items()}
    return _keyed(cell, scheme, task(**parsed), data)


def _keyed(cell: Cell, scheme: AnyScheme, task: Task, data: Source) -> Job:
    if task.draws and 0 < data.train < task.batch:
        raise DataError(
            f"{data.name}: has {data.train} images to train on, fewer than the batch of {task.batch} of "
            f"{task.spec.name}. Give more images, or --set batch=N with N at most {data.train}."
        )
    if data.train and (goal := task.reached_by_guessing(data.train_counts, data.test_counts)):
        raise DataError(f"{data.name}: {goal}")
    source = scheme.source_hash()  # here: a worker may not see the source of a class from a script
    key = make_key(
        cell,
        task_version=task.spec.version,
        settings=task.settings,
        scheme_source=source,
        dataset_checksum=data.checksum,
    )
    return Job(cell, scheme, task, key, source, data)


def resolve_device(device: str) -> Literal["cpu", "cuda"]:
    """Device to use: `auto` takes a GPU if there is one.

    Raises:
        DeviceError: a GPU was asked for, and there is none.
    """
    if device == "cpu" or (device == "auto" and not torch.cuda.is_available()):
        return "cpu"
    if not torch.cuda.is_available():
        raise DeviceError(
            "no GPU: torch sees none here. Use --device cpu, or install a CUDA build of torch "
            "and check the driver with nvidia-smi."
        )
    return "cuda"
