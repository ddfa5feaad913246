"""Calibrations: how far off each instrument is where the truth is known, of every machine the newest."""

from collections.abc import Sequence
from dataclasses import dataclass

from bnsuite.format import fine, within
from bnsuite.ranking.tracks import Kept, Origin, age
from bnsuite.records import Record, is_number


@dataclass(frozen=True)
class Reading:
    """One row of a calibration, in words."""

    experiment: str
    measured: str
    accepted: str
    ok: bool


@dataclass(frozen=True)
class Calibration:
    """The newest readings of one instrument on one machine."""

    instrument: str
    record: Record
    origin: Origin
    readings: tuple[Reading, ...]

    @property
    def ok(self) -> bool:
        return all(reading.ok for reading in self.readings)


def calibrations(kept: Sequence[Kept]) -> dict[str, list[Calibration]]:
    """By instrument, of every machine the newest; what others sent in does not hide our own."""
    newest: dict[tuple[str, str, str | None, Origin], Calibration] = {}
    for one in sorted(kept, key=lambda k: age(k.record)):
        where = one.record.provenance
        for instrument, readings in _by_instrument(one.record).items():
            place = instrument, where.cpu, where.gpu, one.origin
            newest[place] = Calibration(instrument, one.record, one.origin, tuple(readings))
    found: dict[str, list[Calibration]] = {}
    for place in sorted(
        newest, key=lambda place: (place[0], place[3] != "published", place[1], place[2] or "")
    ):
        found.setdefault(place[0], []).append(newest[place])
    return found


def _by_instrument(record: Record) -> dict[str, list[Reading]]:
    """The rows of a record; one that is not as the suite writes it is shown as off."""
    found: dict[str, list[Reading]] = {}
    for row in record.trace:
        instrument, ends = row.get("instrument"), row.get("tolerance")
        if not isinstance(instrument, str):
            continue
        pair = ends if isinstance(ends, list) and len(ends) == 2 else [None, None]
        low, high = (float(end) if is_number(end) else None for end in pair)
        measured = row.get("measured")
        found.setdefault(instrument, []).append(
            Reading(
                experiment=str(row.get("experiment", "")),
                measured=fine(measured) if is_number(measured) else "not finite",
                accepted=within(low, high),
                ok=row.get("ok") is True,
            )
        )
    return found
