"""The figures of the diagnostics of a Hessian's spectrum: its density, and what its top space holds."""

from collections.abc import Mapping
from statistics import median
from typing import Any

import altair as alt

from bnsuite.board.figures.panels import (
    ACCENT,
    INK,
    LABELS,
    MUTED,
    Points,
    layer,
    panel,
    powers_axis,
    row_labels,
    trace_rows,
    value,
)
from bnsuite.board.figures.svg import GUTTER, WIDTH, Figure, draw
from bnsuite.records import Record, Sample, is_number, is_positive
from bnsuite.statistics import median_interval

Records = Mapping[str, Record]  # by the label of the entry

_FLOOR = 1e-9  # of the highest density: nothing below it is drawn


def densities(name: str, records: Records, reference: Record | None) -> list[Figure]:
    """spectrum: the density of all eigenvalues in units of λ_C, log-scaled; λ_1 … λ_C as strokes."""
    tops = {label: _top(record) for label, record in records.items()}
    found = {label: points for label, record in records.items() if (points := _density(record, tops[label]))}
    if not found:
        return []
    floor = min(_floor(points, tops[label]) for label, points in found.items())
    every = [point for points in found.values() for point in points]
    for point in every:
        point |= {key: max(point[key], floor) for key in ("y", "low", "high")}
    right = max(point["x"] for point in every)
    domain = alt.Scale(domain=[min(point["x"] for point in every), right], nice=False)
    x = alt.X(
        "x:Q", title="eigenvalue / λ_C", scale=domain, axis=alt.Axis(grid=False, tickCount=6, format="~g")
    )
    heights = powers_axis("y", "density", [floor, *(point["high"] for point in every)], 1.3)
    y, low = alt.Y(**heights), alt.Y(**{**heights, "shorthand": "low:Q"})
    figures = []
    for place, (label, points) in enumerate(found.items()):
        strokes = [{"x": one / tops[label][-2]} for one in tops[label][:-1]]
        first = strokes[0]["x"]
        align: Any = "right" if first > 0.8 * right else "left" if first < 0.15 * right else "center"
        chart = panel(
            layer([{"x": 1}]).mark_rule(color=MUTED, strokeDash=[2, 2]).encode(x=x),
            layer(points).mark_area(color=ACCENT, opacity=0.25, clip=True).encode(x=x, y=low, y2="high:Q"),
            layer(points).mark_line(color=ACCENT, strokeWidth=1.5, clip=True).encode(x=x, y=y),
            layer(strokes)
            .mark_rule(color=INK, strokeWidth=1.2)
            .encode(x=x, y=alt.YValue(-7), y2=alt.Y2Value(1)),
            layer(strokes[:1])
            .mark_text(color=INK, fontSize=11, align=align, text="λ₁")
            .encode(x=x, y=alt.YValue(-15)),
        )
        stands = value(records[label])
        text = f"Density of the Hessian eigenvalues of {label}, in units of λ_C; λ_1 stands at {stands}."
        svg = draw(chart, f"{name}-{place}", f"{label}: Hessian spectrum", text)
        figures.append(Figure(svg, f"{label}: {stands}", label))
    return figures


def _top(record: Record) -> list[float]:
    """λ_1 … λ_{C+1} of the first seed with a density; none where λ_C, the unit, is not positive."""
    seeds = [row.get("seed") for row in trace_rows(record, "density")][:1]
    own = [sample.detail.get("eigenvalues") for sample in record.samples if sample.seed in seeds]
    found: Any = own[0] if own else None
    sound = isinstance(found, list) and len(found) > 2 and all(map(is_number, found))
    return found if sound and is_positive(found[-2]) else []


