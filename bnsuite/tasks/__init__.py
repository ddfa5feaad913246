"""Tasks: one file a question. `TASKS` lists them by name."""

from bnsuite.tasks._task import Subject, Task, written
from bnsuite.tasks.first_step import FirstStep
from bnsuite.tasks.gradient_growth import GradientGrowth
from bnsuite.tasks.layer_cost import LayerCost
from bnsuite.tasks.max_depth import MaxDepth
from bnsuite.tasks.overflow_depth import OverflowDepth
from bnsuite.tasks.scale_law import ScaleLaw
from bnsuite.tasks.smoothness import Smoothness
from bnsuite.tasks.stable_lr import StableLr
from bnsuite.tasks.time_to_accuracy import TimeToAccuracy
from bnsuite.tasks.top_eigenvalue import TopEigenvalue

_RANKED = (MaxDepth, StableLr, TopEigenvalue, TimeToAccuracy)
_DIAGNOSTICS = (GradientGrowth, ScaleLaw, FirstStep, OverflowDepth, Smoothness, LayerCost)

TASKS: dict[str, type[Task]] = {task.name: task for task in (*_RANKED, *_DIAGNOSTICS)}
"""Every task by name, the ranked ones first; a new one is one file and one entry here."""

__all__ = [
    "TASKS",
    "FirstStep",
    "GradientGrowth",
    "LayerCost",
    "MaxDepth",
    "OverflowDepth",
    "ScaleLaw",
    "Smoothness",
    "StableLr",
    "Subject",
    "Task",
    "TimeToAccuracy",
    "TopEigenvalue",
    "written",
]
