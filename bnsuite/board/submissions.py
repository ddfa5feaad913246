"""Submissions of others, one folder each; unsound ones are left out with a reason."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from bnsuite.audit import objections_to
from bnsuite.format import clipped
from bnsuite.ranking.composite import SCALED
from bnsuite.ranking.tracks import REFERENCE, Kept
from bnsuite.records import CALIBRATION, SUITE_VERSION, Record, RecordError, read_records
from bnsuite.records.manifest import Manifest, read_manifest
from bnsuite.records.store import files_below

_REASON = 300  # characters of a reason that are shown


class Admitted(NamedTuple):
    """Records and manifests (by scheme) of the sound submissions, and a line per submission left out."""

    records: dict[Path, Record]
    manifests: dict[str, Manifest]
    left_out: list[str]


def home(folder: Path) -> Path:
    """Return the folder of a submission from that of its records."""
    return folder.parent if folder.name == "records" else folder


def admit(folders: Iterable[Path], own: Mapping[Path, Kept]) -> Admitted:
    """Read submissions from the folders of their records, and leave out the unsound ones.

    A submission must not have the name of a published scheme or of another submission, hold a record of
    another scheme, one that also lies elsewhere (except among local records), or one to which the audit
    objects.

    Args:
        folders: folders of the submissions' records.
        own: our own records.
    """
    admitted = Admitted({}, {}, [])
    taken = {REFERENCE, *SCALED, *(one.record.scheme for one in own.values() if one.origin == "published")}
    ids = {one.record.id: path for path, one in own.items() if one.origin != "local"}
    for folder in folders:
        place = home(folder)
        try:
            manifest, records = _read(place, folder)
            if manifest.name in taken:
                raise RecordError(f"{place}: the name {manifest.name} is taken. Give it another.")
            for path, record in records.items():
                if record.id in ids:
                    raise RecordError(f"{path}: lies in {ids[record.id]}, too. Remove one of the two.")
        except (RecordError, OSError, RecursionError) as error:
            admitted.left_out.append(reason(place, str(error)))
            continue
        taken.add(manifest.name)
        ids |= {record.id: path for path, record in records.items()}
        admitted.manifests[manifest.name] = manifest
        admitted.records.update(records)
    return admitted


def reason(place: Path, message: str) -> str:
    """Return the line that says why a submission is left out, without the path of its parent folder."""
    return clipped(message.replace(f"{place.parent}{os.sep}", ""), _REASON)


def explained(error: Exception) -> str:
    """Describe an unexpected exception in one line."""
    return clipped(f"{type(error).__name__}: {error}".rstrip(": "), _REASON)


def _read(place: Path, folder: Path) -> tuple[Manifest, dict[Path, Record]]:
    if link := next((path for path in (place, *files_below(place)) if path.is_symlink()), None):
        raise RecordError(f"{link}: is a link, and a submission holds files. Put the file there.")
    manifest = read_manifest(place)
    records = read_records([folder])
    if not records:
        raise RecordError(f"{folder}: holds no record. `bnsuite run` makes some.")
    for path, record in records.items():
        if record.task != CALIBRATION and record.scheme != manifest.name:
            raise RecordError(f"{path}: is of {record.scheme!r:.80}, not of {manifest.name}. Remove it.")
        if record.suite_version > SUITE_VERSION:
            raise RecordError(f"{path}: is of suite version {record.suite_version}, which is not there yet.")
        try:
            doubts = objections_to(record)
        except Exception as error:  # an audit that falls over what it judges must not stop the board
            doubts = [explained(error)]
        if doubts:
            raise RecordError(f"{path}: cannot be: {doubts[0]}")
    return manifest, records
