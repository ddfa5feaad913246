"""Progress display while cells are measured."""

import math
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TaskID, TextColumn
from rich.text import Text

from bnsuite.cli.terminal import err
from bnsuite.format import reading
from bnsuite.records import Cell, Record
from bnsuite.specs import SPECS

if TYPE_CHECKING:
    from bnsuite.execute.plan import Job
    from bnsuite.execute.run import Event


class TimeLeft(ProgressColumn):
    """Column with the time left at the pace so far; cells are weighted by the usual cost of their task."""

    def render(self, task: Task) -> Text:
        """Text of the column, empty before the first cell is measured."""
        measured = task.fields.get("measured", 0.0)
        if not task.remaining or not measured:
            return Text("")
        seconds = (task.elapsed or 0.0) * task.remaining / measured
        return Text(f"about {seconds / 60:.0f} min left" if seconds > 90 else f"about {seconds:.0f} s left")


class Display:
    """Progress bar over all cells, with one line per running cell and one line per finished cell."""

    def __init__(self, cells: Sequence[Cell], console: Console) -> None:
        self._console = console
        self._weights = {cell: SPECS[cell.task].weight for cell in cells}
        self._done, self._kept, self._measured = 0, 0, 0.0
        self._lines: dict[Cell, TaskID] = {}
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[found]}", markup=False),
            TimeLeft(),
            console=console,
            transient=True,
            disable=not console.is_interactive,  # there it would leave an empty line
            get_time=time.monotonic,
        )
        self._all = self._progress.add_task(
            "cells", total=sum(self._weights.values()), found=f"0/{len(cells)}", measured=0.0
        )

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
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
            self._progress.update(self._lines[event.cell], found=event.found)
            return
        if event.cell in self._lines:
            self._progress.remove_task(self._lines.pop(event.cell))
        weight = self._weights[event.cell]
        self._done += 1
        if event.new:
            self._measured += weight
            record = event.record
            value = reading(record, record.unit) + (f" {record.unit}" if record.value is not None else "")
            took = f"{record.provenance.duration_s:.1f} s, {self._done}/{len(self._weights)}"
            self._console.print(f"{event.cell}: {value} [dim]({took})[/]", highlight=False, soft_wrap=True)
        else:
            self._kept += 1
        found = f"{self._done}/{len(self._weights)}"
        self._progress.update(self._all, advance=weight, found=found, measured=self._measured)


def run_jobs_shown(
    jobs: "Sequence[Job]", records: Path, workers: int, force: bool = False, time_limit: float = math.inf
) -> list[Record]:
    """Run planned jobs by `execute.run.run_jobs`, with a progress display on standard error.

    Args:
        jobs: planned jobs, one at least.
        records: folder of the records.
        workers: processes in parallel; 0: one per CPU core, or a single one on a GPU.
        force: measure cells again that the folder has.
        time_limit: seconds after which no cell is started.
    """
    from bnsuite.execute.run import run_jobs

    workers = workers or (1 if jobs[0].cell.device == "cuda" else os.cpu_count() or 1)
    with Display([job.cell for job in jobs], err) as display:
        return run_jobs(
            jobs, records, force=force, workers=workers, time_limit=time_limit, observe=display.observe
        )
