"""Numbers as text: three significant digits, signs of bounds, intervals with open ends, safe names."""

import hashlib
import math
import re
from collections import Counter

from markupsafe import Markup, escape

from bnsuite.records import Outcome, Record, Sample
from bnsuite.text import OPEN, clipped, printable

__all__ = ["clipped", "printable"]  # for templates, which take all their filters from this module

DASH = "–"
"""Text in place of a missing value."""

COUNTED = ("layers", "steps")
"""Units of counts, which print as whole numbers."""

SIGNS = {Outcome.CAPPED: "≥ ", Outcome.TIMEOUT: "> ", Outcome.FLOOR: "< "}
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")

_ARXIV = re.compile(r"\barXiv (\d{4}\.\d{4,5})(?![\d.])")
_ADDRESS = re.compile(r"https://[A-Za-z0-9.-]+(/[A-Za-z0-9._~:/?#@!$&()*+,;=%-]*)?")


def cited(text: str) -> Markup:
    """Escape a text; link arXiv numbers in it, or the whole text if it is an https address."""
    safe = str(escape(printable(text)))
    if _ADDRESS.fullmatch(text):
        return Markup(f'<a href="{safe}" rel="nofollow noreferrer">{safe}</a>')
    return Markup(_ARXIV.sub(r'<a href="https://arxiv.org/abs/\1">arXiv \1</a>', safe))


def number(value: float | None, unit: str = "") -> str:
    """Number with three significant digits; counts are whole numbers, or halves in a median of two.

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
    """Number with two decimals and a sign, zero without sign: +0.83, −0.41, 0.00."""
    text = f"{value:+.2f}"
    return "0.00" if float(text) == 0 else _minus(text)


def reading(measured: Record | Sample, unit: str) -> str:
    """Value with the sign of its outcome: 29, ≥ 128, > 400, < 4; without a value, the outcome's name."""
    if measured.value is None:
        return measured.outcome.value
    return SIGNS.get(measured.outcome, "") + number(measured.value, unit)


def interval(low: float | None, high: float | None, unit: str) -> str:
    """Interval such as [17, 19], with … for an open end; empty if both ends are open.

    Args:
        low: lower end; None: open.
        high: upper end; None: open.
        unit: unit of the ends.
    """
    if low is None and high is None:
        return ""
    ends = (OPEN if end is None else number(end, unit) for end in (low, high))
    return f"[{', '.join(ends)}]"


def tally(record: Record) -> str:
    """Number of seeds, and how many did not end ok if outcomes differ: 6, or 6, 1 timeout, 2 nonfinite."""
    ends = Counter(sample.outcome for sample in record.samples)
    odd = [f"{ends[o]} {o}" for o in Outcome if o in ends and o is not Outcome.OK and len(ends) > 1]
    return ", ".join([str(record.n), *odd])


def fine(value: float, digits: int = 5) -> str:
    """Number with five significant digits, or with `digits`: 1.4741, 3.9523×10⁵."""
    mantissa, _, exponent = f"{value:.{digits}g}".partition("e")
    return _minus(mantissa) + (f"×10{str(int(exponent)).translate(_SUPERSCRIPT)}" if exponent else "")


def within(low: float | None, high: float | None) -> str:
    """Range for a reading: 1.4501 … 1.5093, ≥ 10, ≤ 0.5 or 38; with enough digits to tell its ends apart."""
    if low is None or high is None:
        return f"≥ {fine(low)}" if low is not None else f"≤ {fine(high)}" if high is not None else ""
    digits = next((d for d in range(5, 17) if fine(low, d) != fine(high, d)), 17)
    return f"{fine(low, digits)} … {fine(high, digits)}" if low != high else fine(low)


def plain(value: object) -> str:
    """Derived value as text: a number, yes or no, or a word; empty for anything else."""
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
    """Form of a name that is safe in a file name, a URL and an id; different names have different forms.

    >>> slug("residual-batchnorm"), slug("<b>")
    ('residual-batchnorm', 'b-507ca5a2')
    """
    safe = re.sub(r"[^a-z0-9_]+", "-", name.lower()).strip("-")[:48]
    if safe == name and not re.search("-[0-9a-f]{8}$", safe):
        return safe
    return f"{safe}-{hashlib.sha256(name.encode(errors='replace')).hexdigest()[:8]}".lstrip("-")
