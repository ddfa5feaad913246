"""Tracks and entries: which records may be compared, and which of them a table shows."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, NamedTuple

from bnsuite.records import CALIBRATION, Record
from bnsuite.records.store import age as age
from bnsuite.specs import RANKED

Origin = Literal["published", "submitted", "local", "verification"]
"""Where a record is from. Records of a verification are in no table: they confirm submitted ones."""

REFERENCE = "batchnorm"
"""Scheme that ratios are taken to."""

ORIGINS: tuple[Origin, ...] = ("published", "local", "submitted")
"""Origins shown in tables, by priority."""
PROFILES = ("full", "standard", "quick")  # then any other, then smoke


class Kept(NamedTuple):
    """Record and its origin."""

    record: Record
    origin: Origin


def origin_of(folder: Path) -> Origin:
    """Origin of the records in a folder, by its place in a checkout; elsewhere they are local."""
    parts = folder.resolve().parts
    if "submissions" in parts:
        return "submitted"
    if parts[-2:] == ("leaderboard", "records"):
        return "published"
    return "verification" if parts[-2:] == ("leaderboard", "verification") else "local"


@dataclass(frozen=True, order=True)
class Track:
    """Key of records that may be compared; records of different tracks are never in one table.

    Attributes:
        suite_version: version of the suite.
        profile: name of the profile, with changed settings.
        family: family of the networks.
        dataset: name of the data set.
        checksum: SHA-256 of the data set, which tells apart data sets of one name.
        mark: first digits of the checksum if the name alone is ambiguous.
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
        """Name of the data set, with its mark: digits, or digits (3069f954)."""
        return f"{self.dataset} ({self.mark})" if self.mark else self.dataset

    @property
    def budget(self) -> str:
        """Profile and settings that were changed: quick, batch=16."""
        return ", ".join(self.profile.split("+"))


class Entry(NamedTuple):
    """Key of a row: one scheme on one kind of device from one origin."""

    scheme: str
    device: str
    origin: Origin


def track_of(record: Record) -> Track:
    """Find the track of a record."""
    checksum = record.provenance.dataset_checksum
    return Track(record.suite_version, record.profile, record.family, record.dataset, checksum)


def entry_of(kept: Kept) -> Entry:
    """Find the entry of a record."""
    return Entry(kept.record.scheme, kept.record.device, kept.origin)


def by_track(kept: Iterable[Kept]) -> dict[Track, list[Kept]]:
    """Group records by track: newest suite first, then the largest profile, `smoke` last, changed ones after.

    Tracks with submitted records alone come last. Calibrations measure no scheme and have no track.
    """
    tracks: dict[Track, list[Kept]] = defaultdict(list)
    for k in kept:
        if k.record.task != CALIBRATION:
            tracks[track_of(k.record)].append(k)

    def order(track: Track) -> tuple[bool, int, bool, int, Track]:
        places = {profile: place for place, profile in enumerate(PROFILES)}
        profile, *changed = track.profile.split("+")
        place = places.get(profile, 9 + (profile == "smoke"))
        foreign = all(k.origin == "submitted" for k in tracks[track])
        return foreign, -track.suite_version, bool(changed), place, track

    marks = _marks(tracks)
    return {replace(track, mark=marks[track]): tracks[track] for track in sorted(tracks, key=order)}


MARK = 8
"""Digits of a checksum that are shown; more if they do not tell the data sets of a name apart."""


def _marks(tracks: Mapping[Track, Sequence[Kept]]) -> dict[Track, str]:
    """Choose the mark of each track; empty for the only, or the only published, data set of its name."""
    checksums: dict[str, set[str]] = defaultdict(set)
    published: dict[str, set[str]] = defaultdict(set)
    for track, kept in tracks.items():
        checksums[track.dataset].add(track.checksum)
        if any(k.origin == "published" for k in kept):
            published[track.dataset].add(track.checksum)

    def plain(track: Track) -> bool:
        return {track.checksum} in (checksums[track.dataset], published[track.dataset])

    def mark(track: Track) -> str:
        same_name = checksums[track.dataset]
        lengths = range(MARK, len(track.checksum) + 1)
        short = (n for n in lengths if len({checksum[:n] for checksum in same_name}) == len(same_name))
        return track.checksum[: next(short, None)] or "none"

    return {track: "" if plain(track) else mark(track) for track in tracks}


def newest(kept: Iterable[Kept]) -> dict[Entry, dict[str, Record]]:
    """Find the newest record per entry and task, whatever its outcome; tables show these."""
    shown: dict[Entry, dict[str, Record]] = defaultdict(dict)
    for k in sorted(kept, key=lambda k: age(k.record)):
        shown[entry_of(k)][k.record.task] = k.record
    return {entry: shown[entry] for entry in sorted(shown)}


def tasks_of(kept: Iterable[Kept]) -> list[str]:
    """List the tasks that have a record: ranked ones in their order, then the others by name."""
    tasks = {record.task for record, _ in kept}
    return [task for task in RANKED if task in tasks] + sorted(tasks - set(RANKED))


def same_question(a: Record, b: Record) -> bool:
    """Tell whether two records of a track answer one question; only these are ranked together."""
    return (a.task, a.task_version, a.unit, a.better, a.settings) == (
        b.task,
        b.task_version,
        b.unit,
        b.better,
        b.settings,
    )


def standard(kept: Sequence[Kept]) -> Kept:
    """Choose the record that defines the question of one task in one track, and the reference if it is one.

    Published batchnorm comes first, then local batchnorm, never a submitted one; a CPU comes before a GPU.
    The newest of these records defines the question; the earliest with a value that answers this question is
    the reference, so that measuring again changes no score. Without batchnorm, another scheme's record
    defines the question.
    """

    def place(k: Kept) -> tuple[bool, int, str]:
        eligible = k.record.scheme == REFERENCE and k.origin != "submitted"
        return not eligible, ORIGINS.index(k.origin), k.record.device

    first = min(map(place, kept))
    group = sorted((k for k in kept if place(k) == first), key=lambda k: age(k.record))
    valued = [k for k in group if k.record.value is not None] or group
    return next(k for k in valued if same_question(k.record, valued[-1].record))


def is_reference(kept: Kept) -> bool:
    """Tell whether ratios can be taken to the standard of a task."""
    return kept.record.scheme == REFERENCE and kept.origin != "submitted" and kept.record.value is not None
