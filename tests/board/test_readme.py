"""The table of the README, and its place."""

from pathlib import Path

import pytest
from made_records import SCRIPT, local, measured, published, write
from markdown_it import MarkdownIt

from bnsuite.board.readme import markdown_table, renew, replace_table
from bnsuite.board.site import RecordFolder
from bnsuite.records import RecordError


def test_table_of_one_track() -> None:
    lines = markdown_table(published()).splitlines()
    assert lines[0].startswith("| rank | scheme | composite | Trainable depth, layers ↑ |")
    first = "| 1 | residual-batchnorm | ≥ +0.63 | **≥ 128** [128, …]<br><sub>rank 1 · n 6</sub> |"
    assert lines[2].startswith(first)
    assert "**stuck**<br><sub>n 6</sub>" in lines[-1]
    assert "– (2/4)" in lines[-1]
    assert len({line.count(" | ") for line in lines}) == 1


def test_leaders_are_the_references_and_the_best_others() -> None:
    made = published() + measured("powernorm")
    whole, short = (markdown_table(made, length).splitlines() for length in (None, 5))
    assert (len(whole), len(short)) == (8, 7)
    assert whole[:-1] == short, "the one that is left out is the last"
    assert "powernorm" in "".join(short)


def test_names_do_nothing_in_markdown() -> None:
    html = MarkdownIt().enable("table").render(markdown_table(published()))
    assert "<script" not in html
    assert SCRIPT.replace("<", "&lt;").replace(">", "&gt;") in html


def test_only_one_track() -> None:
    with pytest.raises(ValueError, match="1 track: got 2"):
        markdown_table(local())


def test_replaces_what_is_between_the_markers_alone() -> None:
    text = "before\n<!-- results:begin -->\nold\n<!-- results:end -->\nafter\n"
    new = replace_table(text, "| new |")
    assert new == "before\n<!-- results:begin -->\n| new |\n<!-- results:end -->\nafter\n"
    assert replace_table(new, "| new |") == new


@pytest.mark.parametrize("text", ["", "<!-- results:begin -->", "<!-- results:end --><!-- results:begin -->"])
def test_missing_markers_are_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="results:begin"):
        replace_table(text, "x")


def test_renews_a_file_from_the_first_track(tmp_path: Path) -> None:
    folder = write(tmp_path / "r", measured("batchnorm") + measured("none", n=2, profile="smoke"))
    readme = tmp_path / "README.md"
    readme.write_text("# A\n<!-- results:begin --><!-- results:end -->\n")
    renew(readme, [RecordFolder(folder, "published")])
    assert "batchnorm" in readme.read_text()
    assert "none" not in readme.read_text()


def test_renews_the_tables_that_a_file_has_a_place_for(tmp_path: Path) -> None:
    folder = write(tmp_path / "r", measured("batchnorm"))
    page = tmp_path / "page.md"
    page.write_text(
        "<!-- leaders:begin --><!-- leaders:end -->\nbetween\n<!-- claims:begin --><!-- claims:end -->"
    )
    renew(page, [RecordFolder(folder, "published")])
    leaders, claims = page.read_text().split("between")
    assert "batchnorm" in leaders
    assert "not measured" in claims


def test_renewing_fails_in_one_clear_line_and_changes_nothing(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("no place")
    source = RecordFolder(write(tmp_path / "r", measured("batchnorm")), "published")
    with pytest.raises(RecordError, match="results:begin"):
        renew(readme, [source])
    with pytest.raises(RecordError, match="no published record"):
        renew(readme, [])
    with pytest.raises(RecordError, match="cannot be renewed"):
        renew(tmp_path / "none.md", [source])
    assert readme.read_text() == "no place"
