"""bnsuite: what does a normalization scheme really buy?

Measure a scheme of your own with the suite:

>>> import bnsuite
>>> scheme = bnsuite.Scheme("my-norm", MyNorm, skip="pre")          # doctest: +SKIP
>>> records = bnsuite.run(profile="smoke", schemes=["batchnorm", scheme])  # doctest: +SKIP
>>> table = bnsuite.load_records("results")                          # doctest: +SKIP

Or use its instruments on a model of your own (see `help(bnsuite.sharpness)`, and likewise `spectrum`,
`gradient_growth` and `max_stable_lr`):

>>> import torch
>>> from torch import nn
>>> model, x = nn.Linear(2, 1, bias=False), torch.tensor([[1.0, 0.0], [0.0, 2.0]])
>>> round(bnsuite.sharpness(model, nn.MSELoss(), (x, torch.zeros(2, 1))).value, 6)
4.0
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bnsuite.execute.run import run
    from bnsuite.instruments.gradient_growth import gradient_growth
    from bnsuite.instruments.max_stable_lr import max_stable_lr
    from bnsuite.instruments.sharpness import sharpness
    from bnsuite.instruments.spectrum import spectrum
    from bnsuite.networks import Family
    from bnsuite.schemes import Scheme
    from bnsuite.tables import load_records

__version__ = "0.1.0"
__all__ = [
    "Family",
    "Scheme",
    "__version__",
    "gradient_growth",
    "load_records",
    "max_stable_lr",
    "run",
    "sharpness",
    "spectrum",
]

_LAZY = {
    "Family": "bnsuite.networks",
    "Scheme": "bnsuite.schemes",
    "gradient_growth": "bnsuite.instruments.gradient_growth",
    "load_records": "bnsuite.tables",
    "max_stable_lr": "bnsuite.instruments.max_stable_lr",
    "run": "bnsuite.execute.run",
    "sharpness": "bnsuite.instruments.sharpness",
    "spectrum": "bnsuite.instruments.spectrum",
}


def __getattr__(name: str) -> Any:
    """Import torch only when something that needs it is asked for."""
    if name not in _LAZY:
        raise AttributeError(f"module 'bnsuite' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    """List the public names."""
    return sorted(__all__)
