"""Parts of every figure: rows that can be drawn, axes, marks, and the panel that holds them."""

import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import wraps
from operator import itemgetter
from statistics import median
from typing import Any, Concatenate, NamedTuple, ParamSpec

import altair as alt

from bnsuite.board.figures.svg import GUTTER, WIDTH, Chart, Figure, draw
from bnsuite.format import interval, printable, reading
from bnsuite.records import Record, Sample, is_positive

Points = list[dict[str, Any]]
Records = Mapping[str, Record]  # by the label of the entry
P = ParamSpec("P")

ACCENT, INK, MUTED, FAINT, PAPER = (f"var(--{name})" for name in ("accent", "ink", "muted", "faint", "paper"))

LABELS = 142  # width of row labels, in CSS pixels
_LETTERS = 24  # what fits there: of a longer label the middle goes, since variants differ at the end
_CUT = f"slice(datum.label, 0, {_LETTERS // 2}) + '…' + slice(datum.label, {1 - _LETTERS // 2})"
_SHORT = f"length(datum.label) > {_LETTERS} ? {_CUT} : datum.label"
_E = "abs(round(log(datum.value) / LN10))"
_DIGITS = [f"slice('⁰¹²³⁴⁵⁶⁷⁸⁹', {digit}, {digit} + 1)" for digit in (f"floor({_E} / 10) % 10", f"{_E} % 10")]
_RAISED = f"(datum.value < 1 ? '10⁻' : '10') + ({_E} > 9 ? {_DIGITS[0]} : '') + {_DIGITS[1]}"
_POWER = f"datum.value >= 9999 || datum.value < 0.00101 ? {_RAISED} : datum.label"


class Panel(NamedTuple):
    """One panel before it is drawn: its marks and its words.

    Attributes:
        title, text: what screen readers say of the SVG.
        caption: the line above it.
        entry: label of the entry that the panel is of, where it is of one alone.
    """

    chart: Chart
    title: str
    text: str
    caption: str
    entry: str = ""


def drawn(panels: Callable[P, Iterator[Panel]]) -> Callable[Concatenate[str, P], list[Figure]]:
    """Turn a generator of panels into a function that draws them; its first argument starts their ids."""

    @wraps(panels)
    def figures(name: str, /, *args: P.args, **kwargs: P.kwargs) -> list[Figure]:
        return [
            Figure(draw(one.chart, f"{name}-{place}", one.title, one.text), one.caption, one.entry)
            for place, one in enumerate(panels(*args, **kwargs))
        ]

    return figures


def by_entry(rows: Callable[[Record], Points], records: Records) -> dict[str, Points]:
    """Rows of every entry that has some, by its label."""
    return {label: points for label, record in records.items() if (points := rows(record))}


def column(points: Mapping[str, Points], key: str) -> list[float]:
    """One field of the rows of all entries."""
    return [point[key] for own in points.values() for point in own]


def others(points: Mapping[str, Points], label: str) -> Points:
    """Rows of all entries but one, with the label of each in the field `of`."""
    return [{**point, "of": other} for other, own in points.items() if other != label for point in own]


def trace_rows(record: Record, *phases: str, positive: Sequence[str] = ()) -> Points:
    """Trace rows of these phases whose fields in `positive` are positive, as a log axis needs them."""
    return [
        dict(row)
        for row in record.trace
        if row.get("phase") in phases and all(is_positive(row.get(field)) for field in positive)
    ]


def grouped(rows: Iterable[dict[str, Any]], *fields: str) -> dict[Any, Points]:
    """Rows by their value of a field, or by the tuple of their values of several."""
    groups: dict[Any, Points] = defaultdict(list)
    key = itemgetter(*fields)
    for row in rows:
        groups[key(row)].append(row)
    return groups


def seed_points(records: Records, path: Sequence[str], drawable: Callable[[object], bool]) -> Points:
    """A row per seed with a number that can be drawn.

    Args:
        records: records by the label of the entry.
        path: keys that lead to the number in a sample's detail; empty: the sample's value.
        drawable: tells whether a number fits the axis.
    """
    samples = [(label, sample) for label, record in records.items() for sample in record.samples]
    values = [(label, detail(sample, path) if path else sample.value) for label, sample in samples]
    return [{"label": label, "x": value} for label, value in values if drawable(value)]


def layer(values: Points) -> alt.Chart:
    """Chart of rows, without marks; as JSON text, since Altair copies a list for each panel that holds it.

    Strings are made printable: a control character in one makes the chart library end the process.
    """
    shown = [{k: printable(v) if isinstance(v, str) else v for k, v in row.items()} for row in values]
    return alt.Chart(alt.InlineData(values=json.dumps(shown), format=alt.DataFormat(type="json")))


def line(points: Points, at: Mapping[str, Any], color: str = ACCENT, **style: Any) -> alt.Chart:
    """Rows as lines at the channels `at`."""
    chart: alt.Chart = layer(points).mark_line(color=color, **style).encode(**at)
    return chart


