"""Command `calibrate`."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bnsuite.cli.options import RESULTS
from bnsuite.cli.terminal import fail, one_line_errors

if TYPE_CHECKING:
    from bnsuite.calibration import Reading


def calibrate(
    only: Annotated[str | None, typer.Option(help="Only this instrument, such as top_eigenvalue.")] = None,
    records: Annotated[Path, typer.Option(help="Folder that the readings go to, for the board.")] = RESULTS,
    as_json: Annotated[bool, typer.Option("--json", help="Print the readings as a JSON list.")] = False,
) -> None:
    """Measure what is known exactly, and show how far off every instrument is; takes a minute or two."""
    show = (lambda _: None) if as_json else (lambda reading: print(_line(reading), flush=True))
    with one_line_errors(ValueError):
        readings = measure_readings(only, records, show)
    if as_json:
        print(json.dumps([reading._asdict() for reading in readings], indent=1))
    off = [reading for reading in readings if not reading.ok]
    if off:
        fail(f"{len(off)} of {len(readings)} readings are off. Trust no number of these instruments.", code=1)


def measure_readings(only: str | None, records: Path, show: "Callable[[Reading], None]") -> "list[Reading]":
    """Measure the readings; those of all instruments are also stored as a record.

    Args:
        only: name of an instrument; None: all.
        records: folder that the record goes to.
        show: called with each reading as it comes.
    """
    import time
    from datetime import UTC, datetime

    from bnsuite import calibration
    from bnsuite.records import Store

    started, clock = datetime.now(UTC), time.perf_counter()
    store = Store(records)
    store.check_writable()
    readings = []
    for reading in calibration.readings(only):
        readings.append(reading)
        show(reading)
    if only is None:
        store.add(calibration.as_record(readings, started, time.perf_counter() - clock))
    return readings


def _line(reading: "Reading") -> str:
    from bnsuite.format import within

    mark = "ok " if reading.ok else "OFF"
    measured = "not finite" if reading.measured is None else f"{reading.measured:.5g}"
    return (
        f"{mark} {measured:>10}  {within(*reading.tolerance):<20} {reading.instrument}: {reading.experiment}"
    )
