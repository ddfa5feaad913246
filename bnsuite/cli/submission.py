"""Commands for a scheme of your own: new, check, submit, verify, reproduce."""

import json
import shlex
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bnsuite.cli.options import RESULTS, SandboxChoice, SandboxOption
from bnsuite.cli.terminal import fail, note, one_line_errors
from bnsuite.execute.pool import interrupts_wait

if TYPE_CHECKING:
    from bnsuite.submission.foreign import ContractReport, ReportedCheck
    from bnsuite.submission.sandbox import Sandbox
    from bnsuite.verification import Difference

SUBMISSIONS = Path("leaderboard/submissions")
VERIFICATION = Path("leaderboard/verification")
Datasets = Annotated[
    list[Path] | None,
    typer.Option("--dataset", help="Data set by path on which records were measured; repeatable."),
]

ToRgb = Annotated[
    bool, typer.Option("--to-rgb", help="Convert every image of these data sets to RGB, as the run did.")
]


def new(
    name: Annotated[str, typer.Argument(help="Lower-case letters, digits and hyphens; also the folder.")],
) -> None:
    """Begin a scheme of your own: NAME/scheme.py, its manifest, and a test that passes."""
    from bnsuite.submission.folder import begin

    with one_line_errors():
        folder = begin(name)
    print(f"{folder} holds scheme.py, submission.toml and test_scheme.py. Write yours into scheme.py, then:")
    quoted = shlex.quote(str(folder))
    print(f"  bnsuite check {quoted}            # the contract that every scheme passes")
    print(f"  bnsuite run --scheme {quoted}     # some minutes; --profile smoke for a first look")
    print("  bnsuite board")


def sandbox(choice: SandboxChoice) -> "Sandbox":
    """Make the sandbox of this machine, and print what it does not protect.

    Raises:
        RecordError: bubblewrap is required, and does not work.
    """
    from bnsuite.records import RecordError
    from bnsuite.submission.sandbox import Sandbox, working_bwrap

    bwrap = None if choice == "off" else working_bwrap()
    if choice == "require" and bwrap is None:
        raise RecordError(
            "--sandbox require: bubblewrap is not installed, or may make no namespaces; nothing was loaded. "
            "Install it (apt-get install bubblewrap), allow user namespaces, or take --sandbox prefer."
        )
    made = Sandbox(bwrap)
    for gap in made.gaps:
        note("not protected:", gap)
    return made


def check(
    path: Annotated[Path, typer.Argument(help="A folder with a scheme.py, or a Python file.")],
    as_json: Annotated[
        bool, typer.Option("--json", help="Print {ok, checks, facets, costs, warnings, error} as JSON.")
    ] = False,
    confine: SandboxOption = "prefer",
) -> None:
    """Hold a scheme to the contract that all built-in schemes pass, and show its facets.

    Takes some ten seconds, in the sandbox. Exit status 1 if a check fails.
    """
    from bnsuite.records import RecordError
    from bnsuite.submission.foreign import check_contract

    warnings: list[str] = []

    def show(result: "ReportedCheck") -> None:
        if not as_json and result.tried:
            print(
                f"{'ok  ' if result.ok else 'FAIL'} {result.name:<24} {result.message}".rstrip(), flush=True
            )

    def warn(text: str) -> None:
        warnings.append(text)
        note(f"{path} warns:", text)

    try:
        report = check_contract(path, sandbox(confine), show, warn)
    except RecordError as error:
        if as_json:
            _print_json(None, warnings, str(error))
        fail(str(error))
    if as_json:
        _print_json(report, warnings)
    elif report.ok:
        _print_facets(report)
    if not report.ok:
        failed = ", ".join(result.name for result in report.failed)
        not_tried = sum(not result.tried for result in report.checks)
        rest = f"; {not_tried} were not tried" if not_tried else ""
        fail(f"{path}: {failed} failed{rest}. Mend and check again.", code=1)


def _print_json(report: "ContractReport | None", warnings: list[str], error: str | None = None) -> None:
    """Print the result of `check`; if `error` prevented one, the same fields with ok = false."""
    fields = {
        "ok": report is not None and report.ok,
        "checks": [result.model_dump() for result in report.checks] if report else [],
        "facets": report.facets.words if report else (),
        "costs": report.facets.costs if report else {},
    }
    print(json.dumps({**fields, "warnings": warnings, "error": error}, indent=1))


def _print_facets(report: "ContractReport") -> None:
    from bnsuite.records.facets import FACETS

    print(f"\n{report.name}: {report.about}")
    for facet in report.facets.words:
        print(f"  {facet:<24} {FACETS[facet]}")
    for name, cost in report.facets.costs.items():
        print(f"  {name:<24} {cost:g}")


