"""Seconds on the board: shown of an idle and steady device, ranked among accelerators of one kind."""

from pathlib import Path
from typing import Any

import pytest
from made_records import record, sample, write
from test_pages import parse, rows, words

from bnsuite.board.labels import companion
from bnsuite.board.site import RecordFolder, build_site
from bnsuite.ranking.rank import Rank, seconds_ranks
from bnsuite.records import Outcome, Record


def timed(scheme: str = "batchnorm", steps: Any = 30, pace: Any = 0.01, **changes: Any) -> Record:
    """A record of `time_to_accuracy` on a GPU, its steps those of six seeds."""
    beside = {"seconds_per_step": pace, "train_s": 0.9, "ratio_to_batchnorm": 0.8, "energy_j": 55.5}
    derived = {**beside, "idle": True, "drift": False, **changes.pop("derived", {})}
    samples = changes.pop("samples", [steps] * 6)
    return record("time_to_accuracy", scheme, samples, derived=derived, **{"device": "cuda", **changes})


@pytest.mark.parametrize(
    ("beside", "shown"),
    [
        ({}, True),
        ({"idle": False}, False),
        ({"idle": None}, False),
        ({"drift": True}, False),
        ({"idle": "yes"}, False),
    ],
)
def test_seconds_and_joules_are_shown_of_an_idle_steady_device(beside: dict[str, Any], shown: bool) -> None:
    found = timed(derived=beside)
    for key, text in (("train_s", "0.900"), ("energy_j", "55.5")):
        assert companion(found, key) == (text if shown else "–")
    assert companion(found, "ratio_to_batchnorm") == "0.800", "turns hit both alike"


def test_older_records_show_what_they_showed() -> None:
    older = record("time_to_accuracy", derived={"train_s": 0.9, "drift": True})
    assert (companion(older, "train_s"), companion(older, "drift")) == ("0.900", "yes")


def test_a_slow_step_costs_more_than_a_few_steps_gain() -> None:
    found = {"few": timed(steps=20, pace=0.04), "many": timed(steps=30, pace=0.01)}
    assert seconds_ranks(found) == {"few": Rank(2, 2), "many": Rank(1, 1)}


@pytest.mark.parametrize(("pace", "told_apart"), [(0.0105, False), (0.0115, True)])
def test_paces_are_told_apart_beyond_what_a_clock_may_drift(pace: float, told_apart: bool) -> None:
    ranks = seconds_ranks({"a": timed(pace=0.01), "b": timed(pace=pace)})
    assert ranks == ({"a": Rank(1, 1), "b": Rank(2, 2)} if told_apart else dict.fromkeys("ab", Rank(1, 2)))


@pytest.mark.parametrize(
    "changes",
    [
        {"device": "cpu"},
        {"derived": {"idle": None}},
        {"derived": {"drift": True}},
        {"samples": [30] * 5},
        {"samples": [sample(100 + k, None, Outcome.NONFINITE) for k in range(6)]},
        *({"pace": pace} for pace in ("fast", 0.0, -1.0, True, None)),
    ],
)
def test_what_is_no_figure_of_an_accelerator_takes_no_place(changes: dict[str, Any]) -> None:
    assert seconds_ranks({"a": timed(), "odd": timed(**{"pace": 1e-4, **changes})}) == {"a": Rank(1, 1)}


@pytest.mark.parametrize("part", ["gpu", "driver", "cpu", "torch"])
def test_other_machines_are_ranked_apart(part: str) -> None:
    other = timed(pace=1e-4, source={part: "another"})
    assert seconds_ranks({"a": timed(), "b": other}) == {"a": Rank(1, 1), "b": Rank(1, 1)}


def test_the_column_is_there_where_something_is_ranked(tmp_path: Path) -> None:
    fast, slow = timed("fast", steps=40, pace=0.001), timed("slow", steps=20)
    folder = write(tmp_path / "r", [fast, slow, timed("on-cpu", 25, device="cpu")])
    build_site([RecordFolder(folder, "local")], tmp_path / "site")
    page = parse(tmp_path / "site" / "task-time_to_accuracy.html")
    assert "Rankin seconds" in words(page)
    shown = {row.split()[0]: row for row in rows(page)[:3]}
    assert " 3 1 40 " in shown["fast"]
    assert " 1 2 20 " in shown["slow"]
    assert " 2 – 25 " in shown["on-cpu"]
    build_site([RecordFolder(write(tmp_path / "c", [timed("b", device="cpu")]), "local")], tmp_path / "cpu")
    assert "in seconds" not in words(parse(tmp_path / "cpu" / "task-time_to_accuracy.html"))
