"""Charts as SVG: the same bytes each time, safe text, no id shared, no link."""

import re
import xml.etree.ElementTree as ET

import altair as alt
import pytest
from board_records import MEDIANS, SCRIPT, Record, measured, published, record, sample

from bnsuite.board.charts import CHARTS, ratio_panels
from bnsuite.board.panels import layer, panel, powers, ticks
from bnsuite.board.svg import draw
from bnsuite.records import RANKED, Outcome


def clipped(label: str) -> alt.LayerChart:
    points = [{"x": 1, "y": label}, {"x": 2, "y": "b"}]
    mark = layer(points).mark_point(clip=True, color="var(--accent)")
    return panel(mark.encode(x="x:Q", y="y:N"), mark.encode(x="x:Q", y="y:N"))


def test_same_bytes_again_and_ids_of_its_own() -> None:
    first, again = (draw(clipped("a"), "chart", "title", "text") for _ in range(2))
    assert first == again
    ids = re.findall(r' id="(.+?)"', first)
    assert {"chart-1", "chart-title", "chart-desc"} <= set(ids)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r"url\(#(.+?)\)", first)) <= set(ids)


def test_has_a_text_scales_and_takes_the_page_colours() -> None:
    root = ET.fromstring(draw(clipped("a"), "chart", "A title", "What it shows."))
    assert [(node.tag, node.text) for node in root[:2]] == [("title", "A title"), ("desc", "What it shows.")]
    assert root.get("role") == "img"
    assert root.get("viewBox")
    assert root.get("width") is root.get("height") is None
    assert "var(--accent)" in ET.tostring(root, encoding="unicode")


def test_labels_are_escaped_and_printable() -> None:
    svg = draw(clipped(SCRIPT), "chart", SCRIPT, f"{SCRIPT}\x00")
    assert "<script" not in svg
    assert "&lt;script&gt;" in svg
    ET.fromstring(svg)


def by_task(records: list[Record]) -> dict[str, dict[str, Record]]:
    return {task: {r.scheme: r for r in records if r.task == task} for task in RANKED}


@pytest.mark.parametrize("task", RANKED)
def test_a_figure_of_every_ranked_task(task: str) -> None:
    records = by_task(published())[task]
    figures = CHARTS[task]("x", records, records["batchnorm"])
    assert len(figures) == (3 if task == "top_eigenvalue" else len(MEDIANS))
    assert not re.search("https?:|NaN|Infinity", "".join(str(figure.svg) for figure in figures))
    every = re.findall(r' id="(.+?)"', "".join(str(figure.svg) for figure in figures))
    assert len(every) == len(set(every))


def test_the_map_shows_dead_cells_and_confirmed_ones() -> None:
    figure = CHARTS["max_depth"]("x", by_task(measured("none"))["max_depth"], None)[0]
    assert figure.svg.count(">×<") > 2
    for shade in range(5):
        assert f"var(--heat-{shade})" in figure.svg
    assert ">17<" in figure.svg


@pytest.mark.parametrize("task", RANKED)
@pytest.mark.parametrize(
    "row",
    [
        {},
        {"phase": "confirm"},
        {"phase": "tune", "depth": 0, "rate": "fast", "accuracy": None},
        {"phase": "confirm", "depth": None, "rate": -1, "accuracy": "high", "every": 0},
        {"phase": "confirm", "every": 2, "accuracy": [None, "x", True], "seed": []},
    ],
)
def test_strange_traces_do_not_break_a_page(task: str, row: dict[str, object]) -> None:
    odd = record(task, trace=(row,), settings={"target": "all"})
    for figure in CHARTS[task]("x", {"odd": odd}, odd):
        ET.fromstring(figure.svg)


def test_ratios_point_to_the_better_side() -> None:
    records = by_task(published())
    figures = ratio_panels("x", records, {task: records[task]["batchnorm"] for task in RANKED})
    texts = [re.findall(r"<desc.*?>(.*?)</desc>", str(figure.svg))[0] for figure in figures]
    for text in texts:
        factor = dict(re.findall(r"([\w-]+) ([\d.]+)(?:;|$)", text.split("better: ")[1]))
        assert float(factor["none"]) < float(factor["batchnorm"]) == 1 < float(factor["residual-batchnorm"])


def test_an_open_interval_runs_to_the_edge_of_its_panel() -> None:
    late = [
        sample(100 + k, 400 if k == 0 else 40, Outcome.TIMEOUT if k == 0 else Outcome.OK) for k in range(6)
    ]
    entries = {
        "batchnorm": record("time_to_accuracy", samples=[40] * 6),
        "open": record("time_to_accuracy", samples=late),
    }
    (figure,) = ratio_panels("x", {"time_to_accuracy": entries}, {"time_to_accuracy": entries["batchnorm"]})
    root = ET.fromstring(figure.svg)
    bars = [node.get("x2") for node in root.iter("line") if node.get("stroke-width") == "2"]
    assert float(bars[1] or 0) != 0, "slower without end: open to the left"
    assert float(bars[0] or 0) == 0
    triangles = [
        node
        for node in root.iter("path")
        if "L" in (node.get("d") or "") and node.get("fill") not in ("none", None)
    ]
    assert len(triangles) == 1


def test_ticks() -> None:
    assert powers(2, 3, 33) == [4, 8, 16, 32]
    assert ticks(0.02, 30) == pytest.approx([0.1, 1, 10])
    assert ticks(0.7, 5) == [1, 2, 4]
    assert len(ticks(1e-6, 1e6)) <= 7
