"""Store of records: a folder of JSON files, one per record, written atomically and never changed."""

import json
import math
import os
import re
import stat
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from io import BufferedRandom
from pathlib import Path
from typing import Any, NoReturn

from pydantic import ValidationError

from bnsuite.records.record import SCHEMA_VERSION, Cell, Record

FILE_NAME = re.compile(r"(?!\.)[\w+=,.-]{1,200}")
"""Pattern of a field that is part of a path: no separator and no leading dot, so it stays in its folder."""


class RecordError(Exception):
    """Failure to read or write a record, in one line: the file, what is wrong, what to do."""


LARGEST = 64 * 2**20
"""Largest file that is read as a record, in bytes; published ones have up to 100 KiB."""

DEEPEST = 32
"""Levels of folders that are searched; a store needs 3."""

_NAME = re.compile(r"(.+)-(cpu|cuda)-[0-9a-f]{16}\.json")


class Store:
    """Records below one folder.

    Opening a store lists its files and reads none. Iteration reads all of them, `result` only those of one
    cell by their paths, and files that lie elsewhere than `path_of` puts them. Reading a file that is not a
    sound record raises `RecordError`, since a leaderboard that skipped it would be wrong without saying so.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self._records: dict[Path, Record | None] = dict.fromkeys(sorted(json_files(self.folder)))
        self._by_place: dict[tuple[str, ...], list[Path]] = defaultdict(list)
        for path in self._records:
            self._by_place[self._place(path)].append(path)

    def __iter__(self) -> Iterator[Record]:
        return (self._record(path) for path in [*self._records])

    def __len__(self) -> int:
        return len(self._records)

    def paths(self) -> dict[Path, Record]:
        """Read all records, by their paths."""
        return {path: self._record(path) for path in self._records}

    def result(self, key: str, cell: Cell) -> Record | None:
        """Find the newest record of a key that is a result; an `error` is not one and is run again.

        Args:
            key: key of the record, as `make_key` returns it.
            cell: cell of the record, with its profile.
        """
        place = (cell.profile, f"{cell.family}-{cell.dataset}", cell.task, cell.scheme, cell.device)
        records = map(self._record, [*self._by_place.get(place, ()), *self._by_place.get((), ())])
        results = [r for r in records if (r.key, r.profile) == (key, cell.profile) and r.outcome != "error"]
        return max(results, key=age, default=None)

    def of_scheme(self, scheme: str) -> list[Record]:
        """Read the records of one scheme."""
        places = [place for place in self._by_place if not place or place[3] == scheme]
        records = [self._record(path) for place in places for path in self._by_place[place]]
        return [record for record in records if record.scheme == scheme]

    def _record(self, path: Path) -> Record:
        record = self._records[path] = self._records[path] or read_record(path)
        return record

    def _place(self, path: Path) -> tuple[str, ...]:
        """Profile, network, task, scheme and device by the file's path; () where `path_of` put no file."""
        *folders, name = path.relative_to(self.folder).parts
        found = _NAME.fullmatch(name)
        return (*folders, *found.groups()) if found and len(folders) == 3 else ()

    def check_names(self, cell: Cell) -> None:
        """Raise `RecordError` where a record of this cell could not be stored, before it is measured."""
        _check_names(f"{cell}", cell)

    def path_of(self, record: Record) -> Path:
        """Return the path of a record; `RecordError` where one of its fields cannot be part of a path."""
        _check_names(f"record {record.id!r:.20}", record, "id")
        name = f"{record.scheme}-{record.device}-{record.id}.json"
        return self.folder / record.profile / f"{record.family}-{record.dataset}" / record.task / name

    def add(self, record: Record) -> Path:
        """Write one record, whole or not at all, and return its path."""
        path = self.path_of(record)
        text = json.dumps(record.model_dump(mode="json"), indent=1, allow_nan=False) + "\n"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, text)
        except OSError as error:
            raise RecordError(
                f"{path}: cannot write the record ({error.strerror or error}). Free or unlock the folder, "
                "or give another with --records; finished cells are kept and the same command goes on."
            ) from error
        self._records[path] = record
        self._by_place[self._place(path)].append(path)
        return path

    def check_writable(self) -> None:
        """Raise `RecordError` where the folder cannot be written, before hours of work are lost."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self.folder, prefix=".probe-"):
                pass
        except OSError as error:
            raise RecordError(
                f"{self.folder}: cannot write here ({error.strerror or error}). "
                "Give a folder that can be written with --records."
            ) from error


@contextmanager
def atomic_file(path: Path) -> Iterator[BufferedRandom]:
    """Open a file next to `path` for writing and reading, and rename it to `path` at the end of the block.

    A reader sees the old file or the new one, which is flushed to disk first; an exception leaves the old.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)  # the sandbox reads it as another user
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file, whole or not at all; text as UTF-8."""
    with atomic_file(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def json_files(folder: Path) -> Iterator[Path]:
    """Yield the paths below a folder that end in .json; skip linked folders. A missing folder is empty.

    Raises:
        RecordError: a folder that cannot be listed, or folders nested deeper than `DEEPEST`.
    """
    return (path for path in files_below(folder) if path.name.endswith(".json"))


def files_below(folder: Path) -> Iterator[Path]:
    """Yield the paths of all files below a folder; otherwise as `json_files`."""
    waiting = [(folder, 0)]
    while waiting:
        place, depth = waiting.pop()
        if depth > DEEPEST:
            raise RecordError(f"{folder}: holds folders nested more than {DEEPEST} deep. Remove them.")
        try:
            with os.scandir(place) as entries:
                for entry in entries:
                    below = entry.is_dir(follow_symlinks=False) and not entry.name.endswith(".json")
                    if below:
                        waiting.append((place / entry.name, depth + 1))
                    else:
                        yield place / entry.name
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise RecordError(f"{place}: cannot be listed ({reason}). Check the folder.") from error


def check_folders(folders: Iterable[Path]) -> None:
    """Raise `RecordError` where one of the folders of records is not there."""
    for folder in folders:
        if not folder.is_dir():
            raise RecordError(
                f"{folder}: no such folder. Give the folder of a run's records, such as results."
            )


def read_record(path: Path) -> Record:
    """Parse and verify one file, or raise `RecordError` naming it."""
    content = _content(path)
    try:
        data = parse_json(content.decode())
    except (ValueError, RecursionError) as error:
        raise RecordError(
            f"{path}: not valid JSON ({error!s:.200}). Restore the file or remove it."
        ) from error
    version = data.get("schema_version") if isinstance(data, dict) else None
    if type(version) is not int or not 1 <= version <= SCHEMA_VERSION:
        raise RecordError(
            f"{path}: schema_version is {version!r:.80}, wanted 1 to {SCHEMA_VERSION}. "
            "Remove the file, or use the version of bnsuite that wrote it."
        )
    try:
        record = Record.model_validate_json(content, strict=True)
        expected = record.expected_key(), record.expected_id()
    except ValidationError as error:
        raise RecordError(
            f"{path}: not a record ({where(error)}: {error.errors()[0]['msg']}). Restore the file or "
            "remove it; `bnsuite schema` prints what a record holds."
        ) from error
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{path}: not a record ({error!s:.200}). Restore the file or remove it.") from error
    if (record.key, record.id) != expected:
        raise RecordError(
            f"{path}: its id or key does not match its content: it was edited after it was measured. "
            "Restore the file, or remove it and measure again."
        )
    return record


def where(error: ValidationError) -> str:
    """Return the place of the first fault that validation found, in at most 80 printable characters."""
    place = ".".join(str(part)[:80] for part in error.errors(include_input=False)[0]["loc"][:20])
    return "".join(c if c.isprintable() else "�" for c in place[:80])


def _check_names(what: str, named: Cell | Record, *more: str) -> None:
    for field in ("scheme", "profile", "family", "dataset", "task", *more):
        if not FILE_NAME.fullmatch(value := getattr(named, field)):
            raise RecordError(
                f"{what}: {field} {value!r:.80} names no file, and it is not stored. "
                "Wanted are letters, digits and + = , . _ - alone, at most 200."
            )


def _content(path: Path) -> bytes:
    """Read a plain file; a pipe or a device would be waited for without end."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise RecordError(f"{path}: cannot be read (not a plain file). Remove it.")
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
        if len(content) > LARGEST:
            raise RecordError(f"{path}: larger than {LARGEST >> 20} MiB, and so no record. Remove it.")
        return content
    except OSError as error:
        raise RecordError(f"{path}: cannot be read ({error.strerror}). Check its permissions.") from error


