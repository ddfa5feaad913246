"""Figure of a claim: what was measured for it, a row per number with its interval, a panel per unit."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import altair as alt

from bnsuite.board.figures.panels import (
    ACCENT,
    Panel,
    bars,
    drawn,
    layer,
    linear_axis,
    log_axis,
    panel,
    ticks,
)
from bnsuite.claims.judge import Evidence
from bnsuite.records import is_number

_LABELS, _WIDTH = 250, 300  # of row labels and of the plotted area, in CSS pixels


@drawn
def evidence_figures(measured: Sequence[Evidence]) -> Iterator[Panel]:
    """Draw the numbers of each unit in one panel; on a log axis where they are positive and far apart."""
    groups: dict[str, list[Evidence]] = defaultdict(list)
    for one in measured:
        if is_number(one.value):
            groups[one.unit].append(one)
    for unit, rows in groups.items():
        if len(rows) < 2:
            continue
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
            bars(points, x, y),
            layer(points).mark_circle(color=ACCENT, size=52, opacity=1).encode(x=alt.X(**x), y=y),
            width=_WIDTH,
            height=26 * len(points),
        )
        yield Panel(chart, f"Measured, in {unit}", "; ".join(map(str, rows)), unit)


def _axis(unit: str, low: float, high: float) -> dict[str, Any]:
    if low > 0 and high > 4 * low:
        domain = low / 1.3, high * 1.3
        return log_axis("x", unit, domain, ticks(*domain))
    room = 0.1 * (high - low or 1)
    return linear_axis("x", unit, (low - room, high + room), tickCount=5)
