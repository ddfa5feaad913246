"""Records: what a measurement is, and how it is stored; imports no torch and nothing else of bnsuite."""

from bnsuite.records.record import (
    CALIBRATION,
    SCHEMA_VERSION,
    SUITE_VERSION,
    Better,
    Cell,
    Json,
    Measurement,
    Outcome,
    Provenance,
    Record,
    Sample,
    is_number,
    is_positive,
)
from bnsuite.records.store import RecordError, Store, read_records

__all__ = [
    "CALIBRATION",
    "SCHEMA_VERSION",
    "SUITE_VERSION",
    "Better",
    "Cell",
    "Json",
    "Measurement",
    "Outcome",
    "Provenance",
    "Record",
    "RecordError",
    "Sample",
    "Store",
    "is_number",
    "is_positive",
    "read_records",
]
