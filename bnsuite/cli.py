"""The command line. Torch is imported by the commands that need it, not for --help."""

import json
import os
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

import bnsuite
from bnsuite.processes import interrupts_wait

if TYPE_CHECKING:
    from bnsuite.board.claims import Claim
    from bnsuite.calibration import Reading
    from bnsuite.records import Record

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Measure what a normalization scheme buys: depth, learning rate, curvature, time to accuracy.",
)
err = Console(stderr=True)


class DeviceChoice(StrEnum):
    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


def fail(message: str, code: int = 2) -> NoReturn:
    """One clear line on standard error, and a non-zero exit."""
    err.print(f"[bold red]bnsuite:[/] {escape(message)}", highlight=False, soft_wrap=True)
    raise typer.Exit(code)


def _version(wanted: bool) -> None:
    if wanted:
        print(bnsuite.__version__)
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command()
def run(
    profile: Annotated[
        str,
        typer.Option("--profile", "-p", help="Budgets: smoke (no ranks), quick, standard and full (drafts)."),
    ] = "quick",
    task: Annotated[
        list[str] | None,
        typer.Option("--task", "-t", help="Only this one; repeatable. See `bnsuite list tasks`."),
    ] = None,
    scheme: Annotated[
        list[str] | None,
        typer.Option("--scheme", "-s", help="Only this one; repeatable. See `list schemes`."),
    ] = None,
    family: Annotated[
        list[str] | None, typer.Option("--family", help="Only this one; repeatable. See `list families`.")
    ] = None,
    dataset: Annotated[
        list[str] | None, typer.Option("--dataset", help="Only this one; repeatable. See `list datasets`.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="NAME=VALUE", help="A setting of the tasks, such as batch=16; repeatable."
        ),
    ] = None,
    device: Annotated[
        DeviceChoice, typer.Option(help="auto takes a GPU where there is one.")
    ] = DeviceChoice.auto,
    records: Annotated[Path, typer.Option(help="Where records lie, and go.")] = Path("results"),
    force: Annotated[bool, typer.Option(help="Measure again what is there; nothing is deleted.")] = False,
    workers: Annotated[
        int,
        typer.Option(min=0, help="Processes side by side. 0: one per CPU core, or a single one on a GPU."),
    ] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the records as a JSON list.")] = False,
) -> None:
    """Measure what the records folder does not have yet; stop and start it as you like."""
    try:
        with interrupts_wait():  # half imported, numpy cannot be imported again
            from bnsuite.execute import DeviceError, plan, resolve_device
            from bnsuite.execute import run as execute
            from bnsuite.progress import Display
            from bnsuite.records import Outcome, RecordError

        try:
            on = resolve_device(device.value)
            given = _settings(settings or [])
            jobs = plan(profile, task, scheme, family, dataset, on, given)
            side_by_side = workers or (1 if on == "cuda" else os.cpu_count() or 1)
            with Display([job.cell for job in jobs], err) as display:
                found = execute(
                    profile,
                    tasks=task,
                    schemes=scheme,
                    families=family,
                    datasets=dataset,
                    device=on,
                    records=records,
                    force=force,
                    workers=side_by_side,
                    observe=display.observe,
                    **given,
                )
        except (DeviceError, RecordError, ValueError) as error:
            fail(str(error))
    except KeyboardInterrupt:
        err.print("\nStopped. Finished cells are kept; the same command goes on with the rest.")
        raise typer.Exit(130) from None
    if as_json:
        print(json.dumps([record.model_dump(mode="json") for record in found], indent=1))
    else:
        Console().print(results_table(found))
        of_them = "" if records == Path("results") else f" --records {records}"
        print(f"Records are in {records}. Next: bnsuite board{of_them}")
    failed = [record for record in found if record.outcome is Outcome.ERROR]
    for record in failed:
        reason = (record.error or "").strip().splitlines()[-1:]
        err.print(f"[red]error[/] in {record.cell}: {escape(' '.join(reason))}", highlight=False)
    if failed:
        fail(
            f"{len(failed)} of {len(found)} cells failed; each record in {records} holds its traceback. "
            "The same command runs these again.",
            code=1,
        )


def _settings(given: list[str]) -> dict[str, Any]:
    found = {}
    for one in given:
        name, equals, value = one.partition("=")
        if not equals:
            raise ValueError(f"--set takes NAME=VALUE, such as batch=16: got {one!r}")
        found[name] = value
    return found


def results_table(records: "list[Record]") -> Table:
    """One row a scheme and network, one column a task."""
    from bnsuite.board.labels import coverage
    from bnsuite.records import RANKED

    tasks = sorted(
        {record.task for record in records},
        key=lambda task: (RANKED.index(task) if task in RANKED else len(RANKED), task),
    )
    units = {record.task: record.unit for record in records}
    sure = f" ({coverage(records)})" if coverage(records) else ""
    table = Table(
        title=" · ".join(sorted({f"{record.profile} on {record.device}" for record in records})),
        caption=f"median over n confirmation seeds, \\[its exact interval{sure}]",
    )
    table.add_column("scheme", no_wrap=True)
    for task in tasks:
        table.add_column(f"{task}\n({units[task]})", justify="right")
    rows: dict[tuple[str, str, str], dict[str, Record]] = {}
    for record in records:
        rows.setdefault((record.scheme, record.family, record.dataset), {})[record.task] = record
    for (scheme, family, dataset), row in rows.items():
        cells = [_cell(row[task]) if task in row else "" for task in tasks]
        table.add_row(f"{scheme}\n[dim]{family}, {dataset}[/]", *cells)
    return table


