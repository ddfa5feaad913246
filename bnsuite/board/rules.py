"""The rules page: RULES.md as HTML, without raw HTML and without links that lead out of the board."""

import re
from collections import Counter
from itertools import pairwise
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup

_PLACES = (
    Path(__file__).with_name("RULES.md"),  # in a wheel
    Path(__file__).parents[2] / "leaderboard" / "RULES.md",  # in a checkout
)


def load_rules() -> Markup | None:
    """The rules as HTML; None where the package came without them."""
    found = next((path for path in _PLACES if path.is_file()), None)
    return render_rules(found.read_text(encoding="utf-8")) if found else None


def render_rules(text: str) -> Markup:
    """Markdown (CommonMark with tables) to HTML that is also well-formed XML; raw HTML is shown as text.

    Headings get ids. A link stays where it leads to another site or to a heading of this page; one to a
    file of the repository would be broken here, and its text stays alone.
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
