"""Contract: the tests that every scheme must pass before it is measured, as a table.

Nothing here limits memory, ends a scheme that never returns, or keeps a scheme from files: the sandbox does
that.
"""

import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import torch

import bnsuite
from bnsuite.facets.probe_network import own_streams
from bnsuite.schemes import Scheme
from bnsuite.submission.contract import state, values
from bnsuite.submission.contract.trial import BrokenError, settings_kept
from bnsuite.text import clipped

Test = Callable[[Scheme], str]
"""scheme → result in one line; raises `BrokenError` if the contract does not hold."""

CONTRACT: dict[str, Test] = {
    "builds": values.builds,
    "shape": values.shape,
    "input untouched": values.input_untouched,
    "dtype": values.dtype,
    "device": values.device,
    "finite": values.finite,
    "gradient": values.gradient,
    "second derivative": values.second_derivative,
    "permutation": values.permutation,
    "deterministic": values.deterministic,
    "state dict": state.state_dict,
    "evaluation": state.evaluation,
    "copies": state.copies,
    "stacking": state.stacking,
    "separate networks": state.separate_networks,
    "random numbers": state.random_numbers,
    "settings": state.settings,
    "time": values.time_budget,
}
"""Name → test. The first line of a test's docstring says what is wanted; messages quote it."""

FIRST = ("builds", "shape", "input untouched", "dtype", "device", "finite")
"""Tests that end the contract when they fail: later tests would report the same fault again."""

NOT_TRIED = "not tried"
"""Beginning of the message of a test that was not tried."""


class Check(NamedTuple):
    """Result of one test of the contract."""

    name: str
    ok: bool
    message: str


def contract(scheme: Scheme, tests: Mapping[str, Test] = CONTRACT) -> Iterator[Check]:
    """Run the tests in turn and yield their results; an exception of the scheme fails the test that meets it.

    Global random number generators and torch's settings are restored after each test.

    Args:
        scheme: the scheme.
        tests: name → test.
    """
    fault = None
    for name, test in tests.items():
        if fault:
            yield Check(name, False, f"{NOT_TRIED}: mend {fault} first")
            continue
        try:
            with settings_kept(), own_streams():
                check = Check(name, True, test(scheme))
        except BrokenError as error:
            check = Check(name, False, str(error))
        except Exception as error:
            wanted = (test.__doc__ or "").partition("\n")[0].rstrip(".")
            check = Check(name, False, f"got {_summary(error)}; wanted: {wanted}.{_place(error)}")
        fault = name if name in FIRST and not check.ok else None
        yield Check(check.name, check.ok, " ".join(check.message.split()))


_OURS = [Path(bnsuite.__file__).parent, Path(torch.__file__).parent, Path(traceback.__file__).parent]


def _summary(error: Exception) -> str:
    first = (str(error).strip() or "no message").splitlines()[0]
    if len(first) > 200:  # cut at the end of a sentence, if there is one
        whole = first[:200].rpartition(". ")[0]
        first = whole or clipped(first, 200)
    return f"{type(error).__name__}: {first}"


def _place(error: Exception) -> str:
    """Last line of the traceback in the scheme's own code; empty if there is none."""
    frames = traceback.extract_tb(error.__traceback__)
    foreign = [f for f in frames if not any(Path(f.filename).is_relative_to(place) for place in _OURS)]
    return f" Look at {Path(foreign[-1].filename).name}:{foreign[-1].lineno}" if foreign else ""
