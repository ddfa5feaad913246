"""Tiers: how far a submitted entry is confirmed by records that others measured of its cells."""

from collections.abc import Mapping, Sequence

from bnsuite.records import Record
from bnsuite.specs import RANKED
from bnsuite.verification import Tier, tier

TIERS: Mapping[Tier, str] = {
    "self-reported": "measured by those who sent it in, and by nobody else",
    "re-run": "measured again by the maintainers, from the code that was sent in",
    "re-run elsewhere": "measured again on a machine of another kind",
}
"""Tier → its meaning, from the least confirmed to the most."""


def entry_tier(records: Mapping[str, Record], reruns: Sequence[Record]) -> Tier:
    """Find the tier of an entry: the lowest of its ranked records, or of all records if none is ranked."""
    ranked = [record for task, record in records.items() if task in RANKED]
    tiers = [tier(record, reruns) for record in ranked or records.values()]
    return min(tiers, key=list(TIERS).index)
