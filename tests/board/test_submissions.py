"""What others send in: shown with who sent it, left out where it is unsound, harmless whatever it says."""

import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from made_records import calibration, measured, reading, record, submit, write
from test_pages import parse, rows, words

from bnsuite.board.site import RecordFolder, build_site
from bnsuite.records import Record, RecordError


@pytest.fixture(autouse=True)
def invented(monkeypatch: pytest.MonkeyPatch) -> None:
    """The records here are made up, and no trace speaks for them."""
    monkeypatch.setattr("bnsuite.board.submissions.objections_to", lambda record: [])


def build(tmp_path: Path, *sent: Path, rerun: list[Record] | None = None) -> tuple[ET.Element, list[str]]:
    ours = [record("max_depth", "batchnorm"), record("max_depth", "none", [9] * 6)]
    sources = [RecordFolder(write(tmp_path / "ours", ours), "published")]
    sources += [RecordFolder(folder, "submitted") for folder in sent]
    if rerun:
        sources.append(RecordFolder(write(tmp_path / "verification", rerun), "verification"))
    left_out: list[str] = []
    index = build_site(sources, tmp_path / "site", left_out)
    return parse(index), left_out


def theirs(**changes: Any) -> list[Record]:
    return [record("max_depth", "theirs", **changes)]


def test_a_submission_is_shown_with_who_sent_it(tmp_path: Path) -> None:
    paper = {"paper": "https://example.org/a?b=1&c=2", "notes": "One.\nTwo."}
    page, left_out = build(tmp_path, submit(tmp_path / "theirs", theirs(), authors=["A", "B & C"], **paper))
    assert left_out == []
    assert any(row.startswith("theirs submitted, self-reported") for row in rows(page))
    assert "measured by those who sent it in" in words(page)
    own = parse(tmp_path / "site" / "scheme-theirs.html")
    for part in ("AuthorsA, B & C", "LicenceMIT", "Paperhttps://example.org/a?b=1&c=2", "NotesOne. Two."):
        assert part in words(own)
    assert "https://example.org/a?b=1&c=2" in {a.get("href") for a in own.iter("a")}


def test_a_verification_confirms_and_stands_in_no_table(tmp_path: Path) -> None:
    again = theirs(day=9, source={"cpu": "another"})
    page, _ = build(tmp_path, submit(tmp_path / "theirs", theirs()), rerun=again)
    assert any(row.startswith("theirs submitted, re-run elsewhere") for row in rows(page))
    assert sum(row.startswith("theirs") for row in rows(page)) == 1
    assert "another" not in words(parse(tmp_path / "site" / "scheme-theirs.html"))


def link_inside(folder: Path) -> None:
    (folder / "records" / "more").symlink_to("/etc")


def link_itself(folder: Path) -> None:
    folder.rename(folder.parent / "elsewhere")
    folder.symlink_to(folder.parent / "elsewhere")


def deep(folder: Path) -> None:
    (folder / "records" / "deep.json").write_text("[" * 10**5)


def no_manifest(folder: Path) -> None:
    (folder / "submission.toml").unlink()


def other_name(folder: Path) -> None:
    text = (folder / "submission.toml").read_text()
    (folder / "submission.toml").write_text(text.replace("theirs", "another"))


def other_scheme(folder: Path) -> None:
    write(folder / "records", [record("max_depth", "batchnorm", day=2)])


def empty(folder: Path) -> None:
    for path in (folder / "records").iterdir():
        path.unlink()


def edited(folder: Path) -> None:
    path = next((folder / "records").iterdir())
    path.write_text(path.read_text().replace('"value":29.0', '"value":290.0'))


def later_suite(folder: Path) -> None:
    write(folder / "records", theirs(suite_version=99))


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (link_inside, "theirs/records/more: is a link"),
        (link_itself, "theirs: is a link"),
        (deep, "recursion"),
        (no_manifest, "theirs/submission.toml: cannot be read"),
        (other_name, "theirs/submission.toml: name is 'another'"),
        (other_scheme, "is of 'batchnorm', not of theirs"),
        (empty, "holds no record"),
        (edited, "was edited after it was measured"),
        (later_suite, "is of suite version 99"),
    ],
)
def test_an_unsound_one_is_left_out_and_named(
    harm: Callable[[Path], None], reason: str, tmp_path: Path
) -> None:
    sound = submit(tmp_path / "sound", [record("max_depth", "sound")])
    folder = submit(tmp_path / "theirs", theirs())
    harm(folder.parent)
    page, left_out = build(tmp_path, folder, sound)
    assert len(left_out) == 1
    assert reason in left_out[0]
    assert left_out[0] in words(page)
    assert str(tmp_path) not in left_out[0], "no path of a machine on the board"
    assert {row.split()[0] for row in rows(page)} == {"batchnorm", "none", "sound"}


def test_no_name_of_ours_and_no_record_of_others(tmp_path: Path) -> None:
    sent = [
        submit(tmp_path / "a" / "none", [record("max_depth", "none", [99] * 6)]),
        submit(tmp_path / "b" / "residual-batchnorm", [record("max_depth", "residual-batchnorm")]),
        submit(tmp_path / "c" / "theirs", theirs()),
        submit(tmp_path / "d" / "theirs", theirs(day=2)),
    ]
    page, left_out = build(tmp_path, *sent)
    taken = ["none", "residual-batchnorm", "theirs"]
    assert [line.split(":")[0] for line in left_out] == taken
    assert all("is taken" in line for line in left_out)
    assert not any("99" in row for row in rows(page))
    again = theirs()
    page, left_out = build(tmp_path / "more", submit(tmp_path / "e" / "theirs", theirs()), rerun=again)
    assert "too. Remove one of the two" in left_out[0]


