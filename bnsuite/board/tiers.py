"""Tiers: how far a submitted number is confirmed, from the records that others made of the same cells."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from bnsuite.records import RANKED, Outcome, Record

Tier = Literal["self-reported", "re-run", "re-run elsewhere"]

TIERS: Mapping[Tier, str] = {
    "self-reported": "measured by those who sent it in, and by nobody else",
    "re-run": "measured again by the maintainers, from the code that was sent in",
    "re-run elsewhere": "measured again on a machine of another kind",
}
"""From the least confirmed to the most, and what each says."""


def tier(record: Record, reruns: Iterable[Record]) -> Tier:
    """The tier of one record: by what else is known of its key."""
    same = [one for one in reruns if one.key == record.key and one.outcome is not Outcome.ERROR]
    if any(_machine(one) != _machine(record) for one in same):
        return "re-run elsewhere"
    return "re-run" if same else "self-reported"


def entry_tier(records: Mapping[str, Record], reruns: Sequence[Record]) -> Tier:
    """The tier of an entry: the lowest over its ranked records, by task; where it has none, over all."""
    ranked = [record for task, record in records.items() if task in RANKED]
    found = [tier(record, reruns) for record in ranked or records.values()]
    return min(found, key=list(TIERS).index)


def _machine(record: Record) -> tuple[str, str | None, str]:
    return record.provenance.cpu, record.provenance.gpu, record.provenance.os
