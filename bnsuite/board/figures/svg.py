"""SVG of an Altair chart for a page: scalable, in the colours of the page, with a title and a text."""

import re
import xml.etree.ElementTree as ET
from typing import NamedTuple

import altair as alt
import vl_convert
from markupsafe import Markup

from bnsuite.format import printable

WIDTH = 250  # of the plotted area, in CSS pixels: a panel fits a phone
GUTTER = 44  # of the vertical axis: panels of one figure line up

_VERSION = ".".join(alt.SCHEMA_VERSION.removeprefix("v").split(".")[:2])
_DROPPED = ("class", "role", "pointer-events", "font-family")

Chart = alt.LayerChart | alt.VConcatChart

QUIET = {
    "background": "transparent",
    "padding": 4,
    "font": "sans-serif",
    "aria": False,
    "view": {"stroke": None},
    "axis": {
        "domainColor": "var(--rule)",
        "gridColor": "var(--hair)",
        "tickColor": "var(--rule)",
        "labelColor": "var(--muted)",
        "titleColor": "var(--muted)",
        "labelFontSize": 11,
        "titleFontSize": 11,
        "titleFontWeight": "normal",
        "titlePadding": 6,
        "labelPadding": 4,
        "tickSize": 3,
        "labelLimit": 120,
        "labelFlush": False,
    },
}
"""Vega configuration of all charts: hairlines, no frame, no bold titles."""


class Figure(NamedTuple):
    """Drawn panel: an SVG element, its caption, and the label of the entry where it is of one alone."""

    svg: Markup
    caption: str
    entry: str = ""


def draw(chart: Chart, name: str, title: str, text: str) -> Markup:
    """Draw a chart as an inline `<svg>`.

    Vega passes `var(--…)` through as a colour, so one drawing serves light and dark pages. Ids, which
    vl-convert counts per process, become `<name>-1`, `<name>-2`, …, equal in every build.

    Args:
        chart: the chart.
        name: start of all ids, unique in its page.
        title: content of `<title>`.
        text: content of `<desc>`.
    """
    spec = {**chart.to_dict(validate=False), "config": QUIET}
    root = ET.fromstring(vl_convert.vegalite_to_svg(spec, vl_version=_VERSION))
    ids: dict[str, str] = {}
    for node in root.iter():
        node.tag = node.tag.rpartition("}")[2]
        for key, value in list(node.attrib.items()):
            if key in _DROPPED or key.startswith("aria-") or (key, value) == ("opacity", "1"):
                del node.attrib[key]
            elif key == "id":
                node.set("id", ids.setdefault(value, f"{name}-{len(ids) + 1}"))
    for node in root.iter():
        for key, value in node.attrib.items():
            node.set(key, re.sub(r"url\(#(.+?)\)", lambda found: f"url(#{ids[found[1]]})", value))
    _prune(root)
    size = root.attrib.pop("width")
    del root.attrib["height"]
    root.attrib = {"role": "img", "style": f"width:{size}px", "viewBox": root.attrib["viewBox"]}
    root.attrib["aria-labelledby"] = f"{name}-title {name}-desc"
    for place, (tag, content) in enumerate((("title", title), ("desc", text))):
        node = ET.Element(tag, {"id": f"{name}-{tag}"})
        node.text = printable(content)
        root.insert(place, node)
    return Markup(ET.tostring(root, encoding="unicode"))  # serialized by ElementTree: escaped


def _prune(node: ET.Element) -> None:
    """Drop what draws nothing: Vega's empty backgrounds, foregrounds and groups."""
    for child in list(node):
        _prune(child)
        hidden = child.get("display") == "none" or child.get("d") == "M0,0h0v0h0Z"
        if hidden or (child.tag == "g" and len(child) == 0):
            node.remove(child)
