"""Command that turns records into one file for other programs: export."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from bnsuite.cli.options import RESULTS
from bnsuite.cli.terminal import fail, note, one_line_errors

if TYPE_CHECKING:
    from pandas import DataFrame


Format = Literal["csv", "parquet", "json"]
"""File formats of a table."""


def export(
    form: Annotated[Format, typer.Option("--format", help="Format of the table.")] = "csv",
    samples: Annotated[
        bool, typer.Option("--samples", help="One row per confirmation seed, not per record.")
    ] = False,
    records: Annotated[
        list[Path] | None,
        typer.Option(
            help="Folder of records; repeatable. By default results/ and, in a checkout, published and "
            "submitted records.",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="File to write; by default standard output. Parquet needs a file.")
    ] = None,
) -> None:
    """Write records as one table: CSV, Parquet or JSON."""
    from bnsuite.records.store import write_atomically
    from bnsuite.tables import load_records

    if form == "parquet" and out is None:
        fail("parquet is not text: got no file to write. Give one with --out, such as --out records.parquet.")
    published = [RESULTS, Path("leaderboard/records"), Path("leaderboard/submissions")]
    folders = records or [folder for folder in published if folder.is_dir()]
    if out and any(out.resolve().is_relative_to(folder.resolve()) for folder in folders):
        fail(
            f"{out}: lies in a folder of records, where every JSON file is a record. Give another with --out."
        )
    try:
        with one_line_errors():
            table = load_records(folders, samples=samples)
        content = _WRITERS[form](table)
    except ImportError:
        fail(
            "parquet needs pyarrow, which is not installed. Try pip install 'bnsuite[data]', or --format csv."
        )
    if table.empty:
        note("no records here:", "bnsuite run --profile smoke makes some")
    if out is None:
        typer.echo(content, nl=False)
        return
    try:
        write_atomically(out, content)
    except OSError as error:
        fail(f"{out}: cannot be written ({error.strerror or error}). Give another path with --out.")


def _json(table: "DataFrame") -> bytes:
    """Turn the table into a list of objects; pandas' own `to_json` would cut floats to 15 decimals."""
    times = table["started"].map(lambda moment: moment.isoformat(), na_action="ignore")
    plain = table.assign(started=times).astype(object)
    return (json.dumps(plain.where(plain.notna(), None).to_dict("records"), indent=1) + "\n").encode()


_WRITERS: dict[Format, Callable[["DataFrame"], bytes]] = {
    "csv": lambda table: table.to_csv(index=False).encode(),
    "parquet": lambda table: table.to_parquet(index=False),
    "json": _json,
}
