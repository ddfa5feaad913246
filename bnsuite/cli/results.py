"""Table of records, as `run` prints it."""

from rich.markup import escape
from rich.table import Table

from bnsuite.board.labels import coverage
from bnsuite.format import interval, reading, tally
from bnsuite.records import Record
from bnsuite.specs import RANKED


def results_table(records: list[Record]) -> Table:
    """Table with one row per scheme and network, and one column per task."""
    tasks = sorted(
        {record.task for record in records},
        key=lambda task: (RANKED.index(task) if task in RANKED else len(RANKED), task),
    )
    units = {record.task: record.unit for record in records}
    confidence = f" ({coverage(records)})" if coverage(records) else ""
    table = Table(
        title=" · ".join(sorted({f"{record.profile} on {record.device}" for record in records})),
        caption=f"median over n confirmation seeds, \\[its exact interval{confidence}]",
    )
    table.add_column("scheme", no_wrap=True)
    for task in tasks:
        table.add_column(f"{task}\n({units[task]})", justify="right")
    rows: dict[tuple[str, str, str], dict[str, Record]] = {}
    for record in records:
        rows.setdefault((record.scheme, record.family, record.dataset), {})[record.task] = record
    for (scheme, family, dataset), row in rows.items():
        cells = [_cell(row[task]) if task in row else "" for task in tasks]
        table.add_row(f"{scheme}\n[dim]{family}, {dataset}[/]", *cells)
    return table


def _cell(record: Record) -> str:
    ends = interval(record.low, record.high, record.unit)
    lines = (reading(record, record.unit), escape(ends), f"n {tally(record)}")
    return "\n[dim]".join(filter(None, lines))
