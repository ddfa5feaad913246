"""Goals that guessing reaches, against shares and entropies computed by hand."""

import math
import re

import pytest

from bnsuite.datasets import DATASETS
from bnsuite.profiles import load_profile, profile_names
from bnsuite.tasks import TASKS
from bnsuite.tasks._guessing import frequencies_reach, majority_reaches


@pytest.mark.parametrize(
    ("counts", "target", "reached"),
    [((80, 20), 0.8, True), ((79, 21), 0.8, False), ((1, 1), 0.5, True), ((5, 5, 5), 0.4, False)],
)
def test_the_share_of_the_largest_class(counts: tuple[int, ...], target: float, reached: bool) -> None:
    assert (majority_reaches("max_depth", "test", counts, target) is not None) == reached


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_balanced_labels_have_the_entropy_of_their_number(classes: int) -> None:
    counts = [7] * classes
    assert frequencies_reach("stable_lr", counts, 1 - 1e-9) is None
    assert frequencies_reach("stable_lr", counts, 1 + 1e-9) is not None


def test_the_entropy_of_two_classes() -> None:
    limit = -(0.9 * math.log(0.9) + 0.1 * math.log(0.1)) / math.log(2)  # 0.469
    assert frequencies_reach("stable_lr", (90, 10), limit - 1e-9) is None
    assert "0.3251 nats" in str(frequencies_reach("stable_lr", (10, 90), limit + 1e-9))


def test_a_class_without_labels_adds_nothing() -> None:
    assert frequencies_reach("stable_lr", (5, 5, 0), math.log(2) / math.log(3) - 1e-9) is None


def test_steps_to_accuracy_looks_at_both_parts() -> None:
    task = TASKS["time_to_accuracy"](**load_profile("quick").settings("time_to_accuracy", "mlp"))
    even, odd = (50, 50), (96, 4)
    assert task.reached_by_guessing(even, even) is None
    assert "96.00% of the test part" in str(task.reached_by_guessing(even, odd))
    assert "96.00% of the training part" in str(task.reached_by_guessing(odd, even))


def test_no_profile_asks_for_what_guessing_reaches_on_digits() -> None:
    digits = DATASETS["digits"].find()
    for name in profile_names():
        profile = load_profile(name)
        for task in profile.tasks:
            for family in (family for family in profile.families if profile.asks(task, family)):
                built = TASKS[task](**profile.settings(task, family))
                assert built.reached_by_guessing(digits.train_counts, digits.test_counts) is None


@pytest.mark.parametrize("counts", [(9558, 442), (95_501, 4499), (80, 20), (999_999, 1)])
def test_what_the_message_advises_is_out_of_reach(counts: tuple[int, ...]) -> None:
    """Advice that is rounded to the wrong side would be refused again."""
    message = majority_reaches("max_depth", "training", counts, 0.5)
    above = float(re.findall(r"T above ([\d.]+)\.", message or "")[0])
    assert above >= max(counts) / sum(counts)
    message = frequencies_reach("stable_lr", counts, 0.999)
    below = float(re.findall(r"R below ([\d.]+)\.", message or "")[0])
    assert below == 0 or frequencies_reach("stable_lr", counts, below * (1 - 1e-9)) is None
