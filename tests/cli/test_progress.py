"""What a person sees: the running cells with what they found, the finished ones, the time left."""

import io
from typing import Any

import pytest
from rich.console import Console

from bnsuite.cli import progress
from bnsuite.cli.progress import Display
from bnsuite.execute.run import Event
from bnsuite.records import Cell, Outcome, Record
from bnsuite.specs import SPECS

CELLS = [
    Cell(task=task, scheme="none", family="mlp", dataset="digits", profile="smoke", device="cpu")
    for task in ("max_depth", "stable_lr", "time_to_accuracy")
]


class Clock:
    """A clock that stands still until it is moved."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    hands = Clock()
    monkeypatch.setattr(progress.time, "monotonic", hands)
    return hands


@pytest.fixture
def screen() -> Console:
    return Console(file=io.StringIO(), width=120, force_terminal=True, color_system=None)


def ended(cell: Cell, value: float | None = 8.0, outcome: Outcome = Outcome.OK, new: bool = True) -> Event:
    data: dict[str, Any] = {
        **cell.model_dump(),
        "value": value,
        "unit": "layers",
        "outcome": outcome,
        "provenance": type("Provenance", (), {"duration_s": 12.34}),
    }
    return Event(cell, record=Record.model_construct(**data), new=new)


def shown(display: Display, screen: Console) -> str:
    """The live part as it stands."""
    with screen.capture() as capture:
        screen.print(display._progress.get_renderable())
    return capture.get()


def printed(screen: Console) -> str:
    assert isinstance(screen.file, io.StringIO)
    return screen.file.getvalue()


def test_a_running_cell_shows_what_it_has_found(screen: Console, clock: Clock) -> None:
    display = Display(CELLS, screen)
    display.observe(Event(CELLS[0], "started"))
    display.observe(Event(CELLS[0], "6/6 seeds train 8 layers"))
    display.observe(Event(CELLS[1], "started"))
    text = shown(display, screen)
    assert "max_depth none mlp/digits" in text
    assert "6/6 seeds train 8 layers" in text
    assert "stable_lr none mlp/digits" in text
    assert "0/3" in text
    assert "left" not in text


@pytest.mark.parametrize(
    ("value", "outcome", "words"),
    [
        (8.0, Outcome.OK, "8 layers (12.3 s, 1/3)"),
        (16.0, Outcome.CAPPED, "≥ 16 layers"),
        (None, Outcome.OOM, "oom"),
    ],
)
def test_a_finished_cell_leaves_a_line(
    value: float | None, outcome: Outcome, words: str, screen: Console, clock: Clock
) -> None:
    display = Display(CELLS, screen)
    display.observe(Event(CELLS[0], "started"))
    display.observe(ended(CELLS[0], value, outcome))
    live = shown(display, screen)
    assert "max_depth" not in live
    assert "1/3" in live
    assert words in printed(screen)


def test_the_time_left_goes_by_the_weight_of_what_is_done(screen: Console, clock: Clock) -> None:
    display = Display(CELLS, screen)
    weights = [SPECS[cell.task].weight for cell in CELLS]
    clock.now = 40.0
    display.observe(ended(CELLS[1]))
    left = 40 * (weights[0] + weights[2]) / weights[1]
    expected = f"about {left / 60:.0f} min left" if left > 90 else f"about {left:.0f} s left"
    assert expected in shown(display, screen)
    display.observe(ended(CELLS[0]))
    display.observe(ended(CELLS[2]))
    assert "left" not in shown(display, screen)


def test_what_was_there_already_says_nothing_of_the_pace(screen: Console, clock: Clock) -> None:
    with Display(CELLS, screen) as display:
        clock.now = 1.0
        display.observe(ended(CELLS[0], new=False))
        live = shown(display, screen)
    assert "left" not in live
    assert "1/3" in live
    assert "1 of 3 cells were there already." in printed(screen)
    assert "12.3 s" not in printed(screen)


@pytest.mark.parametrize("found", ["[/nosuch]", "[blink red]now[/]"])
def test_what_is_found_is_text_and_no_markup(screen: Console, clock: Clock, found: str) -> None:
    with Display(CELLS, screen) as display:
        display.observe(Event(CELLS[0], found))
        assert found in shown(display, screen)
