"""Tables: what each row says, and the order of rows."""

import pytest
from made_records import measured, record, without_value

from bnsuite.ranking.composite import FROZEN
from bnsuite.ranking.rank import Rank
from bnsuite.ranking.tables import Table, by_task, make_tables
from bnsuite.ranking.tracks import Kept
from bnsuite.records import Outcome, Record

SCHEMES = ("none", "batchnorm", "layernorm", "residual-batchnorm")


def table(*more: Kept, reruns: tuple[Record, ...] = ()) -> Table:
    kept = [Kept(r, "published") for scheme in SCHEMES for r in measured(scheme)]
    (made,) = make_tables([*more, *kept], FROZEN, reruns)
    return made


def schemes(made: Table) -> list[str]:
    return [row.entry.scheme for row in made.rows]


def test_rows_go_by_rank_then_composite_then_those_with_holes_by_name() -> None:
    twin = [Kept(r, "local") for r in measured("layernorm", seed=1)]
    diagnosed = Kept(record("gradient_growth", "a-diagnosed"), "local")
    stuck = [Kept(without_value("max_depth", name, Outcome.STUCK), "local") for name in ("z-hole", "a-hole")]
    few = [Kept(r, "local") for r in measured("few", n=5)]
    made = table(diagnosed, *stuck, *few, *twin)
    assert schemes(made) == [
        "residual-batchnorm",
        "batchnorm",
        "layernorm",
        "layernorm",
        "none",
        "few",  # a composite, and too few seeds for a rank
        "a-diagnosed",
        "a-hole",
        "z-hole",
    ]
    ranked = [row for row in made.rows if row.overall]
    assert [row.overall for row in ranked] == [Rank(1, 1), Rank(2, 2), Rank(3, 4), Rank(3, 4), Rank(5, 5)]
    values = [row.composite.value for row in ranked if row.composite]
    assert values == sorted(values, reverse=True)


def test_the_reference_is_the_row_of_batchnorm_alone() -> None:
    made = table(*[Kept(r, "local") for r in measured("batchnorm", seed=1)])
    assert [tuple(row.entry) for row in made.rows if row.reference] == [("batchnorm", "cpu", "published")]
    assert {r.scheme for r in made.references.values()} == {"batchnorm"}


def test_submitted_rows_alone_have_a_tier() -> None:
    theirs = measured("theirs")
    again = tuple(measured("theirs", day=2))
    for reruns, tier in (((), "self-reported"), (again[:3], "self-reported"), (again, "re-run")):
        made = table(*[Kept(r, "submitted") for r in theirs], reruns=reruns)
        assert {row.entry.scheme: row.tier for row in made.rows} == {**dict.fromkeys(SCHEMES), "theirs": tier}


def test_what_was_asked_otherwise_is_shown_and_not_ranked() -> None:
    other = [Kept(r, "local") for r in measured("other") if r.task != "max_depth"]
    deeper = Kept(record("max_depth", "other", [900] * 6, settings={"width": 8}), "local")
    (row,) = [row for row in table(*other, deeper).rows if row.entry.scheme == "other"]
    assert (row.foreign, row.coverage, row.composite, row.overall) == ({"max_depth"}, 3, None, None)
    assert row.records["max_depth"].value == 900
    assert set(row.ranks) == {"stable_lr", "top_eigenvalue", "time_to_accuracy"}


@pytest.mark.parametrize(("task", "best"), [("max_depth", 128), ("top_eigenvalue", 3.2)])
def test_rows_of_a_task_go_by_its_rank_then_value(task: str, best: float) -> None:
    hole = Kept(without_value(task, "a-hole", Outcome.STUCK), "local")
    few = Kept(record(task, "few", [best] * 5), "local")
    rows = by_task(table(hole, few).rows, task)
    assert [row.entry.scheme for row in rows] == [
        "residual-batchnorm",
        "batchnorm",
        "layernorm",
        "none",
        "few",
        "a-hole",
    ]


@pytest.mark.parametrize(("task", "medians"), [("max_depth", [30, 20]), ("top_eigenvalue", [20, 30])])
def test_rows_of_equal_rank_go_by_value(task: str, medians: list[float]) -> None:
    """Six seeds do not tell these apart; by name they would go the other way."""
    found = {20: [20] * 6, 30: [10, 30, 30, 30, 30, 10]}
    kept = [Kept(record(task, f"{k}", found[m]), "local") for k, m in enumerate(reversed(medians))]
    (made,) = make_tables(kept, FROZEN)
    assert {row.ranks[task] for row in made.rows} == {Rank(1, 2)}
    assert [row.records[task].value for row in by_task(made.rows, task)] == medians
