"""Charts as SVG: the same bytes each time, safe text, no id shared, no link."""

import re
import xml.etree.ElementTree as ET
from typing import Any

import altair as alt
import pytest
from made_records import MEDIANS, SCRIPT, Record, diagnosed, measured, published, record, sample

from bnsuite.board.figures.charts import CHARTS, ratio_panels
from bnsuite.board.figures.panels import layer, panel, powers, ticks
from bnsuite.board.figures.svg import draw
from bnsuite.records import Outcome
from bnsuite.specs import RANKED


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


DRAWN = [task for task in CHARTS if task not in RANKED]


@pytest.mark.parametrize("task", DRAWN)
def test_a_figure_of_every_diagnostic_that_has_one(task: str) -> None:
    records = {r.scheme: r for scheme in ("none", "batchnorm") for r in diagnosed(scheme) if r.task == task}
    figures = CHARTS[task]("x", records, records["batchnorm"])
    assert len(figures) == (4 if task == "mean_shift" else 2)
    for figure in figures:
        root = ET.fromstring(figure.svg)
        assert len(list(root.iter("path"))) >= 3
        assert len("".join(root.itertext())) > 60, "a title and a description"
    text = "".join(str(figure.svg) for figure in figures)
    assert not re.search("https?:|NaN|Infinity", text)
    every = re.findall(r' id="(.+?)"', text)
    assert len(every) == len(set(every))
    assert figures == CHARTS[task]("x", records, records["batchnorm"])


def test_the_slope_of_the_theory_is_dashed_and_only_where_it_is_known() -> None:
    (known,) = (r for r in diagnosed("batchnorm") if r.task == "gradient_growth")
    unknown = known.model_copy(update={"derived": {"theory": None}})
    one, other = CHARTS["gradient_growth"]("x", {"a": known, "b": unknown}, None)
    assert "stroke-dasharray" in one.svg
    assert "theory 1.46" in one.caption
    assert "stroke-dasharray" not in other.svg


def test_initialization_stands_apart_from_the_steps() -> None:
    (one,) = (r for r in diagnosed() if r.task == "smoothness")
    (figure,) = CHARTS["smoothness"]("x", {"a": one}, None)
    assert {"0", "1", "4", "16"} <= set(re.findall(r">(\d+)<", figure.svg))


@pytest.mark.parametrize("task", CHARTS)
@pytest.mark.parametrize(
    "row",
    [
        {"phase": "layers", "seed": {}, "layer": 1, "hidden": 5e-324, "gradient": 1, "gradient_after": 1e308},
        {"phase": "layers", "seed": 1, "layer": 1e300, "hidden": 1.7e308, "gradient": "x", "weight": 0},
        {"phase": "layers", "layer": [2], "hidden": 10**400},
        {"phase": "checkpoint", "step": -1, "effective_beta": 3, "seed": None},
        {"phase": "checkpoint", "step": 0, "effective_beta": 1e-320, "lambda_max": "sharp"},
        {"phase": "checkpoint", "step": 10**400, "effective_beta": 1},
        {"phase": "density", "seed": 100, "x": 1e308, "y": -1, "error": None},
        {"phase": "density", "seed": 100, "x": "0", "y": 1},
        {"phase": "shape", "shape": 7, "us": 3},
        {"phase": "shape", "shape": "128×²", "us": 3},
        {"phase": "shape", "shape": "1×" + "9" * 99, "us": 1e308},
        {},
        {"phase": "confirm"},
        {"phase": "tune", "depth": 0, "rate": "fast", "accuracy": None},
        {"phase": "confirm", "depth": None, "rate": -1, "accuracy": "high", "every": 0},
        {"phase": "confirm", "every": 2, "accuracy": [None, "x", True], "seed": []},
    ],
)
def test_strange_traces_do_not_break_a_page(task: str, row: dict[str, object]) -> None:
    detail: dict[str, Any] = {"eigenvalues": [3, 2, 1e-300, 1], "means": "high"}
    detail |= {"means_and_variances": {"share": -1, "ratio": 1e308, "random": None}}
    samples = [sample(100 + k, 1, detail=detail if k else {"eigenvalues": 5}) for k in range(6)]
    settings, derived = {"target": "all"}, {"theory": 1e308}
    for trace in ((row,), (row, {**row, "seed": 101})):
        odd = record(task, samples=samples, trace=trace, settings=settings, derived=derived)
        for figure in CHARTS[task]("x", {"odd": odd}, odd):
            ET.fromstring(figure.svg)


@pytest.mark.parametrize("eigenvalues", [[], [1.0], [3, 2, 0, -1], ["a", "b", "c"], [None] * 4, {"a": 1}])
def test_no_density_without_its_unit(eigenvalues: object) -> None:
    (one,) = (r for r in diagnosed() if r.task == "spectrum")
    odd = one.model_copy(update={"samples": (sample(100, 1, detail={"eigenvalues": eigenvalues}),)})
    assert CHARTS["spectrum"]("x", {"odd": odd}, None) == []


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
