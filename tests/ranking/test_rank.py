"""Rank intervals: ties, missing values and bounds, and independence of order and other entries."""

import math
import random
from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_records import record, sample

from bnsuite.ranking.composite import Score
from bnsuite.ranking.rank import Rank, log_advantages, overall_ranks, rank_intervals, task_ranks
from bnsuite.records import Outcome, Record

values = st.lists(st.integers(2, 60), min_size=6, max_size=6)


def test_ranks_of_a_clear_order() -> None:
    ranks = task_ranks(
        {"c": record(samples=[9] * 6), "a": record(samples=[30] * 6), "b": record(samples=[20] * 6)}
    )
    assert ranks == {"a": Rank(1, 1), "b": Rank(2, 2), "c": Rank(3, 3)}


def test_lower_is_better_where_the_record_says_so() -> None:
    steps = {name: record("time_to_accuracy", samples=[k] * 6) for name, k in (("slow", 60), ("fast", 30))}
    assert task_ranks(steps) == {"slow": Rank(2, 2), "fast": Rank(1, 1)}


def test_ties_share_their_places() -> None:
    ranks = task_ranks({"a": record(samples=[20, 22] * 3), "b": record(samples=[22, 20] * 3)})
    assert ranks == {"a": Rank(1, 2), "b": Rank(1, 2)}
    assert str(ranks["a"]) == "1–2"
    assert str(Rank(3, 3)) == "3"


def test_few_seeds_have_no_rank_and_take_no_place() -> None:
    ranks = task_ranks({"a": record(samples=[20] * 6), "few": record(samples=[99] * 5)})
    assert ranks == {"a": Rank(1, 1)}


def test_fewer_than_six_common_seeds_are_not_told_apart() -> None:
    other = record(samples=[sample(k, 99) for k in range(101, 107)])
    assert set(task_ranks({"a": record(samples=[20] * 6), "b": other}).values()) == {Rank(1, 2)}


def test_no_value_no_rank() -> None:
    stuck = record(samples=[sample(100 + k, None, Outcome.STUCK) for k in range(6)])
    assert task_ranks({"a": record(), "stuck": stuck}) == {"a": Rank(1, 1)}


def test_a_seed_without_a_value_is_worse_than_any_value_of_the_pair() -> None:
    holes = record(samples=[sample(100, None, Outcome.STUCK), 20, 20, 20, 20, 20])
    full = record(samples=[10] * 6)
    assert log_advantages(holes, full)[0] == pytest.approx(math.log(5 / 10))
    assert log_advantages(full, holes) == pytest.approx([-x for x in log_advantages(holes, full)])


def test_one_seed_without_a_value_is_enough_to_lose_certainty() -> None:
    holes = record(samples=[sample(100, None, Outcome.STUCK), 30, 30, 30, 30, 30])
    assert task_ranks({"holes": holes, "full": record(samples=[20] * 6)})["holes"] == Rank(1, 2)


def test_timeouts_lose_to_those_who_arrive_and_tie_with_each_other() -> None:
    late = record("time_to_accuracy", samples=[sample(100 + k, 400, Outcome.TIMEOUT) for k in range(6)])
    there = record("time_to_accuracy", samples=[90, 100, 110, 120, 130, 140])
    assert task_ranks({"a": late, "b": there, "c": late}) == {
        "b": Rank(1, 1),
        "a": Rank(2, 3),
        "c": Rank(2, 3),
    }


@pytest.mark.parametrize("odd", [-1, 0])
def test_what_has_no_logarithm_is_not_told_apart(odd: float) -> None:
    found = record("top_eigenvalue", samples=[odd, 2, 2, 2, 2, 2])
    assert log_advantages(found, record("top_eigenvalue", samples=[5] * 6)) == []


@pytest.mark.parametrize(("task", "sign"), [("stable_lr", 1), ("top_eigenvalue", -1)])
def test_an_advantage_is_the_logarithm_of_the_ratio_where_better_is_positive(task: str, sign: int) -> None:
    found = log_advantages(record(task, samples=[0.5] * 6), record(task, samples=[0.25] * 6))
    assert found == pytest.approx([sign * math.log(2)] * 6)


@settings(max_examples=40, deadline=None)
@given(st.lists(values, min_size=2, max_size=5), st.randoms(use_true_random=False))
def test_permuting_entries_permutes_ranks(found: list[list[int]], rng: random.Random) -> None:
    records = {str(k): record(samples=v) for k, v in enumerate(found)}
    shuffled = list(records.items())
    rng.shuffle(shuffled)
    assert task_ranks(dict(shuffled)) == task_ranks(records)


@settings(max_examples=40, deadline=None)
@given(st.lists(values, min_size=1, max_size=4), values)
def test_a_new_entry_moves_each_end_by_at_most_one(found: list[list[int]], new: list[int]) -> None:
    records: dict[str, Record] = {str(k): record(samples=v) for k, v in enumerate(found)}
    before, after = task_ranks(records), task_ranks({**records, "new": record(samples=new)})
    for name, rank in before.items():
        assert after[name].low - rank.low in (0, 1)
        assert after[name].high - rank.high in (0, 1)
        assert 1 <= after[name].low <= after[name].high <= len(after)


def test_intervals_hold_every_order_that_the_verdicts_allow() -> None:
    """Check intervals without their formula: in any order that respects all verdicts, places lie in them."""
    verdicts = {("a", "b"), ("a", "c"), ("a", "d"), ("b", "d")}
    ranks = rank_intervals(list("abcd"), lambda x, y: (x, y) in verdicts)
    for order in permutations("abcd"):
        if all(order.index(x) < order.index(y) for x, y in verdicts):
            assert all(ranks[x].low <= order.index(x) + 1 <= ranks[x].high for x in "abcd")
    assert ranks["a"] == Rank(1, 1)
    assert ranks["c"] == Rank(2, 4)


def exact(value: float) -> dict[int, Score]:
    return {seed: Score(value, value, value) for seed in range(6)}


def test_overall_ranks_compare_worst_case_with_best_case() -> None:
    at_least = {seed: Score(0.5, 0.5, 0.9) for seed in range(6)}
    ranks = overall_ranks({"open": at_least, "above": exact(1.0), "within": exact(0.7), "below": exact(0.2)})
    assert ranks == {"above": Rank(1, 1), "open": Rank(2, 3), "within": Rank(2, 3), "below": Rank(4, 4)}


def test_overall_ranks_need_six_seeds_and_compare_common_ones() -> None:
    assert overall_ranks({"a": {0: Score(1, 1, 1)}}) == {}
    later = {seed + 1: score for seed, score in exact(0.2).items()}  # five seeds in common
    assert overall_ranks({"a": exact(1.0), "b": later}) == dict.fromkeys("ab", Rank(1, 2))
