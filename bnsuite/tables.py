"""Records as pandas tables: one row per record, or one row per confirmation seed."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from bnsuite.records import Provenance, Record, RecordError, read_records
from bnsuite.records.store import check_folders

if TYPE_CHECKING:
    from pandas import DataFrame


def _dtype(annotation: Any) -> str:
    """Name the pandas dtype for a type, or for a type or None."""
    kind = next(iter(get_args(annotation)), annotation)
    return {str: "string", int: "int64", float: "float64", bool: "boolean"}[kind]


COLUMNS: Mapping[str, str] = {
    "id": "string",
    "key": "string",
    "scheme": "string",
    "family": "string",
    "dataset": "string",
    "task": "string",
    "profile": "string",
    "device": "string",
    "value": "float64",
    "outcome": "string",
    "low": "float64",
    "high": "float64",
    "coverage": "float64",
    "n": "int64",
    "unit": "string",
    "better": "string",
    "settings": "string",
    "derived": "string",
    "error": "string",
    "task_version": "int64",
    "suite_version": "int64",
    **{name: _dtype(field.annotation) for name, field in Provenance.model_fields.items() if name != "seeds"},
    "started": "datetime64[us, UTC]",  # text in a record
}
"""Column → pandas dtype of a table of records.

`id` names one measuring and `key` what was measured. `value` is the median over `n` confirmation seeds, in
`unit`; `[low, high]` is its interval of the stated `coverage`, an open end is missing. `settings` and
`derived` are JSON objects with sorted keys, so equal settings are equal text. `started` is missing where the
record holds no time there. The columns from `package_version` on are the record's provenance, with the
meaning that `bnsuite schema` gives each.
"""

_OF_A_RECORD = ("coverage", "derived", "error")  # these say nothing about a single seed

SAMPLE_COLUMNS: Mapping[str, str] = {
    **{name: dtype for name, dtype in COLUMNS.items() if name not in _OF_A_RECORD},
    "seed": "int64",
    "detail": "string",
}
"""Column → pandas dtype of a table of seeds.

`value`, `outcome`, `low` and `high` are those of the seed, and `[low, high]` is the bracket of its search;
`detail` is a JSON object with sorted keys. All other columns are those of the record, and repeat with it.
"""


def load_records(path: Path | str | Iterable[Path | str], *, samples: bool = False) -> "DataFrame":
    """Read all records below one or several folders into a table, in the order of folders and file names.

    >>> import bnsuite
    >>> records = bnsuite.load_records("leaderboard/records")  # doctest: +SKIP
    >>> records[records["task"] == "max_depth"].set_index("scheme")["value"]  # doctest: +SKIP

    Args:
        path: a folder of records, of a submission or of submissions, or several. A record that lies in more
            than one of them is read once.
        samples: return one row per confirmation seed instead of one row per record.

    Returns:
        A table with the columns and dtypes of `COLUMNS`, or of `SAMPLE_COLUMNS`; no rows where the folders
        hold no record.

    Raises:
        RecordError: a folder that is not there, or a file that is not a sound record: nothing is skipped.
    """
    import pandas as pd

    folders = [Path(path)] if isinstance(path, str | Path) else [Path(folder) for folder in path]
    check_folders(folders)
    columns = SAMPLE_COLUMNS if samples else COLUMNS
    records = read_records(folders).values()
    rows = [row for record in records for row in (_by_seed(record) if samples else [_row(record)])]
    table = pd.DataFrame(rows, columns=[*columns])
    table["started"] = pd.to_datetime(table["started"], utc=True, errors="coerce", format="ISO8601")
    try:
        return table.astype(dict(columns))
    except OverflowError as error:
        names = ", ".join(map(str, folders))
        raise RecordError(f"{names}: a record holds a whole number beyond 64 bits. Remove it.") from error


def _row(record: Record) -> dict[str, Any]:
    return {
        **record.model_dump(mode="json", include={*COLUMNS} - {"settings", "derived"}),
        **record.provenance.model_dump(include={*COLUMNS}),
        "n": record.n,
        "settings": _json(record.settings),
        "derived": _json(record.derived),
    }


def _by_seed(record: Record) -> list[dict[str, Any]]:
    shared = _row(record)
    return [
        {**shared, **sample.model_dump(mode="json"), "detail": _json(sample.detail)}
        for sample in record.samples
    ]


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, sort_keys=True)
