"""Pages of the board as text: tables, figures and provenance in the templates."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from inspect import getmembers, isfunction
from pathlib import Path

import jinja2
from altair.utils.schemapi import debug_mode
from markupsafe import Markup

from bnsuite import format
from bnsuite.board import labels
from bnsuite.board.figures.charts import CHARTS, ratio_panels
from bnsuite.board.figures.evidence import evidence_figures
from bnsuite.board.figures.svg import Figure
from bnsuite.board.labels import SETUP, anchor, companions, in_order, short_labels
from bnsuite.board.notes import NOTES, REMARKS
from bnsuite.claims.judge import Judged
from bnsuite.ranking.calibrations import Calibration
from bnsuite.ranking.composite import SCALED
from bnsuite.ranking.facets import caveats, described, known
from bnsuite.ranking.rank import seconds_ranks
from bnsuite.ranking.tables import Row, Table, by_task
from bnsuite.ranking.tiers import TIERS
from bnsuite.ranking.tracks import ORIGINS, REFERENCE, Kept, Origin, age, tasks_of, track_of
from bnsuite.records import Outcome, Record
from bnsuite.records.facets import FACETS
from bnsuite.records.manifest import Manifest
from bnsuite.specs import RANKED
from bnsuite.statistics import ALPHA, MIN_SEEDS


@dataclass(frozen=True)
class Board:
    """Everything that the pages show."""

    kept: Sequence[Kept]
    tables: Sequence[Table]
    prose: Mapping[str, Markup | None]
    calibrations: Mapping[str, Sequence[Calibration]]
    judged: Sequence[Judged]
    manifests: Mapping[str, Manifest]
    left_out: Sequence[str]


@debug_mode(False)  # charts of ours need no validation, which is most of a build's time
def render(board: Board) -> dict[str, str]:
    """Render all pages: file name → text."""
    environment = _environment(board)
    pages = {"index.html": _index(environment, board)}
    for task in tasks_of(board.kept):
        pages[f"task-{format.slug(task)}.html"] = _task(environment, board, task)
    for scheme in sorted({one.record.scheme for one in board.kept}):
        pages[f"scheme-{format.slug(scheme)}.html"] = _scheme(environment, board, scheme)
    if board.judged:
        judged = [(one, evidence_figures(one.claim.id, one.finding.measured)) for one in board.judged]
        page = environment.get_template("claims.html")
        pages["claims.html"] = page.render(judged=judged, profile=board.judged[0].profile)
    if board.calibrations:
        found = {name: board.calibrations[name] for name in in_order(board.calibrations)}
        pages["calibration.html"] = environment.get_template("calibration.html").render(calibrations=found)
    for name, text in board.prose.items():
        if text:
            pages[f"{name}.html"] = environment.get_template("prose.html").render(page=name, text=text)
    return pages


def _environment(board: Board) -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=lambda value: value if isinstance(value, Markup) else format.printable(str(value)),
    )
    for module in (labels, format):
        environment.globals |= dict(getmembers(module, isfunction))
    tasks = tasks_of(board.kept)
    environment.globals |= {
        "tasks": tasks,
        "ranked_tasks": [task for task in RANKED if task in tasks],
        "ranking": len(RANKED),
        "counted": format.COUNTED,
        "has_claims": bool(board.judged),
        "prose": [name for name, text in board.prose.items() if text],
        "ok": Outcome.OK,
        "min_seeds": MIN_SEEDS,
        "alpha": ALPHA,
        "reference_scheme": REFERENCE,
        "notes": NOTES,
        "remarks": REMARKS,
        "definitions": FACETS,
        "tiers": TIERS,
        "diagnostics": in_order(task for task in tasks if task not in RANKED),
        "calibrated": bool(board.calibrations),
        "instruments_off": {
            name
            for name, found in board.calibrations.items()
            if not all(one.ok for one in found if one.origin != "submitted")
        },
    }
    return environment


def _index(environment: jinja2.Environment, board: Board) -> str:
    sections = []
    for table in board.tables:
        rows = [row for row in table.rows if row.competes]
        if rows:
            shown = [row.records[task] for row in rows for task in RANKED if task in row.records]
            tasks = [task for task in RANKED if task in table.standards]
            figures = _overview(table, rows)
            sections.append(
                {"table": table, "rows": rows, "tasks": tasks, "shown": shown, "figures": figures}
            )
    entries = sorted({row.entry for table in board.tables for row in table.rows if row.competes})
    about = {entry: _described(board, entry.scheme, entry.origin) for entry in entries}
    costs = Counter(cost for record in about.values() for cost in record.costs)
    counts = {word: sum(word in record.facets for record in about.values()) for word in FACETS}
    return environment.get_template("index.html").render(
        sections=sections,
        questions=_questions(board.kept),
        about=about,
        facets={entry: known(record) for entry, record in about.items()},
        caveats={entry: caveats(record) for entry, record in about.items()},
        counts={word: count for word, count in counts.items() if count},
        costs=[cost for cost, count in costs.items() if 2 * count > len(about)],
        submitted=any(entry.origin == "submitted" for entry in entries),
        left_out=board.left_out,
    )


def _described(board: Board, scheme: str, origin: Origin) -> Record:
    return described(one for one in board.kept if (one.record.scheme, one.origin) == (scheme, origin))


def _questions(kept: Sequence[Kept]) -> dict[str, str]:
    """Return the question of each task from its newest record; ours take precedence over submitted ones."""
    ordered = sorted(kept, key=lambda one: (one.origin != "submitted", age(one.record)))
    return {one.record.task: one.record.question for one in ordered}


def _overview(table: Table, rows: Sequence[Row]) -> list[Figure]:
    references = {task: table.references[task] for task in RANKED if task in table.references}
    short = short_labels(rows)
    records = {
        task: {short[r.entry]: r.records[task] for r in rows if task in r.records.keys() - r.foreign}
        for task in references
    }
    return ratio_panels(anchor(table.track), records, references) if len(rows) > 1 else []


def _task(environment: jinja2.Environment, board: Board, task: str) -> str:
    sections = []
    for table in board.tables:
        rows = by_task(table.rows, task)
        if not rows:
            continue
        records = [row.records[task] for row in rows]
        draw = CHARTS.get(task)
        drawn = dict(zip(short_labels(rows).values(), records, strict=True))
        figures = draw(anchor(table.track), drawn, _behind(table, task)) if draw else []
        others = [figure for figure in figures if figure.entry and not _stands(figure.entry)]
        folded = others if len(figures) > PANELS else []
        columns = companions(task, records)
        names = sorted({sample.seed for record in records for sample in record.samples})
        samples = [(row, {sample.seed: sample for sample in row.records[task].samples}) for row in rows]
        sections.append(
            {"table": table, "rows": rows, "shown": records, "columns": columns, "folded": folded}
            | {"figures": [figure for figure in figures if figure not in folded]}
            | {"seconds": seconds_ranks({r.entry: r.records[task] for r in rows if task not in r.foreign})}
            | {"seed_names": names, "samples": samples, "asked": table.standards[task]}
        )
    found = board.calibrations.get(task, ())
    return environment.get_template("task.html").render(task=task, sections=sections, calibrations=found)


PANELS = 12
"""Largest number of panels that all stand open; of more, only those of the reference schemes do."""


def _stands(entry: str) -> bool:
    """Tell whether a panel is always open: those of the reference schemes are, of any device or origin."""
    return entry.partition(" · ")[0] in (REFERENCE, *SCALED)


def _behind(table: Table, task: str) -> Record | None:
    """Return the record that figures show in grey: the reference, or for a diagnostic its `batchnorm`."""
    asked = table.standards[task]
    return table.references.get(task) or (asked if asked.scheme == REFERENCE else None)


def _scheme(environment: jinja2.Environment, board: Board, scheme: str) -> str:
    kept = sorted(
        (k for k in board.kept if k.record.scheme == scheme), key=lambda k: age(k.record), reverse=True
    )
    setups: dict[tuple[object, ...], str] = {}
    for one in kept:
        setups.setdefault(_setup(one.record), f"{len(setups) + 1}")
    tables = [(table, [row for row in table.rows if row.entry.scheme == scheme]) for table in board.tables]
    marked = {table.track: table.track for table in board.tables}  # tracks are equal whatever their mark
    tracks = {one.record.id: track_of(one.record) for one in kept}
    return environment.get_template("scheme.html").render(
        scheme=scheme,
        marked={id: marked.get(track, track) for id, track in tracks.items()},
        about=_described(board, scheme, min((one.origin for one in kept), key=ORIGINS.index)),
        manifest=board.manifests.get(scheme),
        defined=f'<h2 id="{scheme}">' in (board.prose.get("schemes") or ""),
        sections=[(table, rows) for table, rows in tables if rows],
        kept=[(one, setups[_setup(one.record)], _is_shown(one, board.tables)) for one in kept],
        setups=[(name, dict(zip(SETUP.values(), setup, strict=True))) for setup, name in setups.items()],
    )


def _setup(record: Record) -> tuple[object, ...]:
    return tuple(getattr(record.provenance, field) for field in SETUP)


def _is_shown(one: Kept, tables: Sequence[Table]) -> bool:
    """Tell whether a table shows the record, and not a newer one."""
    return any(row.records.get(one.record.task) is one.record for table in tables for row in table.rows)
