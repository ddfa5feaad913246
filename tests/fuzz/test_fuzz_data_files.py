"""Some hundred fuzzed data sets: each is accepted with sound tensors, or refused in one line."""

from collections import Counter
from pathlib import Path

import pytest
from data_files import MUTATIONS, STRATEGY, Case, try_one
from hypothesis import HealthCheck, given, settings

import bnsuite.datasets
from bnsuite.datasets import DataError


def test_what_is_fuzzed_is_accepted_or_refused_in_one_line(tmp_path: Path) -> None:
    seen: Counter[str] = Counter()

    @settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(case=STRATEGY)
    def each(case: Case) -> None:
        seen[try_one(case, tmp_path)] += 1

    each()
    assert min(seen["accepted"], seen["refused"]) > 30


@pytest.mark.parametrize("layout", MUTATIONS)
def test_a_sound_one_is_accepted(tmp_path: Path, layout: str) -> None:
    assert try_one(Case(layout, 0, 3, 3, 2, False, ()), tmp_path) == "accepted"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (RuntimeError("a\nb"), "RuntimeError: a"),
        (DataError("told"), None),
    ],
)
def test_a_traceback_is_told_from_a_refusal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Exception, words: str | None
) -> None:
    def fail(*args: object) -> None:
        raise change

    monkeypatch.setattr(bnsuite.datasets, "find_files", fail)
    case = Case("npz", 0, 3, 3, 2, False, ())
    if words is None:
        assert try_one(case, tmp_path) == "refused"
        return
    with pytest.raises(AssertionError, match=words):
        try_one(case, tmp_path)
