"""Tracks and entries: which records may be compared, and which of them a table shows."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

from bnsuite.records import CALIBRATION, Record
from bnsuite.records.store import age as age
from bnsuite.specs import RANKED

Origin = Literal["published", "submitted", "local", "verification"]
"""How a record came to be. Those of a verification stand in no table: they confirm what others sent in."""

REFERENCE = "batchnorm"
"""The scheme that ratios are taken to."""

ORIGINS: tuple[Origin, ...] = ("published", "local", "submitted")
"""Those that stand in tables, by whose word comes first."""
PROFILES = ("full", "standard", "quick")  # then any other, then smoke


class Kept(NamedTuple):
    """A record, and where it lay."""

    record: Record
    origin: Origin


@dataclass(frozen=True, order=True)
class Track:
    """Records that may be compared. Never mixed: one table each.

    Attributes:
        checksum: SHA-256 of the data set, which is another one under the same name where it differs.
        mark: first digits of the checksum, where the name alone does not tell the data set from another.
    """

    suite_version: int
    profile: str
    family: str
    dataset: str
    checksum: str
    mark: str = field(default="", compare=False)

    def __str__(self) -> str:
        return f"{self.data} · {self.family} · {self.budget}"

    @property
    def data(self) -> str:
        """What the data set is called: digits, or digits (3069f954)."""
        return f"{self.dataset} ({self.mark})" if self.mark else self.dataset

    @property
    def budget(self) -> str:
        """The profile, and the settings that were given in place of its own: quick, batch=16."""
        return ", ".join(self.profile.split("+"))


class Entry(NamedTuple):
    """A row: one scheme on one kind of device from one origin."""

    scheme: str
    device: str
    origin: Origin


def track_of(record: Record) -> Track:
    checksum = record.provenance.dataset_checksum
    return Track(record.suite_version, record.profile, record.family, record.dataset, checksum)


def entry_of(kept: Kept) -> Entry:
    return Entry(kept.record.scheme, kept.record.device, kept.origin)


def by_track(kept: Iterable[Kept]) -> dict[Track, list[Kept]]:
    """Records by track: newest suite first, the largest profile first, `smoke` last, changed ones after.

    Tracks that only others measured come last. Calibrations measure no scheme: they are in none.
    """
    tracks: dict[Track, list[Kept]] = defaultdict(list)
    for one in kept:
        if one.record.task != CALIBRATION:
            tracks[track_of(one.record)].append(one)

    def order(track: Track) -> tuple[bool, int, bool, int, Track]:
        places = {profile: place for place, profile in enumerate(PROFILES)}
        profile, *changed = track.profile.split("+")
        place = places.get(profile, 9 + (profile == "smoke"))
        foreign = all(one.origin == "submitted" for one in tracks[track])
        return foreign, -track.suite_version, bool(changed), place, track

    marks = _marks(tracks)
    return {replace(track, mark=marks[track]): tracks[track] for track in sorted(tracks, key=order)}


MARK = 8
"""Digits of a checksum that tell two data sets of one name apart; more where these are the same."""


def _marks(tracks: Mapping[Track, Sequence[Kept]]) -> dict[Track, str]:
    """The mark of each track; none for the only, or the only published, data set of its name."""
    checksums: dict[str, set[str]] = defaultdict(set)
    published: dict[str, set[str]] = defaultdict(set)
    for track, kept in tracks.items():
        checksums[track.dataset].add(track.checksum)
        if any(one.origin == "published" for one in kept):
            published[track.dataset].add(track.checksum)

    def plain(track: Track) -> bool:
        return {track.checksum} in (checksums[track.dataset], published[track.dataset])

    def mark(track: Track) -> str:
        same = checksums[track.dataset]
        digits = next((k for k in range(MARK, 64) if len({one[:k] for one in same}) == len(same)), 64)
        return track.checksum[:digits] or "none"

    return {track: "" if plain(track) else mark(track) for track in tracks}


def newest(kept: Iterable[Kept]) -> dict[Entry, dict[str, Record]]:
    """What is shown: per entry and task, the newest record, whatever its outcome."""
    shown: dict[Entry, dict[str, Record]] = defaultdict(dict)
    for one in sorted(kept, key=lambda k: age(k.record)):
        shown[entry_of(one)][one.record.task] = one.record
    return {entry: shown[entry] for entry in sorted(shown)}


def tasks_of(kept: Iterable[Kept]) -> list[str]:
    """Tasks that have a record: the ranked ones in their order, then the others by name."""
    found = {one.record.task for one in kept}
    return [task for task in RANKED if task in found] + sorted(found - set(RANKED))


def same_question(a: Record, b: Record) -> bool:
    """Whether two records of a track measured the same thing: nothing else is ever ranked together."""
    return (a.task, a.task_version, a.unit, a.better, a.settings) == (
        b.task,
        b.task_version,
        b.unit,
        b.better,
        b.settings,
    )


def standard(kept: Sequence[Kept]) -> Kept:
    """The record of one task in one track that defines its question, and its ratio where it can.

    Published batchnorm first, local batchnorm next, a submitted one never; CPU first. Its newest record
    says what is asked; the earliest with a value that asks the same is the reference, so that measuring
    again moves no score. Where there is no batchnorm, the first of the others says what is asked.
    """

    def place(one: Kept) -> tuple[bool, int, str]:
        eligible = one.record.scheme == REFERENCE and one.origin != "submitted"
        return not eligible, ORIGINS.index(one.origin), one.record.device

    first = min(map(place, kept))
    group = sorted((one for one in kept if place(one) == first), key=lambda k: age(k.record))
    valued = [one for one in group if one.record.value is not None] or group
    return next(one for one in valued if same_question(one.record, valued[-1].record))


def is_reference(one: Kept) -> bool:
    """Whether a task's standard is also a number to take ratios to."""
    return one.record.scheme == REFERENCE and one.origin != "submitted" and one.record.value is not None
