"""Commands `board`, `list` and `schema`."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bnsuite.cli.options import RESULTS
from bnsuite.cli.terminal import note, one_line_errors


def list_(
    kind: Annotated[
        str, typer.Argument(help="What to list: schemes, tasks, families, datasets or profiles.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object.")] = False,
    markdown: Annotated[
        bool, typer.Option(help="For schemes: print the formulas of all parts, as in leaderboard/SCHEMES.md.")
    ] = False,
) -> None:
    """List schemes, tasks, families, datasets or profiles; one per line, with a tab, for programs."""
    from bnsuite.names import UnknownNameError, lookup

    with one_line_errors(UnknownNameError):
        descriptions = lookup("kind", kind, _tables())()
    if markdown and kind == "schemes":
        from bnsuite.schemes import catalogue

        print(catalogue(), end="")
        return
    if as_json:
        print(json.dumps(descriptions, indent=1))
        return
    console = Console()
    if not console.is_terminal:
        print("\n".join(f"{name}\t{about}" for name, about in descriptions.items()))
        return
    table = Table.grid(padding=(0, 3))
    for name, about in descriptions.items():
        table.add_row(f"[bold]{name}[/]", escape(about))
    console.print(table)


def _tables() -> dict[str, Callable[[], dict[str, str]]]:
    def schemes() -> dict[str, str]:
        from bnsuite.schemes import find_scheme, scheme_names

        def about(name: str) -> str:
            try:
                return find_scheme(name).about
            except ValueError as error:  # the scheme of an installed package
                return str(error)

        return {name: about(name) for name in scheme_names()}

    def tasks() -> dict[str, str]:
        from bnsuite.specs import SPECS

        return {
            name: f"{task.question} ({task.unit}; {task.better} is better{'; ranked' * task.ranked})"
            for name, task in SPECS.items()
        }

    def families() -> dict[str, str]:
        from bnsuite.networks import FAMILIES

        return {name: family.about for name, family in FAMILIES.items()}

    def datasets() -> dict[str, str]:
        from bnsuite.datasets import DATASETS

        return {name: dataset.about for name, dataset in DATASETS.items()}

    def profiles() -> dict[str, str]:
        from bnsuite.profiles import load_profile, profile_names

        return {name: load_profile(name).about for name in profile_names()}

    return {table.__name__: table for table in (schemes, tasks, families, datasets, profiles)}


def board(
    records: Annotated[
        list[Path] | None,
        typer.Option(
            help="Folder of records; repeatable. By default results/ and the checkout's published records."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the site; by default leaderboard/site/ in a checkout, else site/."),
    ] = None,
    readme: Annotated[
        list[Path] | None,
        typer.Option(help="Also renew the tables of this Markdown file; repeatable."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print where the site is as JSON.")] = False,
) -> None:
    """Build the static leaderboard from records."""
    from bnsuite.board.readme import renew
    from bnsuite.board.site import RecordFolder, build_site
    from bnsuite.ranking.tracks import origin_of
    from bnsuite.records.store import check_folders, json_files

    leaderboard = Path("leaderboard")
    own = [RESULTS, leaderboard / "records", leaderboard / "verification"]
    folders = records or [folder for folder in own if folder.is_dir()]
    sources = [RecordFolder(folder, origin_of(folder)) for folder in folders]
    if not records:
        sent = [path for path in leaderboard.glob("submissions/[!._]*") if path.is_dir() or path.is_symlink()]
        sources += [RecordFolder(path / "records", "submitted") for path in sorted(sent)]
    out = out or (leaderboard / "site" if leaderboard.is_dir() else Path("site"))
    left_out: list[str] = []
    with one_line_errors():
        check_folders(folders)
        index = build_site(sources, out, left_out)
        for path in readme or []:
            renew(path, [source for source in sources if source.origin == "published"])
    for line in left_out:
        note("left out:", line)
    if as_json:
        print(json.dumps({"index": str(index), "left_out": left_out}))
    else:
        if not any(path for source in sources for path in json_files(source.folder)):
            note("no records here:", "bnsuite run --profile smoke makes some")
        print(f"The board is at {index}. Open it in a browser: {index.resolve().as_uri()}")


def schema() -> None:
    """Print the JSON Schema of a record."""
    from bnsuite.records import Record

    print(json.dumps(Record.model_json_schema(), indent=1))
