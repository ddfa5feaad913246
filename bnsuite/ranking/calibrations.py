"""Calibrations: the error of each instrument where the truth is known, newest per machine."""

from collections.abc import Sequence
from dataclasses import dataclass

from bnsuite.format import fine, within
from bnsuite.ranking.tracks import Kept, Origin, age
from bnsuite.records import Record, is_number


@dataclass(frozen=True)
class ReadingText:
    """Reading of a calibration as text."""

    experiment: str
    measured: str
    accepted: str
    ok: bool


@dataclass(frozen=True)
class Calibration:
    """Newest readings of one instrument on one machine."""

    instrument: str
    record: Record
    origin: Origin
    readings: tuple[ReadingText, ...]

    @property
    def ok(self) -> bool:
        """Whether every reading is right."""
        return all(reading.ok for reading in self.readings)


def calibrations(kept: Sequence[Kept]) -> dict[str, list[Calibration]]:
    """Find the newest calibration of each machine, per instrument; submitted ones do not hide our own."""
    newest: dict[tuple[str, str, str | None, Origin], Calibration] = {}
    for record, origin in sorted(kept, key=lambda k: age(k.record)):
        machine = record.provenance
        for instrument, readings in _by_instrument(record).items():
            place = instrument, machine.cpu, machine.gpu, origin
            newest[place] = Calibration(instrument, record, origin, tuple(readings))
    by_instrument: dict[str, list[Calibration]] = {}
    for place in sorted(
        newest, key=lambda place: (place[0], place[3] != "published", place[1], place[2] or "")
    ):
        by_instrument.setdefault(place[0], []).append(newest[place])
    return by_instrument


def _by_instrument(record: Record) -> dict[str, list[ReadingText]]:
    """Read the readings of a record; a row that the suite would not write is shown as off."""
    by_instrument: dict[str, list[ReadingText]] = {}
    for row in record.trace:
        instrument, ends = row.get("instrument"), row.get("tolerance")
        if not isinstance(instrument, str):
            continue
        pair = ends if isinstance(ends, list) and len(ends) == 2 else [None, None]
        low, high = (float(end) if is_number(end) else None for end in pair)
        measured = row.get("measured")
        by_instrument.setdefault(instrument, []).append(
            ReadingText(
                experiment=str(row.get("experiment", "")),
                measured=fine(measured) if is_number(measured) else "not finite",
                accepted=within(low, high),
                ok=row.get("ok") is True,
            )
        )
    return by_instrument
