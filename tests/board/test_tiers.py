"""Tiers: the same cell measured again, here or elsewhere."""

from board_records import record

from bnsuite.board.tiers import TIERS, entry_tier, tier
from bnsuite.records import Outcome

SENT = record("max_depth", "theirs", day=1)
HERE = record("max_depth", "theirs", [28, 29, 30, 29, 29, 28], day=2)
ELSEWHERE = record("max_depth", "theirs", day=2, source={"cpu": "another"})


def test_the_tier_of_a_record() -> None:
    other = record("max_depth", "theirs", settings={"width": 32}, day=2)
    failed = record("max_depth", "theirs", [], outcome=Outcome.ERROR, error="boom", day=2)
    assert tier(SENT, []) == "self-reported"
    assert tier(SENT, [other, failed]) == "self-reported"
    assert tier(SENT, [HERE]) == "re-run"
    assert tier(SENT, [HERE, ELSEWHERE]) == "re-run elsewhere"


def test_an_entry_is_as_sure_as_the_least_of_its_ranked_records() -> None:
    more = {"stable_lr": record("stable_lr", "theirs"), "scale_law": record("scale_law", "theirs")}
    again = record("stable_lr", "theirs", day=2)
    assert entry_tier({"max_depth": SENT, **more}, [ELSEWHERE]) == "self-reported"
    assert entry_tier({"max_depth": SENT, **more}, [ELSEWHERE, again]) == "re-run"
    assert entry_tier({"scale_law": more["scale_law"]}, []) == "self-reported"
    assert list(TIERS) == ["self-reported", "re-run", "re-run elsewhere"]
