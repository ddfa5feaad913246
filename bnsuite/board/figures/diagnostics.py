"""The figures of the diagnostics that follow gradients through layers and steps, and of their costs."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from statistics import geometric_mean
from typing import Any

import altair as alt

from bnsuite.board.figures.panels import (
    ACCENT,
    FAINT,
    INK,
    MUTED,
    Points,
    layer,
    log_axis,
    panel,
    powers,
    powers_axis,
    span,
    trace_rows,
    value,
)
from bnsuite.board.figures.svg import Figure, draw
from bnsuite.format import number
from bnsuite.records import Record, is_number, is_positive

Records = Mapping[str, Record]  # by the label of the entry


def gradient_profiles(name: str, records: Records, reference: Record | None) -> list[Figure]:
    """gradient_growth: ‖∂L/∂h_l‖² by layer, a line a seed; the theory's slope dashed, the others in grey."""
    found = {label: points for label, record in records.items() if (points := _profile(record))}
    if not found:
        return []
    x = _layers(found.values())
    y = alt.Y(**powers_axis("y", "‖∂L/∂h‖², last layer 1", _column(found.values(), "y")))
    means = {label: _by_x(points, geometric_mean) for label, points in found.items()}
    figures = []
    for place, (label, points) in enumerate(found.items()):
        theory = records[label].derived.get("theory")
        others = [{**p, "of": other} for other, line in means.items() if other != label for p in line]
        chart = panel(
            layer(others).mark_line(color=FAINT, strokeWidth=1.2).encode(x=x, y=y, detail="of:N"),
            layer(points)
            .mark_line(color=ACCENT, strokeWidth=1.3, opacity=0.8)
            .encode(x=x, y=y, detail="seed:N"),
            layer(_slope(theory, means[label]))
            .mark_line(color=INK, strokeWidth=1.5, strokeDash=[5, 3], clip=True)
            .encode(x=x, y=y),
        )
        growth = f"{value(records[label])}" + (f", theory {number(theory)}" if is_positive(theory) else "")
        text = f"Squared gradient by layer of {label}, over that of the last layer, a line a seed: {growth}."
        svg = draw(chart, f"{name}-{place}", f"{label}: gradient by layer", text)
        figures.append(Figure(svg, f"{label}: {growth}", label))
    return figures


def _profile(record: Record) -> Points:
    seeds: dict[str, dict[float, float]] = defaultdict(dict)
    for row in trace_rows(record, "layers", positive=("layer", "hidden")):
        seeds[str(row.get("seed"))][row["layer"]] = row["hidden"]
    points = []
    for seed, layers in seeds.items():
        last = layers[max(layers)]
        scaled = [{"x": x, "y": hidden / last, "seed": seed} for x, hidden in sorted(layers.items())]
        points += [point for point in scaled if is_positive(point["y"])]
    return points


