"""Tasks: one file a question. `TASKS` lists them by name."""

from bnsuite.tasks._task import Subject, Task, written
from bnsuite.tasks.max_depth import MaxDepth
from bnsuite.tasks.stable_lr import StableLr
from bnsuite.tasks.time_to_accuracy import TimeToAccuracy
from bnsuite.tasks.top_eigenvalue import TopEigenvalue

TASKS: dict[str, type[Task]] = {
    task.name: task for task in (MaxDepth, StableLr, TopEigenvalue, TimeToAccuracy)
}
"""Every task by name; a new one is one file and one entry here."""

__all__ = ["TASKS", "MaxDepth", "StableLr", "Subject", "Task", "TimeToAccuracy", "TopEigenvalue", "written"]
