"""Figures of the diagnostics of a Hessian's spectrum: its density, and what its top space holds."""

from collections.abc import Iterator, Mapping
from typing import Any

import altair as alt

from bnsuite.board.figures.panels import (
    ACCENT,
    INK,
    MUTED,
    Panel,
    Points,
    Records,
    bars,
    column,
    drawn,
    grouped,
    layer,
    line,
    linear_axis,
    panel,
    powers_axis,
    row_labels,
    seed_dots,
    seed_points,
    trace_rows,
    value,
)
from bnsuite.records import Record, is_number, is_positive
from bnsuite.statistics import median_interval

_FLOOR = 1e-9  # of the highest density: nothing below it is drawn


@drawn
def densities(records: Records, reference: Record | None) -> Iterator[Panel]:
    """spectrum: the density of all eigenvalues in units of λ_C, log-scaled; λ_1 … λ_C as strokes."""
    tops = {label: _top(record) for label, record in records.items()}
    curves = {label: own for label, record in records.items() if (own := _density(record, tops[label]))}
    if not curves:
        return
    floor = min(_floor(points, tops[label]) for label, points in curves.items())
    for point in (point for points in curves.values() for point in points):
        point |= {key: max(point[key], floor) for key in ("y", "low", "high")}
    ends = min(column(curves, "x")), max(column(curves, "x"))
    x = alt.X(**linear_axis("x", "eigenvalue / λ_C", ends, tickCount=6, format="~g"))
    heights = powers_axis("y", "density", [floor, *column(curves, "high")], 1.3)
    y, low = alt.Y(**heights), alt.Y(**{**heights, "shorthand": "low:Q"})
    for label, points in curves.items():
        strokes = [{"x": eigenvalue / tops[label][-2]} for eigenvalue in tops[label][:-1]]
        first = strokes[0]["x"]
        align: Any = "right" if first > 0.8 * ends[1] else "left" if first < 0.15 * ends[1] else "center"
        chart = panel(
            layer([{"x": 1}]).mark_rule(color=MUTED, strokeDash=[2, 2]).encode(x=x),
            layer(points).mark_area(color=ACCENT, opacity=0.25, clip=True).encode(x=x, y=low, y2="high:Q"),
            line(points, {"x": x, "y": y}, strokeWidth=1.5, clip=True),
            layer(strokes)
            .mark_rule(color=INK, strokeWidth=1.2)
            .encode(x=x, y=alt.YValue(-7), y2=alt.Y2Value(1)),
            layer(strokes[:1])
            .mark_text(color=INK, fontSize=11, align=align, text="λ₁")
            .encode(x=x, y=alt.YValue(-15)),
        )
        stands = value(records[label])
        text = f"Density of the Hessian eigenvalues of {label}, in units of λ_C; λ_1 stands at {stands}."
        yield Panel(chart, f"{label}: Hessian spectrum", text, f"{label}: {stands}", label)


def _top(record: Record) -> list[float]:
    """λ_1 … λ_{C+1} of the first seed with a density; empty where λ_C, the unit, is not positive."""
    seeds = [row.get("seed") for row in trace_rows(record, "density")][:1]
    own = [sample.detail.get("eigenvalues") for sample in record.samples if sample.seed in seeds]
    found: Any = own[0] if own else None
    sound = isinstance(found, list) and len(found) > 2 and all(map(is_number, found))
    return found if sound and is_positive(found[-2]) else []


def _density(record: Record, top: list[float]) -> Points:
    """Density in units of λ_C, with the band of its standard error over the quadrature's probes."""
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
    """Lower end of the log-scaled density axis, below the lowest bump of an outlier."""
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
"""Panel of mean_shift → title of its axis, places of its reading and of the random one in the detail."""


def _drawable(value: object) -> bool:
    return is_number(value) and value >= 0


@drawn
def moment_dots(records: Records, reference: Record | None) -> Iterator[Panel]:
    """mean_shift: shares of the top eigenspace and what is left of λ_max, a row per entry, a dot per seed."""
    for what, (title, own, random) in _QUANTITIES.items():
        if points := seed_points(records, own, _drawable):
            by_chance = seed_points(records, random, _drawable) if random else []
            chart = _rows(points, by_chance, [*records], title)
            text = f"{title}, {what}: a dot a seed, a stroke the median, a bar its interval, a row an entry."
            yield Panel(chart, f"{title}, {what}", text, what.capitalize())


def _rows(points: Points, random: Points, labels: list[str], title: str) -> alt.LayerChart:
    domain = 0, max(1, *(point["x"] for point in points))
    x = linear_axis("x", title, domain, values=[0, 0.5, 1], format="~g")
    y = row_labels(labels)
    intervals = []
    for label, rows in grouped(points, "label").items():
        own, ends = sorted(point["x"] for point in rows), median_interval(len(rows))
        intervals.append({"label": label, "low": own[ends.low], "high": own[ends.high]})
    diamonds = layer(random).mark_point(color=MUTED, shape="diamond", size=26, opacity=1)
    return seed_dots(points, labels, x, diamonds.encode(x=alt.X(**x), y=y), bars(intervals, x, y))
