"""The largest stable rate of a person's own training: quadratics in closed form, and ragged boundaries."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import bnsuite
from bnsuite.protocol.search import log_grid
from bnsuite.records import Outcome


def descent(sharpness: float, momentum: float = 0.0, steps: int = 400) -> Callable[[float], list[float]]:
    """Gradient descent with heavy-ball momentum m on λ θ²/2: stable up to 2 (1 + m) / λ."""

    def train(rate: float) -> list[float]:
        theta, velocity, losses = 1.0, 0.0, []
        for _ in range(steps):
            losses.append(sharpness * theta * theta / 2)
            velocity = momentum * velocity + sharpness * theta
            theta -= rate * velocity
        return losses

    return train


@pytest.mark.parametrize("momentum", [0.0, 0.5])
@pytest.mark.parametrize("sharpness", [0.3, 10.0, 700.0])
def test_gradient_descent(sharpness: float, momentum: float) -> None:
    limit = 2 * (1 + momentum) / sharpness
    found = bnsuite.max_stable_lr(descent(sharpness, momentum), low=limit / 300, high=limit * 3)
    assert found.value is not None
    assert found.next is not None
    assert found.value < limit < found.next
    assert found.next / found.value == pytest.approx(10 ** (1 / 12))
    assert found.outcome is Outcome.OK


def test_the_grid_is_run_once_from_low_to_high() -> None:
    asked: list[float] = []

    def train(rate: float) -> list[float]:
        asked.append(rate)
        return [1.0, 0.0]

    found = bnsuite.max_stable_lr(train, low=0.01, high=1, per_decade=2)
    assert asked == log_grid(0.01, 2, 5)
    assert [run.rate for run in found.tried] == asked
    assert (found.value, found.next, found.outcome) == (1.0, None, Outcome.CAPPED)


def scripted(final: str) -> Callable[[float], list[float]]:
    """Final losses by rate 1, 10, 100 …: b is best, o learns, s is stuck, n is not finite."""
    losses = {"b": 0.1, "o": 0.4, "s": 0.9, "n": math.nan}
    return lambda rate: [1.0, losses[final[round(math.log10(rate))]]]


@pytest.mark.parametrize(
    ("final", "best", "value", "above", "outcome"),
    [
        ("obooss", 1, 3, 4, "ok"),
        ("obosos", 1, 3, 4, "ok"),  # ragged: counted, not the first failure nor the last pass
        ("obonon", 1, 3, 4, "ok"),
        ("sobsss", 2, 2, 3, "ok"),  # a rate too small to learn is not counted against
        ("ssoboo", 3, 5, None, "capped"),
        ("nnnnns", 5, None, None, "stuck"),
        ("nnnnnn", None, None, None, "nonfinite"),
    ],
)
def test_passing_rates_are_counted_from_the_best(
    final: str, best: int | None, value: int | None, above: int | None, outcome: str
) -> None:
    found = bnsuite.max_stable_lr(scripted(final), low=1, high=1e5, per_decade=1)
    powers = [None if rate is None else round(math.log10(rate)) for rate in
              (found.best, found.value, found.next)]  # fmt: skip
    assert powers == [best, value, above]
    assert found.outcome == outcome
    short = {"b": "ok", "o": "ok", "s": "stuck", "n": "nonfinite"}
    assert [run.outcome for run in found.tried] == [short[letter] for letter in final]


@given(st.text("os", min_size=1, max_size=12))
def test_a_passing_run_more_never_lowers_the_rate(rest: str) -> None:
    def value(final: str) -> float:
        found = bnsuite.max_stable_lr(scripted(final), low=1, high=10 ** (len(final) - 1), per_decade=1)
        assert found.value is not None
        return found.value

    for i, letter in enumerate(rest):
        if letter == "s":
            assert value("b" + rest) < value("b" + rest[:i] + "o" + rest[i + 1 :])


def test_the_goal() -> None:
    def run(losses: list[float], **goal: float) -> Outcome:
        return bnsuite.max_stable_lr(lambda rate: losses, low=1, high=1, **goal).tried[0].outcome  # type: ignore[arg-type]

    twenty = [1.0] * 18 + [0.6, 0.4]  # the last 10 % of 20 losses are two
    assert run(twenty) is Outcome.OK
    assert run([1.0] * 17 + [0.0, 0.7, 0.4]) is Outcome.STUCK
    assert run(twenty, loss_ratio=0.49) is Outcome.STUCK
    assert run(twenty, target=0.51) is Outcome.OK
    assert run(twenty, target=0.49) is Outcome.STUCK
    assert run([-1.0, -3.0], target=-2) is Outcome.OK
    assert run([1.0, math.inf, 0.1]) is Outcome.NONFINITE


def test_a_run_that_overflows_is_not_finite() -> None:
    def train(rate: float) -> list[float]:
        return [1.0, 10.0**-rate, (10.0 * rate) ** 400 / 1e300]

    found = bnsuite.max_stable_lr(train, low=0.01, high=1, per_decade=1, target=1)
    assert [run.outcome for run in found.tried] == [Outcome.OK, Outcome.OK, Outcome.NONFINITE]


def test_losses_as_tensors() -> None:
    found = bnsuite.max_stable_lr(lambda rate: torch.tensor([1.0, 0.25]), low=1, high=1)
    assert found.tried[0].final == 0.25


@pytest.mark.parametrize(
    ("losses", "more", "words"),
    [
        ([1.0], {"low": 0}, "got low=0, high=1, per_decade=12"),
        ([1.0], {"low": 2}, "got low=2, high=1"),
        ([1.0], {"high": math.inf}, "0 < low <= high"),
        ([1.0], {"per_decade": 0}, "1 rate per decade at least"),
        ([], {}, "a loss per step: got none at rate 0.1"),
        ([0.0, 0.0], {}, "needs one above 0: got 0. Give a target"),
    ],
)
def test_what_cannot_be_is_refused(losses: list[float], more: dict[str, float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        bnsuite.max_stable_lr(lambda rate: losses, **{"low": 0.1, "high": 1, **more})  # type: ignore[arg-type]
