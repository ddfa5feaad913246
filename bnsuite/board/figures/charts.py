"""The figures of the board, a function a figure: small panels of one entry each, on shared axes."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean, median
from typing import Any

import altair as alt

from bnsuite.board.figures.diagnostics import (
    cost_by_shape,
    gradient_profiles,
    smoothness_curves,
    step_profiles,
)
from bnsuite.board.figures.maps import trainability_maps
from bnsuite.board.figures.panels import (
    ACCENT,
    FAINT,
    INK,
    LABELS,
    MUTED,
    Points,
    layer,
    log_axis,
    panel,
    powers,
    row_labels,
    ticks,
    trace_rows,
    value_rule,
    words,
)
from bnsuite.board.figures.spectra import densities, moment_dots
from bnsuite.board.figures.svg import GUTTER, WIDTH, Figure, draw
from bnsuite.format import number, reading
from bnsuite.records import Outcome, Record, is_number, is_positive

Records = Mapping[str, Record]  # by the label of the entry

_RATIOS = 110  # width of a panel of ratios: four stand in a row, triangles at the edge with them
_SHARE = alt.Axis(values=[0, 0.5, 1], format="%", minExtent=GUTTER, maxExtent=GUTTER)


def threshold_plots(name: str, records: Records, reference: Record | None) -> list[Figure]:
    """stable_lr: share of confirmation seeds that learn, against the rate; the other entries in grey."""
    found = {label: points for label, record in records.items() if (points := _shares(record))}
    every = [point["x"] for points in found.values() for point in points]
    if not every:
        return []
    domain = min(every) / 1.05, max(every) * 1.05
    x = log_axis("x", "learning rate", domain, ticks(*domain))
    y = alt.Y("y:Q", title="seeds that learn", scale=alt.Scale(domain=[0, 1]), axis=_SHARE)
    lines = [{**point, "line": label} for label, points in found.items() for point in points]
    figures = []
    for place, (label, points) in enumerate(found.items()):
        others = layer([point for point in lines if point["line"] != label])
        chart = panel(
            others.mark_line(color=FAINT, strokeWidth=1.2).encode(x=alt.X(**x), y=y, detail="line:N"),
            *value_rule(records[label], x),
            layer(points)
            .mark_line(color=ACCENT, strokeWidth=2, point=alt.OverlayMarkDef(color=ACCENT, size=14))
            .encode(x=alt.X(**x), y=y),
            height=110,
        )
        stands = words(records[label])
        text = f"Share of the seeds of {label} that learn, against the rate; the median seed stands {stands}."
        svg = draw(chart, f"{name}-{place}", f"{label}: seeds that learn", text)
        figures.append(Figure(svg, f"{label}: {reading(records[label], records[label].unit)}", label))
    return figures


def _shares(record: Record) -> Points:
    learned: dict[float, list[bool]] = defaultdict(list)
    for row in trace_rows(record, "confirm", positive=("rate",)):
        learned[row["rate"]].append(row.get("outcome") == Outcome.OK)
    return [{"x": rate, "y": fmean(map(float, found))} for rate, found in sorted(learned.items())]


CHECKPOINTS: Mapping[str, tuple[str, ...]] = {
    "at initialization": ("at_init", "value"),
    "at matched loss (ranked)": (),
    "at the scheme’s own best rate": ("at_best_rate", "value"),
}
"""Where sharpness is measured, and where in a sample's detail it lies."""


def sharpness_dots(name: str, records: Records, reference: Record | None) -> list[Figure]:
    """top_eigenvalue: every seed, a row an entry, a panel a checkpoint."""
    points = {where: _eigenvalues(records, path) for where, path in CHECKPOINTS.items()}
    every = [point["x"] for found in points.values() for point in found]
    if not every:
        return []
    domain = min(every) / 1.5, max(every) * 1.5
    x = log_axis("x", "λ (1/learning rate)", domain, ticks(*domain))
    figures = []
    for place, (where, found) in enumerate(points.items()):
        if found:
            text = f"Largest Hessian eigenvalue {where}: a dot a seed, a bar the median, a row an entry."
            svg = draw(_dots(found, list(records), x), f"{name}-{place}", f"Sharpness {where}", text)
            figures.append(Figure(svg, where))
    return figures


def _dots(points: Points, labels: Sequence[str], x: dict[str, Any]) -> alt.LayerChart:
    groups: dict[str, list[float]] = defaultdict(list)
    for point in points:
        groups[point["label"]].append(point["x"])
    medians = [{"label": label, "x": median(group)} for label, group in groups.items()]
    at = {"x": alt.X(**x), "y": row_labels(labels)}
    return panel(
        layer(points).mark_circle(color=ACCENT, size=28, opacity=0.5).encode(**at),
        layer(medians).mark_tick(color=INK, thickness=2, size=14, opacity=1).encode(**at),
        width=WIDTH - LABELS + GUTTER,
        height=26 * len(labels),
    )


