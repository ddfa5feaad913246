"""Pages of prose: RULES.md and SCHEMES.md as HTML, without raw HTML or links to files of the repository."""

import re
from collections import Counter
from itertools import pairwise
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup

_PLACES = (Path(__file__).parent, Path(__file__).parents[2] / "leaderboard")
"""Folders of the two files in a wheel and in a checkout."""


def load_prose(name: str) -> Markup | None:
    """Return RULES.md or SCHEMES.md as HTML; None where the package has no such file."""
    found = next((path for place in _PLACES if (path := place / name).is_file()), None)
    return render_prose(found.read_text(encoding="utf-8")) if found else None


def render_prose(text: str) -> Markup:
    """Turn Markdown (CommonMark with tables) into HTML that is also well-formed XML; raw HTML becomes text.

    Headings get ids. Links to other sites and to headings of this page stay; of a link to a file of the
    repository, which would be broken here, only the text stays.
    """
    parser = MarkdownIt("commonmark", {"html": False, "xhtmlOut": True}).enable("table")
    tokens = parser.parse(text)
    used: Counter[str] = Counter()
    for opening, inline in pairwise(tokens):
        if opening.type == "heading_open":
            name = re.sub(r"[^\w\- ]", "", inline.content.lower()).strip().replace(" ", "-") or "section"
            opening.attrSet("id", f"{name}-{used[name]}" if used[name] else name)
            used[name] += 1
    ids = {str(token.attrGet("id")) for token in tokens if token.type == "heading_open"}
    for token in tokens:
        if token.children:
            token.children = _kept_links(token.children, ids)
    html: str = parser.renderer.render(tokens, parser.options, {})
    html = html.replace("<table>", '<div class="scroll" tabindex="0"><table>')
    return Markup(html.replace("</table>", "</table></div>"))


def _kept_links(tokens: list[Token], ids: set[str]) -> list[Token]:
    kept: list[Token] = []
    keeps: list[bool] = []
    for token in tokens:
        if token.type == "link_open":
            target = str(token.attrGet("href"))
            here = target.startswith("#") and target[1:] in ids
            keeps.append(here or target.startswith(("https://", "http://")))
        if token.type == "image" or (token.type in ("link_open", "link_close") and not keeps[-1]):
            kept += [] if token.type != "image" else token.children or []
        else:
            kept.append(token)
        if token.type == "link_close":
            keeps.pop()
    return kept
