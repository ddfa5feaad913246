"""What is published agrees with itself: records, frozen scales, the README's table."""

from pathlib import Path

import pytest

from bnsuite.board.readme import LENGTH, claims_table, markdown_table
from bnsuite.board.submissions import admit
from bnsuite.claims.catalogue import CLAIMS
from bnsuite.claims.judge import UNMEASURED, judge_largest
from bnsuite.profiles import load_profile
from bnsuite.ranking.composite import FROZEN, derive_scales
from bnsuite.ranking.tracks import Kept, by_track
from bnsuite.records import CALIBRATION, SUITE_VERSION, Outcome, Record, read_records
from bnsuite.schemes import REFERENCES, SCHEMES
from bnsuite.specs import RANKED

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def quick() -> list[Record]:
    records = read_records([ROOT / "leaderboard" / "records"]).values()
    return [r for r in records if (r.profile, r.suite_version, r.device) == ("quick", SUITE_VERSION, "cpu")]


def test_every_reference_has_every_ranked_task(quick: list[Record]) -> None:
    assert {(r.scheme, r.task) for r in quick} >= {(s, t) for s in REFERENCES for t in RANKED}
    assert all(r.n >= 6 or r.outcome is Outcome.UNSUPPORTED for r in quick)
    assert all(r.provenance.dirty is False for r in quick)


def test_every_scheme_has_every_ranked_task(quick: list[Record]) -> None:
    assert {(r.scheme, r.task) for r in quick} >= {(s, t) for s in SCHEMES for t in RANKED}
    assert not [r.cell for r in quick if r.outcome in (Outcome.ERROR, Outcome.OOM)]


def test_the_scales_are_those_of_the_published_references(quick: list[Record]) -> None:
    frozen, derived = FROZEN, derive_scales(quick)
    assert frozen.suite_version == derived.suite_version
    assert frozen.units == pytest.approx(derived.units, rel=5e-3)


@pytest.mark.parametrize(("page", "length"), [("README.md", LENGTH), ("docs/results.md", None)])
def test_pages_show_the_published_numbers(page: str, length: int | None) -> None:
    records = read_records([ROOT / "leaderboard" / "records"]).values()
    first = next(iter(by_track(Kept(r, "published") for r in records if r.task in RANKED).values()))
    assert markdown_table((k.record for k in first), length) in (ROOT / page).read_text(encoding="utf-8")


def test_every_claim_is_measured_and_its_verdict_shown() -> None:
    kept = [Kept(r, "published") for r in read_records([ROOT / "leaderboard" / "records"]).values()]
    judged = judge_largest(CLAIMS, kept)
    assert all(one.finding.verdict != UNMEASURED for one in judged)
    assert {one.profile for one in judged} == {"quick"}
    assert claims_table(judged) in (ROOT / "docs" / "results.md").read_text(encoding="utf-8")


def test_every_instrument_was_right_where_the_records_were_made() -> None:
    records = read_records([ROOT / "leaderboard" / "records"]).values()
    calibrations = [r for r in records if r.task == CALIBRATION]
    assert calibrations
    assert all(row["ok"] for r in calibrations for row in r.trace)


def test_the_claims_of_the_reference_schemes(quick: list[Record]) -> None:
    """What the quick profile is for: it separates the four schemes, in the order the field expects."""
    quick = [r for r in quick if r.scheme in REFERENCES]
    value = {(r.task, r.scheme): r.value or 0.0 for r in quick}
    assert value["max_depth", "batchnorm"] * 2 < value["max_depth", "residual-batchnorm"]
    assert value["stable_lr", "batchnorm"] >= 3 * value["stable_lr", "none"]
    steps = {s: value["time_to_accuracy", s] for s in REFERENCES}
    assert min(steps, key=steps.__getitem__) == "residual-batchnorm"
    assert max(steps, key=steps.__getitem__) == "none"
    assert value["top_eigenvalue", "none"] >= 5 * value["top_eigenvalue", "batchnorm"]
    residuals = [s.detail["residual"] for r in quick if r.task == "top_eigenvalue" for s in r.samples]
    assert max(float(str(r)) for r in residuals) <= 1e-3


def test_the_quick_profile_asks_what_was_published(quick: list[Record]) -> None:
    from bnsuite.tasks import TASKS

    for record in quick:
        settings = load_profile("quick").settings(record.task, record.family)
        task = TASKS[record.task](**settings)  # type: ignore[arg-type]
        assert (task.spec.version, task.settings) == (record.task_version, record.settings)


def test_every_submission_is_sound_and_has_every_ranked_task() -> None:
    folders = sorted((ROOT / "leaderboard" / "submissions").glob("*/records"))
    found = admit(folders, {})
    assert (len(found.manifests), found.left_out) == (len(folders), [])
    measured = {(r.scheme, r.task) for r in found.records.values() if r.profile == "quick"}
    assert measured >= {(name, task) for name in found.manifests for task in RANKED}
