"""Text of strangers, made harmless: printable, in one line, clipped."""

import re

OPEN = "…"
_UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)


def printable(text: str) -> str:
    """The text without what no page may hold: control characters, direction overrides, lone surrogates."""
    return _UNPRINTABLE.sub("�", text)


def clipped(text: str, most: int) -> str:
    """The text in one line, printable, and with … where it is longer than that many characters."""
    line = " ".join(printable(text[: 8 * most]).split())
    return line if len(line) <= most else f"{line[: most - 1]}{OPEN}"
