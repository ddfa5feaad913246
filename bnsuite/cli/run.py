"""Command `run`."""

import json
import math
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from bnsuite.cli.options import (
    RESULTS,
    DeviceOption,
    RecordsOption,
    SandboxChoice,
    SandboxOption,
    WorkersOption,
)
from bnsuite.cli.terminal import err, fail, note, one_line_errors, resumable
from bnsuite.execute.pool import interrupts_wait

if TYPE_CHECKING:
    from bnsuite.datasets import Source
    from bnsuite.execute.plan import Job
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
        list[str] | None, typer.Option(help="Only this one; repeatable. See `list families`.")
    ] = None,
    dataset: Annotated[
        list[str] | None,
        typer.Option(help="Only this one; repeatable: a name of `list datasets`, or the path of your own."),
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
    device: DeviceOption = "auto",
    records: RecordsOption = RESULTS,
    force: Annotated[
        bool, typer.Option(help="Measure again what the folder has; nothing is deleted.")
    ] = False,
    workers: WorkersOption = 0,
    cell_limit: Annotated[
        float,
        typer.Option(
            min=1, metavar="SECONDS", help="Time after which a cell of a scheme by path is stopped."
        ),
    ] = 3600,
    time_limit: Annotated[
        float | None,
        typer.Option(
            min=0, metavar="SECONDS", help="Time after which no cell is started; cells under way finish."
        ),
    ] = None,
    confine: SandboxOption = "prefer",
    as_json: Annotated[bool, typer.Option("--json", help="Print the records as a JSON list.")] = False,
) -> None:
    """Measure what the records folder does not have yet; stop and start it as you like.

    Exit status: 0 done, 1 a cell failed, 2 it cannot run, 3 the time limit left cells, 130 Ctrl-C.
    """
    with resumable(), one_line_errors(ValueError):
        with interrupts_wait():  # an interrupted import of numpy cannot be repeated
            from bnsuite.cli.progress import run_jobs_shown
            from bnsuite.execute.plan import plan, resolve_device

        resolved = resolve_device(device)
        changed = _settings(settings or [])
        schemes, sources = _schemes(scheme or [], cell_limit, confine), _datasets(dataset or [], to_rgb)
        jobs = plan(profile, task, schemes, family, sources, resolved, changed)
        if not all(isinstance(scheme, str) for scheme in schemes):  # after a plan, which refuses quickly
            judged = [scheme if isinstance(scheme, str) else _judged(scheme) for scheme in schemes]
            jobs = plan(profile, task, judged, family, sources, resolved, changed)
        _print_limits(jobs, profile)
        seconds = math.inf if time_limit is None else time_limit
        finished = run_jobs_shown(jobs, records, workers, force, seconds)
    if as_json:
        print(json.dumps([record.model_dump(mode="json") for record in finished], indent=1))
    elif finished:
        from bnsuite.cli.results import results_table

        Console().print(results_table(finished))
        option = "" if records == RESULTS else f" --records {shlex.quote(str(records))}"
        print(f"Records are in {records}. Next: bnsuite board{option}")
    _report_problems(finished, records, len(jobs) - len(finished), time_limit)


def _print_limits(jobs: "list[Job]", profile: str) -> None:
    """Print what a user may not expect: parts of data that are not used, a CPU that takes hours."""
    from bnsuite.profiles import load_profile

    for data in dict.fromkeys(job.data for job in jobs):
        if data.left:
            err.print(f"{data.name}: its part {' and '.join(data.left)} is not used.")
    if jobs[0].cell.device == "cpu" and load_profile(profile).gpu:
        err.print(f"Profile {profile} is for a GPU: on this CPU a cell may take hours.", highlight=False)


def _report_problems(finished: "list[Record]", records: Path, left: int, time_limit: float | None) -> None:
    """Print which cells are unsupported or failed; exit with a status where cells failed or are left."""
    from bnsuite.records import Outcome

    for record in finished:
        if record.outcome is Outcome.UNSUPPORTED:
            note("unsupported", f"{record.cell}: {record.error or ''}")
    failed = [record for record in finished if record.outcome is Outcome.ERROR]
    for record in failed:
        reason = (record.error or "").strip().splitlines()[-1:]
        note("error", f"in {record.cell}: {' '.join(reason)}", "red")
    if left:
        fail(
            f"{left} of {left + len(finished)} cells are not measured yet: the time limit of {time_limit:g} "
            "s is over. The same command goes on with them.",
            code=3,
        )
    if failed:
        fail(
            f"{len(failed)} of {len(finished)} cells failed; each record in {records} says why. "
            "The same command runs these again.",
            code=1,
        )


def _schemes(names_or_paths: list[str], cell_limit: float, confine: SandboxChoice) -> "list[str | Foreign]":
    """Leave names as they are, and load what is a path in the sandbox."""
    from bnsuite.schemes import scheme_names

    known = scheme_names()
    paths = [
        text
        for text in names_or_paths
        if text not in known and (os.path.exists(text) or "/" in text or text.endswith(".py"))
    ]
    if not paths:
        return [*names_or_paths]
    from bnsuite.cli.submission import sandbox
    from bnsuite.submission.conversation import Limits
    from bnsuite.submission.foreign import load_scheme

    confined, limits = sandbox(confine), Limits(wall_s=cell_limit)
    return [load_scheme(Path(text), confined, limits) if text in paths else text for text in names_or_paths]


def _judged(scheme: "Foreign") -> "Foreign":
    """Hold a scheme to the contract: print what fails in one line, and return the scheme marked with that."""
    from bnsuite.submission.verdict import BREAKS, judged

    path = str(scheme.path)
    scheme, verdict = judged(scheme, lambda text: err.print(text, highlight=False))
    for text in verdict.warnings:
        note(f"{path} warns:", text)
    if verdict.failed:
        (name, message), *others = verdict.failed.items()
        more = f" (and {', '.join(other for other, _ in others)})" if others else ""
        note(
            "not sound:",
            f"{path} fails the check {name}{more}: {message}. It is measured, and its rows are marked "
            f"{BREAKS}. See: bnsuite check {shlex.quote(path)}",
        )
    return scheme


def _datasets(names_or_paths: list[str], to_rgb: bool) -> "list[str | Path | Source]":
    """Leave names as they are, and find data sets by path; a known name wins over a file of that name."""
    from bnsuite.datasets import DATASETS, find
    from bnsuite.names import UnknownNameError, lookup

    def name_or_path(text: str) -> str | Path:
        if text not in DATASETS and (os.path.exists(text) or "/" in text or text.endswith(".npz")):
            return Path(text)
        try:
            lookup("dataset", text, DATASETS)
        except UnknownNameError as error:
            raise ValueError(f"{error} Nor is a file or folder of that name here.") from None
        return text

    datasets = [*map(name_or_path, names_or_paths)]
    if not to_rgb:
        return [*datasets]
    if not any(isinstance(dataset, Path) for dataset in datasets):
        raise ValueError("--to-rgb converts a data set by path: got none. Give one: --dataset PATH.")
    return [find(dataset, to_rgb=True) if isinstance(dataset, Path) else dataset for dataset in datasets]


def _settings(options: list[str]) -> dict[str, Any]:
    """Parse NAME=VALUE of every --set."""
    settings: dict[str, Any] = {}
    for option in options:
        name, equals, value = option.partition("=")
        if not equals:
            raise ValueError(f"--set takes NAME=VALUE, such as batch=16: got {option!r}")
        if name in settings:
            raise ValueError(f"--set {name}: got {settings[name]!r} and {value!r}, wanted one. Give it once.")
        settings[name] = value
    return settings
