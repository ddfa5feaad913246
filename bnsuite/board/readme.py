"""The README's result table: the same numbers as the board's, in Markdown."""

from collections.abc import Sequence
from pathlib import Path

from bnsuite.board.format import interval, reading, signed
from bnsuite.board.site import Source, label, machines, read, seeds
from bnsuite.board.tables import Row, Table
from bnsuite.records import RANKED, RecordError
from bnsuite.records.store import write_atomically

BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"


def markdown_table(table: Table) -> str:
    """One track: a row an entry, a column a ranked task, then the composite."""
    units = [
        f"`{task}` ({table.standards[task].unit})" if task in table.standards else task for task in RANKED
    ]
    lines = [
        "| scheme | " + " | ".join(units) + " | composite |",
        "|---|" + "---:|" * (len(RANKED) + 1),
    ]
    lines += [_line(row) for row in table.rows if row.competes]
    note = (
        f"Track {table.track}, suite version {table.track.suite_version}. Median over n = "
        f"{seeds(table.rows, RANKED)} confirmation seeds [exact interval of the median] (rank); "
        f"{'; '.join(machines(table.rows, RANKED))}. Made by `bnsuite board --readme README.md` from "
        "`leaderboard/records/`."
    )
    return "\n".join([*lines, "", note])


def _line(row: Row) -> str:
    cells = [label(row.entry)]
    for task in RANKED:
        record = row.records.get(task)
        if record is None:
            cells.append("")
            continue
        rank = f"({row.ranks[task]})" if task in row.ranks else ""
        parts = [f"**{reading(record, record.unit)}**", interval(record.low, record.high, record.unit), rank]
        cells.append(" ".join(part for part in parts if part))
    score = row.composite
    cells.append(f"{score.mark} {signed(score.value)}".strip() if score else f"{row.coverage}/4")
    return "| " + " | ".join(cells) + " |"


def replace_table(text: str, table: str) -> str:
    """The text with the table between its two markers.

    Raises:
        RecordError: the markers are not there, once each and in order.
    """
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end or BEGIN in rest or END in tail:
        raise RecordError(f"the text needs one line {BEGIN} and below it one line {END}: add them.")
    return f"{head}{BEGIN}\n\n{table}\n\n{END}{tail}"


def renew(path: Path, sources: Sequence[Source]) -> None:
    """Put the first track of the published records into a Markdown file.

    Raises:
        RecordError: no published records, a file that cannot be read or written, or no markers in it.
    """
    tables = read(sources).tables
    if not tables:
        raise RecordError(f"{path}: there are no published records to make a table of.")
    try:
        write_atomically(path, replace_table(path.read_text(encoding="utf-8"), markdown_table(tables[0])))
    except OSError as error:
        raise RecordError(f"{path}: cannot renew the table ({error.strerror or error}).") from error
