"""The contract: what every scheme must pass before it is measured, as data.

Nothing here bounds memory, ends a scheme that never returns, or keeps it from files: that is the sandbox's.
"""

import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from bnsuite.facets.stage import own_streams
from bnsuite.schemes import Scheme
from bnsuite.submission._state import (
    copies,
    evaluation,
    random_numbers,
    separate_networks,
    settings,
    stacking,
    state_dict,
)
from bnsuite.submission._trial import BrokenError, settings_kept
from bnsuite.submission._values import (
    builds,
    deterministic,
    device,
    dtype,
    finite,
    gradient,
    input_untouched,
    permutation,
    second_derivative,
    shape,
    time_budget,
)

Test = Callable[[Scheme], str]
"""scheme → what was found, in one line; raises `BrokenError` where the contract does not hold."""

CONTRACT: dict[str, Test] = {
    "builds": builds,
    "shape": shape,
    "dtype": dtype,
    "device": device,
    "finite": finite,
    "gradient": gradient,
    "second derivative": second_derivative,
    "permutation": permutation,
    "input untouched": input_untouched,
    "deterministic": deterministic,
    "state dict": state_dict,
    "evaluation": evaluation,
    "copies": copies,
    "stacking": stacking,
    "separate networks": separate_networks,
    "random numbers": random_numbers,
    "settings": settings,
    "time": time_budget,
}
"""Every test by name; the first line of its docstring says what is wanted."""


class Check(NamedTuple):
    """What one test of the contract found."""

    name: str
    ok: bool
    message: str


def contract(scheme: Scheme, tests: Mapping[str, Test] = CONTRACT) -> Iterator[Check]:
    """Each test in turn, as it comes; an exception of the scheme fails the test in which it is raised.

    Global random streams and torch's settings are put back after each test.
    """
    for name, test in tests.items():
        try:
            with settings_kept(), own_streams():
                check = Check(name, True, test(scheme))
        except BrokenError as error:
            check = Check(name, False, str(error))
        except Exception as error:
            wanted = (test.__doc__ or "").partition("\n")[0].rstrip(".")
            check = Check(name, False, f"got {_said(error)}; wanted: {wanted}. Look at {_place(error)}")
        yield Check(check.name, check.ok, " ".join(check.message.split()))


def _said(error: Exception) -> str:
    first = (str(error).strip() or "no message").splitlines()[0]
    return f"{type(error).__name__}: {first[:200]}"


def _place(error: Exception) -> str:
    """The last line that is nobody's but the scheme's, or the last one of all."""
    frames = traceback.extract_tb(error.__traceback__)
    foreign = [f for f in frames if not {"torch", "bnsuite"} & set(Path(f.filename).parts)]
    frame = (foreign or frames)[-1]
    return f"{Path(frame.filename).name}:{frame.lineno}, in {frame.name}"