def _density(record: Record, top: list[float]) -> Points:
    """The density in units of λ_C, with the band of its standard error over the quadrature's probes."""
    rows = trace_rows(record, "density")
    points = []
    for row in rows if top else []:
        x, y, error = (row.get(key) for key in ("x", "y", "error"))
        if row.get("seed") == rows[0].get("seed") and is_number(x) and is_number(y):
            spread = error if is_number(error) else 0
            point = {"x": x / top[-2], "y": y * top[-2]}
            point |= {"low": (y - spread) * top[-2], "high": (y + spread) * top[-2]}
            points += [point] if all(map(is_number, point.values())) else []
    highest = max((point["high"] for point in points), default=0)
    return sorted(points, key=lambda point: point["x"]) if len(points) > 1 and highest > 0 else []


def _floor(points: Points, top: list[float]) -> float:
    """Below the lowest bump of an outlier, from which on a log-scaled density is drawn."""
    bumps = [min(points, key=lambda p: abs(float(p["x"]) - one / top[-2])) for one in top]
    lowest = min(float(point["y"]) for point in bumps)
    highest = max(float(point["high"]) for point in points)
    return min(max(lowest / 3, highest * _FLOOR), highest / 100)


_QUANTITIES: Mapping[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    "in the span of the means": ("share of the top space", ("means", "share"), ("means", "random")),
    "with the variances": (
        "share of the top space",
        ("means_and_variances", "share"),
        ("means_and_variances", "random"),
    ),
    "left without the means": ("λ_max left / λ_max", ("means", "ratio"), ()),
    "left without either": ("λ_max left / λ_max", ("means_and_variances", "ratio"), ()),
}
"""Panels of mean_shift: their axes, and where a seed's reading and the random one lie in its detail."""


def moment_dots(name: str, records: Records, reference: Record | None) -> list[Figure]:
    """mean_shift: shares of the top eigenspace and what is left of λ_max, a row an entry, a dot a seed."""
    figures = []
    for place, (what, (title, own, random)) in enumerate(_QUANTITIES.items()):
        points = _readings(records, own)
        if points:
            chart = _rows(points, _readings(records, random), list(records), title)
            text = f"{title}, {what}: a dot a seed, a stroke the median, a bar its interval, a row an entry."
            figures.append(
                Figure(draw(chart, f"{name}-{place}", f"{title}, {what}", text), what.capitalize())
            )
    return figures


def _rows(points: Points, random: Points, labels: list[str], title: str) -> alt.LayerChart:
    scale = alt.Scale(domain=[0, max(1, *(point["x"] for point in points))], nice=False)
    axis = alt.Axis(values=[0, 0.5, 1], grid=False, format="~g")
    x, y = alt.X("x:Q", title=title, scale=scale, axis=axis), row_labels(labels)
    summary = []
    for label in labels:
        own = sorted(point["x"] for point in points if point["label"] == label)
        if own:
            ends = median_interval(len(own))
            summary.append({"label": label, "x": median(own), "low": own[ends.low], "high": own[ends.high]})
    low = alt.X("low:Q", title=title, scale=scale, axis=axis)
    return panel(
        layer(random).mark_point(color=MUTED, shape="diamond", size=26, opacity=1).encode(x=x, y=y),
        layer(summary).mark_rule(color=ACCENT, strokeWidth=2, opacity=0.5).encode(x=low, x2="high:Q", y=y),
        layer(points).mark_circle(color=ACCENT, size=28, opacity=0.5).encode(x=x, y=y),
        layer(summary).mark_tick(color=INK, thickness=2, size=14, opacity=1).encode(x=x, y=y),
        width=WIDTH - LABELS + GUTTER,
        height=26 * len(labels),
    )


def _readings(records: Records, path: tuple[str, ...]) -> Points:
    found = [
        (label, _at(sample, path)) for label, record in records.items() for sample in record.samples if path
    ]
    return [{"label": label, "x": one} for label, one in found if is_number(one) and one >= 0]


def _at(sample: Sample, path: tuple[str, ...]) -> object:
    found: Any = sample.detail
    for key in path:
        found = found.get(key) if isinstance(found, dict) else None
    return found
