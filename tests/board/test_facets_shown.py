"""Facets, caveats and costs: what the index filters by, and the page of a scheme explains."""

import re
from pathlib import Path

from made_records import measured, record, write
from test_pages import parse, rows, words

from bnsuite.board.site import RecordFolder, build_site
from bnsuite.ranking.facets import CAVEATS, caveats, described, known
from bnsuite.ranking.tracks import Kept
from bnsuite.records.facets import FACETS


def test_words_are_safe_in_a_selector_and_defined() -> None:
    assert all(re.fullmatch("[a-z0-9-]+", word) and text for word, text in FACETS.items())
    assert set(CAVEATS) <= set(FACETS)


def test_caveats_are_what_is_more_than_a_normalizer() -> None:
    plain = record(facets=("residual",), costs={"parameters per channel": 2.0})
    assert caveats(plain) == {}
    odd = record(facets=("own-gradient", "own-init"), costs={"parameters per channel": 3.0})
    assert list(caveats(odd)) == ["own-init", "own-gradient", "3 parameters a channel"]
    third = record(costs={"parameters per channel": 2 + 1 / 3})
    assert caveats(third) == {"2.33 parameters a channel": "it learns more than a gain and a shift a channel"}
    frozen = record(facets=("train-eval-agreement",), costs={"state per channel": 1.0})
    assert caveats(frozen) == {
        "earlier statistics": "training normalizes by statistics of batches before, or by frozen ones"
    }
    assert caveats(record(costs={"state per channel": 2.0})) == {}


def test_known_facets_in_the_order_of_the_board() -> None:
    assert known(record(facets=("residual", "b" * 9, "batch-1"))) == ["batch-1", "residual"]


def test_the_newest_record_of_the_newest_schema_says_what_a_scheme_is() -> None:
    old = record(day=9).model_copy(update={"schema_version": 1})
    kept = [Kept(one, "local") for one in (record(day=1), record(day=2), old)]
    assert described(kept).provenance.started.startswith("2026-11-02")


def test_the_index_counts_and_marks(site: Path) -> None:
    page = parse(site / "index.html")
    form = next(page.iter("form"))
    only, hide = form.iter("fieldset")
    assert [words(label) for label in only.iter("label")] == [words(label) for label in hide.iter("label")]
    counts = [words(label) for label in only.iter("label")]
    assert counts == ["batch-independent 2", "batch-1 2", "scale-invariant 2", "residual 2", "own-init 1"]
    shown = rows(page)
    assert any(row.startswith("layernorm own-init, 3 parameters a channel") for row in shown)
    assert FACETS["batch-1"] in words(page)


def test_no_facets_no_filter(tmp_path: Path) -> None:
    index = build_site([RecordFolder(write(tmp_path / "r", measured("none")), "local")], tmp_path / "site")
    assert "<form" not in index.read_text()
    assert "data-facets" not in index.read_text()


def test_the_scheme_page_says_what_it_is(site: Path) -> None:
    page = parse(site / "scheme-residual-batchnorm.html")
    lead = next(node for node in page.iter("p") if node.get("class") == "lead")
    assert words(lead) == "deep, arXiv 1603.05027"
    assert [a.get("href") for a in lead.iter("a")] == ["https://arxiv.org/abs/1603.05027"]
    assert FACETS["scale-invariant"] in words(page)
    assert "parameters per channel3" in rows(parse(site / "scheme-layernorm.html"))
