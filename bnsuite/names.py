"""Lookup of names that a user types, with a hint at the nearest valid name."""

import difflib
from collections.abc import Mapping
from typing import TypeVar

from bnsuite.text import clipped

T = TypeVar("T")


class UnknownNameError(ValueError):
    """A name that is not in its table; the message lists the valid ones and the nearest."""


def lookup(kind: str, name: str, table: Mapping[str, T]) -> T:
    """Look a name up in a table.

    Args:
        kind: kind of name, for the message, such as "scheme".
        name: name to look up.
        table: valid names.

    Raises:
        UnknownNameError: the table does not have the name.
    """
    if name in table:
        return table[name]
    near = difflib.get_close_matches(name[:200], table, n=1, cutoff=0.6)
    hint = f" Did you mean {near[0]}?" if near else ""
    raise UnknownNameError(f"unknown {kind} {clipped(repr(name), 80)}.{hint} There are: {', '.join(table)}.")
