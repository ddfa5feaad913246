"""bnsuite: what does a normalization scheme really buy?

>>> import bnsuite
>>> scheme = bnsuite.Scheme("my-norm", MyNorm, skip="pre")          # doctest: +SKIP
>>> records = bnsuite.run(profile="smoke", schemes=["batchnorm", scheme])  # doctest: +SKIP
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bnsuite.execute.run import run
    from bnsuite.records import Record
    from bnsuite.schemes import Scheme

__version__ = "0.2.0"
__all__ = ["Record", "Scheme", "__version__", "run"]

_LAZY = {"Record": "bnsuite.records", "Scheme": "bnsuite.schemes", "run": "bnsuite.execute.run"}


def __getattr__(name: str) -> Any:
    """Import torch only when something that needs it is asked for."""
    if name not in _LAZY:
        raise AttributeError(f"module 'bnsuite' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_LAZY[name]), name)
