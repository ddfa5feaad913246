"""What the pages say, and that they hold together as HTML."""

import re
import xml.etree.ElementTree as ET
from pathlib import Path
from urllib.parse import unquote

import pytest
from made_records import SCRIPT, measured, record, without_value, write

from bnsuite.board.labels import title
from bnsuite.board.site import RecordFolder, build_site
from bnsuite.format import slug
from bnsuite.records import Outcome
from bnsuite.specs import RANKED, SPECS


def parse(path: Path) -> ET.Element:
    """The page as XML: well-formed HTML of ours is that, too."""
    return ET.fromstring(path.read_text(encoding="utf-8").removeprefix("<!DOCTYPE html>\n"))


def words(node: ET.Element) -> str:
    return " ".join("".join(node.itertext()).split())


def rows(page: ET.Element) -> list[str]:
    return [words(row) for table in page.iter("table") for row in table.findall("tbody/tr")]


def test_every_page_is_there(site: Path) -> None:
    names = {p.name for p in site.glob("*.html")}
    wanted = {f"task-{task}.html" for task in (*RANKED, "gradient_growth")}
    wanted |= {f"scheme-{slug(s)}.html" for s in ("none", "batchnorm", SCRIPT)}
    assert wanted | {"index.html"} <= names


def test_well_formed_with_ids_of_their_own(site: Path) -> None:
    for path in site.glob("*.html"):
        page = parse(path)
        ids = [node.get("id") for node in page.iter() if node.get("id")]
        assert len(ids) == len(set(ids)), path.name
        assert page.get("lang") == "en"
        assert len(list(page.iter("h1"))) == 1, path.name
        for table in page.iter("table"):
            if path.name not in ("rules.html", "schemes.html"):
                assert table.find("caption") is not None
            assert all(th.get("scope") for th in table.iter("th")) or path.name == "rules.html"


def test_links_resolve_and_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    pages = {path.name: parse(path) for path in site.glob("*.html")}
    ids = {name: {node.get("id") for node in page.iter()} for name, page in pages.items()}
    for name, page in pages.items():
        for node in page.iter():
            assert node.tag != "script"
            assert node.get("src") is None
            target = node.get("href")
            if target is None or target == "data:,":
                continue
            if target.startswith("http"):
                assert node.tag == "a", "an outside address may be a link, never a resource"
                continue
            file, _, fragment = target.partition("#")
            assert (site / unquote(file or name)).is_file(), f"{name}: {target}"
            assert not fragment or fragment in ids[file or name], f"{name}: {target}"
    assert not re.search(r"url\(|@import", (site / "board.css").read_text())


def test_one_table_a_track(site: Path) -> None:
    page = parse(site / "index.html")
    boards = [table for table in page.iter("table") if table.get("class") == "board"]
    captions = [words(caption) for table in boards for caption in table.iter("caption")]
    assert len(captions) == 2
    assert "n = 6 seeds, each with the exact interval of the median (96.9 %)" in captions[0]
    assert "(50.0 %)" in captions[1]
    assert any("quick width 64, batch 128" in words(heading) for heading in page.iter("h2"))
    assert "No ranks: they need" in captions[1]
    assert "AMD EPYC 7B13, NVIDIA H200" in captions[0]


def test_rows_in_the_order_of_their_ranks_with_all_that_they_show(site: Path) -> None:
    found = rows(parse(site / "index.html"))
    assert [row.split()[0] for row in found[:2]] == ["residual-batchnorm", "batchnorm"]
    assert "≥ 128 capped [128, …] rank 1 · n 6" in found[0]
    assert found[1].startswith("batchnorm reference")
    assert found[2].startswith("batchnorm cuda local")
    hole = next(row for row in found if row.startswith(SCRIPT))
    for part in ("stuck", "error", "> 400 timeout", "2/4 tasks"):
        assert part in hole
    assert not any("gradient" in row for row in found)


def test_every_number_links_to_its_record(site: Path) -> None:
    page = parse(site / "index.html")
    values = [a for a in page.iter("a") if "value" in (a.get("class") or "").split()]
    assert len(values) >= 24
    assert all((site / (a.get("href") or "")).is_file() for a in values)


def test_a_scheme_is_only_a_name(site: Path) -> None:
    for path in site.glob("*.html"):
        assert "<script" not in path.read_text()
    assert words(next(parse(site / f"scheme-{slug(SCRIPT)}.html").iter("h1"))) == SCRIPT