def _eigenvalues(records: Records, path: Sequence[str]) -> Points:
    found = []
    for label, record in records.items():
        for sample in record.samples:
            value: Any = sample.detail if path else sample.value
            for key in path:
                value = value.get(key) if isinstance(value, dict) else None
            if is_positive(value):
                found.append({"label": label, "x": value})
    return found


def learning_curves(name: str, records: Records, reference: Record | None) -> list[Figure]:
    """time_to_accuracy: test accuracy against the step, a line a confirmation seed; the reference in grey."""
    found = {label: points for label, record in records.items() if (points := _curves(record))}
    every = [point["x"] for points in found.values() for point in points]
    if not every:
        return []
    domain = min(every), max(every)
    x = alt.X(**log_axis("x", "steps", domain, [2 * t for t in powers(10, min(every) / 2, max(every) / 2)]))
    y = alt.Y("y:Q", title="test accuracy", scale=alt.Scale(domain=[0, 1]), axis=_SHARE)
    lines = {"x": x, "y": y, "detail": "seed:N"}
    behind = layer(_curves(reference) if reference else [])
    figures = []
    for place, (label, points) in enumerate(found.items()):
        target = records[label].settings.get("target")
        goal = layer([{"y": target, "text": f"target {target:.0%}"}] if is_number(target) else [])
        chart = panel(
            goal.mark_rule(color=MUTED, strokeDash=[3, 3]).encode(y=y),
            goal.mark_text(color=MUTED, fontSize=10, align="right", dy=9).encode(
                x=alt.XValue(WIDTH), y=y, text="text:N"
            ),
            behind.mark_line(color=FAINT, strokeWidth=1.2).encode(**lines),
            layer(points).mark_line(color=ACCENT, strokeWidth=1.3, opacity=0.8).encode(**lines),
            height=130,
        )
        text = f"Test accuracy of {label} against training steps; median to it: {words(records[label])}."
        svg = draw(chart, f"{name}-{place}", f"{label}: accuracy by step", text)
        figures.append(Figure(svg, f"{label}: {words(records[label])}", label))
    return figures


def _curves(record: Record) -> Points:
    points: Points = []
    for row in trace_rows(record, "confirm", positive=("every",)):
        curve, every, seed = row.get("accuracy"), row["every"], row.get("seed")
        if isinstance(curve, list):
            steps = [(every * (k + 1), accuracy) for k, accuracy in enumerate(curve)]
            points += [{"x": x, "y": y, "seed": seed} for x, y in steps if is_number(y)]
    return points


def ratio_panels(name: str, records: Mapping[str, Records], references: Records) -> list[Figure]:
    """The index: per task, how many times better than the reference, with the interval of the median."""
    figures = []
    for place, (task, reference) in enumerate(references.items()):
        points = [p for label, record in records[task].items() for p in _ratio(label, record, reference)]
        labels = [point["label"] for point in points]
        ends = [point[key] for point in points for key in ("x", "low", "high") if point[key]] + [0.7, 1.4]
        domain = min(ends) / 1.2, max(ends) * 1.2
        bars = [{**p, "low": p["low"] or domain[0], "high": p["high"] or domain[1]} for p in points]
        left = [{"label": p["label"], "x": domain[0]} for p in points if p["low"] is None]
        right = [{"label": p["label"], "x": domain[1]} for p in points if p["high"] is None]
        x = log_axis("x", "times better", domain, ticks(*domain) or powers(2, *domain))
        at = {"x": alt.X(**x), "y": row_labels(labels)}
        chart = panel(
            layer([{"x": 1}]).mark_rule(color=MUTED, strokeDash=[2, 2]).encode(x=alt.X(**x)),
            layer(bars)
            .mark_rule(color=ACCENT, strokeWidth=2, opacity=0.5)
            .encode(x=alt.X(**{**x, "shorthand": "low:Q"}), x2="high:Q", y=at["y"]),
            *(
                layer(open_ends).mark_point(color=ACCENT, filled=True, size=40, shape=shape).encode(**at)
                for open_ends, shape in ((left, "triangle-left"), (right, "triangle-right"))
            ),
            layer(points).mark_circle(color=ACCENT, size=52, opacity=1).encode(**at),
            width=_RATIOS,
            height=26 * len(labels),
        )
        text = f"{reference.question} Factors against batchnorm, right is better: " + "; ".join(
            f"{point['label']} {number(point['x'])}" for point in points
        )
        svg = draw(chart, f"{name}-{place}", f"Relative to batchnorm: {reference.question}", text)
        figures.append(Figure(svg, task))
    return figures


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
    "gradient_growth": gradient_profiles,
    "first_step": step_profiles,
    "smoothness": smoothness_curves,
    "spectrum": densities,
    "mean_shift": moment_dots,
    "layer_cost": cost_by_shape,
}
"""The figures of each task's page; a task without an entry has its table alone."""
