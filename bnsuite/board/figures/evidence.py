"""Figure of a claim: what was measured for it, a row per number with its interval, a panel per unit."""

from collections.abc import Iterator, Sequence
from typing import Any

import altair as alt

from bnsuite.board.figures import panels
from bnsuite.board.figures.panels import Panel, bars, dots, drawn, grouped, panel
from bnsuite.claims.judge import Evidence
from bnsuite.records import is_number

_LABELS, _WIDTH = 250, 300  # of row labels and of the plotted area, in CSS pixels


@drawn
def evidence_figures(measured: Sequence[Evidence]) -> Iterator[Panel]:
    """Draw the numbers of each unit in one panel; on a log axis where they are positive and far apart."""
    rows = [
        {
            "unit": one.unit,
            "words": str(one),
            "label": one.label,
            "x": one.value,
            "low": one.value if one.low is None else one.low,
            "high": one.value if one.high is None else one.high,
        }
        for one in measured
        if is_number(one.value)
    ]
    for unit, points in grouped(rows, "unit").items():
        if len(points) < 2:
            continue
        ends = [point[key] for point in points for key in ("x", "low", "high")]
        x = _axis(unit, min(ends), max(ends))
        y = alt.Y(
            "label:N",
            title=None,
            sort=None,
            axis=alt.Axis(
                grid=True, ticks=False, domain=False, labelLimit=_LABELS, minExtent=_LABELS, maxExtent=_LABELS
            ),
        )
        marks = bars(points, x, y), dots(points, x, y)
        chart = panel(*marks, width=_WIDTH, height=26 * len(points))
        yield Panel(chart, f"Measured, in {unit}", "; ".join(point["words"] for point in points), unit)


def _axis(unit: str, low: float, high: float) -> dict[str, Any]:
    if low > 0 and high > 4 * low:
        domain = low / 1.3, high * 1.3
        return panels.log_axis("x", unit, domain, panels.ticks(*domain))
    room = 0.1 * (high - low or 1)
    return panels.linear_axis("x", unit, (low - room, high + room), tickCount=5)
