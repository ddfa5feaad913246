"""Catalogue: every built-in scheme with its definition, in Markdown."""

import inspect
from functools import partial

from bnsuite.schemes.registry import SCHEMES
from bnsuite.schemes.scheme import Scheme

_ROLES = {
    "norm": "N",
    "activation": "φ",
    "branch": "α_l",
    "weight": "W",
    "init": "Initialization",
}


def catalogue() -> str:
    """Every built-in scheme in Markdown: its topology, and the definition of each part that it brings.

    `leaderboard/SCHEMES.md` is this text, and the board shows it.
    """
    text = inspect.cleandoc(Scheme.__doc__ or "")
    blocks = ["# The schemes", text[text.index("With φ") : text.index("Attributes:")].strip()]
    for scheme in SCHEMES.values():
        blocks += [f"## {scheme.name}", f"{scheme.about}."]
        for role, symbol in _ROLES.items():
            part = getattr(scheme, role)
            if callable(part):
                built = part.func if isinstance(part, partial) else part
                given = ", ".join(f"{k}={v}" for k, v in part.keywords.items()) if built is not part else ""
                words = " ".join((inspect.getdoc(built) or "").split())
                blocks.append(f"- {symbol} is `{built.__name__}{f'({given})' * bool(given)}`: {words}")
    return "\n\n".join(blocks) + "\n"
