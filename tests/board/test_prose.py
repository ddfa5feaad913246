"""The rules page: Markdown in, safe HTML out."""

import xml.etree.ElementTree as ET

from bnsuite.board.prose import render_prose

TEXT = """# The rules

See [statistics](#what-it-means), [the code](../bnsuite/board), [a paper](https://example.org/x?a=1&b=2),
and [nothing](#nowhere). <script>alert(1)</script> ![a picture](picture.png)

## What it means?

| a | b |
|---|--:|
| 1 | 2 |

## What it means?
"""


def test_rules() -> None:
    page = ET.fromstring(f"<main>{render_prose(TEXT)}</main>")
    ids = [node.get("id") for node in page if node.get("id")]
    assert ids == ["the-rules", "what-it-means", "what-it-means-1"]
    assert [a.get("href") for a in page.iter("a")] == ["#what-it-means", "https://example.org/x?a=1&b=2"]
    words = "".join(page.itertext())
    assert "the code" in words
    assert "a picture" in words
    assert "<script>" in words
    assert page.find("script") is None
    assert page.find("div/table/tbody/tr/td") is not None
