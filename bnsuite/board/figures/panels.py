"""What the figures are built from: trace rows that can be drawn, log axes, the mark of a value."""

import json
import math
from collections.abc import Iterable, Sequence
from typing import Any

import altair as alt

from bnsuite.board.figures.svg import GUTTER, WIDTH
from bnsuite.format import interval, printable, reading
from bnsuite.records import Record, is_positive

Points = list[dict[str, Any]]

ACCENT, INK, MUTED, FAINT, PAPER = (f"var(--{name})" for name in ("accent", "ink", "muted", "faint", "paper"))

LABELS = 142  # width of row labels, in CSS pixels
_LETTERS = 24  # what fits there: of a longer label the middle goes, since variants differ at the end
_CUT = f"slice(datum.label, 0, {_LETTERS // 2}) + '…' + slice(datum.label, {1 - _LETTERS // 2})"
_SHORT = f"length(datum.label) > {_LETTERS} ? {_CUT} : datum.label"
_E = "abs(round(log(datum.value) / LN10))"
_DIGITS = [f"slice('⁰¹²³⁴⁵⁶⁷⁸⁹', {digit}, {digit} + 1)" for digit in (f"floor({_E} / 10) % 10", f"{_E} % 10")]
_RAISED = f"(datum.value < 1 ? '10⁻' : '10') + ({_E} > 9 ? {_DIGITS[0]} : '') + {_DIGITS[1]}"
_POWER = f"datum.value >= 9999 || datum.value < 0.00101 ? {_RAISED} : datum.label"


def trace_rows(record: Record, *phases: str, positive: Sequence[str] = ()) -> Points:
    """Trace rows of these phases whose fields in `positive` are; others have no place on a log axis."""
    return [
        dict(row)
        for row in record.trace
        if row.get("phase") in phases and all(is_positive(row.get(field)) for field in positive)
    ]


def layer(values: Points) -> alt.Chart:
    """Rows to be marked; as text, since Altair copies a list anew with each panel that holds it.

    A control character in a string of a trace would end the process: the chart library aborts.
    """
    shown = [{k: printable(v) if isinstance(v, str) else v for k, v in row.items()} for row in values]
    return alt.Chart(alt.InlineData(values=json.dumps(shown), format=alt.DataFormat(type="json")))


def panel(*layers: alt.Chart, width: int = WIDTH, height: int = 150) -> alt.LayerChart:
    return alt.LayerChart(layer=list(layers), width=width, height=height)


def powers(base: float, low: float, high: float) -> list[float]:
    """Powers of a base within a range."""
    first, last = (math.log(end, base) for end in (low, high))
    return [float(base**k) for k in range(math.ceil(first - 1e-9), math.floor(last + 1e-9) + 1)]


def ticks(low: float, high: float) -> list[float]:
    """Powers of ten within a range, thinned to five; of two, or the ends, where these are too few."""
    tens = powers(10, low, high)
    if len(tens) > 1:
        return tens[:: -(-len(tens) // 5)]
    twos = powers(2, low, high)
    return twos if len(twos) > 1 else [low, high]


def span(values: Iterable[float], margin: float) -> tuple[float, float]:
    """Ends of a log axis that holds the values, a factor beyond the first and the last."""
    found = list(values)
    return max(min(found) / margin, 1e-300), min(max(found) * margin, 1e300)


def log_axis(
    field: str, title: str | None, domain: tuple[float, float], ticks: Sequence[float], extent: float = 0
) -> dict[str, Any]:
    """Arguments of a log-scaled channel; the same for every panel of a figure."""
    room: dict[str, Any] = {"minExtent": extent, "maxExtent": extent} if extent else {}
    return {
        "shorthand": f"{field}:Q",
        "title": title,
        "scale": alt.Scale(type="log", domain=list(domain), nice=False),
        "axis": alt.Axis(values=list(ticks), format="~g", grid=False, **room),
    }


def powers_axis(field: str, title: str | None, values: Iterable[float], margin: float = 2) -> dict[str, Any]:
    """A vertical log axis over many decades, its ticks as 10⁶: in line with the axes below and above."""
    domain = span(values, margin)
    channel = log_axis(field, title, domain, ticks(*domain), extent=GUTTER)
    channel["axis"].labelExpr = _POWER
    return channel


def row_labels(labels: Sequence[str]) -> alt.Y:
    """A row an entry, its label on the left."""
    axis = alt.Axis(
        grid=True,
        ticks=False,
        domain=False,
        labelExpr=_SHORT,
        labelFontSize=10,
        labelLimit=LABELS,
        minExtent=LABELS,
        maxExtent=LABELS,
    )
    return alt.Y("label:N", title=None, sort=None, scale=alt.Scale(domain=list(labels)), axis=axis)


def value_rule(record: Record, x: dict[str, Any]) -> list[alt.Chart]:
    """The record's median as a line with its number above the panel, its interval as a band behind it."""
    if not is_positive(record.value):
        return []
    low, high = x["scale"].domain
    here = [{"x": record.value, "text": reading(record, record.unit)}]
    band = [{"x": record.low, "x2": record.high}] if record.low and record.high else []
    fraction = math.log(record.value / low) / math.log(high / low)
    align: Any = "left" if fraction < 0.2 else "right" if fraction > 0.8 else "center"
    at = alt.X(**x)
    return [
        layer(band).mark_rect(color=ACCENT, opacity=0.18, clip=True).encode(x=at, x2="x2:Q"),
        layer(here).mark_rule(color=PAPER, strokeWidth=4, opacity=0.7, clip=True).encode(x=at),
        layer(here).mark_rule(color=ACCENT, strokeWidth=1.5, clip=True).encode(x=at),
        layer(here)
        .mark_text(color=INK, fontSize=12, fontWeight=600, align=align)
        .encode(x=at, y=alt.YValue(-8), text="text:N"),
    ]


def words(record: Record) -> str:
    """The value with its unit and interval, for captions and descriptions."""
    if record.value is None:
        return reading(record, record.unit)
    ends = interval(record.low, record.high, record.unit)
    return f"{reading(record, record.unit)} {record.unit} {ends}".strip()


def value(record: Record) -> str:
    """The value with its interval, where its unit stands at the head of the page."""
    return f"{reading(record, record.unit)} {interval(record.low, record.high, record.unit)}".strip()