def submit(
    path: Annotated[Path, typer.Argument(help="The folder of the scheme and its manifest.")],
    records: Annotated[
        Path | None,
        typer.Option(help="Folder of its records; by default results/ here, or next to the scheme's folder."),
    ] = None,
    confine: SandboxOption = "prefer",
) -> None:
    """Put scheme, manifest and records into leaderboard/submissions/NAME/, ready for a pull request."""
    from bnsuite.submission.folder import hand_in

    candidates = (RESULTS, path.resolve().parent / RESULTS)
    records = records or next((folder for folder in candidates if folder.is_dir()), RESULTS)
    with one_line_errors():
        place, submitted = hand_in(path, records, SUBMISSIONS, sandbox(confine))
    for record in submitted:
        print(f"  {record.cell}: {record.outcome} {'' if record.value is None else f'{record.value:.4g}'}")
    if all(record.profile.startswith("smoke") for record in submitted):
        reason = "its records are of profile smoke, which does not rank, and are no submission yet. "
        reason += f"Measure it with profile quick: bnsuite run --scheme {shlex.quote(str(path))}"
        note(f"{place}:", reason)
        return
    print(f"{place} is ready. Look at it with `bnsuite board`, then:")
    print(f"  git switch -c {place.name}")
    print(f"  git add {shlex.quote(str(place))} && git commit -m 'Submit {place.name}'")
    print("  git push, and open a pull request; CONTRIBUTING.md tells what happens to it.")


def verify(
    path: Annotated[Path, typer.Argument(help="A submission, such as leaderboard/submissions/NAME.")],
    cells: Annotated[int, typer.Option(min=1, help="How many of its records are measured again.")] = 4,
    seed: Annotated[int, typer.Option(help="Seed of the choice among them.")] = 0,
    keep: Annotated[
        bool, typer.Option("--keep", help="Maintainers: store what was measured, which earns a tier.")
    ] = False,
    dataset: Datasets = None,
    to_rgb: ToRgb = False,
    confine: SandboxOption = "prefer",
    as_json: Annotated[bool, typer.Option("--json", help="Print the differences as a JSON list.")] = False,
) -> None:
    """Measure a sample of a submission's records again, after canaries, and show how far they are off.

    Takes two to three times as long as measuring them took. Exit status 1 if one does not agree.
    """
    with interrupts_wait():
        from bnsuite.datasets import find
        from bnsuite.submission.folder import reruns

    differences = []
    with one_line_errors(ValueError):
        store = VERIFICATION if keep else None
        data = [find(folder, to_rgb=to_rgb) for folder in dataset or ()]
        tell = partial(print, file=sys.stderr if as_json else sys.stdout, flush=True)
        for difference in reruns(path, sandbox(confine), cells, seed, store, data, tell):
            differences.append(difference)
            if not as_json:
                print(difference.words, flush=True)
    _exit_on_difference(differences, as_json)


def reproduce(
    id: Annotated[str, typer.Argument(help="Id of a record; the board links to it.")],
    records: Annotated[
        list[Path] | None,
        typer.Option(help="Folder to look in; repeatable. By default results/ and leaderboard/."),
    ] = None,
    scheme: Annotated[
        Path | None, typer.Option(help="Its scheme by path, if that is your own and not submitted yet.")
    ] = None,
    dataset: Datasets = None,
    to_rgb: ToRgb = False,
    confine: SandboxOption = "prefer",
    as_json: Annotated[bool, typer.Option("--json", help="Print the difference as a JSON list.")] = False,
) -> None:
    """Measure one record again, with its own settings and seeds, and show how far it is off."""
    with interrupts_wait():
        from bnsuite.datasets import find
        from bnsuite.submission.folder import rerun

    folders = records or [folder for folder in (RESULTS, Path("leaderboard")) if folder.is_dir()]
    with one_line_errors(ValueError):
        data = [find(folder, to_rgb=to_rgb) for folder in dataset or ()]
        difference = rerun(id, folders, partial(sandbox, confine), data, scheme)
    if not as_json:
        print(difference.words)
        if difference.second_opinion:
            print(difference.second_opinion.words)
    _exit_on_difference([difference], as_json)


def _exit_on_difference(differences: "list[Difference]", as_json: bool) -> None:
    if as_json:
        rows = [
            {
                **difference._asdict(),
                "reported": difference.reported.id,
                "again": difference.again.model_dump(mode="json"),
                "second_opinion": difference.second_opinion and difference.second_opinion._asdict(),
            }
            for difference in differences
        ]
        print(json.dumps(rows, indent=1))
    off = [difference for difference in differences if not difference.agrees]
    if off:
        fail(f"{len(off)} of {len(differences)} records do not agree with their re-run.", code=1)
