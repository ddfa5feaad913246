"""Figures of the diagnostics: gradients through layers and steps, costs, and a Hessian's spectrum."""

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
    bars,
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
    row_labels,
    seed_dots,
    seed_points,
    span,
    trace_rows,
    value,
)
from bnsuite.format import number
from bnsuite.records import Record, is_number, is_positive
from bnsuite.statistics import median_interval


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