def test_the_scheme_page_has_provenance_earlier_records_and_tracebacks(site: Path) -> None:
    layernorm = parse(site / "scheme-layernorm.html")
    assert sum("earlier" in row for row in rows(layernorm)) == 1
    setup = words(layernorm)
    for part in ("5c" * 32, "2.13.0", "3.11.9", "Linux 6.8", "2026-11-02 09:30", "21.4 s"):
        assert part in setup
    assert "<boom> & gone" in words(parse(site / f"scheme-{slug(SCRIPT)}.html"))


def test_the_task_page_has_samples_and_companions(site: Path) -> None:
    steps = words(parse(site / "task-time_to_accuracy.html"))
    for part in ("training (s)", "seed 105", "ranked only on an idle accelerator", "96.9 %"):
        assert part in steps
    growth = words(parse(site / "task-gradient_growth.html"))
    for part in ("A diagnostic: shown, not ranked", "theory’s rate", "theory 1.46", "imbalance λ is above 1"):
        assert part in growth
    assert "Rank" not in growth
    assert "6 491 33 ≥ 64" in rows(parse(site / "task-overflow_depth.html"))[0]
    spectrum = words(parse(site / "task-spectrum.html"))
    assert "gap above λ_C" in spectrum
    assert "lambda 1 at init" not in spectrum, "stays in the record"


def test_diagnostics_are_one_link_of_the_navigation(site: Path) -> None:
    page = parse(site / "index.html")
    links = [words(link) for link in page.findall("body/header/nav/ul/li/a")]
    assert links == ["Board", *map(title, RANKED), "Diagnostics", "Claims", "Calibration", "Schemes", "Rules"]
    section = next(node for node in page.iter("section") if node.get("id") == "diagnostics")
    assert [words(a) for a in section.iter("a")] == [spec.title for spec in SPECS.values() if not spec.ranked]
    assert "How much do gradients grow a layer" in words(section)


def test_other_settings_are_shown_and_not_ranked(tmp_path: Path) -> None:
    wide = record("max_depth", "wide", [90] * 6, settings={"width": 4096})
    folder = write(tmp_path / "r", [*measured("batchnorm"), wide])
    index = build_site([RecordFolder(folder, "local")], tmp_path / "site")
    row = next(row for row in rows(parse(index)) if row.startswith("wide"))
    assert "90 [90, 90] other settings · n 6" in row


def test_rows_of_one_rank_stand_in_the_order_of_their_composites(tmp_path: Path) -> None:
    found = {"a-worse": 1.0, "b-better": 1.01}
    twins = [
        record(r.task, name, [s.value * factor * (1.1 if s.seed % 2 else 0.9) for s in r.samples])
        for name, factor in found.items()
        for r in measured("batchnorm")
        if r.better == "higher" or factor == 1
    ]
    twins += [r.model_copy(update={"scheme": "b-better"}).sealed() for r in twins if r.better == "lower"]
    same = {"settings": measured("batchnorm")[3].settings}
    twins = [r.model_copy(update=same).sealed() if r.task == "time_to_accuracy" else r for r in twins]
    folder = write(tmp_path / "r", [*measured("batchnorm"), *twins])
    shown = rows(parse(build_site([RecordFolder(folder, "local")], tmp_path / "site")))
    assert [row.split()[0] for row in shown if not row.startswith("batchnorm")] == ["b-better", "a-worse"]


def test_a_task_page_follows_its_own_ranks(tmp_path: Path) -> None:
    sharp = record("top_eigenvalue", "a-sharp", [900] * 6)
    lost = without_value("top_eigenvalue", "b-lost", Outcome.STUCK)
    flat = record("top_eigenvalue", "c-flat", [0.5] * 6)
    folder = write(tmp_path / "r", [*measured("batchnorm"), sharp, lost, flat])
    build_site([RecordFolder(folder, "local")], tmp_path / "site")
    shown = rows(parse(tmp_path / "site" / "task-top_eigenvalue.html"))
    assert [row.split()[0] for row in shown[:4]] == ["c-flat", "batchnorm", "a-sharp", "b-lost"]


HOSTILE = ["\x00\x1b[31m", "../../etc/passwd", 'a" onclick="x', "ö" * 200]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_make_a_sound_board(name: str, tmp_path: Path) -> None:
    odd = record("max_depth", name, facets=(name,), error=name, dataset=name, question=name)
    odd_task = record("a/../b", name, source={"cpu": name, "started": name})
    folder = tmp_path / "r"
    folder.mkdir()
    for one in (odd, odd_task):
        (folder / f"{one.id}.json").write_text(one.model_dump_json())
    index = build_site([RecordFolder(folder, "local")], tmp_path / "site")
    for path in index.parent.glob("*.html"):
        parse(path)
    assert {p.parent for p in index.parent.rglob("*.html")} == {index.parent}
    assert "local" in rows(parse(index))[0]
