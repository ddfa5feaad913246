"""Tables: rows of a track with rank intervals and composites, by rank."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bnsuite.ranking.composite import Scales, Score, composite, seed_composites
from bnsuite.ranking.rank import Rank, overall_ranks, task_ranks
from bnsuite.ranking.tiers import entry_tier
from bnsuite.ranking.tracks import (
    Entry,
    Kept,
    Track,
    by_track,
    entry_of,
    is_reference,
    newest,
    same_question,
    standard,
    tasks_of,
)
from bnsuite.records import Record
from bnsuite.specs import RANKED
from bnsuite.verification import Tier


@dataclass(frozen=True)
class Row:
    """Row of a table: an entry with all that is shown of it.

    Attributes:
        entry: the entry.
        records: task → its newest record.
        ranks: ranked task → rank interval.
        composite: mean of the task scores; None: a ranked task has no score.
        overall: rank interval on composites; None: not ranked.
        reference: whether ratios are taken to this entry.
        foreign: tasks measured with other settings, never ranked.
        tier: how far a submitted entry is confirmed; None: it was not submitted.
    """

    entry: Entry
    records: Mapping[str, Record]
    ranks: Mapping[str, Rank]
    composite: Score | None
    overall: Rank | None
    reference: bool
    foreign: frozenset[str]
    tier: Tier | None

    @property
    def competes(self) -> bool:
        """Whether the entry has a record of a ranked task; the others are on the pages of their tasks."""
        return any(task in self.records for task in RANKED)

    @property
    def coverage(self) -> int:
        """Number of ranked tasks in which the entry has a comparable value."""
        comparable = [self.records[task] for task in RANKED if task in self.records.keys() - self.foreign]
        return sum(record.value is not None for record in comparable)


@dataclass(frozen=True)
class Table:
    """Table of one track.

    Attributes:
        track: the track.
        rows: its rows, in order.
        standards: task → record that defines its question.
        references: ranked task → record that ratios are taken to.
    """

    track: Track
    rows: tuple[Row, ...]
    standards: Mapping[str, Record]
    references: Mapping[str, Record]

    @property
    def asked(self) -> list[Record]:
        """Records that define the questions of the ranked tasks."""
        return [record for task, record in self.standards.items() if task in RANKED]

    @property
    def ranked(self) -> bool:
        """Whether a row has a rank."""
        return any(row.ranks for row in self.rows)


def make_tables(kept: Sequence[Kept], scales: Scales, reruns: Sequence[Record] = ()) -> list[Table]:
    """Make one table per track.

    Args:
        kept: records, in any order.
        scales: units of the composite.
        reruns: records that confirm submitted ones.
    """
    return [make_table(track, of_track, scales, reruns) for track, of_track in by_track(kept).items()]


def make_table(track: Track, kept: Sequence[Kept], scales: Scales, reruns: Sequence[Record] = ()) -> Table:
    """Make the table of one track.

    Args:
        track: the track.
        kept: its records, in any order.
        scales: units of the composite.
        reruns: records that confirm submitted ones.
    """
    standards = {task: standard([k for k in kept if k.record.task == task]) for task in tasks_of(kept)}
    asked = {task: k.record for task, k in standards.items()}
    owned = {task: k for task, k in standards.items() if task in RANKED and is_reference(k)}
    references = {task: k.record for task, k in owned.items()}
    owners = {entry_of(k) for k in owned.values()}
    shown = newest(kept)
    comparable = {
        entry: {task: record for task, record in records.items() if same_question(record, asked[task])}
        for entry, records in shown.items()
    }
    ranks = {task: task_ranks({e: rs[task] for e, rs in comparable.items() if task in rs}) for task in RANKED}
    scores = _scores(comparable, references if scales.suite_version == track.suite_version else {}, scales)
    overall = overall_ranks({entry: seeds for entry, (score, seeds) in scores.items() if score})
    rows = [
        Row(
            entry=entry,
            records=records,
            ranks={task: ranks[task][entry] for task in RANKED if entry in ranks[task]},
            composite=scores[entry][0],
            overall=overall.get(entry),
            reference=entry in owners,
            foreign=frozenset(records.keys() - comparable[entry].keys()),
            tier=entry_tier(records, reruns) if entry.origin == "submitted" else None,
        )
        for entry, records in shown.items()
    ]
    return Table(track, tuple(sorted(rows, key=_order)), asked, references)


def _scores(
    entries: Mapping[Entry, Mapping[str, Record]], references: Mapping[str, Record], scales: Scales
) -> dict[Entry, tuple[Score | None, dict[int, Score]]]:
    return {
        entry: (composite(records, references, scales), seed_composites(records, references, scales))
        for entry, records in entries.items()
    }


def _order(row: Row) -> tuple[bool, int, float, bool, Entry]:
    """Order by the low end of the overall rank, then composite; then unranked and incomplete rows by name."""
    if row.overall is None or row.composite is None:
        return True, 0, 0.0, row.composite is None, row.entry
    return False, row.overall.low, -row.composite.value, False, row.entry


def by_task(rows: Sequence[Row], task: str) -> list[Row]:
    """Select rows with a record of a task and order them by the low end of its rank, then value, then name.

    Rows without a rank follow by name, rows without a value last.
    """

    def order(row: Row) -> tuple[bool, int, float, bool, Entry]:
        record, rank = row.records[task], row.ranks.get(task)
        if rank is None or record.value is None:
            return True, 0, 0.0, record.value is None, row.entry
        return False, rank.low, record.value * (-1 if record.better == "higher" else 1), False, row.entry

    return sorted((row for row in rows if task in row.records), key=order)
