"""Tasks: one file a question. `TASKS` lists them by name."""

from bnsuite.tasks._task import Subject, Task, written
from bnsuite.tasks.max_depth import MaxDepth
from bnsuite.tasks.mean_shift import MeanShift
from bnsuite.tasks.spectrum import HessianSpectrum
from bnsuite.tasks.stable_lr import StableLr
from bnsuite.tasks.time_to_accuracy import TimeToAccuracy
from bnsuite.tasks.top_eigenvalue import TopEigenvalue

TASKS: dict[str, type[Task]] = {
    task.name: task
    for task in (MaxDepth, StableLr, TopEigenvalue, TimeToAccuracy, HessianSpectrum, MeanShift)
}
"""Every task by name, the ranked ones first; a new one is one file and one entry here."""

__all__ = [
    "TASKS",
    "HessianSpectrum",
    "MaxDepth",
    "MeanShift",
    "StableLr",
    "Subject",
    "Task",
    "TimeToAccuracy",
    "TopEigenvalue",
    "written",
]
