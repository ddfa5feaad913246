"""The trial of a fuzzed data set: sound ones are accepted, and a traceback is told from a refusal."""

from pathlib import Path

import pytest
from data_files import MUTATIONS, Case, try_one

import bnsuite.datasets
from bnsuite.datasets import DataError


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
