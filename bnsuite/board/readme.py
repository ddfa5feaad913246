"""Result table of one track as Markdown, and its place in a README."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from bnsuite.board.labels import label, title
from bnsuite.board.site import Source
from bnsuite.claims.catalogue import CLAIMS
from bnsuite.claims.judge import Judged, judge_largest
from bnsuite.format import interval, printable, reading, signed, tally
from bnsuite.ranking.composite import FROZEN
from bnsuite.ranking.tables import Row, make_tables
from bnsuite.ranking.tracks import Kept, by_track
from bnsuite.records import Record, RecordError, read_records
from bnsuite.records.store import write_atomically
from bnsuite.specs import RANKED

RESULTS, CLAIMED = "results", "claims"
"""Names of the tables; each is between <!-- NAME:begin --> and <!-- NAME:end -->."""


def markdown_table(records: Iterable[Record]) -> str:
    """Return a row per entry by rank, with its composite, and per ranked task value, interval, rank and n.

    Raises ValueError unless the records are of exactly one track.
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
    for row in table.rows:
        if row.competes:
            cells = [_cell(row, task) for task in tasks]
            lines.append([str(row.overall or "–"), _escape(label(row.entry)), _composite(row), *cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


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
    """Escape a name for Markdown."""
    return re.sub(r"([\\`*_{}\[\]()#+!|<>~&])", r"\\\1", " ".join(printable(text).split()))


def claims_table(judged: Iterable[Judged]) -> str:
    """Return a row per claim with its verdict, as Markdown."""
    lines = ["| | claim | verdict |", "| --- | --- | --- |"]
    lines += [f"| {one.claim.id} | {_escape(one.claim.claim)} | {one.finding.verdict} |" for one in judged]
    return "\n".join(lines)


def replace_table(text: str, table: str, name: str = RESULTS) -> str:
    """Return the text with the table between its markers; raise ValueError unless each occurs once."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise ValueError(f"the text needs one {begin} and, after it, one {end}")
    before, rest = text.split(begin)
    return f"{before}{begin}\n{table}\n{end}{rest.split(end)[1]}"


def renew(readme: Path, sources: Sequence[Source]) -> None:
    """Renew the tables of a README: the first track of the board, and the verdicts if it has their markers.

    Raises:
        RecordError: there is no record to show, or no marker for it; the file is unchanged.
    """
    records = read_records([source.folder for source in sources]).values()
    kept = [Kept(record, "published") for record in records]
    tracks = by_track(one for one in kept if one.record.task in RANKED)
    if not tracks:
        raise RecordError(
            f"{readme}: there is no published record to show. Copy records to leaderboard/records."
        )
    first = next(iter(tracks.values()))
    try:
        text = replace_table(readme.read_text(encoding="utf-8"), markdown_table(k.record for k in first))
        if f"<!-- {CLAIMED}:begin -->" in text:
            text = replace_table(text, claims_table(judge_largest(CLAIMS, kept)), CLAIMED)
        write_atomically(readme, text)
    except ValueError as error:
        raise RecordError(f"{readme}: {error}. Add the two lines where the table shall stand.") from error
    except OSError as error:
        raise RecordError(
            f"{readme}: cannot be renewed ({error.strerror or error}). Check the path."
        ) from error