def grey(points: Points, at: Mapping[str, Any], detail: str) -> alt.Chart:
    """Rows as thin grey lines behind those of the entry, a line per value of the field `detail`."""
    return line(points, {**at, "detail": f"{detail}:N"}, FAINT, strokeWidth=1.2)


def bars(points: Points, x: Mapping[str, Any], y: alt.Y) -> alt.Chart:
    """Intervals of rows, from their field `low` to `high`."""
    at = alt.X(**{**x, "shorthand": "low:Q"})
    rules = layer(points).mark_rule(color=ACCENT, strokeWidth=2, opacity=0.5)
    chart: alt.Chart = rules.encode(x=at, x2="high:Q", y=y)
    return chart


def dots(points: Points, x: Mapping[str, Any], y: alt.Y) -> alt.Chart:
    """Rows as large dots, such as the medians of intervals."""
    marks = layer(points).mark_circle(color=ACCENT, size=52, opacity=1)
    chart: alt.Chart = marks.encode(x=alt.X(**x), y=y)
    return chart


def panel(*layers: alt.Chart, width: int = WIDTH, height: int = 150) -> alt.LayerChart:
    """Return marks drawn over each other in one plotted area, in CSS pixels."""
    return alt.LayerChart(layer=list(layers), width=width, height=height)


def powers(base: float, low: float, high: float) -> list[float]:
    """Return the powers of a base within a range."""
    first, last = (math.log(end, base) for end in (low, high))
    return [float(base**k) for k in range(math.ceil(first - 1e-9), math.floor(last + 1e-9) + 1)]


def ticks(low: float, high: float) -> list[float]:
    """Return at most five powers of ten within a range; of two, or the ends, where they are too few."""
    tens = powers(10, low, high)
    if len(tens) > 1:
        return tens[:: -(-len(tens) // 5)]
    twos = powers(2, low, high)
    return twos if len(twos) > 1 else [low, high]


def span(values: Iterable[float], margin: float) -> tuple[float, float]:
    """Return the ends of a log axis: the extremes of the values, extended by the factor `margin`."""
    found = list(values)
    return max(min(found) / margin, 1e-300), min(max(found) * margin, 1e300)


def log_axis(
    field: str, title: str | None, domain: tuple[float, float], ticks: Sequence[float], extent: float = 0
) -> dict[str, Any]:
    """Return the arguments of a log-scaled channel, for all panels of a figure."""
    room: dict[str, Any] = {"minExtent": extent, "maxExtent": extent} if extent else {}
    return {
        "shorthand": f"{field}:Q",
        "title": title,
        "scale": alt.Scale(type="log", domain=list(domain), nice=False),
        "axis": alt.Axis(values=list(ticks), format="~g", grid=False, **room),
    }


def linear_axis(field: str, title: str, domain: Sequence[float], **axis: Any) -> dict[str, Any]:
    """Return the arguments of a linear channel without grid lines.

    Args:
        field: field of the rows.
        title: title of the axis.
        domain: its ends.
        axis: further arguments of `alt.Axis`.
    """
    scale = alt.Scale(domain=list(domain), nice=False)
    return {"shorthand": f"{field}:Q", "title": title, "scale": scale, "axis": alt.Axis(grid=False, **axis)}


def powers_axis(field: str, title: str | None, values: Iterable[float], margin: float = 2) -> dict[str, Any]:
    """Return the arguments of a vertical log axis over many decades, with ticks such as 10⁶."""
    domain = span(values, margin)
    channel = log_axis(field, title, domain, ticks(*domain), extent=GUTTER)
    channel["axis"].labelExpr = _POWER
    return channel


def row_labels(labels: Sequence[str]) -> alt.Y:
    """Channel with a row per entry, its label on the left."""
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


def detail(sample: Sample, path: Sequence[str]) -> object:
    """What a sample's detail holds at a path of keys; None where it holds nothing there."""
    value: Any = sample.detail
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def seed_dots(
    points: Points, labels: Sequence[str], x: Mapping[str, Any], *below: alt.Chart
) -> alt.LayerChart:
    """A row per entry: a dot per seed, a stroke at their median; `below` is drawn behind them."""
    groups = grouped(points, "label")
    medians = [{"label": label, "x": median(p["x"] for p in own)} for label, own in groups.items()]
    at = {"x": alt.X(**x), "y": row_labels(labels)}
    return panel(
        *below,
        layer(points).mark_circle(color=ACCENT, size=28, opacity=0.5).encode(**at),
        layer(medians).mark_tick(color=INK, thickness=2, size=14, opacity=1).encode(**at),
        width=WIDTH - LABELS + GUTTER,
        height=26 * len(labels),
    )


def value_rule(record: Record, x: dict[str, Any]) -> list[alt.Chart]:
    """Marks of a record's median, a line with its number above the panel, and of its interval, a band."""
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
    """Return the value with its unit and interval."""
    if record.value is None:
        return reading(record, record.unit)
    ends = interval(record.low, record.high, record.unit)
    return f"{reading(record, record.unit)} {record.unit} {ends}".strip()


def value(record: Record) -> str:
    """Return the value with its interval; for pages that name the unit once."""
    return f"{reading(record, record.unit)} {interval(record.low, record.high, record.unit)}".strip()