def _slope(theory: object, line: Points) -> Points:
    """The line of the theory's rate through the middle layer: slopes are to be compared, not heights."""
    if not is_positive(theory):
        return []
    middle = line[len(line) // 2]
    logs = [(p["x"], math.log(middle["y"]) + (middle["x"] - p["x"]) * math.log(theory)) for p in line]
    return [{"x": x, "y": math.exp(log)} for x, log in logs if abs(log) < 700]


def step_profiles(name: str, records: Records, reference: Record | None) -> list[Figure]:
    """first_step: gradients by layer before and after the step; below, relative to the weights."""
    rows = {
        label: trace_rows(record, "layers", positive=("layer", "gradient", "gradient_after"))
        for label, record in records.items()
    }
    heights = {"‖∇W‖": ("", ""), "‖∇W‖ / ‖W‖": ("weight", "weight_after")}
    found = {
        title: {label: points for label, own in rows.items() if (points := _steps(own, *weights))}
        for title, weights in heights.items()
    }
    labels = [label for label in records if any(label in drawn for drawn in found.values())]
    if not labels:
        return []
    x = _layers(points for drawn in found.values() for points in drawn.values())
    figures = []
    axes = {
        title: alt.Y(**powers_axis("y", title, _column(drawn.values(), "y")))
        for title, drawn in found.items()
        if drawn
    }
    for place, label in enumerate(labels):
        plots = [_before_after(found[title].get(label, []), x, y) for title, y in axes.items()]
        chart = alt.vconcat(*plots, spacing=16)
        stands = value(records[label])
        text = (
            f"Weight gradients of {label} by layer before and after one step, and over the weights: {stands}."
        )
        svg = draw(chart, f"{name}-{place}", f"{label}: gradients around one step", text)
        figures.append(Figure(svg, f"{label}: {stands}", label))
    return figures


def _steps(rows: Points, before: str, after: str) -> Points:
    """A line a seed before the step and after it, of very many layers every second or third."""
    layers = sorted({row["layer"] for row in rows}, reverse=True)
    drawn = set(layers[:: -(-len(layers) // 60)]) if layers else set()
    points = []
    for row in (row for row in rows if row["layer"] in drawn):
        for when, gradient, weight in (("before", "gradient", before), ("after", "gradient_after", after)):
            scale = row.get(weight) if weight else 1
            height = row[gradient] / scale if is_positive(scale) else None
            if is_positive(height):
                points.append({"when": when, "x": row["layer"], "y": height, "seed": str(row.get("seed"))})
    return points


def _before_after(points: Points, x: alt.X, y: alt.Y) -> alt.LayerChart:
    marks = []
    for when, colour in {"before": MUTED, "after": ACCENT}.items():
        lines = layer([point for point in points if point["when"] == when])
        drawn = lines.mark_line(color=colour, strokeWidth=1.2, opacity=0.8)
        marks.append(drawn.encode(x=x, y=y, detail="seed:N"))
    return panel(*marks, height=105)


START = 0.5
"""Where step 0 stands on the log axis of steps."""


def smoothness_curves(name: str, records: Records, reference: Record | None) -> list[Figure]:
    """smoothness: effective β and λ_max, a line a seed, initialization apart; the reference in grey."""
    keys = ("effective_beta", "lambda_max")
    found = {
        label: both
        for label, record in records.items()
        if any(both := tuple(_checkpoints(record, key) for key in keys))
    }
    if not found:
        return []
    drawn = [points for both in found.values() for points in both]
    last = max(_column(drawn, "x"))
    domain = START / 1.4, max(last, 2) * 1.2
    fours = powers(4, 1, domain[1])
    x = log_axis("x", "step", domain, [START, *fours[:: -(-len(fours) // 6)]])
    x["axis"].labelExpr = f"datum.value < {START * 1.1} ? '0' : datum.label"
    at = {"x": alt.X(**x), "y": alt.Y(**powers_axis("y", "1/learning rate", _column(drawn, "y"), 1.5))}
    behind = _checkpoints(reference, "effective_beta") if reference else []
    figures = []
    for place, (label, (betas, sharpness)) in enumerate(found.items()):
        chart = panel(
            *_lines(behind, at, color=FAINT, strokeWidth=1.2),
            *_lines(sharpness, at, color=MUTED, strokeWidth=1.2, strokeDash=[4, 3]),
            *_lines(betas, at, color=ACCENT, strokeWidth=1.3, opacity=0.8),
        )
        stands = value(records[label])
        text = (
            f"Effective β and largest Hessian eigenvalue of {label} in training, a line a seed: β {stands}."
        )
        svg = draw(chart, f"{name}-{place}", f"{label}: smoothness by step", text)
        figures.append(Figure(svg, f"{label}: {stands}", label))
    return figures


def _checkpoints(record: Record, key: str) -> Points:
    rows = [row for row in trace_rows(record, "checkpoint", positive=(key,)) if is_number(row.get("step"))]
    return [
        {"x": row["step"] or START, "y": row[key], "seed": str(row.get("seed"))}
        for row in rows
        if row["step"] == 0 or row["step"] >= 1
    ]


def _lines(points: Points, at: dict[str, Any], color: str, **style: Any) -> list[alt.Chart]:
    """A line a seed from step 1 on; initialization, which no line leads to, as dots."""
    return [
        layer([p for p in points if p["x"] > START])
        .mark_line(color=color, **style)
        .encode(**at, detail="seed:N"),
        layer([p for p in points if p["x"] == START])
        .mark_point(color=color, size=16, strokeWidth=1.3, filled="strokeDash" not in style, opacity=1)
        .encode(**at),
    ]


def cost_by_shape(name: str, records: Records, reference: Record | None) -> list[Figure]:
    """layer_cost: microseconds of a pass by the number of channels; the other entries in grey."""
    found = {label: points for label, record in records.items() if (points := _costs(record))}
    if not found:
        return []
    across = span(_column(found.values(), "x"), 1.1)
    x = alt.X(**log_axis("x", "channels", across, powers(2, *across)))
    y = alt.Y(**powers_axis("y", "µs", _column(found.values(), "y"), 1.3))
    figures = []
    for place, (label, points) in enumerate(found.items()):
        others = [{**p, "of": other} for other, line in found.items() if other != label for p in line]
        chart = panel(
            layer(others).mark_line(color=FAINT, strokeWidth=1.2).encode(x=x, y=y, detail="of:N"),
            layer(points)
            .mark_line(color=ACCENT, strokeWidth=2, point=alt.OverlayMarkDef(color=ACCENT, size=18))
            .encode(x=x, y=y),
            height=110,
        )
        stands = value(records[label])
        text = f"Time of one forward and backward pass of {label} by channels; the largest takes {stands}."
        svg = draw(chart, f"{name}-{place}", f"{label}: cost by shape", text)
        figures.append(Figure(svg, f"{label}: {stands}", label))
    return figures


def _costs(record: Record) -> Points:
    points = []
    for row in trace_rows(record, "shape", positive=("us",)):
        _, _, rest = str(row.get("shape")).partition("×")
        channels = rest.partition("×")[0]
        if channels.isdecimal() and int(channels[:9]) > 0:
            points.append({"x": int(channels[:9]), "y": row["us"]})
    return points


def _layers(found: Iterable[Points]) -> alt.X:
    last = max(_column(found, "x"))
    scale = alt.Scale(domain=[1, max(last, 2)], nice=False)
    return alt.X("x:Q", title="layer", scale=scale, axis=alt.Axis(grid=False, tickCount=5, format="d"))


def _column(found: Iterable[Points], key: str) -> list[float]:
    return [point[key] for points in found for point in points]


def _by_x(points: Points, middle: Any) -> Points:
    groups: dict[float, list[float]] = defaultdict(list)
    for point in points:
        groups[point["x"]].append(point["y"])
    return [{"x": x, "y": middle(group)} for x, group in sorted(groups.items())]
