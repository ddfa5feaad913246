"""Command `claims`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bnsuite.cli.calibrate import measure_readings
from bnsuite.cli.options import RESULTS, DeviceOption, RecordsOption, WorkersOption
from bnsuite.cli.terminal import err, one_line_errors, resumable
from bnsuite.execute.pool import interrupts_wait

if TYPE_CHECKING:
    from bnsuite.claims.judge import Claim


def _measure_missing(
    claims: "list[Claim]", profile: str, records: Path, folders: list[Path], device: str, workers: int
) -> None:
    """Measure the cells, and the calibration, that claims need and no folder has."""
    with interrupts_wait():
        from bnsuite.claims.judge import answers
        from bnsuite.cli.progress import run_jobs_shown
        from bnsuite.execute.plan import plan, resolve_device
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
        run_jobs_shown(jobs, records, workers)


def claims(
    profile: Annotated[
        str, typer.Option("--profile", "-p", help="Budgets at which claims are judged.")
    ] = "quick",
    only: Annotated[str | None, typer.Option(help="Only this claim, such as Y3.")] = None,
    records: RecordsOption = RESULTS,
    measure: Annotated[
        bool, typer.Option(help="Measure what is missing first; otherwise judge what is there.")
    ] = True,
    device: DeviceOption = "auto",
    workers: WorkersOption = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the verdicts as a JSON list.")] = False,
) -> None:
    """Judge what was claimed about batch norm by measurements; what is missing is measured first."""
    from bnsuite.claims.catalogue import CLAIMS
    from bnsuite.claims.judge import judge
    from bnsuite.names import lookup
    from bnsuite.records import read_records

    published = Path("leaderboard/records")
    other = published.is_dir() and published.resolve() != records.resolve()
    folders = [records, published] if other else [records]
    with resumable(), one_line_errors(ValueError):
        table = {claim.id: claim for claim in CLAIMS}
        chosen = [lookup("claim", only, table)] if only else list(CLAIMS)
        if measure:
            _measure_missing(chosen, profile, records, folders, device, workers)
        verdicts = judge(chosen, read_records(folders).values(), profile)
    if as_json:
        print(json.dumps([judged.as_json() for judged in verdicts], indent=1))
        return
    for judged in verdicts:
        print(f"{judged.claim.id}  {judged.finding.verdict}: {judged.claim.claim}")
        for part in judged.finding.parts:
            print(f"    {'✓' if part.ok else '✗'} {part.words}")
        print(f"    {judged.finding.condition}")
