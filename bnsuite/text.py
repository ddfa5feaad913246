"""Untrusted text made safe to print: printable, in one line, of limited length."""

import re

OPEN = "…"
_UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)


def printable(text: str) -> str:
    """Replace characters that no page may hold: control characters, direction overrides, lone surrogates."""
    return _UNPRINTABLE.sub("�", text)


def clipped(text: str, most: int) -> str:
    """Put a text into one printable line, cut to `most` characters with … at the end."""
    line = " ".join(printable(text[: 8 * most]).split())
    return line if len(line) <= most else f"{line[: most - 1]}{OPEN}"
