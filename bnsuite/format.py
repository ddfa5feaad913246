"""Numbers as text: three significant digits, bounds by their sign, open ends, safe names."""

import hashlib
import math
import re
from collections import Counter

from markupsafe import Markup, escape

from bnsuite.records import Outcome, Record, Sample
from bnsuite.text import OPEN, clipped, printable

__all__ = ["clipped", "printable"]  # templates take all forms from here

DASH = "–"
COUNTED = ("layers", "steps")
"""Units that are counted: whole numbers stay whole."""

SIGNS = {Outcome.CAPPED: "≥ ", Outcome.TIMEOUT: "> ", Outcome.FLOOR: "< "}
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")

_ARXIV = re.compile(r"\barXiv (\d{4}\.\d{4,5})(?![\d.])")
_ADDRESS = re.compile(r"https://[A-Za-z0-9.-]+(/[A-Za-z0-9._~:/?#@!$&()*+,;=%-]*)?")


def cited(text: str) -> Markup:
    """The text, escaped; arXiv numbers lead to arXiv, and what is a plain https address to there."""
    safe = str(escape(printable(text)))
    if _ADDRESS.fullmatch(text):
        return Markup(f'<a href="{safe}" rel="nofollow noreferrer">{safe}</a>')
    return Markup(_ARXIV.sub(r'<a href="https://arxiv.org/abs/\1">arXiv \1</a>', safe))


def number(value: float | None, unit: str = "") -> str:
    """Three significant digits; counted units whole (or a half, in a median of two).

    >>> number(0.35123), number(1234.5), number(28.5, "layers"), number(0.0000123)
    ('0.351', '1,230', '28.5', '1.23×10⁻⁵')
    """
    if value is None:
        return DASH
    if unit in COUNTED:
        return _minus(f"{value:,.0f}" if value == int(value) else f"{value:,.1f}")
    if value == 0:
        return "0"
    rounded = float(f"{value:.2e}")
    exponent = math.floor(math.log10(abs(rounded)))
    if -4 <= exponent < 6:
        return _minus(f"{rounded:,.{max(0, 2 - exponent)}f}")
    return _minus(f"{rounded / 10**exponent:.2f}×10") + str(exponent).translate(_SUPERSCRIPT)


def _minus(text: str) -> str:
    return text.replace("-", "−")


def signed(value: float) -> str:
    """Two decimals with a sign, zero without: +0.83, −0.41, 0.00."""
    text = f"{value:+.2f}"
    return "0.00" if float(text) == 0 else _minus(text)


def reading(one: Record | Sample, unit: str) -> str:
    """A value as it is to be read: 29, ≥ 128, > 400, < 4; where there is none, the outcome's word."""
    if one.value is None:
        return one.outcome.value
    return SIGNS.get(one.outcome, "") + number(one.value, unit)


def interval(low: float | None, high: float | None, unit: str) -> str:
    """[17, 19]; an open end is …; empty where both are."""
    if low is None and high is None:
        return ""
    ends = (OPEN if end is None else number(end, unit) for end in (low, high))
    return f"[{', '.join(ends)}]"


def tally(record: Record) -> str:
    """How many seeds a record rests on, and where they did not end alike, how the others ended.

    6 where all did, or 6, 1 timeout, 2 nonfinite.
    """
    ends = Counter(sample.outcome for sample in record.samples)
    odd = [f"{ends[o]} {o}" for o in Outcome if o in ends and o is not Outcome.OK and len(ends) > 1]
    return ", ".join([str(record.n), *odd])


def fine(value: float, digits: int = 5) -> str:
    """Five significant digits, or as many as are asked for: 1.4741, 3.9523×10⁵."""
    mantissa, _, exponent = f"{value:.{digits}g}".partition("e")
    return _minus(mantissa) + (f"×10{str(int(exponent)).translate(_SUPERSCRIPT)}" if exponent else "")


def within(low: float | None, high: float | None) -> str:
    """Ends that a reading must keep: 1.4501 … 1.5093, ≥ 10, ≤ 0.5, 38; in digits that tell them apart."""
    if low is None or high is None:
        return f"≥ {fine(low)}" if low is not None else f"≤ {fine(high)}" if high is not None else ""
    digits = next((d for d in range(5, 17) if fine(low, d) != fine(high, d)), 17)
    return f"{fine(low, digits)} … {fine(high, digits)}" if low != high else fine(low)


def plain(value: object) -> str:
    """A derived value: a number, a yes or no, a word; empty where it is neither."""
    if value is None:
        return DASH
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return _minus(f"{value:,}")
    if isinstance(value, float):
        return number(value)
    return value if isinstance(value, str) else ""


def slug(name: str) -> str:
    """A name that is safe in a file name, a URL and an id; other names never share it.

    >>> slug("residual-batchnorm"), slug("<b>")
    ('residual-batchnorm', 'b-507ca5a2')
    """
    safe = re.sub(r"[^a-z0-9_]+", "-", name.lower()).strip("-")[:48]
    if safe == name and not re.search("-[0-9a-f]{8}$", safe):
        return safe
    return f"{safe}-{hashlib.sha256(name.encode(errors='replace')).hexdigest()[:8]}".lstrip("-")
