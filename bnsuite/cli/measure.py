"""Commands that measure: run, calibrate, claims."""

import json
import math
import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bnsuite.cli.terminal import DeviceChoice, SandboxChoice, SandboxOption, err, fail
from bnsuite.execute.pool import interrupts_wait

if TYPE_CHECKING:
    from bnsuite.calibration import Reading
    from bnsuite.claims.judge import Claim
    from bnsuite.datasets import Source
    from bnsuite.records import Record
    from bnsuite.submission.foreign import Foreign


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
        typer.Option(
            "--scheme",
            "-s",
            help="Only this one; repeatable: a name of `list schemes`, or the path of one of your own.",
        ),
    ] = None,
    family: Annotated[
        list[str] | None, typer.Option("--family", help="Only this one; repeatable. See `list families`.")
    ] = None,
    dataset: Annotated[
        list[str] | None,
        typer.Option(
            "--dataset", help="Only this one; repeatable: a name of `list datasets`, or the path of your own."
        ),
    ] = None,
    to_rgb: Annotated[
        bool, typer.Option("--to-rgb", help="Convert every image of a data set by path to RGB.")
    ] = False,
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
    cell_limit: Annotated[
        float,
        typer.Option(min=1, metavar="SECONDS", help="A cell of a scheme by path is stopped after these."),
    ] = 3600,
    time_limit: Annotated[
        float | None,
        typer.Option(
            min=0, metavar="SECONDS", help="No cell is started after these; those under way finish."
        ),
    ] = None,
    confine: SandboxOption = SandboxChoice.prefer,
    as_json: Annotated[bool, typer.Option("--json", help="Print the records as a JSON list.")] = False,
) -> None:
    """Measure what the records folder does not have yet; stop and start it as you like.

    Exit status: 0 done, 1 a cell failed, 2 it cannot run, 3 the time limit left cells, 130 Ctrl-C.
    """
    try:
        with interrupts_wait():  # half imported, numpy cannot be imported again
            from bnsuite.cli.progress import Display
            from bnsuite.execute.plan import DeviceError, plan, resolve_device
            from bnsuite.execute.run import run_jobs
            from bnsuite.profiles import load_profile
            from bnsuite.records import Outcome, RecordError

        try:
            on = resolve_device(device.value)
            given = _settings(settings or [])
            schemes, data_sets = _schemes(scheme or [], cell_limit, confine), _datasets(dataset or [], to_rgb)
            jobs = plan(profile, task, schemes, family, data_sets, on, given)
            if not all(isinstance(one, str) for one in schemes):  # after the rest, since it takes a while
                schemes = [one if isinstance(one, str) else _judged(one) for one in schemes]
                jobs = plan(profile, task, schemes, family, data_sets, on, given)
            for data in dict.fromkeys(job.data for job in jobs):
                if data.left:
                    err.print(f"{data.name}: its part {' and '.join(data.left)} is not used.")
            if on == "cpu" and load_profile(profile).gpu:
                err.print(
                    f"Profile {profile} is for a GPU: on this CPU a cell may take hours.", highlight=False
                )
            side_by_side = workers or (1 if on == "cuda" else os.cpu_count() or 1)
            with Display([job.cell for job in jobs], err) as display:
                found = run_jobs(
                    jobs,
                    records,
                    force=force,
                    workers=side_by_side,
                    time_limit=math.inf if time_limit is None else time_limit,
                    observe=display.observe,
                )
        except (DeviceError, RecordError, ValueError) as error:
            fail(str(error))
    except KeyboardInterrupt:
        err.print("\nStopped. Finished cells are kept; the same command goes on with the rest.")
        raise typer.Exit(130) from None
    if as_json:
        print(json.dumps([record.model_dump(mode="json") for record in found], indent=1))
    elif found:
        Console().print(results_table(found))
        of_them = "" if records == Path("results") else f" --records {shlex.quote(str(records))}"
        print(f"Records are in {records}. Next: bnsuite board{of_them}")
    for record in found:
        if record.outcome is Outcome.UNSUPPORTED:
            said = f"[yellow]unsupported[/] {record.cell}: {escape(record.error or '')}"
            err.print(said, highlight=False, soft_wrap=True)
    failed = [record for record in found if record.outcome is Outcome.ERROR]
    for record in failed:
        reason = (record.error or "").strip().splitlines()[-1:]
        err.print(f"[red]error[/] in {record.cell}: {escape(' '.join(reason))}", highlight=False)
    if left := len(jobs) - len(found):
        fail(
            f"{left} of {len(jobs)} cells are not measured yet: the time limit of {time_limit:g} s is over. "
            "The same command goes on with them.",
            code=3,
        )
    if failed:
        fail(
            f"{len(failed)} of {len(found)} cells failed; each record in {records} says why. "
            "The same command runs these again.",
            code=1,
        )


