"""Build the static board: a folder of pages from records, whole or not at all."""

import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from bnsuite.audit import beyond
from bnsuite.board.pages import Board, render
from bnsuite.board.prose import load_prose
from bnsuite.board.submissions import Admitted, admit, explained, home, reason
from bnsuite.claims.catalogue import CLAIMS
from bnsuite.claims.judge import judge_largest
from bnsuite.ranking.calibrations import calibrations
from bnsuite.ranking.composite import FROZEN
from bnsuite.ranking.tables import make_tables
from bnsuite.ranking.tracks import Kept, Origin
from bnsuite.records import CALIBRATION, RecordError, read_records
from bnsuite.records.manifest import Manifest

MARKER = ".bnsuite-board"
"""Name of the file that marks a folder as a board, which the next build may replace."""


class RecordFolder(NamedTuple):
    """Folder of records, with their origin."""

    folder: Path
    origin: Origin


def build_site(sources: Sequence[RecordFolder], out: Path, left_out: list[str] | None = None) -> Path:
    """Build the board of all records below the sources, and return the path of its index.

    Equal records give equal bytes. Pages are made in memory, written next to `out` and put in its place in
    one step, which removes an earlier build.

    Args:
        sources: folders of records. One of origin `submitted` is that of a submission, which is left out
            where it is unsound.
        out: folder of the board.
        left_out: gets a line per submission that is left out; the index shows them, too.

    Raises:
        RecordError: a record of ours is unsound; `out` is not a board, or cannot be written. Nothing is
            changed.
    """
    out = out.resolve()
    ours = [source for source in sources if source.origin != "submitted"]
    theirs = [source.folder for source in sources if source.origin == "submitted"]
    try:
        homes = [place for place in map(home, theirs) if not place.is_symlink()]
        _check_target(out, [*(source.folder for source in ours), *homes])
        own = read_records([source.folder for source in ours])
        found = {path: Kept(record, _origin(path, ours)) for path, record in own.items()}
        admitted = admit(theirs, found)
        # what was submitted from here lies here, too
        sent = {record.id for record in admitted.records.values()}
        found = {path: one for path, one in found.items() if one.record.id not in sent}
        _replace(out, _drawn(found, admitted))
    except OSError as error:
        raise RecordError(
            f"{error.filename or out}: cannot build the board in {out} ({error.strerror or error}). "
            "Free or unlock the folder, or give another with --out."
        ) from error
    if left_out is not None:
        left_out += admitted.left_out
    return out / "index.html"


def _drawn(own: Mapping[Path, Kept], admitted: Admitted) -> dict[str, bytes]:
    """Render the files of the board; without the submissions that cannot be drawn, where drawing fails.

    Raises:
        RecordError: one of our own records cannot be drawn; names its file.
    """
    sent = {path: Kept(record, "submitted") for path, record in admitted.records.items()}
    try:
        return render_files({**own, **sent}, admitted.manifests, admitted.left_out)
    except Exception:
        kept, manifests = {**own}, dict[str, Manifest]()
    try:
        render_files(kept, manifests, admitted.left_out)
    except Exception as error:
        culprit, why = _culprit({}, own) or (None, explained(error))
        raise RecordError(f"{culprit or 'the records'}: cannot be drawn ({why}). Remove the file.") from error
    for name, manifest in admitted.manifests.items():
        theirs = {path: one for path, one in sent.items() if one.record.scheme == name}
        try:
            more = {**kept, **theirs}, {**manifests, name: manifest}
            render_files(*more, admitted.left_out)
            kept, manifests = more
        except Exception as error:
            path, why = _culprit(kept, theirs) or (next(iter(theirs)), explained(error))
            place = next((parent for parent in path.parents if parent.name == "records"), path.parent)
            line = reason(home(place), f"{path}: cannot be drawn ({why}). Remove it.")
            admitted.left_out.append(line)
    return render_files(kept, manifests, admitted.left_out)


def _culprit(beside: Mapping[Path, Kept], records: Mapping[Path, Kept]) -> tuple[Path, str] | None:
    """Find a record that cannot be drawn, and why: one beyond the limits, else one that fails to draw."""
    for path, one in records.items():
        for doubt in beyond(one.record):
            return path, doubt
    for path, one in records.items():
        try:
            render_files({**beside, path: one}, {}, [])
        except Exception as error:
            return path, explained(error)
    return None


def render_files(
    found: Mapping[Path, Kept], manifests: Mapping[str, Manifest], left_out: Sequence[str]
) -> dict[str, bytes]:
    """Render all files of the board: path within it → content. Records are copied byte for byte."""
    every = sorted(found.values(), key=lambda one: one.record.id)
    reruns = [one.record for one in every if one.origin == "verification"]
    kept = [one for one in every if one.origin != "verification"]
    measured = [one for one in kept if one.record.task != CALIBRATION]
    known = calibrations([one for one in kept if one.record.task == CALIBRATION])
    tables = make_tables(measured, FROZEN, reruns)
    judged = judge_largest(CLAIMS, kept)
    prose = {name: load_prose(f"{name.upper()}.md") for name in ("schemes", "rules")}
    pages = render(Board(measured, tables, prose, known, judged, manifests, left_out))
    files = {name: text.encode() for name, text in pages.items()}
    files |= {f"records/{one.record.id}.json": path.read_bytes() for path, one in found.items()}
    files["board.css"] = (Path(__file__).parent / "static" / "board.css").read_bytes()
    files[MARKER] = b"This folder was written by `bnsuite board`, which replaces it as a whole.\n"
    return dict(sorted(files.items()))


def _origin(path: Path, sources: Sequence[RecordFolder]) -> Origin:
    """Return the origin of the innermost source that holds a path."""
    holding = [source for source in sources if path.is_relative_to(source.folder)]
    return max(holding, key=lambda source: len(source.folder.parts)).origin


def _check_target(out: Path, folders: Iterable[Path]) -> None:
    """Raise `RecordError` for a target whose replacement would remove something else."""
    if out.exists() and not out.is_dir():
        raise RecordError(f"{out}: is a file, and the board is a folder. Give another with --out.")
    if out.is_dir() and any(out.iterdir()) and not (out / MARKER).is_file():
        raise RecordError(
            f"{out}: holds files that are not a board, and the board replaces its folder. "
            "Give an empty or a new folder with --out."
        )
    for folder in map(Path.resolve, folders):
        if folder.is_relative_to(out) or out.is_relative_to(folder):
            raise RecordError(
                f"{out}: one of the board and the records in {folder} would lie within the other. "
                "Give another folder with --out."
            )


def _replace(out: Path, files: Mapping[str, bytes]) -> None:
    """Write next to the target, then swap: a reader sees the old board or the new one."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        dir=out.parent, prefix=f".{out.name}.", suffix=".tmp", ignore_cleanup_errors=True
    ) as room:
        fresh, old = Path(room, "new"), Path(room, "old")
        fresh.mkdir()
        for name, content in files.items():
            path = fresh / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content)
        if out.exists():
            os.replace(out, old)
        try:
            os.replace(fresh, out)
        except OSError:
            if old.exists():
                os.replace(old, out)
            raise
        shutil.rmtree(old, ignore_errors=True)
