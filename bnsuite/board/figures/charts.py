"""Figures of the ranked tasks and of the index, and the table of all: small panels on shared axes."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import pairwise
from statistics import fmean
from typing import Any

import altair as alt

from bnsuite.board.figures import diagnostics
from bnsuite.board.figures.panels import (
    ACCENT,
    INK,
    MUTED,
    PAPER,
    Panel,
    Points,
    Records,
    bars,
    by_entry,
    column,
    dots,
    drawn,
    grey,
    grouped,
    layer,
    line,
    log_axis,
    others,
    panel,
    powers,
    row_labels,
    seed_dots,
    seed_points,
    ticks,
    trace_rows,
    value_rule,
    words,
)
from bnsuite.board.figures.svg import GUTTER, WIDTH, Figure
from bnsuite.format import number, reading
from bnsuite.records import Outcome, Record, is_number, is_positive

_RATIOS = 110  # width of a panel of ratios: four stand in a row, triangles at the edge with them

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


def _share(title: str) -> alt.Y:
    axis = alt.Axis(values=[0, 0.5, 1], format="%", minExtent=GUTTER, maxExtent=GUTTER)
    return alt.Y("y:Q", title=title, scale=alt.Scale(domain=[0, 1]), axis=axis)


@drawn
def threshold_plots(records: Records, reference: Record | None) -> Iterator[Panel]:
    """stable_lr: share of confirmation seeds that learn, against the rate; the other entries in grey."""
    shares = by_entry(_shares, records)
    if not shares:
        return
    rates = column(shares, "x")
    domain = min(rates) / 1.05, max(rates) * 1.05
    x = log_axis("x", "learning rate", domain, ticks(*domain))
    at = {"x": alt.X(**x), "y": _share("seeds that learn")}
    for label, points in shares.items():
        chart = panel(
            grey(others(shares, label), at, "of"),
            *value_rule(records[label], x),
            line(points, at, strokeWidth=2, point=alt.OverlayMarkDef(color=ACCENT, size=14)),
            height=110,
        )
        stands = words(records[label])
        text = f"Share of the seeds of {label} that learn, against the rate; the median seed stands {stands}."
        caption = f"{label}: {reading(records[label], records[label].unit)}"
        yield Panel(chart, f"{label}: seeds that learn", text, caption, label)


def _shares(record: Record) -> Points:
    by_rate = grouped(trace_rows(record, "confirm", positive=("rate",)), "rate")
    return [
        {"x": rate, "y": fmean(float(row.get("outcome") == Outcome.OK) for row in rows)}
        for rate, rows in sorted(by_rate.items())
    ]


CHECKPOINTS: Mapping[str, tuple[str, ...]] = {
    "at initialization": ("at_init", "value"),
    "at matched loss (ranked)": (),
    "at the scheme’s own best rate": ("at_best_rate", "value"),
}
"""Checkpoint of sharpness → its place in a sample's detail; () is the sample's value."""


@drawn
def sharpness_dots(records: Records, reference: Record | None) -> Iterator[Panel]:
    """top_eigenvalue: every seed, a row per entry, a panel per checkpoint."""
    points = {where: seed_points(records, path, is_positive) for where, path in CHECKPOINTS.items()}
    if not (values := column(points, "x")):
        return
    domain = min(values) / 1.5, max(values) * 1.5
    x = log_axis("x", "λ (1/learning rate)", domain, ticks(*domain))
    for where, own in points.items():
        if own:
            text = f"Largest Hessian eigenvalue {where}: a dot a seed, a bar the median, a row an entry."
            yield Panel(seed_dots(own, [*records], x), f"Sharpness {where}", text, where)


@drawn
def learning_curves(records: Records, reference: Record | None) -> Iterator[Panel]:
    """time_to_accuracy: test accuracy against the step, a line per seed; the reference in grey."""
    curves = by_entry(_curves, records)
    if not curves:
        return
    first, last = min(column(curves, "x")), max(column(curves, "x"))
    x = alt.X(**log_axis("x", "steps", (first, last), [2 * t for t in powers(10, first / 2, last / 2)]))
    y = _share("test accuracy")
    at = {"x": x, "y": y, "detail": "seed:N"}
    behind = _curves(reference) if reference else []
    for label, points in curves.items():
        target = records[label].settings.get("target")
        goal = layer([{"y": target, "text": f"target {target:.0%}"}] if is_number(target) else [])
        chart = panel(
            goal.mark_rule(color=MUTED, strokeDash=[3, 3]).encode(y=y),
            goal.mark_text(color=MUTED, fontSize=10, align="right", dy=9).encode(
                x=alt.XValue(WIDTH), y=y, text="text:N"
            ),
            grey(behind, at, "seed"),
            line(points, at, strokeWidth=1.3, opacity=0.8),
            height=130,
        )
        stands = words(records[label])
        text = f"Test accuracy of {label} against training steps; median to it: {stands}."
        yield Panel(chart, f"{label}: accuracy by step", text, f"{label}: {stands}", label)


def _curves(record: Record) -> Points:
    points: Points = []
    for row in trace_rows(record, "confirm", positive=("every",)):
        curve, every, seed = row.get("accuracy"), row["every"], row.get("seed")
        if isinstance(curve, list):
            steps = [(every * (k + 1), accuracy) for k, accuracy in enumerate(curve)]
            points += [{"x": x, "y": y, "seed": seed} for x, y in steps if is_number(y)]
    return points


@drawn
def ratio_panels(records: Mapping[str, Records], references: Records) -> Iterator[Panel]:
    """Index: per task, how many times better than the reference, with the interval of the median."""
    for task, reference in references.items():
        points = [p for label, record in records[task].items() for p in _ratio(label, record, reference)]
        labels = [point["label"] for point in points]
        factors = [point[key] for point in points for key in ("x", "low", "high") if point[key]]
        domain = min(0.7, *factors) / 1.2, max(1.4, *factors) * 1.2
        ends = [{**p, "low": p["low"] or domain[0], "high": p["high"] or domain[1]} for p in points]
        left = [{"label": p["label"], "x": domain[0]} for p in points if p["low"] is None]
        right = [{"label": p["label"], "x": domain[1]} for p in points if p["high"] is None]
        x = log_axis("x", "times better", domain, ticks(*domain) or powers(2, *domain))
        y = row_labels(labels)
        at = {"x": alt.X(**x), "y": y}
        chart = panel(
            layer([{"x": 1}]).mark_rule(color=MUTED, strokeDash=[2, 2]).encode(x=alt.X(**x)),
            bars(ends, x, y),
            *(
                layer(open_ends).mark_point(color=ACCENT, filled=True, size=40, shape=shape).encode(**at)
                for open_ends, shape in ((left, "triangle-left"), (right, "triangle-right"))
            ),
            dots(points, x, y),
            width=_RATIOS,
            height=26 * len(labels),
        )
        text = f"{reference.question} Factors against batchnorm, right is better: " + "; ".join(
            f"{point['label']} {number(point['x'])}" for point in points
        )
        yield Panel(chart, f"Relative to batchnorm: {reference.question}", text, task)


def _ratio(label: str, record: Record, reference: Record) -> Points:
    """Factor of one entry with its interval; an end that is open is None."""
    if not is_positive(record.value) or not is_positive(reference.value):
        return []
    base, higher = reference.value, reference.better == "higher"
    ends = (record.low, record.high) if higher else (record.high, record.low)
    factors = [
        None if not is_positive(end) else end / base if higher else base / end
        for end in (record.value, *ends)
    ]
    return [{"label": label, **dict(zip(("x", "low", "high"), factors, strict=True))}]


CHARTS: Mapping[str, Callable[[str, Records, Record | None], list[Figure]]] = {
    "max_depth": trainability_maps,
    "stable_lr": threshold_plots,
    "top_eigenvalue": sharpness_dots,
    "time_to_accuracy": learning_curves,
    "gradient_growth": diagnostics.gradient_profiles,
    "first_step": diagnostics.step_profiles,
    "smoothness": diagnostics.smoothness_curves,
    "spectrum": diagnostics.densities,
    "mean_shift": diagnostics.moment_dots,
    "layer_cost": diagnostics.cost_by_shape,
}
"""Task → function that draws its figures; a task that is not listed has none."""
