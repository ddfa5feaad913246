"""Calibrations: on the pages of their instruments, and nowhere else."""

from pathlib import Path

import pytest
from made_records import Record, calibration, measured, reading, record, write
from test_pages import parse, rows, words

from bnsuite.board.readme import markdown_table
from bnsuite.board.site import RecordFolder, build_site
from bnsuite.ranking.calibrations import calibrations
from bnsuite.ranking.tracks import Kept, by_track

OFF = reading("max_depth", "known thresholds inside their brackets", 0.9, ok=False)


def board(tmp_path: Path, *records: Record) -> Path:
    folder = write(tmp_path / "r", records)
    return build_site([RecordFolder(folder, "local")], tmp_path / "site").parent


def test_on_the_page_of_the_instrument_and_on_its_own(site: Path) -> None:
    own, every = (words(parse(site / f"{name}.html")) for name in ("task-gradient_growth", "calibration"))
    row = "ok batchnorm, ReLU, batch 128 1.4741 1.4501 … 1.5093"
    assert row in own
    assert "AMD EPYC 7B13, 2026-11-01, record" in own
    assert row in every
    assert "known thresholds" in every
    assert "known thresholds" not in own
    assert "off" not in rows(parse(site / "calibration.html"))[0].split()


def test_no_track_no_scheme_no_row(tmp_path: Path) -> None:
    kept = [Kept(calibration(), "local")]
    assert not by_track(kept)
    site = board(tmp_path, calibration())
    assert {path.name for path in site.glob("*.html")} == {
        "index.html",
        "calibration.html",
        "rules.html",
        "schemes.html",
    }
    assert "No records yet" in words(parse(site / "index.html"))


def test_it_changes_no_table() -> None:
    records = measured("batchnorm")
    assert markdown_table([*records, calibration()]) == markdown_table(records)


def test_what_is_off_is_said_on_the_page_and_on_the_board(tmp_path: Path) -> None:
    site = board(tmp_path, *measured("batchnorm"), calibration(reading("stable_lr"), OFF))
    own = words(parse(site / "task-max_depth.html"))
    assert own.count("instrument off") == 2
    assert "off known thresholds inside their brackets 0.9 1.4501 … 1.5093" in own
    assert "instrument off" not in words(parse(site / "task-stable_lr.html"))
    heads = [words(head) for head in parse(site / "index.html").iter("th")]
    marked = next(head for head in heads if "instrument off" in head)
    assert marked.startswith("Trainable depth instrument off")
    assert "trust no number" in words(parse(site / "calibration.html"))


def test_without_a_calibration_there_is_no_trace_of_one(tmp_path: Path) -> None:
    site = board(tmp_path, *measured("batchnorm"))
    assert not (site / "calibration.html").exists()
    for path in site.glob("*.html"):
        assert path.name in ("rules.html", "schemes.html", "claims.html") or "alibration" not in words(
            parse(path)
        )


def test_the_newest_of_every_machine_and_of_every_instrument() -> None:
    old = calibration(reading(), OFF, day=1)
    new = calibration(reading("max_depth", "again"), day=2)
    other = calibration(reading("max_depth", "elsewhere"), day=1, cpu="ARM")
    found = calibrations([Kept(r, "local") for r in (new, old, other)])
    assert {name: [one.readings[0].experiment for one in ones] for name, ones in found.items()} == {
        "gradient_growth": ["batchnorm, ReLU, batch 128"],
        "max_depth": ["again", "elsewhere"],
    }


def test_published_ones_come_first_then_by_processor_and_gpu() -> None:
    machines = [
        ("published", {"cpu": "Z", "gpu": None}),
        ("local", {"cpu": "A", "gpu": "an H200"}),
        ("local", {"cpu": "B", "gpu": None}),
        ("local", {"cpu": "B", "gpu": "an A100"}),
        ("local", {"cpu": "B", "gpu": "an H200"}),
    ]
    kept = [Kept(calibration(**machine), origin) for origin, machine in reversed(machines)]
    for instrument, found in calibrations(kept).items():
        order = [(one.origin, one.record.provenance.cpu, one.record.provenance.gpu) for one in found]
        assert order == [(origin, *machine.values()) for origin, machine in machines], instrument
    assert list(calibrations(kept)) == ["gradient_growth", "max_depth"]


def test_a_reading_of_others_says_what_it_lacks() -> None:
    no_reading, nameless = {"measured": 1.0}, {"instrument": "max_depth", "measured": None, "ok": True}
    (found,) = calibrations([Kept(calibration(no_reading, nameless), "submitted")])["max_depth"]
    (read,) = found.readings
    assert (read.experiment, read.measured, read.ok) == ("", "not finite", True)


def test_what_was_sent_in_hides_no_published_reading() -> None:
    kept = [Kept(calibration(OFF, day=1), "published"), Kept(calibration(day=2), "submitted")]
    assert [(one.origin, one.ok) for one in calibrations(kept)["max_depth"]] == [
        ("published", False),
        ("submitted", True),
    ]


@pytest.mark.parametrize(
    "row",
    [
        {},
        {"instrument": ["max_depth"]},
        {"instrument": "max_depth"},
        {"instrument": "max_depth", "tolerance": [1], "measured": True, "ok": "yes"},
        {"instrument": "max_depth", "tolerance": ["a", 10**400], "measured": -(10**400), "ok": 1},
        {"instrument": "<script>", "experiment": {"a": "</td>"}, "tolerance": [1e300, 0], "ok": None},
    ],
)
def test_strange_readings_are_off_and_break_nothing(row: dict[str, object], tmp_path: Path) -> None:
    site = board(tmp_path, record(), calibration(row))
    for path in site.glob("*.html"):
        parse(path)
    if isinstance(row.get("instrument"), str):
        assert "off" in rows(parse(site / "calibration.html"))[0].split()
