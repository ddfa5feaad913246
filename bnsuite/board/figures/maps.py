"""Trainability map of max_depth: which depths train at which rates."""

import math
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any

import altair as alt

from bnsuite.board.figures.panels import (
    INK,
    MUTED,
    PAPER,
    Panel,
    Points,
    Records,
    by_entry,
    column,
    drawn,
    grouped,
    layer,
    log_axis,
    panel,
    powers,
    trace_rows,
    value_rule,
    words,
)
from bnsuite.board.figures.svg import GUTTER
from bnsuite.records import Outcome, Record, is_number

BINS = ("below 20 %", "20 to 40 %", "40 to 60 %", "60 to 80 %", "80 % and above")
"""Legend of the map's shades, from low to high mean accuracy."""

_SHADES = alt.Scale(domain=list(range(len(BINS))), range=[f"var(--heat-{k})" for k in range(len(BINS))])


@drawn
def trainability_maps(records: Records, reference: Record | None) -> Iterator[Panel]:
    """max_depth: rate by depth, shaded by mean accuracy; a disc where most seeds pass, else a ring."""
    cells = by_entry(_cells, records)
    if not cells:
        return
    across = min(column(cells, "x")), max(column(cells, "x2"))
    up = min(column(cells, "y")), max(column(cells, "y2"))
    x = log_axis("x", "depth (layers)", across, powers(2, *across))
    tens = powers(10, *up)
    rates = tens if len(tens) > 1 else sorted({*column(cells, "cy")})
    y = log_axis("y", "learning rate", up, rates, extent=GUTTER)
    for label, own in cells.items():
        median = words(records[label])
        text = f"Trainability map of {label}: the median of the deepest trained depth is {median}."
        chart = _map(own, records[label], x, y)
        yield Panel(chart, f"{label}: depth by rate", text, f"{label}: {median}", label)


def _map(cells: Points, record: Record, x: dict[str, Any], y: dict[str, Any]) -> alt.LayerChart:
    at = {"x": alt.X(**{**x, "shorthand": "cx:Q"}), "y": alt.Y(**{**y, "shorthand": "cy:Q"})}
    return panel(
        layer([cell for cell in cells if cell["bin"] is not None])
        .mark_rect(stroke=PAPER, strokeWidth=0.5)
        .encode(
            x=alt.X(**x),
            x2="x2:Q",
            y=alt.Y(**y),
            y2="y2:Q",
            color=alt.Color("bin:N", legend=None, scale=_SHADES),
        ),
        layer([cell for cell in cells if cell["bin"] is None])
        .mark_text(text="×", color=MUTED, fontSize=11)
        .encode(**at),
        *value_rule(record, x),
        layer(_confirmed(record))
        .mark_point(size=40, strokeWidth=1.3, opacity=1)
        .encode(**at, fill=alt.Fill("fill:N", scale=None), stroke=alt.Stroke("stroke:N", scale=None)),
    )


def _edges(values: Iterable[float]) -> dict[float, tuple[float, float]]:
    """Ends of the cell around each value on a log axis, midway between neighbours."""
    ordered = sorted(set(values))
    middles = [math.sqrt(a * b) for a, b in pairwise(ordered)] or [ordered[0] * math.sqrt(2)]
    ends = [ordered[0] ** 2 / middles[0], *middles, ordered[-1] ** 2 / middles[-1]]
    if len(ordered) == 1:
        ends = [ordered[0] / math.sqrt(2), ordered[0] * math.sqrt(2)]
    return {value: (ends[k], ends[k + 1]) for k, value in enumerate(ordered)}


def _cells(record: Record) -> Points:
    """A cell per depth and rate, with the bin of its mean accuracy over seeds; None where all diverged."""
    rows = trace_rows(record, "tune", "confirm", "probe", positive=("depth", "rate"))
    lanes = grouped(rows, "depth", "rate")
    if not lanes:
        return []
    across, up = _edges(depth for depth, _ in lanes), _edges(rate for _, rate in lanes)
    cells = []
    for (depth, rate), own in sorted(lanes.items()):
        found = [row["accuracy"] for row in own if is_number(row.get("accuracy"))]
        mean = math.fsum(found) / len(own)  # a lane that diverged counts as 0
        step = min(max(int(mean * len(BINS)), 0), len(BINS) - 1) if found else None
        (x, x2), (y, y2) = across[depth], up[rate]
        cells.append({"x": x, "x2": x2, "y": y, "y2": y2, "cx": depth, "cy": rate, "bin": step})
    return cells


def _confirmed(record: Record) -> Points:
    rows = trace_rows(record, "confirm", "probe", positive=("depth", "rate"))
    points = []
    for (depth, rate), own in sorted(grouped(rows, "depth", "rate").items()):
        passed = sum(row.get("outcome") == Outcome.OK for row in own)
        fill, stroke = (INK, PAPER) if passed * 2 > len(own) else (PAPER, INK)
        points.append({"cx": depth, "cy": rate, "fill": fill, "stroke": stroke})
    return points