def _cell(record: "Record") -> str:
    from bnsuite.board.format import interval, reading, tally

    ends = interval(record.low, record.high, record.unit)
    lines = (reading(record, record.unit), escape(ends), f"n {tally(record)}")
    return "\n[dim]".join(filter(None, lines))


@app.command("list")
def list_(
    kind: Annotated[
        str, typer.Argument(help="What to list: schemes, tasks, families, datasets or profiles.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object.")] = False,
) -> None:
    """List schemes, tasks, families, datasets or profiles."""
    from bnsuite.words import UnknownNameError, lookup

    try:
        found = lookup("kind", kind, _tables())()
    except UnknownNameError as error:
        fail(str(error))
    if as_json:
        print(json.dumps(found, indent=1))
        return
    table = Table.grid(padding=(0, 3))
    for name, about in found.items():
        table.add_row(f"[bold]{name}[/]", escape(about))
    Console().print(table)


def _tables() -> dict[str, Callable[[], dict[str, str]]]:
    def schemes() -> dict[str, str]:
        from bnsuite.schemes import SCHEMES

        return {name: s.about for name, s in SCHEMES.items()}

    def tasks() -> dict[str, str]:
        from bnsuite.tasks import TASKS

        return {
            name: f"{task.question} ({task.unit}; {task.better} is better)" for name, task in TASKS.items()
        }

    def families() -> dict[str, str]:
        from bnsuite.networks import FAMILIES

        return {name: family.about for name, family in FAMILIES.items()}

    def datasets() -> dict[str, str]:
        from bnsuite.datasets import DATASETS

        return {name: (load.__doc__ or "").strip().splitlines()[0] for name, load in DATASETS.items()}

    def profiles() -> dict[str, str]:
        from bnsuite.profiles import load_profile, profile_names

        return {name: load_profile(name).about for name in profile_names()}

    return {
        "schemes": schemes,
        "tasks": tasks,
        "families": families,
        "datasets": datasets,
        "profiles": profiles,
    }


@app.command()
def board(
    records: Annotated[
        list[Path] | None,
        typer.Option(
            "--records",
            help="Folder of records; repeatable. By default results/ and what is published in the checkout.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", help="Folder of the site; by default leaderboard/site/ in a checkout, else site/."
        ),
    ] = None,
    readme: Annotated[
        Path | None, typer.Option("--readme", help="Also renew the result table of this Markdown file.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print where the site is as JSON.")] = False,
) -> None:
    """Build the static leaderboard from records."""
    from bnsuite.board.readme import renew
    from bnsuite.board.site import Source, build_site
    from bnsuite.records import RecordError

    leaderboard = Path("leaderboard")
    checkout = leaderboard.is_dir()
    if records:
        missing = [folder for folder in records if not folder.is_dir()]
        if missing:
            fail(f"{missing[0]}: no such folder. Give the folder of a run's records, such as results.")
        sources = [Source(folder, _origin(folder)) for folder in records]
    else:
        own = [Path("results"), *(leaderboard / name for name in ("records", "verification") if checkout)]
        sent = [path for path in leaderboard.glob("submissions/[!._]*") if path.is_dir() or path.is_symlink()]
        sources = [Source(folder, _origin(folder)) for folder in own if folder.is_dir()]
        sources += [Source(path / "records", "submitted") for path in sorted(sent)]
    left_out: list[str] = []
    try:
        index = build_site(sources, out or (leaderboard / "site" if checkout else Path("site")), left_out)
        if readme:
            renew(readme, [source for source in sources if source.origin == "published"])
    except RecordError as error:
        fail(str(error))
    for line in left_out:
        err.print(f"[yellow]left out:[/] {escape(line)}", highlight=False, soft_wrap=True)
    if as_json:
        print(json.dumps({"index": str(index), "left_out": left_out}))
    else:
        print(f"The board is at {index}. Open it in a browser: {index.resolve().as_uri()}")


def _origin(folder: Path) -> Any:
    parts = folder.resolve().parts
    if "submissions" in parts:
        return "submitted"
    return {"records": "published", "verification": "verification"}.get(
        parts[-1] if parts[-2:-1] == ("leaderboard",) else "", "local"
    )


