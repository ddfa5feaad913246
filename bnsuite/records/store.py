"""The store: a folder of JSON files, one a record, written atomically and never changed."""

import json
import math
import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

from pydantic import ValidationError

from bnsuite.records.record import SCHEMA_VERSION, Outcome, Record

FILE_NAME = re.compile(r"(?!\.)[\w+=,.-]{1,200}")
"""What a field must be to stand in a path: no separator, not hidden, and so not above its folder."""


class RecordError(Exception):
    """A record cannot be read or written. The message is one line: the file, what is wrong, what to do."""


class Store:
    """Records below one folder.

    Reading is lazy about nothing: a file that is not a sound record raises `RecordError`, since a
    leaderboard that skips what it cannot read would lie.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self._paths = {path: read_record(path) for path in sorted(self.folder.rglob("*.json"))}

    def __iter__(self) -> Iterator[Record]:
        return iter(self._paths.values())

    def __len__(self) -> int:
        return len(self._paths)

    def paths(self) -> dict[Path, Record]:
        return dict(self._paths)

    def result(self, key: str, profile: str) -> Record | None:
        """The newest record of this key that is a result; an `error` is not one and is run again."""
        found = [r for r in self if (r.key, r.profile) == (key, profile) and r.outcome is not Outcome.ERROR]
        return max(found, key=lambda r: r.provenance.started, default=None)

    def path_of(self, record: Record) -> Path:
        """Where a record lies; `RecordError` where what it says of itself is no name of a file."""
        for field in ("scheme", "profile", "family", "dataset", "task", "id"):
            if not FILE_NAME.fullmatch(value := getattr(record, field)):
                raise RecordError(
                    f"record {record.id!r:.20}: {field} {value!r:.80} names no file, and it is not stored. "
                    "Wanted are letters, digits and + = , . _ - alone, at most 200."
                )
        name = f"{record.scheme}-{record.device}-{record.id}.json"
        return self.folder / record.profile / f"{record.family}-{record.dataset}" / record.task / name

    def add(self, record: Record) -> Path:
        """Write one record: whole or not at all."""
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
        self._paths[path] = record
        return path

    def check_writable(self) -> None:
        """Fail before hours of work, not after."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self.folder, prefix=".probe-"):
                pass
        except OSError as error:
            raise RecordError(
                f"{self.folder}: cannot write here ({error.strerror or error}). "
                "Give a folder that can be written with --records."
            ) from error


def write_atomically(path: Path, text: str) -> None:
    """Write beside the target, flush to disk, rename: a reader sees the old file or the new one."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def read_record(path: Path) -> Record:
    """Parse and verify one file, or raise `RecordError` naming it."""

    def refuse(number: str) -> NoReturn:
        raise ValueError(f"{number} is not a finite number")

    def finite(number: str) -> float:
        return value if math.isfinite(value := float(number)) else refuse(number)

    try:
        data = json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse, parse_float=finite)
    except OSError as error:
        raise RecordError(f"{path}: cannot be read ({error.strerror}). Check its permissions.") from error
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{path}: not valid JSON ({error}). Restore the file or remove it.") from error
    version = data.get("schema_version") if isinstance(data, dict) else None
    if version not in range(1, SCHEMA_VERSION + 1):
        raise RecordError(
            f"{path}: schema_version is {version!r}, wanted 1 to {SCHEMA_VERSION}. "
            "Remove the file, or use the version of bnsuite that wrote it."
        )
    try:
        record = Record.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise RecordError(
            f"{path}: not a record ({where}: {first['msg']}). Restore the file or remove it; "
            "`bnsuite schema` prints what a record holds."
        ) from error
    if (record.key, record.id) != (record.expected_key(), record.expected_id()):
        raise RecordError(
            f"{path}: its id or key does not match its content: it was edited after it was measured. "
            "Restore the file, or remove it and measure again."
        )
    return record


def load_records(folders: Iterable[Path | str]) -> dict[Path, Record]:
    """All records below the folders, of which some may not exist; one that lies in several, in the last."""
    found: dict[Path, Record] = {}
    seen: dict[str, Path] = {}
    for folder in folders:
        for path, record in Store(folder).paths().items():
            if record.id in seen:
                del found[seen[record.id]]
            seen[record.id] = path
            found[path] = record
    return found


def started(record: Record) -> datetime:
    """Start of the measurement in UTC; what is not a time counts as long ago."""
    try:
        moment = datetime.fromisoformat(record.provenance.started)
    except ValueError:
        return datetime.min.replace(tzinfo=UTC)
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)


def age(record: Record) -> tuple[datetime, str]:
    """Sorts records from the oldest to the newest."""
    return started(record), record.id
