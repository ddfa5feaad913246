"""Calibration: every instrument measures something whose truth is known, and shows how far it is off."""

from collections.abc import Iterator, Sequence
from datetime import datetime

import torch

from bnsuite.calibration import curvature, gradients, searches
from bnsuite.calibration._row import SEEDS, Accept, Reading, Row, read
from bnsuite.execute.provenance import environment, reproducible
from bnsuite.names import lookup
from bnsuite.records import CALIBRATION, Json, Outcome, Provenance, Record

__all__ = ["ROWS", "Accept", "Reading", "Row", "as_record", "read", "readings"]

ROWS: tuple[Row, ...] = (*gradients.ROWS, *searches.ROWS, *curvature.ROWS)
"""Every row, by instrument."""


def readings(only: str | None = None) -> Iterator[Reading]:
    """Measure the rows of one instrument, or of all, one after the other.

    Raises:
        UnknownNameError: no such instrument.
    """
    if only is not None:
        lookup("instrument", only, {row.instrument: row for row in ROWS})
    for row in ROWS:
        if only in (None, row.instrument):
            with reproducible(torch.device("cpu")):
                reading = read(row)
            yield reading


def as_record(rows: Sequence[Reading], started: datetime, seconds: float) -> Record:
    """The readings as one record, by which they reach the board."""
    provenance = Provenance(
        **environment(torch.device("cpu")),
        scheme_source="",
        dataset_checksum="",
        stacked=None,
        seeds={"confirmation": list(SEEDS)},
        started=started.isoformat(timespec="milliseconds"),
        duration_s=round(seconds, 3),
    )
    trace: list[dict[str, Json]] = [{**row._asdict(), "tolerance": list(row.tolerance)} for row in rows]
    return Record(
        id="",
        key="",
        task=CALIBRATION,
        task_version=1,
        question="How far off are the instruments where the truth is known?",
        scheme="none",
        family="mlp",
        dataset="known",
        profile=CALIBRATION,
        device="cpu",
        settings={},
        unit="share of rows that hold",
        better="higher",
        value=sum(row.ok for row in rows) / len(rows),
        outcome=Outcome.OK,
        trace=tuple(trace),
        provenance=provenance,
    ).sealed()
