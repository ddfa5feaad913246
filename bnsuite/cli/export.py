"""Command that turns records into one file for other programs: export."""

import json
from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bnsuite.cli.terminal import err, fail

if TYPE_CHECKING:
    from pandas import DataFrame


class Format(StrEnum):
    """File formats of a table."""

    csv = "csv"
    parquet = "parquet"
    json = "json"


def export(
    form: Annotated[Format, typer.Option("--format", help="Format of the table.")] = Format.csv,
    samples: Annotated[
        bool, typer.Option("--samples", help="One row per confirmation seed, not per record.")
    ] = False,
    records: Annotated[
        list[Path] | None,
        typer.Option(
            "--records",
            help="Folder of records; repeatable. By default results/ and, in a checkout, published and "
            "submitted records.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="File to write; by default standard output. Parquet needs a file."),
    ] = None,
) -> None:
    """Write records as one table: CSV, Parquet or JSON."""
    from bnsuite.records import RecordError
    from bnsuite.records.store import write_atomically
    from bnsuite.tables import load_records

    if form is Format.parquet and out is None:
        fail("parquet is not text: got no file to write. Give one with --out, such as --out records.parquet.")
    published = [Path("results"), Path("leaderboard/records"), Path("leaderboard/submissions")]
    folders = records or [folder for folder in published if folder.is_dir()]
    if out and any(out.resolve().is_relative_to(folder.resolve()) for folder in folders):
        fail(
            f"{out}: lies in a folder of records, where every JSON file is a record. Give another with --out."
        )
    try:
        table = load_records(folders, samples=samples)
        content = _WRITERS[form](table)
    except RecordError as error:
        fail(str(error))
    except ImportError:
        fail(
            "parquet needs pyarrow, which is not installed. Try pip install 'bnsuite[data]', or --format csv."
        )
    if table.empty:
        err.print("[yellow]no records here:[/] bnsuite run --profile smoke makes some", highlight=False)
    if out is None:
        typer.echo(content, nl=False)
        return
    try:
        write_atomically(out, content)
    except OSError as error:
        fail(f"{out}: cannot be written ({error.strerror or error}). Give another path with --out.")


def _csv(table: "DataFrame") -> bytes:
    return table.to_csv(index=False).encode()


def _parquet(table: "DataFrame") -> bytes:
    return table.to_parquet(index=False)


def _json(table: "DataFrame") -> bytes:
    """Turn the table into a list of objects; pandas' own `to_json` would cut floats to 15 decimals."""
    times = table["started"].map(lambda moment: moment.isoformat(), na_action="ignore")
    plain = table.assign(started=times).astype(object)
    return (json.dumps(plain.where(plain.notna(), None).to_dict("records"), indent=1) + "\n").encode()


_WRITERS: Mapping[Format, Callable[["DataFrame"], bytes]] = {
    Format.csv: _csv,
    Format.parquet: _parquet,
    Format.json: _json,
}
