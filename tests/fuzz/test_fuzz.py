"""A few hundred fuzzed inputs of each kind: accepted with a sound result, or refused in one line."""

import time
from pathlib import Path

import campaign
import pytest
from campaign import KINDS, SHARES, fuzz

CASES = {"records": 400, "manifests": 300, "settings": 300, "data files": 300, "command lines": 40}


@pytest.mark.parametrize("kind", KINDS)
def test_every_input_is_accepted_or_refused_in_one_line(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BNSUITE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "room").mkdir()
    tried = fuzz(kind, CASES[kind], 0, tmp_path / "room")
    assert not tried.faults, tried.faults[:3]
    assert min(tried.outcomes["accepted"], tried.outcomes["refused"]) >= CASES[kind] // 40


def test_a_fault_of_any_kind_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    strategy, _ = KINDS["manifests"]
    monkeypatch.setitem(KINDS, "manifests", (strategy, lambda case, folder: "x"[len(case) + 1]))
    tried = fuzz("manifests", 20, 0, tmp_path)
    assert len(tried.faults) == tried.outcomes["fault"] == tried.outcomes.total() >= 10
    assert "IndexError" in tried.faults[0]


def test_a_hang_is_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in code that takes any Exception, a TimeoutError too, for a refusal."""

    def hang(case: object, folder: Path) -> str:
        try:
            time.sleep(60)
        except Exception:
            return "refused"
        return "accepted"

    monkeypatch.setattr(campaign, "HANG_S", 0.05)
    monkeypatch.setitem(KINDS, "manifests", (KINDS["manifests"][0], hang))
    tried = fuzz("manifests", 3, 0, tmp_path)
    assert set(tried.outcomes) == {"fault"}
    assert "no answer within 0.05 s" in tried.faults[0]


def test_the_shares_of_a_recorded_run_are_all_of_it() -> None:
    assert sum(SHARES.values()) == pytest.approx(1)
    assert SHARES.keys() == CASES.keys() == KINDS.keys()
