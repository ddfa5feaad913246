"""The board in a headless Chromium: quiet, self-contained, and within its width."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"]

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on the path"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield browser
        browser.close()


def test_every_page_in_every_width_and_theme(browser: Any, site: Path) -> None:
    page = browser.new_page()
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    for path in sorted(site.glob("*.html")):
        page.goto(path.as_uri())
        for summary in page.query_selector_all("summary"):
            summary.click()
        for theme in ("light", "dark"):
            page.emulate_media(color_scheme=theme)
            for width in (1280, 500, 390):
                page.set_viewport_size({"width": width, "height": 800})
                assert page.evaluate("document.documentElement.scrollWidth") <= width, (path.name, theme)
    page.close()
    assert said == []
    assert [url for url in asked if not url.startswith(("file://", "data:"))] == []


def test_the_keyboard_reaches_the_content_first(browser: Any, site: Path) -> None:
    page = browser.new_page()
    page.goto((site / "index.html").as_uri())
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    page.close()


def test_facets_filter_by_keyboard_without_a_script(browser: Any, site: Path) -> None:
    page = browser.new_page()
    page.goto((site / "index.html").as_uri())
    track = page.locator("section.track").first

    def shown() -> list[str]:
        return [
            row.locator("th a").inner_text() for row in track.locator("tbody tr").all() if row.is_visible()
        ]

    def press(box: str) -> None:
        page.focus(box)
        page.keyboard.press("Space")
        assert page.is_checked(box)

    every, ranks = shown(), track.locator("td.rank").all_text_contents()
    tally = track.locator(".filtered")
    assert len(every) > 6
    assert not tally.is_visible()
    press("#with-scale-invariant")
    assert set(shown()) == {"batchnorm", "residual-batchnorm"}
    assert tally.is_visible()
    press("#with-residual")
    assert shown() == ["residual-batchnorm"], "filters combine as an and"
    assert track.locator("td.rank").all_text_contents() == ranks
    page.keyboard.press("Enter")
    assert page.url.endswith("index.html"), "Enter sends nothing"
    page.click("button[type=reset]")
    assert shown() == every
    page.click(".filters summary")
    press("#without-batch-independent")
    assert len(every) - len(shown()) == 2
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast(browser: Any, site: Path, scheme: str) -> None:
    """WCAG 2.2 AA: 4.5 : 1 for each colour of text on each ground."""
    page = browser.new_page(color_scheme=scheme)
    page.goto((site / "index.html").as_uri())
    names = ("ink", "muted", "accent", "badge", "paper", "raised")
    style = "getComputedStyle(document.documentElement)"
    colours = {n: page.evaluate(f"{style}.getPropertyValue('--{n}').trim()") for n in names}
    page.close()

    def luminance(colour: str) -> float:
        channels = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for text in names[:4]:
        for ground in names[4:]:
            low, high = sorted([luminance(colours[text]), luminance(colours[ground])])
            assert (high + 0.05) / (low + 0.05) >= 4.5, (text, ground)
