"""Hooks of `mkdocs build`: pages from files of the repository, notebooks as pages, links between them."""

import json
import os
import re
import tomllib
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
PAGES = {
    "leaderboard/RULES.md": "rules.md",
    "leaderboard/SCHEMES.md": "schemes.md",
    "benchmarks/README.md": "benchmarks.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "README.md": "index.md",
}
"""File of the repository → the page that shows it, or stands for it."""

LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)[^)#\s]+")


def on_config(config: MkDocsConfig) -> None:
    """Link to the repository that pyproject.toml names, once it names one."""
    url = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Repository"]
    config.repo_url = None if "example.invalid" in url else url


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Add a page for each file of `PAGES` without one of its own, and for each notebook."""
    for source, page in PAGES.items():
        if files.get_file_from_path(page) is None:
            files.append(File.generated(config, page, abs_src_path=str(ROOT / source)))
    for file in [file for file in files if file.src_uri.endswith(".ipynb")]:
        text = notebook_page(json.loads(file.content_string), Path(file.src_uri).name)
        files.append(File.generated(config, str(Path(file.src_uri).with_suffix(".md")), content=text))


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links to files of the repository into links to their pages."""
    uri = page.file.src_uri
    source = next((s for s, target in PAGES.items() if target == uri and uri != "index.md"), f"docs/{uri}")

    def link(found: re.Match[str]) -> str:
        path = os.path.normpath(os.path.join(os.path.dirname(source), found[0]))
        target = PAGES.get(path, path.removeprefix("docs/"))
        if target.endswith(".ipynb"):  # not the link to download it, which ends in ?download
            target = str(Path(target).with_suffix(".md"))
        return os.path.relpath(target, os.path.dirname(uri) or ".")

    return LINK.sub(link, markdown)


def notebook_page(notebook: dict[str, Any], name: str) -> str:
    """Markdown of an executed notebook: its text, code and outputs."""
    parts = []
    for cell in notebook["cells"]:
        text = "".join(cell["source"])
        parts.append(text if cell["cell_type"] == "markdown" else _fence(text, "python"))
        parts += [_output(output) for output in cell.get("outputs", [])]
    title, *rest = parts
    return "\n\n".join([title, f"[This page as a notebook]({name}?download){{download={name}}}", *rest])


def _output(output: dict[str, Any]) -> str:
    data = output.get("data", {})
    if "image/png" in data:
        label = "".join(data.get("text/plain", "figure"))
        return f"![{label}](data:image/png;base64,{''.join(data['image/png']).strip()})"
    if "text/markdown" in data:
        return "".join(data["text/markdown"])
    if "text/html" in data:
        return f'<div class="output" markdown="0">{"".join(data["text/html"])}</div>'
    return _fence("".join(output.get("text", data.get("text/plain", ""))).rstrip(), "text { .output }")


def _fence(text: str, language: str) -> str:
    return f"```{language}\n{text}\n```"
