"""The race: taking turns, warm-up apart, ratio and drift from rounds."""

import time

import pytest
import torch

from bnsuite.engine.clock import Race, race

CPU = torch.device("cpu")


def test_contestants_take_turns_and_the_warm_up_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    now, turns = [0.0], []
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    def contestant(name: str, first: float, later: float) -> object:
        def run() -> None:
            now[0] += later if name in turns else first
            turns.append(name)

        return run

    found = race([contestant("a", 100, 2), contestant("b", 100, 1)], rounds=3, device=CPU)  # type: ignore[list-item]
    assert turns == ["a", "b"] * 4
    assert found.seconds == [[2, 2, 2], [1, 1, 1]]
    assert (found.median(0), found.median(1), found.ratio(0, 1), found.ratio(1, 0)) == (2, 1, 2, 0.5)


def test_ratio_pairs_rounds_so_that_a_slow_machine_hits_both() -> None:
    slowing = Race([[2.0, 4.0, 8.0, 16.0], [1.0, 2.0, 4.0, 8.0]])
    assert slowing.ratio(0, 1) == 2
    assert slowing.drift(0)
    assert slowing.drift(1)


@pytest.mark.parametrize(("change", "drifts"), [(1.05, False), (0.95, False), (1.2, True), (0.8, True)])
def test_drift_is_a_tenth_between_the_halves(change: float, drifts: bool) -> None:
    assert Race([[1.0] * 5 + [change] * 5]).drift(0) is drifts
    assert not Race([[1.0] * 4 + [change] + [1.0] * 5]).drift(0)


def test_real_seconds() -> None:
    found = race([lambda: time.sleep(0.02), lambda: None], rounds=2, device=CPU)
    assert found.median(0) >= 0.02 > found.median(1)
