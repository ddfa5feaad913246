"""Catalogue of the built-in schemes with their definitions, in Markdown."""

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
    """List every built-in scheme in Markdown: its topology, and the definition of each of its parts.

    `leaderboard/SCHEMES.md` holds this text, and the board shows it.
    """
    text = inspect.cleandoc(Scheme.__doc__ or "")
    blocks = ["# The schemes", text[text.index("With φ") : text.index("Attributes:")].strip()]
    for scheme in SCHEMES.values():
        blocks += [f"## {scheme.name}", f"{scheme.about}."]
        for role, symbol in _ROLES.items():
            part = getattr(scheme, role)
            if callable(part):
                factory, keywords = (part.func, part.keywords) if isinstance(part, partial) else (part, {})
                arguments = ", ".join(f"{name}={value}" for name, value in keywords.items())
                call = f"{factory.__name__}({arguments})" if arguments else factory.__name__
                definition = " ".join((inspect.getdoc(factory) or "").split())
                blocks.append(f"- {symbol} is `{call}`: {definition}")
    return "\n\n".join(blocks) + "\n"