@app.command()
def calibrate(
    only: Annotated[str | None, typer.Option(help="Only this instrument, such as top_eigenvalue.")] = None,
    records: Annotated[Path, typer.Option(help="Where the readings go, for the board.")] = Path("results"),
    as_json: Annotated[bool, typer.Option("--json", help="Print the readings as a JSON list.")] = False,
) -> None:
    """Measure what is known already, and show how far off every instrument is; a minute or two."""
    from bnsuite.records import RecordError

    try:
        readings = _calibrate(only, records, lambda one: None if as_json else print(_line(one), flush=True))
    except (RecordError, ValueError) as error:
        fail(str(error))
    if as_json:
        print(json.dumps([reading._asdict() for reading in readings], indent=1))
    off = [reading for reading in readings if not reading.ok]
    if off:
        fail(f"{len(off)} of {len(readings)} readings are off. Trust no number of these instruments.", code=1)


def _calibrate(only: str | None, records: Path, show: "Callable[[Reading], None]") -> "list[Reading]":
    """The readings; of all instruments they are also kept as a record."""
    import time
    from datetime import UTC, datetime

    from bnsuite import calibration
    from bnsuite.records import Store

    started, clock = datetime.now(UTC), time.perf_counter()
    store = Store(records)
    store.check_writable()
    readings = []
    for reading in calibration.readings(only):
        readings.append(reading)
        show(reading)
    if only is None:
        store.add(calibration.as_record(readings, started, time.perf_counter() - clock))
    return readings


def _line(one: "Reading") -> str:
    from bnsuite.board.format import within

    mark = "ok " if one.ok else "OFF"
    measured = "not finite" if one.measured is None else f"{one.measured:.5g}"
    return f"{mark} {measured:>10}  {within(*one.tolerance):<20} {one.instrument}: {one.experiment}"


def _measure_missing(
    asked: "list[Claim]", profile: str, records: Path, folders: list[Path], device: str, workers: int
) -> None:
    """Run the cells, and the calibration, that claims need and no folder has."""
    with interrupts_wait():
        from bnsuite.board.claims import answers
        from bnsuite.execute import plan, resolve_device, run_jobs
        from bnsuite.progress import Display
        from bnsuite.records import CALIBRATION, load_records

    kept = [
        r
        for r in load_records(folders).values()
        if r.task == CALIBRATION or r.profile.split("+")[0] == profile
    ]
    needs = dict.fromkeys(need for claim in asked for need in claim.needs)
    missing = [need for need in needs if not any(answers(r, need) and r.outcome != "error" for r in kept)]
    on = resolve_device(device)
    jobs = [
        job
        for need in missing
        if need.task != CALIBRATION
        for job in plan(profile, [need.task], [need.scheme], ["mlp"], ["digits"], on, dict(need.settings))
    ]
    if any(need.task == CALIBRATION for need in missing):
        err.print("calibrating …")
        _calibrate(None, records, show=lambda reading: None)
    if jobs:
        with Display([job.cell for job in jobs], err) as display:
            side_by_side = workers or (1 if on == "cuda" else os.cpu_count() or 1)
            run_jobs(jobs, records, workers=side_by_side, observe=display.observe)


@app.command()
def claims(
    profile: Annotated[
        str, typer.Option("--profile", "-p", help="At which budgets they are judged.")
    ] = "quick",
    only: Annotated[str | None, typer.Option(help="Only this claim, such as Y3.")] = None,
    records: Annotated[Path, typer.Option(help="Where records lie, and go.")] = Path("results"),
    measure: Annotated[
        bool, typer.Option(help="Measure what is missing first; else judge what is there.")
    ] = True,
    device: Annotated[
        DeviceChoice, typer.Option(help="auto takes a GPU where there is one.")
    ] = DeviceChoice.auto,
    workers: Annotated[
        int,
        typer.Option(min=0, help="Processes side by side. 0: one per CPU core, or a single one on a GPU."),
    ] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the verdicts as a JSON list.")] = False,
) -> None:
    """Judge what was said about batch norm by measurements; what is missing is measured first."""
    from bnsuite.board.claims import judge
    from bnsuite.board.verdicts import CLAIMS
    from bnsuite.records import RecordError, load_records
    from bnsuite.words import lookup

    published = Path("leaderboard/records")
    folders = [
        records,
        *([published] if published.is_dir() and published.resolve() != records.resolve() else []),
    ]
    try:
        table = {claim.id: claim for claim in CLAIMS}
        asked = [lookup("claim", only, table)] if only else list(CLAIMS)
        if measure:
            _measure_missing(asked, profile, records, folders, device.value, workers)
        found = load_records(folders).values()
        judged = judge(asked, found, profile)
    except (RecordError, ValueError) as error:
        fail(str(error))
    except KeyboardInterrupt:
        err.print("\nStopped. Finished cells are kept; the same command goes on with the rest.")
        raise typer.Exit(130) from None
    if as_json:
        print(json.dumps([one.as_json() for one in judged], indent=1))
        return
    for one in judged:
        print(f"{one.claim.id}  {one.finding.verdict}: {one.claim.claim}")
        for part in one.finding.parts:
            print(f"    {'✓' if part.ok else '✗'} {part.words}")
        print(f"    {one.finding.condition}")


@app.command()
def schema() -> None:
    """Print the JSON Schema of a record."""
    from bnsuite.records import Record

    print(json.dumps(Record.model_json_schema(), indent=1))