def _schemes(given: list[str], cell_limit: float, confine: SandboxChoice) -> "list[str | Foreign]":
    """Names as they are; what is a path is loaded in the sandbox."""
    from bnsuite.schemes import scheme_names

    known = scheme_names()
    paths = [
        one
        for one in given
        if one not in known and (os.path.exists(one) or "/" in one or one.endswith(".py"))
    ]
    if not paths:
        return [*given]
    from bnsuite.cli.submission import sandbox
    from bnsuite.submission.foreign import load
    from bnsuite.submission.sandbox import Limits

    confined, limits = sandbox(confine), Limits(wall_s=cell_limit)
    return [load(Path(one), confined, limits) if one in paths else one for one in given]


def _judged(scheme: "Foreign") -> "Foreign":
    """Hold a scheme to the contract: print what fails in a line, and mark the scheme that it returns."""
    from bnsuite.cli.submission import show_warning
    from bnsuite.submission.verdict import BREAKS, judged

    path = str(scheme.path)
    scheme, verdict = judged(scheme, lambda text: err.print(text, highlight=False))
    for text in verdict.warnings:
        show_warning(path, text)
    if verdict.failed:
        (name, message), *others = verdict.failed.items()
        more = f" (and {', '.join(other for other, _ in others)})" if others else ""
        said = f"{path} fails the check {name}{more}: {message}"
        then = f"It is measured, and its rows are marked {BREAKS}. See: bnsuite check {shlex.quote(path)}"
        err.print(f"[yellow]not sound:[/] {escape(f'{said}. {then}')}", highlight=False, soft_wrap=True)
    return scheme


def _datasets(given: list[str], to_rgb: bool) -> "list[str | Path | Source]":
    """Names as they are, and paths; a name of the table is the name, whatever lies here."""
    from bnsuite.datasets import DATASETS, find
    from bnsuite.names import UnknownNameError, lookup

    def found(one: str) -> str | Path:
        if one not in DATASETS and (os.path.exists(one) or "/" in one or one.endswith(".npz")):
            return Path(one)
        try:
            lookup("dataset", one, DATASETS)
        except UnknownNameError as error:
            raise ValueError(f"{error} Nor is a file or folder of that name here.") from None
        return one

    asked = [*map(found, given)]
    if not to_rgb:
        return [*asked]
    if not any(isinstance(one, Path) for one in asked):
        raise ValueError("--to-rgb converts a data set by path: got none. Give one: --dataset PATH.")
    return [find(one, to_rgb=True) if isinstance(one, Path) else one for one in asked]


def _settings(given: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for one in given:
        name, equals, value = one.partition("=")
        if not equals:
            raise ValueError(f"--set takes NAME=VALUE, such as batch=16: got {one!r}")
        if name in found:
            raise ValueError(f"--set {name}: got {found[name]!r} and {value!r}, wanted one. Give it once.")
        found[name] = value
    return found


def results_table(records: "list[Record]") -> Table:
    """One row a scheme and network, one column a task."""
    from bnsuite.board.labels import coverage
    from bnsuite.specs import RANKED

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
    from bnsuite.format import interval, reading, tally

    ends = interval(record.low, record.high, record.unit)
    lines = (reading(record, record.unit), escape(ends), f"n {tally(record)}")
    return "\n[dim]".join(filter(None, lines))


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
    from bnsuite.format import within

    mark = "ok " if one.ok else "OFF"
    measured = "not finite" if one.measured is None else f"{one.measured:.5g}"
    return f"{mark} {measured:>10}  {within(*one.tolerance):<20} {one.instrument}: {one.experiment}"


def _measure_missing(
    asked: "list[Claim]", profile: str, records: Path, folders: list[Path], device: str, workers: int
) -> None:
    """Run the cells, and the calibration, that claims need and no folder has."""
    with interrupts_wait():
        from bnsuite.claims.judge import answers
        from bnsuite.cli.progress import Display
        from bnsuite.execute.plan import plan, resolve_device
        from bnsuite.execute.run import run_jobs
        from bnsuite.records import CALIBRATION, read_records

    kept = [
        r
        for r in read_records(folders).values()
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
    from bnsuite.claims.catalogue import CLAIMS
    from bnsuite.claims.judge import judge
    from bnsuite.names import lookup
    from bnsuite.records import RecordError, read_records

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
        found = read_records(folders).values()
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
