"""Tiers: how far a submitted number is confirmed, from the records that others made of the same cells."""

from collections.abc import Mapping, Sequence

from bnsuite.records import Record
from bnsuite.specs import RANKED
from bnsuite.verification import Tier, tier

TIERS: Mapping[Tier, str] = {
    "self-reported": "measured by those who sent it in, and by nobody else",
    "re-run": "measured again by the maintainers, from the code that was sent in",
    "re-run elsewhere": "measured again on a machine of another kind",
}
"""From the least confirmed to the most, and what each says."""


def entry_tier(records: Mapping[str, Record], reruns: Sequence[Record]) -> Tier:
    """The tier of an entry: the lowest over its ranked records, by task; where it has none, over all."""
    ranked = [record for task, record in records.items() if task in RANKED]
    found = [tier(record, reruns) for record in ranked or records.values()]
    return min(found, key=list(TIERS).index)
