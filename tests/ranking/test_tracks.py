"""Tracks: which records may be compared and are shown, and which one is the reference."""

from pathlib import Path

import pytest
from made_records import record, without_value

from bnsuite.board.labels import anchor
from bnsuite.ranking.tracks import (
    Entry,
    Kept,
    Track,
    by_track,
    is_reference,
    newest,
    origin_of,
    standard,
    tasks_of,
)
from bnsuite.records import Outcome


def test_tracks_are_never_mixed() -> None:
    changes = [{}, {"profile": "smoke"}, {"family": "cnn"}, {"dataset": "cifar10"}, {"suite_version": 2}]
    tracks = by_track(Kept(record(**change), "local") for change in changes)
    assert len(tracks) == len(changes)
    assert next(iter(tracks)).suite_version == 2
    assert list(tracks)[-1] == Track(1, "smoke", "mlp", "digits", "d1" * 32)


def test_newest_record_is_shown_even_if_an_error() -> None:
    old = record(day=1)
    failed = record(samples=[], outcome=Outcome.ERROR, error="Traceback", day=2)
    shown = newest([Kept(failed, "local"), Kept(old, "local")])
    assert shown == {Entry("batchnorm", "cpu", "local"): {"max_depth": failed}}


def test_newest_by_moment_not_by_spelling() -> None:
    early = record(source={"started": "2026-11-02T01:00:00+05:00"})
    late = record(source={"started": "2026-11-01T22:00:00Z"})
    junk = record(source={"started": "yesterday"})
    shown = newest([Kept(late, "local"), Kept(early, "local"), Kept(junk, "local")])
    assert shown[Entry("batchnorm", "cpu", "local")]["max_depth"] == late


def test_origins_and_devices_are_rows_of_their_own() -> None:
    kept = [Kept(record(), "published"), Kept(record(day=2), "local"), Kept(record(device="cuda"), "local")]
    assert len(newest(kept)) == 3


def test_reference_is_published_batchnorm_on_the_cpu_the_earliest() -> None:
    wanted = record(day=3)
    others = [
        Kept(record(day=4), "published"),
        Kept(record(day=1), "local"),
        Kept(record(day=1, device="cuda"), "published"),
        Kept(record(scheme="none", day=1), "published"),
        Kept(record(day=2, samples=[99] * 6), "submitted"),
    ]
    assert standard([*others, Kept(wanted, "published")]).record == wanted


def test_submitted_batchnorm_is_no_reference() -> None:
    assert not is_reference(standard([Kept(record(), "submitted")]))
    assert standard([Kept(record(), "submitted"), Kept(record(day=2), "local")]).origin == "local"
    assert (
        standard([Kept(record(), "submitted"), Kept(record(scheme="none"), "published")]).origin
        == "published"
    )


def test_reference_has_a_value_and_the_newest_question() -> None:
    stuck = without_value("max_depth", "batchnorm", Outcome.STUCK, day=1)
    old = record(day=2, settings={"width": 32})
    first, again = record(day=3), record(day=4)
    kept = [Kept(r, "published") for r in (again, old, stuck, first)]
    assert standard(kept).record == first


def test_ranked_tasks_come_first() -> None:
    tasks = ("a_diagnostic", "time_to_accuracy", "max_depth")
    assert tasks_of(Kept(record(task), "local") for task in tasks) == [
        "max_depth",
        "time_to_accuracy",
        "a_diagnostic",
    ]


def test_other_data_under_one_name_is_another_track_with_a_mark() -> None:
    other = record("max_depth", "theirs", source={"dataset_checksum": "e2" * 32})
    ours, theirs = by_track([Kept(record(), "published"), Kept(other, "submitted")])
    assert (ours.data, theirs.data) == ("digits", "digits (e2e2e2e2)")
    assert anchor(ours) == "digits.mlp.quick.v1" != anchor(theirs)
    marked = by_track([Kept(record(), "local"), Kept(other, "local")])
    assert {track.data for track in marked} == {"digits (d1d1d1d1)", "digits (e2e2e2e2)"}
    assert [str(track) for track in by_track([Kept(record(), "local")])] == ["digits · mlp · quick"]


def test_the_newest_suite_comes_first_then_the_largest_profile_and_changed_ones_after() -> None:
    profiles = [
        "full",
        "standard",
        "quick",
        "own",
        "smoke",
        "standard+width=8",
        "own+batch=2",
        "smoke+batch=2",
    ]
    kept = [Kept(record(profile=profile), "local") for profile in reversed(profiles)]
    kept += [Kept(record(profile="full", dataset="theirs"), "submitted")]
    kept += [Kept(record(profile="smoke+batch=2", suite_version=2), "local")]
    order = [(track.suite_version, track.profile) for track in by_track(kept)]
    assert order == [(2, "smoke+batch=2"), *[(1, profile) for profile in profiles], (1, "full")]


def test_a_mark_is_as_long_as_it_takes() -> None:
    checksums = ["", "d1" * 32, "d1" * 8 + "e2" * 24, "d1" * 31 + "d2"]
    kept = [Kept(record(source={"dataset_checksum": checksum}), "local") for checksum in checksums]
    marks = {track.checksum: track.mark for track in by_track(kept)}
    assert marks == {"": "none", **{checksum: checksum for checksum in checksums[1:]}}
    pair = {track.mark for track in by_track([kept[1], kept[2]])}
    assert pair == {"d1" * 8 + "d", "d1" * 8 + "e"}


@pytest.mark.parametrize(
    ("folder", "origin"),
    [
        ("results", "local"),
        ("leaderboard/records", "published"),
        ("records", "local"),
        ("leaderboard", "local"),
        ("leaderboard/submissions/theirs/records", "submitted"),
        ("leaderboard/verification", "verification"),
        ("verification", "local"),
    ],
)
def test_the_place_of_a_record_in_a_checkout_is_its_origin(
    folder: str, origin: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert origin_of(Path(folder)) == origin_of(tmp_path / folder) == origin
