"""Tiers of entries; tiers of records are tested with `verification`."""

from made_records import record

from bnsuite.ranking.tiers import TIERS, entry_tier

SENT = record("max_depth", "theirs", day=1)
ELSEWHERE = record("max_depth", "theirs", day=2, source={"cpu": "another"})


def test_an_entry_is_as_sure_as_the_least_of_its_ranked_records() -> None:
    more = {"stable_lr": record("stable_lr", "theirs"), "scale_law": record("scale_law", "theirs")}
    again = record("stable_lr", "theirs", day=2)
    assert entry_tier({"max_depth": SENT, **more}, [ELSEWHERE]) == "self-reported"
    assert entry_tier({"max_depth": SENT, **more}, [ELSEWHERE, again]) == "re-run"
    assert entry_tier({"scale_law": more["scale_law"]}, []) == "self-reported"
    assert list(TIERS) == ["self-reported", "re-run", "re-run elsewhere"]
