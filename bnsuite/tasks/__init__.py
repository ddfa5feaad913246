"""Tasks: one file a question. `TASKS` lists them by name."""

from bnsuite.tasks._task import Subject, Task
from bnsuite.tasks.first_step import FirstStep
from bnsuite.tasks.gradient_growth import GradientGrowth
from bnsuite.tasks.layer_cost import LayerCost
from bnsuite.tasks.max_depth import MaxDepth
from bnsuite.tasks.mean_shift import MeanShift
from bnsuite.tasks.overflow_depth import OverflowDepth
from bnsuite.tasks.scale_law import ScaleLaw
from bnsuite.tasks.smoothness import Smoothness
from bnsuite.tasks.spectrum import HessianSpectrum
from bnsuite.tasks.speedrun import Speedrun
from bnsuite.tasks.stable_lr import StableLr
from bnsuite.tasks.time_to_accuracy import TimeToAccuracy
from bnsuite.tasks.top_eigenvalue import TopEigenvalue

_RANKED = (MaxDepth, StableLr, TopEigenvalue, TimeToAccuracy)
_GRADIENTS = (GradientGrowth, ScaleLaw, FirstStep, OverflowDepth)
_CURVATURE = (Smoothness, HessianSpectrum, MeanShift)

TASKS: dict[str, type[Task]] = {
    task.name: task for task in (*_RANKED, *_GRADIENTS, *_CURVATURE, LayerCost, Speedrun)
}
"""Every task by name, the ranked ones first; a new one is one file and one entry here."""

__all__ = [
    "TASKS",
    "FirstStep",
    "GradientGrowth",
    "HessianSpectrum",
    "LayerCost",
    "MaxDepth",
    "MeanShift",
    "OverflowDepth",
    "ScaleLaw",
    "Smoothness",
    "Speedrun",
    "StableLr",
    "Subject",
    "Task",
    "TimeToAccuracy",
    "TopEigenvalue",
]
