"""Names that a user types: found, or answered with the valid ones and the nearest."""

import difflib
from collections.abc import Mapping
from typing import TypeVar

T = TypeVar("T")


class UnknownNameError(ValueError):
    """A name that is not in its table; the message lists the valid ones and the nearest."""


def lookup(kind: str, name: str, table: Mapping[str, T]) -> T:
    """table[name], or `UnknownNameError`."""
    if name in table:
        return table[name]
    near = difflib.get_close_matches(name, table, n=1, cutoff=0.6)
    hint = f" Did you mean {near[0]}?" if near else ""
    raise UnknownNameError(f"unknown {kind} {name!r}.{hint} There are: {', '.join(table)}.")
