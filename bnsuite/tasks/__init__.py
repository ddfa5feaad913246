"""Tasks: one file per question. `TASKS` has their classes by name, as `specs` lists them."""

from importlib import import_module

from bnsuite.specs import SPECS, TaskSpec
from bnsuite.tasks._task import Subject, Task


def _class(spec: TaskSpec) -> type[Task]:
    module, _, name = spec.runner.partition(":")
    task_class: type[Task] = getattr(import_module(f"{__name__}.{module}"), name)
    return task_class


TASKS: dict[str, type[Task]] = {name: _class(spec) for name, spec in SPECS.items()}
"""Task name → class."""

__all__ = ["TASKS", "Subject", "Task"]
