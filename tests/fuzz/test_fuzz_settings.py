"""The trial of fuzzed settings tells what is planned from what is refused."""

import pytest
from fuzz_settings import Case, try_one


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
