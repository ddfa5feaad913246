"""Command `claims`."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bnsuite.cli.calibrate import measure_readings
from bnsuite.cli.terminal import DeviceChoice, err, fail
from bnsuite.execute.pool import interrupts_wait

if TYPE_CHECKING:
    from bnsuite.claims.judge import Claim


def _measure_missing(
    claims: "list[Claim]", profile: str, records: Path, folders: list[Path], device: str, workers: int
) -> None:
    """Measure the cells, and the calibration, that claims need and no folder has."""
    with interrupts_wait():
        from bnsuite.claims.judge import answers
        from bnsuite.cli.progress import Display
        from bnsuite.execute.plan import plan, resolve_device
        from bnsuite.execute.run import run_jobs
        from bnsuite.records import CALIBRATION, read_records

    usable = [
        record
        for record in read_records(folders).values()
        if record.outcome != "error"
        and (record.task == CALIBRATION or record.profile.split("+")[0] == profile)
    ]
    needs = dict.fromkeys(need for claim in claims for need in claim.needs)
    missing = [need for need in needs if not any(answers(record, need) for record in usable)]
    resolved = resolve_device(device)
    jobs = [
        job
        for need in missing
        if need.task != CALIBRATION
        for job in plan(
            profile, [need.task], [need.scheme], ["mlp"], ["digits"], resolved, dict(need.settings)
        )
    ]
    if any(need.task == CALIBRATION for need in missing):
        err.print("calibrating …")
        measure_readings(None, records, show=lambda _: None)
    if jobs:
        with Display([job.cell for job in jobs], err) as display:
            workers = workers or (1 if resolved == "cuda" else os.cpu_count() or 1)
            run_jobs(jobs, records, workers=workers, observe=display.observe)


def claims(
    profile: Annotated[
        str, typer.Option("--profile", "-p", help="Budgets at which claims are judged.")
    ] = "quick",
    only: Annotated[str | None, typer.Option(help="Only this claim, such as Y3.")] = None,
    records: Annotated[Path, typer.Option(help="Folder of the records: read, and added to.")] = Path(
        "results"
    ),
    measure: Annotated[
        bool, typer.Option(help="Measure what is missing first; otherwise judge what is there.")
    ] = True,
    device: Annotated[
        DeviceChoice, typer.Option(help="auto takes a GPU if there is one.")
    ] = DeviceChoice.auto,
    workers: Annotated[
        int,
        typer.Option(min=0, help="Processes in parallel. 0: one per CPU core, or a single one on a GPU."),
    ] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the verdicts as a JSON list.")] = False,
) -> None:
    """Judge what was claimed about batch norm by measurements; what is missing is measured first."""
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
        chosen = [lookup("claim", only, table)] if only else list(CLAIMS)
        if measure:
            _measure_missing(chosen, profile, records, folders, device.value, workers)
        verdicts = judge(chosen, read_records(folders).values(), profile)
    except (RecordError, ValueError) as error:
        fail(str(error))
    except KeyboardInterrupt:
        err.print("\nStopped. Finished cells are kept; the same command goes on with the rest.")
        raise typer.Exit(130) from None
    if as_json:
        print(json.dumps([judged.as_json() for judged in verdicts], indent=1))
        return
    for judged in verdicts:
        print(f"{judged.claim.id}  {judged.finding.verdict}: {judged.claim.claim}")
        for part in judged.finding.parts:
            print(f"    {'✓' if part.ok else '✗'} {part.words}")
        print(f"    {judged.finding.condition}")
