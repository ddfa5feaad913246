"""The figure of a claim: what was measured for it, a dot and an interval a row, a panel a unit."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import altair as alt

from bnsuite.board.figures.panels import ACCENT, layer, log_axis, panel, ticks
from bnsuite.board.figures.svg import Figure, draw
from bnsuite.claims.judge import Evidence
from bnsuite.records import is_number

_LABELS, _WIDTH = 250, 300  # of row labels and of the plotted area, in CSS pixels


def evidence_figures(name: str, measured: Sequence[Evidence]) -> list[Figure]:
    """Numbers of one unit stand in one panel; on a log axis where they are positive and far apart."""
    groups: dict[str, list[Evidence]] = defaultdict(list)
    for one in measured:
        if is_number(one.value):
            groups[one.unit].append(one)
    figures = []
    for place, (unit, rows) in enumerate(group for group in groups.items() if len(group[1]) > 1):
        points = [
            {
                "label": one.label,
                "x": one.value,
                "low": one.value if one.low is None else one.low,
                "high": one.value if one.high is None else one.high,
            }
            for one in rows
        ]
        ends = [float(point[key]) for point in points for key in ("x", "low", "high")]  # type: ignore[arg-type]
        x = _axis(unit, min(ends), max(ends))
        y = alt.Y(
            "label:N",
            title=None,
            sort=None,
            axis=alt.Axis(
                grid=True, ticks=False, domain=False, labelLimit=_LABELS, minExtent=_LABELS, maxExtent=_LABELS
            ),
        )
        chart = panel(
            layer(points)
            .mark_rule(color=ACCENT, strokeWidth=2, opacity=0.5)
            .encode(x=alt.X(**{**x, "shorthand": "low:Q"}), x2="high:Q", y=y),
            layer(points).mark_circle(color=ACCENT, size=52, opacity=1).encode(x=alt.X(**x), y=y),
            width=_WIDTH,
            height=26 * len(points),
        )
        text = "; ".join(map(str, rows))
        figures.append(Figure(draw(chart, f"{name}-{place}", f"Measured, in {unit}", text), unit))
    return figures


def _axis(unit: str, low: float, high: float) -> dict[str, Any]:
    if low > 0 and high > 4 * low:
        domain = low / 1.3, high * 1.3
        return log_axis("x", unit, domain, ticks(*domain))
    room = 0.1 * (high - low or 1)
    return {
        "shorthand": "x:Q",
        "title": unit,
        "scale": alt.Scale(domain=[low - room, high + room], nice=False),
        "axis": alt.Axis(grid=False, tickCount=5),
    }
