"""The race: warm-up, taking turns, ratio and drift from rounds, events and energy on a GPU."""

import time
from collections.abc import Callable

import gpu_stand_in
import pytest
import torch
from gpu_stand_in import CUDA

from bnsuite.engine.clock import Race, race
from bnsuite.engine.train import Sgd, train

CPU = torch.device("cpu")


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> gpu_stand_in.StandIn:
    return gpu_stand_in.install(monkeypatch)


@pytest.fixture
def contestant(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Callable[[], None]]:
    """Makes contestants whose turns take made-up seconds, the last of them for ever, and are noted."""
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    def make(name: str, turns: list[str], *seconds: float) -> Callable[[], None]:
        def run() -> None:
            now[0] += seconds[min(turns.count(name), len(seconds) - 1)]
            turns.append(name)

        return run

    return make


Make = Callable[..., Callable[[], None]]


def test_contestants_take_turns_and_the_warm_up_is_not_counted(contestant: Make) -> None:
    turns: list[str] = []
    found = race([contestant("a", turns, 9, 2), contestant("b", turns, 9, 1)], rounds=3, device=CPU, warmup=1)
    assert turns == ["a", "b"] * 4
    assert found.seconds == [[2, 2, 2], [1, 1, 1]]
    assert (found.median(0), found.median(1), found.ratio(0, 1), found.ratio(1, 0)) == (2, 1, 2, 0.5)
    assert found.joules is None


@pytest.mark.parametrize(
    ("seconds", "rounds"),
    [
        ((0.1,), 2),  # the second is as fast as the first
        ((0.9, 0.1), 3),
        ((0.5, 0.4, 0.3, 0.2, 0.195), 5),  # the last is faster by 2.5 % alone
        ((0.1, 0.2), 2),  # slower is not faster
        (tuple(0.5 * 0.9**k for k in range(20)), 10),  # to no end
        ((3.0, 2.0), 2),  # so long
        ((6.0, 2.0), 1),
    ],
)
def test_the_warm_up_lasts_until_no_turn_gets_faster(
    contestant: Make, seconds: tuple[float, ...], rounds: int
) -> None:
    turns: list[str] = []
    race([contestant("a", turns, 0.01), contestant("b", turns, *seconds)], rounds=1, device=CPU)
    assert turns.count("a") - 1 == turns.count("b") - 1 == rounds


def test_back_at_its_best_is_not_faster(contestant: Make) -> None:
    turns: list[str] = []
    race([contestant("a", turns, 0.9, 0.5), contestant("b", turns, 0.1, 0.2, 0.1)], rounds=1, device=CPU)
    assert len(turns) == 2 * (3 + 1)


def test_none_asks_for_no_warm_up(contestant: Make) -> None:
    found = race([contestant("a", [], 9, 2)], rounds=2, device=CPU, warmup=0)
    assert found.seconds == [[9, 2]]


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
    found = race([lambda: time.sleep(0.02), lambda: None], rounds=9, device=CPU)
    assert found.median(0) >= 0.02 > found.median(1)  # a busy machine delays some rounds, not most


def test_a_gpu_is_timed_by_events_and_its_joules_are_of_each_alone(gpu: gpu_stand_in.StandIn) -> None:
    found = race([gpu.turn(0.25, 400), gpu.turn(0.125, 80)], rounds=3, device=CUDA, energy=True)
    assert found.seconds == [[0.25] * 3, [0.125] * 3]
    assert found.joules == [100, 10]
    assert found.idle is True
    assert gpu.asked_for == "GPU-1-2-3"


def test_energy_is_read_over_turns_in_a_row_and_contestants_alternate(gpu: gpu_stand_in.StandIn) -> None:
    turns: list[str] = []

    def noted(name: str, run: Callable[[], None]) -> Callable[[], None]:
        return lambda: (turns.append(name), run())[1]  # type: ignore[func-returns-value]

    race(
        [noted("a", gpu.turn(0.25, 9)), noted("b", gpu.turn(0.5, 9))],
        rounds=1,
        device=CUDA,
        warmup=0,
        energy=True,
    )
    assert turns == ["a", "b", *(["a"] * 4 + ["b"] * 2) * 2]


def test_a_counter_that_is_missing_or_stands_still_gives_no_joules(gpu: gpu_stand_in.StandIn) -> None:
    assert race([gpu.turn(0.25, 0)], rounds=1, device=CUDA, energy=True).joules is None
    assert race([gpu.turn(0.25, 9)], rounds=1, device=CUDA).joules is None, "not asked for"
    gpu.counts_energy = False
    found = race([gpu.turn(0.25, 9)], rounds=1, device=CUDA, energy=True)
    assert (found.joules, found.seconds) == (None, [[0.25]])


def test_a_load_that_comes_in_the_race_shows(gpu: gpu_stand_in.StandIn) -> None:
    gpu.loads = [0, 50]
    assert race([gpu.turn(0.25)], rounds=1, device=CUDA).idle is False


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: events and NVML themselves")
def test_a_real_gpu() -> None:
    device = torch.device("cuda")
    x, y = torch.randn(64, 256, device=device), torch.zeros(64, dtype=torch.long, device=device)
    network = torch.nn.Linear(256, 8).to(device)

    def steps() -> None:
        torch.cuda.set_sync_debug_mode("error")
        try:
            train(network, [(x, y)] * 5, 0.01, Sgd(momentum=0.9))
        finally:
            torch.cuda.set_sync_debug_mode("default")

    found = race([steps, lambda: torch.cuda._sleep(10_000_000)], rounds=4, device=device, energy=True)
    assert all(second > 0 for times in found.seconds for second in times)
    assert found.median(1) > 1e-3  # ten million cycles, below 10 GHz
    assert found.idle in (True, False, None)
    assert found.joules is None or min(found.joules) > 0
