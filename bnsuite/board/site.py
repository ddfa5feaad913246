"""The site: every page from the records, rendered in memory, then put in place at once."""

import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markdown_it import MarkdownIt
from markupsafe import Markup

from bnsuite.board import format as fmt
from bnsuite.board.charts import CHARTS
from bnsuite.board.composite import load_scales
from bnsuite.board.maps import BINS
from bnsuite.board.svg import Figure
from bnsuite.board.tables import Row, Table, make_tables
from bnsuite.board.tracks import Entry, Kept, Origin, Track, age, entry_of, tasks_of, track_of
from bnsuite.records import RANKED, Outcome, Record, RecordError, load_records

MARKER = ".bnsuite-board"
"""A file that tells a board from a folder that is somebody's."""


class Source(NamedTuple):
    """A folder of records, and whose they are."""

    folder: Path
    origin: Origin


@dataclass(frozen=True)
class Board:
    """All that the pages are made from."""

    kept: tuple[Kept, ...]
    paths: Mapping[str, Path]
    tables: tuple[Table, ...]

    @property
    def tasks(self) -> list[str]:
        return tasks_of(self.kept)

    @property
    def schemes(self) -> list[str]:
        return sorted({one.record.scheme for one in self.kept})


def build_site(sources: Sequence[Source], out: Path) -> Path:
    """Build the board of these records in the folder `out`, and return its index page.

    Raises:
        RecordError: a record that cannot be read, two of one id, or a folder that cannot be written or is
            not a board. Whatever stood in `out` before is then still there, whole.
    """
    board = read(sources)
    pages = render(board)
    _check(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as folder:
            fresh = Path(folder) / "site"
            _write(fresh, pages, board.paths)
            if out.exists():
                out.rename(Path(folder) / "old")
            fresh.rename(out)
    except OSError as error:
        raise RecordError(
            f"{out}: cannot write the board ({error.strerror or error}). "
            "Free or unlock the folder, or give another with --out."
        ) from error
    return out / "index.html"


def read(sources: Sequence[Source]) -> Board:
    """The records of all sources, in an order that does not depend on file names."""
    origin_of = {Path(source.folder): source.origin for source in sources}
    found = load_records(origin_of)
    kept, paths = [], {}
    for path, record in found.items():
        folder = next(folder for folder in origin_of if path.is_relative_to(folder))
        kept.append(Kept(record, origin_of[folder]))
        paths[record.id] = path
    kept.sort(key=lambda one: (track_of(one.record), entry_of(one), one.record.task, age(one.record)))
    return Board(tuple(kept), paths, tuple(make_tables(kept, load_scales())))


def render(board: Board) -> dict[str, str]:
    """Every page by file name."""
    env = _environment()
    shared: dict[str, Any] = {
        "ranked": RANKED,
        "tasks": board.tasks,
        "schemes": board.schemes,
        "page_of_task": lambda task: f"task-{fmt.slug(task)}.html",
        "page_of_scheme": lambda scheme: f"scheme-{fmt.slug(scheme)}.html",
        "question_of": {one.record.task: one.record.question for one in board.kept},
        "rules": rules_text() is not None,
        "fmt": fmt,
        "outcomes": list(Outcome),
    }
    pages = {"index.html": env.get_template("index.html").render(shared, tables=board.tables)}
    for task in board.tasks:
        sections = [_task_section(table, task) for table in board.tables if task in table.standards]
        pages[shared["page_of_task"](task)] = env.get_template("task.html").render(
            shared, task=task, sections=sections, bins=BINS, one=sections[0]["standard"]
        )
    for scheme in board.schemes:
        own = [one for one in board.kept if one.record.scheme == scheme]
        rows = [(t, [r for r in t.rows if r.entry.scheme == scheme]) for t in board.tables]
        pages[shared["page_of_scheme"](scheme)] = env.get_template("scheme.html").render(
            shared,
            scheme=scheme,
            sections=[(table, found) for table, found in rows if found],
            kept=sorted(own, key=lambda one: age(one.record), reverse=True),
            facets=sorted({facet for one in own for facet in one.record.facets}),
            track_of=track_of,
        )
    text = rules_text()
    if text is not None:
        html = Markup(MarkdownIt("commonmark", {"html": False}).enable("table").render(text))
        pages["rules.html"] = env.get_template("rules.html").render(shared, body=html)
    return pages


def _task_section(table: Table, task: str) -> dict[str, Any]:
    """What a task's page shows of one track."""
    rows = [row for row in table.rows if task in row.records]
    labels = {label(row.entry): row.records[task] for row in rows}
    name = fmt.slug(f"{table.track.profile}-{table.track.family}-{table.track.dataset}-{task}")
    figures: list[Figure] = []
    if task in CHARTS:
        drawable = {text: record for text, record in labels.items() if record.samples}
        figures = CHARTS[task](name, drawable, table.references.get(task))
    derived = sorted({key for row in rows for key in _scalars(row.records[task])})
    return {
        "table": table,
        "rows": rows,
        "standard": table.standards[task],
        "figures": figures,
        "derived": derived,
    }


def _scalars(record: Record) -> dict[str, Any]:
    return {key: value for key, value in record.derived.items() if not isinstance(value, dict | list)}


def label(entry: Entry) -> str:
    """An entry's name where rows of several devices and origins stand together."""
    extra = [part for part in (entry.device, entry.origin) if part not in ("cpu", "published")]
    return " · ".join([entry.scheme, *extra])


def machines(rows: Iterable[Row], tasks: Sequence[str]) -> list[str]:
    """The machines that the shown records were measured on."""
    found = set()
    for row in rows:
        for task in tasks:
            if task in row.records:
                p = row.records[task].provenance
                found.add(f"{p.gpu or p.cpu}, torch {p.torch}")
    return sorted(found)


def seeds(rows: Iterable[Row], tasks: Sequence[str]) -> str:
    """The numbers of confirmation seeds among the shown records: "6", or "2 to 6"."""
    counts = sorted({row.records[t].n for row in rows for t in tasks if t in row.records} - {0})
    return " to ".join(str(n) for n in dict.fromkeys((counts[0], counts[-1]))) if counts else "0"


def track_id(track: Track) -> str:
    return fmt.slug(f"v{track.suite_version}-{track.profile}-{track.family}-{track.dataset}")


def rules_text() -> str | None:
    """RULES.md of the installed package, or of the checkout."""
    here = Path(__file__).parent
    for path in (here / "RULES.md", here.parents[1] / "leaderboard" / "RULES.md"):
        if path.is_file():
            return path.read_text(encoding="utf-8")
    return None


def _environment() -> Environment:
    def finalize(value: Any) -> Any:
        return fmt.printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value

    env = Environment(
        loader=PackageLoader("bnsuite.board"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=finalize,
    )
    env.globals.update(machines=machines, seeds=seeds, track_id=track_id, label=label, scalars=_scalars)
    return env


def _check(out: Path) -> None:
    """Never replace what is not a board."""
    occupied = out.exists() and not (out.is_dir() and (not any(out.iterdir()) or (out / MARKER).exists()))
    if occupied:
        raise RecordError(
            f"{out}: is not empty and is not a board. Give an empty or a new folder with --out."
        )


def _write(folder: Path, pages: Mapping[str, str], records: Mapping[str, Path]) -> None:
    (folder / "records").mkdir(parents=True)
    for name, text in pages.items():
        (folder / name).write_text(text, encoding="utf-8")
    for identifier, path in records.items():
        shutil.copyfile(path, folder / "records" / f"{identifier}.json")
    shutil.copyfile(Path(__file__).parent / "static" / "style.css", folder / "style.css")
    (folder / MARKER).write_text("Built by bnsuite board; replaced whole by the next build.\n")
