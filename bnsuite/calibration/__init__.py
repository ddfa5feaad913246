"""Calibration: each instrument measures cases whose truth is known, and shows its error."""

from collections.abc import Iterator, Sequence
from datetime import datetime

import torch

from bnsuite.calibration import curvature, gradients, searches
from bnsuite.calibration._case import SEEDS, Accept, KnownCase, Reading, measure_case
from bnsuite.execute.provenance import environment, reproducible
from bnsuite.names import lookup
from bnsuite.records import CALIBRATION, Json, Outcome, Provenance, Record

__all__ = ["CASES", "Accept", "KnownCase", "Reading", "as_record", "measure_case", "readings"]

CASES: tuple[KnownCase, ...] = (*gradients.CASES, *searches.CASES, *curvature.CASES)
"""All known cases, by instrument."""


def readings(only: str | None = None) -> Iterator[Reading]:
    """Measure the known cases of one instrument (None: of all), one after the other.

    Raises:
        UnknownNameError: there is no such instrument.
    """
    if only is not None:
        lookup("instrument", only, {case.instrument: case for case in CASES})
    for case in CASES:
        if only in (None, case.instrument):
            with reproducible(torch.device("cpu")):
                reading = measure_case(case)
            yield reading


def as_record(measured: Sequence[Reading], started: datetime, seconds: float) -> Record:
    """Store readings in one record, from which the board shows them.

    Args:
        measured: readings of all instruments.
        started: time at which the calibration started.
        seconds: its duration.
    """
    provenance = Provenance(
        **environment(torch.device("cpu")),
        scheme_source="",
        dataset_checksum="",
        stacked=None,
        seeds={"confirmation": list(SEEDS)},
        started=started.isoformat(timespec="milliseconds"),
        duration_s=round(seconds, 3),
    )
    trace: list[dict[str, Json]] = [
        {**reading._asdict(), "tolerance": list(reading.tolerance)} for reading in measured
    ]
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
        value=sum(reading.ok for reading in measured) / len(measured),
        outcome=Outcome.OK,
        trace=tuple(trace),
        provenance=provenance,
    ).sealed()
