"""Result tables and verdicts as Markdown, and their places in the README and in docs/results.md."""

import re
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

from bnsuite.board.labels import label, title
from bnsuite.board.site import RecordFolder
from bnsuite.claims.catalogue import CLAIMS
from bnsuite.claims.judge import Judged, judge_largest
from bnsuite.format import interval, printable, reading, signed, tally
from bnsuite.ranking.composite import FROZEN, SCALED
from bnsuite.ranking.tables import Row, make_tables
from bnsuite.ranking.tracks import REFERENCE, Kept, by_track
from bnsuite.records import Record, RecordError, read_records
from bnsuite.records.store import write_atomically
from bnsuite.specs import RANKED

RESULTS, LEADERS, CLAIMED = "results", "leaders", "claims"
"""Names of the tables, each between <!-- NAME:begin --> and <!-- NAME:end -->."""

LENGTH = 8
"""Rows of the table of leaders."""


def markdown_table(records: Iterable[Record], length: int | None = None) -> str:
    """Table of the entries of one track by rank: composite, and value, interval, rank and n per ranked task.

    Args:
        records: records of exactly one track; another number of tracks raises ValueError.
        length: keep the reference schemes and the best-ranked others, at most this many rows. Ranks stay
            those among all entries. None: every entry.
    """
    tables = make_tables([Kept(record, "published") for record in records], FROZEN)
    if len(tables) != 1:
        raise ValueError(f"a table shows 1 track: got {len(tables)}")
    table = tables[0]
    tasks = [task for task in RANKED if task in table.standards]
    heads = ["rank", "scheme", "composite"]
    for task in tasks:
        asked = table.standards[task]
        heads.append(f"{title(task)}, {asked.unit} {'↑' if asked.better == 'higher' else '↓'}")
    lines = [heads, ["---", "---", *["---:"] * (len(heads) - 2)]]
    for row in _leaders([row for row in table.rows if row.competes], length):
        cells = [_cell(row, task) for task in tasks]
        lines.append([str(row.overall or "–"), _escape(label(row.entry)), _composite(row), *cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _leaders(rows: list[Row], length: int | None) -> list[Row]:
    references = [row for row in rows if row.entry.scheme in (REFERENCE, *SCALED)]
    others = [row for row in rows if row not in references]
    kept = references + (others if length is None else others[: length - len(references)])
    return [row for row in rows if row in kept]


def _composite(row: Row) -> str:
    if row.composite is None:
        return f"– ({row.coverage}/{len(RANKED)})"
    return f"{row.composite.mark} {signed(row.composite.value)}".strip()


def _cell(row: Row, task: str) -> str:
    if task not in row.records:
        return "–"
    record = row.records[task]
    parts = [f"**{reading(record, record.unit)}**", interval(record.low, record.high, record.unit)]
    notes = [f"rank {row.ranks[task]}"] if task in row.ranks else []
    notes += ["other settings"] if task in row.foreign else []
    return " ".join(filter(None, parts)) + f"<br><sub>{' · '.join([*notes, f'n {tally(record)}'])}</sub>"


def _escape(text: str) -> str:
    """A name as Markdown that shows it and does nothing else."""
    return re.sub(r"([\\`*_{}\[\]()#+!|<>~&])", r"\\\1", " ".join(printable(text).split()))


def claims_table(judged: Iterable[Judged]) -> str:
    """A row a claim with its verdict, as Markdown."""
    lines = ["| | claim | verdict |", "| --- | --- | --- |"]
    lines += [f"| {one.claim.id} | {_escape(one.claim.claim)} | {one.finding.verdict} |" for one in judged]
    return "\n".join(lines)


def replace_table(text: str, table: str, name: str = RESULTS) -> str:
    """The text with the table between its markers. Raises ValueError where they are not there once each."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise ValueError(f"the text needs one {begin} and, after it, one {end}")
    before, rest = text.split(begin)
    return f"{before}{begin}\n{table}\n{end}{rest.split(end)[1]}"


def renew(path: Path, sources: Sequence[RecordFolder]) -> None:
    """Renew the tables of a Markdown file: those of the first track of the sources, and the claims' verdicts.

    Raises `RecordError`, with the file unchanged, when there is no record to show or no marker in the file.
    """
    records = read_records([source.folder for source in sources]).values()
    kept = [Kept(record, "published") for record in records]
    tracks = by_track(one for one in kept if one.record.task in RANKED)
    if not tracks:
        raise RecordError(
            f"{path}: there is no published record to show. Copy records to leaderboard/records."
        )
    first = [k.record for k in next(iter(tracks.values()))]
    tables: dict[str, Callable[[], str]] = {
        RESULTS: partial(markdown_table, first),
        LEADERS: partial(markdown_table, first, LENGTH),
        CLAIMED: lambda: claims_table(judge_largest(CLAIMS, kept)),
    }
    try:
        text = path.read_text(encoding="utf-8")
        for name in [name for name in tables if f"<!-- {name}:begin -->" in text] or [RESULTS]:
            text = replace_table(text, tables[name](), name)
        write_atomically(path, text)
    except ValueError as error:
        raise RecordError(f"{path}: {error}. Add the two lines where the table shall stand.") from error
    except OSError as error:
        raise RecordError(
            f"{path}: cannot be renewed ({error.strerror or error}). Check the path."
        ) from error
