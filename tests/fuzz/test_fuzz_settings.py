"""Random settings, valid and absurd, are planned or refused by one line: no traceback, no nonsense."""

import pytest
from fuzz_settings import STRATEGY, Case, try_one
from hypothesis import given, settings


@settings(max_examples=300)
@given(STRATEGY)
def test_any_settings_are_planned_or_refused(case: Case) -> None:
    try_one(case)


@pytest.mark.parametrize(
    ("case", "verdict"),
    [
        (Case("quick", "stable_lr", {"rates": "0.1,1"}), "accepted"),
        (Case("full", "max_depth", {"depths": (1, 1), "width": 8}), "accepted"),
        (Case("quick", "stable_lr", {"rates": "1,1"}), "refused"),
        (Case("quick", "time_to_accuracy", {"every": 401}), "refused"),
    ],
)
def test_a_case_says_what_became_of_it(case: Case, verdict: str) -> None:
    assert try_one(case) == verdict