def parse_json(text: str | bytes) -> Any:
    """Parse JSON in which all numbers are finite, and no object has a key twice.

    Raises:
        ValueError: it is not that.
        RecursionError: it is nested too deep.
    """
    return json.loads(text, parse_constant=_refuse, parse_float=_finite, object_pairs_hook=_unique)


def _refuse(number: str) -> NoReturn:
    raise ValueError(f"{number:.40} is not a finite number")


def _finite(number: str) -> float:
    return value if math.isfinite(value := float(number)) else _refuse(number)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of these pairs; two of one key would be read otherwise by another parser."""
    fields: dict[str, Any] = {}
    for key, value in pairs:
        if key in fields:
            raise ValueError(f"key {key!r:.80} twice in one object")
        fields[key] = value
    return fields


def read_records(folders: Iterable[Path | str]) -> dict[Path, Record]:
    """Read all records below the folders, by path; a record that lies in several counts in the last.

    A missing folder is empty. Raises `RecordError` for a file that is not a sound record.
    """
    found: dict[str, tuple[Path, Record]] = {}
    for folder in folders:
        for path, record in Store(folder).paths().items():
            found.pop(record.id, None)  # in the order of the last folder, too
            found[record.id] = path, record
    return dict(found.values())


def started(record: Record) -> datetime:
    """Return the start of the measurement in UTC; year 1 where the record holds no time."""
    try:
        moment = datetime.fromisoformat(record.provenance.started)
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError):  # the years 1 and 9999 overflow with an offset
        return datetime.min.replace(tzinfo=UTC)


def age(record: Record) -> tuple[datetime, str]:
    """Sort key of records, from the oldest to the newest."""
    return started(record), record.id
