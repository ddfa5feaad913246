"""What a person sees while cells are measured."""

import time
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TextColumn
from rich.text import Text

from bnsuite.format import reading
from bnsuite.records import Cell
from bnsuite.specs import SPECS

if TYPE_CHECKING:
    from bnsuite.execute.run import Event


class TimeLeft(ProgressColumn):
    """Time left by the pace so far, weighing cells by what their task usually costs."""

    def __init__(self) -> None:
        super().__init__()
        self._start = time.monotonic()

    def render(self, task: Task) -> Text:
        left = task.fields.get("left", 0.0)
        measured = task.fields.get("measured", 0.0)
        if not left or not measured:
            return Text("")
        seconds = (time.monotonic() - self._start) * left / measured
        return Text(f"about {seconds / 60:.0f} min left" if seconds > 90 else f"about {seconds:.0f} s left")


class Display:
    """A bar over all cells, a line a running cell with what it has found, a line a finished one."""

    def __init__(self, cells: Sequence[Cell], console: Console) -> None:
        self._console = console
        self._weights = {cell: SPECS[cell.task].weight for cell in cells}
        self._kept = 0
        self._lines: dict[Cell, object] = {}
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[found]}", markup=False),
            TimeLeft(),
            console=console,
            transient=True,
            disable=not console.is_interactive,  # it would end in an empty line
        )
        self._all = self._progress.add_task(
            "cells", total=sum(self._weights.values()), found=f"0/{len(cells)}", left=0.0, measured=0.0
        )
        self._done = 0
        self._measured = 0.0

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()
        if self._kept:
            self._console.print(
                f"{self._kept} of {len(self._weights)} cells were there already.", soft_wrap=True
            )

    def observe(self, event: "Event") -> None:
        """Show an event of `bnsuite.execute.run`."""
        if event.record is None:
            if event.cell not in self._lines:
                self._lines[event.cell] = self._progress.add_task(str(event.cell), total=None, found="")
            self._progress.update(self._lines[event.cell], found=event.found)  # type: ignore[arg-type]
            return
        if event.cell in self._lines:
            self._progress.remove_task(self._lines.pop(event.cell))  # type: ignore[arg-type]
        weight = self._weights[event.cell]
        self._done += 1
        if event.new:
            self._measured += weight
            record = event.record
            found = reading(record, record.unit) + (f" {record.unit}" if record.value is not None else "")
            took = f"{record.provenance.duration_s:.1f} s, {self._done}/{len(self._weights)}"
            self._console.print(f"{event.cell}: {found} [dim]({took})[/]", highlight=False, soft_wrap=True)
        else:
            self._kept += 1
        self._progress.update(self._all, advance=weight, found=f"{self._done}/{len(self._weights)}")
        finished = self._progress.tasks[0].completed
        left = sum(self._weights.values()) - finished
        self._progress.update(self._all, left=left, measured=self._measured)