def test_what_was_submitted_from_here_stands_once(tmp_path: Path) -> None:
    ours = [record("max_depth", "batchnorm"), *theirs()]
    sent = submit(tmp_path / "theirs", theirs())
    sources = [RecordFolder(write(tmp_path / "results", ours), "local"), RecordFolder(sent, "submitted")]
    page = parse(build_site(sources, tmp_path / "site"))
    assert [row.split(",")[0] for row in rows(page) if row.startswith("theirs")] == ["theirs submitted"]


def test_a_record_that_cannot_be_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    page, left_out = build(tmp_path, submit(tmp_path / "theirs", theirs()))
    assert "cannot be: " in left_out[0]
    assert not any(row.startswith("theirs") for row in rows(page))


def test_others_readings_switch_no_instrument_off(tmp_path: Path) -> None:
    off = calibration(reading("max_depth", ok=False))
    page, left_out = build(tmp_path, submit(tmp_path / "theirs", [*theirs(), off]))
    assert left_out == []
    assert "instrument off" not in words(page)


def test_others_records_do_not_reword_our_questions(tmp_path: Path) -> None:
    later = [*theirs(day=9, question="Buy this?"), record("scale_law", "theirs", question="Or this?")]
    later += theirs(day=9, question="Buy that?", dataset="aaa")
    page, left_out = build(tmp_path, submit(tmp_path / "theirs", later))
    assert left_out == []
    assert words(next(parse(tmp_path / "site" / "task-max_depth.html").iter("h1"))).startswith("How deep")
    assert words(next(page.iter("h2"))).startswith("digits"), "a track of theirs alone comes last"


HOSTILE = [
    "<script>alert(1)</script>",
    "../../x",
    "a\nb\r\n\tc",
    "\u202eevil\u2066",
    'x" onload="y',
    "ö" * 10_000,
]


@pytest.mark.parametrize("text", HOSTILE, ids=["script", "path", "lines", "direction", "quote", "long"])
def test_hostile_strings_do_nothing(text: str, tmp_path: Path) -> None:
    said = {"about": text, "facets": (text, "batch-1", "own-init"), "costs": {text: 2.0}, "question": text}
    said |= {"dataset": text, "family": text, "profile": text, "error": text}
    source = dict.fromkeys(("cpu", "os", "torch", "python", "started", "package_version", "commit"), text)
    own = measured("theirs", **said, source=source)
    own += [
        record("a" + text, "theirs", unit=text, derived={text: text}, **said),
        record("max_depth", "theirs", facets=("own-init",)),
    ]
    line = "".join(c for c in text if c.isprintable() or c > "\x7f")[:200]
    folder = submit(
        tmp_path / "theirs",
        own,
        authors=[line],
        licence=line,
        paper=line,
        notes=text[:2000].replace("\r", ""),
    )
    page, left_out = build(tmp_path, folder)
    assert left_out == []
    assert any("own-init" in row for row in rows(page))
    site = tmp_path / "site"
    assert {path.parent for path in site.rglob("*.html")} == {site}
    for path in site.glob("*.html"):
        assert len(path.name) < 120
        raw = path.read_text(encoding="utf-8")
        assert "<script" not in raw
        assert not set(raw) & set("\u202e\u2066")
        assert len(raw) < 1_500_000
        tree = parse(path)
        ids = [node.get("id") or "" for node in tree.iter() if node.get("id")]
        assert len(ids) == len(set(ids))
        assert all(len(one) < 300 and not set(one) & set("<>\"' \n") for one in ids)
        for node in tree.iter():
            assert not {"onload", "onclick", "src"} & set(node.attrib)
            href = node.get("href") or "#"
            assert href.startswith(("#", "https://", "http://", "data:,")) or ".." not in href


def test_only_plain_addresses_are_links(tmp_path: Path) -> None:
    for place, paper in enumerate(
        ("javascript:alert(1)", "http://x.org", "https://a@b.org", "see arXiv 12.3")
    ):
        folder = submit(tmp_path / f"{place}" / "theirs", theirs(), paper=paper)
        build(tmp_path / f"{place}", folder)
        own = parse(tmp_path / f"{place}" / "site" / "scheme-theirs.html")
        assert paper in words(own)
        assert not any((a.get("href") or "").startswith(("java", "http")) for a in own.iter("a"))


@pytest.mark.parametrize("settings", [{"width": [64]}, {"width": {"a": 1}, "batch": [2]}])
def test_settings_that_are_no_numbers_do_not_stop_the_board(tmp_path: Path, settings: dict[str, Any]) -> None:
    _, left_out = build(tmp_path, submit(tmp_path / "theirs", theirs(settings=settings, family="cnn")))
    assert left_out == []


def test_what_cannot_be_drawn_is_left_out_and_the_rest_is_built(tmp_path: Path) -> None:
    tiny = [record("max_depth", "theirs", [5e-324] * 6)]  # a ratio of it to batchnorm's is 0
    sound = submit(tmp_path / "sound", [record("max_depth", "sound")])
    page, left_out = build(tmp_path, submit(tmp_path / "theirs", tiny), sound)
    assert len(left_out) == 1
    assert left_out[0].startswith(f"theirs/records/{tiny[0].id}.json: cannot be drawn (")
    assert {row.split()[0] for row in rows(page)} == {"batchnorm", "none", "sound"}


def test_a_record_of_ours_that_cannot_be_drawn_is_named(tmp_path: Path) -> None:
    tiny = record("max_depth", "mine", [5e-324] * 6)
    folder = write(tmp_path / "ours", [record("max_depth", "batchnorm"), tiny])
    with pytest.raises(RecordError, match=rf"{tiny.id}\.json: cannot be drawn"):
        build_site([RecordFolder(folder, "local")], tmp_path / "site")
