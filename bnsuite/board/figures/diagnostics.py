"""Figures of the diagnostics that follow gradients through layers and steps, and of their costs."""

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from statistics import geometric_mean
from typing import Any

import altair as alt

from bnsuite.board.figures.panels import (
    ACCENT,
    FAINT,
    INK,
    MUTED,
    Panel,
    Points,
    Records,
    by_entry,
    column,
    drawn,
    grey,
    grouped,
    layer,
    line,
    linear_axis,
    log_axis,
    others,
    panel,
    powers,
    powers_axis,
    span,
    trace_rows,
    value,
)
from bnsuite.format import number
from bnsuite.records import Record, is_number, is_positive


@drawn
def gradient_profiles(records: Records, reference: Record | None) -> Iterator[Panel]:
    """gradient_growth: ‖∂L/∂h_l‖² by layer, a line per seed; the theory's slope dashed, others in grey."""
    profiles = by_entry(_profile, records)
    if not profiles:
        return
    y = alt.Y(**powers_axis("y", "‖∂L/∂h‖², last layer 1", column(profiles, "y")))
    at = {"x": _layers(column(profiles, "x")), "y": y}
    means = {label: _means(points) for label, points in profiles.items()}
    for label, points in profiles.items():
        theory = records[label].derived.get("theory")
        chart = panel(
            grey(others(means, label), at, "of"),
            line(points, {**at, "detail": "seed:N"}, strokeWidth=1.3, opacity=0.8),
            line(_slope(theory, means[label]), at, INK, strokeWidth=1.5, strokeDash=[5, 3], clip=True),
        )
        growth = value(records[label]) + (f", theory {number(theory)}" if is_positive(theory) else "")
        text = f"Squared gradient by layer of {label}, over that of the last layer, a line a seed: {growth}."
        yield Panel(chart, f"{label}: gradient by layer", text, f"{label}: {growth}", label)


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
    """Line with the theory's slope through the middle layer, since only slopes are to be compared."""
    if not is_positive(theory):
        return []
    middle = line[len(line) // 2]
    logs = [(p["x"], math.log(middle["y"]) + (middle["x"] - p["x"]) * math.log(theory)) for p in line]
    return [{"x": x, "y": math.exp(log)} for x, log in logs if abs(log) < 700]


@drawn
def step_profiles(records: Records, reference: Record | None) -> Iterator[Panel]:
    """first_step: gradients by layer before and after the step; below, relative to the weights."""
    rows = {
        label: trace_rows(record, "layers", positive=("layer", "gradient", "gradient_after"))
        for label, record in records.items()
    }
    gradients = {label: _steps(own, "", "") for label, own in rows.items()}
    relative = {label: _steps(own, "weight", "weight_after") for label, own in rows.items()}
    layers = column(gradients, "x") + column(relative, "x")
    if not layers:
        return
    x = _layers(layers)
    titled = {"‖∇W‖": gradients, "‖∇W‖ / ‖W‖": relative}
    heights = {title: column(profiles, "y") for title, profiles in titled.items()}
    axes = {title: alt.Y(**powers_axis("y", title, own)) for title, own in heights.items() if own}
    for label in records:
        if gradients[label] or relative[label]:
            plots = [_before_after(titled[title][label], x, y) for title, y in axes.items()]
            stands = value(records[label])
            text = f"Weight gradients of {label} by layer before and after one step, and over the weights"
            title = f"{label}: gradients around one step"
            chart = alt.vconcat(*plots, spacing=16)
            yield Panel(chart, title, f"{text}: {stands}.", f"{label}: {stands}", label)


def _steps(rows: Points, before: str, after: str) -> Points:
    """Rows before and after the step per seed and layer; of more than 60 layers, every second, third, …."""
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
    at = {"x": x, "y": y, "detail": "seed:N"}
    lines = [
        line([point for point in points if point["when"] == when], at, color, strokeWidth=1.2, opacity=0.8)
        for when, color in {"before": MUTED, "after": ACCENT}.items()
    ]
    return panel(*lines, height=105)


START = 0.5
"""Place of step 0 on the log axis of steps."""


@drawn
def smoothness_curves(records: Records, reference: Record | None) -> Iterator[Panel]:
    """smoothness: effective β and λ_max, a line per seed, initialization apart; the reference in grey."""
    betas, sharpness = (
        {label: _checkpoints(record, key) for label, record in records.items()}
        for key in ("effective_beta", "lambda_max")
    )
    steps = column(betas, "x") + column(sharpness, "x")
    if not steps:
        return
    domain = START / 1.4, max(*steps, 2) * 1.2
    fours = powers(4, 1, domain[1])
    x = log_axis("x", "step", domain, [START, *fours[:: -(-len(fours) // 6)]])
    x["axis"].labelExpr = f"datum.value < {START * 1.1} ? '0' : datum.label"
    y = powers_axis("y", "1/learning rate", column(betas, "y") + column(sharpness, "y"), 1.5)
    at = {"x": alt.X(**x), "y": alt.Y(**y)}
    behind = _checkpoints(reference, "effective_beta") if reference else []
    for label in records:
        if betas[label] or sharpness[label]:
            chart = panel(
                *_lines(behind, at, FAINT, strokeWidth=1.2),
                *_lines(sharpness[label], at, MUTED, strokeWidth=1.2, strokeDash=[4, 3]),
                *_lines(betas[label], at, ACCENT, strokeWidth=1.3, opacity=0.8),
            )
            stands = value(records[label])
            text = f"Effective β and largest Hessian eigenvalue of {label} in training, a line a seed"
            yield Panel(
                chart, f"{label}: smoothness by step", f"{text}: β {stands}.", f"{label}: {stands}", label
            )


def _checkpoints(record: Record, key: str) -> Points:
    rows = [row for row in trace_rows(record, "checkpoint", positive=(key,)) if is_number(row.get("step"))]
    return [
        {"x": row["step"] or START, "y": row[key], "seed": str(row.get("seed"))}
        for row in rows
        if row["step"] == 0 or row["step"] >= 1
    ]


def _lines(points: Points, at: Mapping[str, Any], color: str, **style: Any) -> list[alt.Chart]:
    """A line per seed from step 1 on; initialization, which no line leads to, as dots."""
    start = layer([point for point in points if point["x"] == START])
    return [
        line([point for point in points if point["x"] > START], {**at, "detail": "seed:N"}, color, **style),
        start.mark_point(
            color=color, size=16, strokeWidth=1.3, filled="strokeDash" not in style, opacity=1
        ).encode(**at),
    ]


@drawn
def cost_by_shape(records: Records, reference: Record | None) -> Iterator[Panel]:
    """layer_cost: microseconds of a pass by the number of channels; the other entries in grey."""
    costs = by_entry(_costs, records)
    if not costs:
        return
    across = span(column(costs, "x"), 1.1)
    x = alt.X(**log_axis("x", "channels", across, powers(2, *across)))
    at = {"x": x, "y": alt.Y(**powers_axis("y", "µs", column(costs, "y"), 1.3))}
    for label, points in costs.items():
        chart = panel(
            grey(others(costs, label), at, "of"),
            line(points, at, strokeWidth=2, point=alt.OverlayMarkDef(color=ACCENT, size=18)),
            height=110,
        )
        stands = value(records[label])
        text = f"Time of one forward and backward pass of {label} by channels; the largest takes {stands}."
        yield Panel(chart, f"{label}: cost by shape", text, f"{label}: {stands}", label)


def _costs(record: Record) -> Points:
    points = []
    for row in trace_rows(record, "shape", positive=("us",)):
        _, _, rest = str(row.get("shape")).partition("×")
        channels = rest.partition("×")[0]
        if channels.isdecimal() and int(channels[:9]) > 0:
            points.append({"x": int(channels[:9]), "y": row["us"]})
    return points


def _layers(numbers: list[float]) -> alt.X:
    return alt.X(**linear_axis("x", "layer", (1, max(*numbers, 2)), tickCount=5, format="d"))


def _means(points: Points) -> Points:
    """Geometric mean of the lines of all seeds."""
    groups = grouped(points, "x")
    return [{"x": x, "y": geometric_mean(p["y"] for p in own)} for x, own in sorted(groups.items())]
