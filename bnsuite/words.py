"""Words: names that a user types, found or answered with the nearest; words of strangers, made harmless."""

import difflib
import re
from collections.abc import Mapping
from typing import TypeVar

T = TypeVar("T")


class UnknownNameError(ValueError):
    """A name that is not in its table; the message lists the valid ones and the nearest."""


def lookup(kind: str, name: str, table: Mapping[str, T]) -> T:
    """table[name], or `UnknownNameError`."""
    if name in table:
        return table[name]
    near = difflib.get_close_matches(name[:200], table, n=1, cutoff=0.6)
    hint = f" Did you mean {near[0]}?" if near else ""
    raise UnknownNameError(f"unknown {kind} {clipped(repr(name), 80)}.{hint} There are: {', '.join(table)}.")


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
