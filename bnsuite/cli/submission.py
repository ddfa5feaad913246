"""Commands around a scheme of one's own: new, check, submit, verify, reproduce."""

import json
import shlex
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from bnsuite.cli.terminal import SandboxChoice, SandboxOption, err, fail
from bnsuite.execute.pool import interrupts_wait

if TYPE_CHECKING:
    from bnsuite.submission.foreign import Check, Checked
    from bnsuite.submission.sandbox import Sandbox
    from bnsuite.verification import Difference

SUBMISSIONS = Path("leaderboard/submissions")
VERIFICATION = Path("leaderboard/verification")
Datasets = Annotated[
    list[Path] | None,
    typer.Option("--dataset", help="A data set by path that records were measured on; repeatable."),
]

ToRgb = Annotated[
    bool, typer.Option("--to-rgb", help="Convert every image of these data sets to RGB, as the run did.")
]


def new(
    name: Annotated[str, typer.Argument(help="Lower-case letters, digits and hyphens; also the folder.")],
) -> None:
    """Begin a scheme of your own: NAME/scheme.py, its manifest, and a test that passes."""
    from bnsuite.records import RecordError
    from bnsuite.submission.folder import begin

    try:
        folder = begin(name)
    except RecordError as error:
        fail(str(error))
    print(f"{folder} holds scheme.py, submission.toml and test_scheme.py. Write yours into scheme.py, then:")
    quoted = shlex.quote(str(folder))
    print(f"  bnsuite check {quoted}            # the contract that every scheme passes")
    print(f"  bnsuite run --scheme {quoted}     # some minutes; --profile smoke for a first look")
    print("  bnsuite board")


def sandbox(choice: SandboxChoice) -> "Sandbox":
    """Make the sandbox of this machine; print what it does not protect.

    Raises:
        RecordError: bubblewrap is required, and does not work.
    """
    from bnsuite.records import RecordError
    from bnsuite.submission.sandbox import Sandbox, working_bwrap

    bwrap = None if choice is SandboxChoice.off else working_bwrap()
    if choice is SandboxChoice.require and bwrap is None:
        raise RecordError(
            "--sandbox require: bubblewrap is not installed, or may make no namespaces; nothing was loaded. "
            "Install it (apt-get install bubblewrap), allow user namespaces, or take --sandbox prefer."
        )
    found = Sandbox(bwrap)
    for gap in found.gaps:
        err.print(f"[yellow]not protected:[/] {escape(gap)}", highlight=False, soft_wrap=True)
    return found


def check(
    path: Annotated[Path, typer.Argument(help="A folder with a scheme.py, or a Python file.")],
    as_json: Annotated[
        bool, typer.Option("--json", help="Print {ok, checks, facets, costs, warnings, error} as JSON.")
    ] = False,
    confine: SandboxOption = SandboxChoice.prefer,
) -> None:
    """Hold a scheme to the contract that the built-in ones pass, and show its facets.

    Some ten seconds, in the sandbox. Exit status 1 where a check fails.
    """
    from bnsuite.records import RecordError
    from bnsuite.submission.contract import NOT_TRIED
    from bnsuite.submission.foreign import check as check_

    warnings: list[str] = []

    def show(one: "Check") -> None:
        if not as_json and not one.message.startswith(NOT_TRIED):
            print(f"{'ok  ' if one.ok else 'FAIL'} {one.name:<24} {one.message}".rstrip(), flush=True)

    def warn(text: str) -> None:
        warnings.append(text)
        show_warning(str(path), text)

    try:
        found = check_(path, sandbox(confine), show, warn)
    except RecordError as error:
        if as_json:
            _print_json(None, warnings, str(error))
        fail(str(error))
    if as_json:
        _print_json(found, warnings)
    elif found.ok:
        _print_facets(found)
    if not found.ok:
        bad = [one for one in found.checks if not one.ok]
        faults = [one.name for one in bad if not one.message.startswith(NOT_TRIED)]
        rest = f"; {len(bad) - len(faults)} were not tried" if len(faults) < len(bad) else ""
        fail(f"{path}: {', '.join(faults)} failed{rest}. Mend and check again.", code=1)


def show_warning(of: str, text: str) -> None:
    """A warning that a scheme's code makes, in one line on standard error."""
    err.print(f"[yellow]{escape(of)} warns:[/] {escape(text)}", highlight=False, soft_wrap=True)


def _print_json(found: "Checked | None", warnings: list[str], error: str | None = None) -> None:
    """The result of `check`; without one, because of `error`, the same fields with ok = false."""
    checks = [one.model_dump() for one in found.checks] if found else []
    facets, costs = (found.facets.words, found.facets.costs) if found else ((), {})
    told = {"ok": found is not None and found.ok, "checks": checks, "facets": facets, "costs": costs}
    print(json.dumps({**told, "warnings": warnings, "error": error}, indent=1))


def _print_facets(found: "Checked") -> None:
    from bnsuite.records.facets import FACETS

    print(f"\n{found.name}: {found.about}")
    for facet in found.facets.words:
        print(f"  {facet:<24} {FACETS[facet]}")
    for cost, much in found.facets.costs.items():
        print(f"  {cost:<24} {much:g}")


def submit(
    path: Annotated[Path, typer.Argument(help="The folder of the scheme and its manifest.")],
    records: Annotated[
        Path | None,
        typer.Option(help="Where its records lie; by default results/ here, or beside the scheme's folder."),
    ] = None,
    confine: SandboxOption = SandboxChoice.prefer,
) -> None:
    """Put scheme, manifest and records into leaderboard/submissions/NAME/, ready for a pull request."""
    from bnsuite.records import RecordError
    from bnsuite.submission.folder import hand_in

    beside = path.resolve().parent / "results"
    records = records or next((r for r in (Path("results"), beside) if r.is_dir()), Path("results"))
    try:
        place, kept = hand_in(path, records, SUBMISSIONS, sandbox(confine))
    except RecordError as error:
        fail(str(error))
    for record in kept:
        print(f"  {record.cell}: {record.outcome} {'' if record.value is None else f'{record.value:.4g}'}")
    if all(record.profile.startswith("smoke") for record in kept):
        what = "its records are of profile smoke, which ranks nobody, and are no submission yet. "
        what += f"Measure them: bnsuite run --scheme {shlex.quote(str(path))}"
        err.print(f"[yellow]{escape(str(place))}:[/] {escape(what)}", highlight=False, soft_wrap=True)
        return
    print(f"{place} is ready. Look at it with `bnsuite board`, then:")
    print(f"  git switch -c {place.name}")
    print(f"  git add {shlex.quote(str(place))} && git commit -m 'Submit {place.name}'")
    print("  git push, and open a pull request; CONTRIBUTING.md tells what happens to it.")


def verify(
    path: Annotated[Path, typer.Argument(help="A submission, such as leaderboard/submissions/NAME.")],
    cells: Annotated[int, typer.Option(min=1, help="How many of its records are measured again.")] = 4,
    seed: Annotated[int, typer.Option(help="Of the choice among them.")] = 0,
    keep: Annotated[
        bool, typer.Option("--keep", help="Maintainers: store what was measured, which earns a tier.")
    ] = False,
    dataset: Datasets = None,
    to_rgb: ToRgb = False,
    confine: SandboxOption = SandboxChoice.prefer,
    as_json: Annotated[bool, typer.Option("--json", help="Print the differences as a JSON list.")] = False,
) -> None:
    """Measure a sample of a submission's records again, after canaries, and show how far they are off.

    Some two to three times as long as measuring them took. Exit status 1 where one does not agree.
    """
    with interrupts_wait():
        from bnsuite.datasets import find
        from bnsuite.records import RecordError
        from bnsuite.submission.folder import reruns

    again = []
    try:
        store = VERIFICATION if keep else None
        data = [find(one, to_rgb=to_rgb) for one in dataset or ()]
        tell = (lambda line: None) if as_json else (lambda line: print(line, flush=True))
        for difference in reruns(path, sandbox(confine), cells, seed, store, data, tell):
            again.append(difference)
            if not as_json:
                print(difference.words, flush=True)
    except (RecordError, ValueError) as error:
        fail(str(error))
    _close(again, as_json)


def reproduce(
    id: Annotated[str, typer.Argument(help="Of a record; the board links to it.")],
    records: Annotated[
        list[Path] | None,
        typer.Option(
            "--records", help="Folder to look in; repeatable. By default results/ and leaderboard/."
        ),
    ] = None,
    scheme: Annotated[
        Path | None, typer.Option(help="Its scheme by path, where that is your own and not submitted yet.")
    ] = None,
    dataset: Datasets = None,
    to_rgb: ToRgb = False,
    confine: SandboxOption = SandboxChoice.prefer,
    as_json: Annotated[bool, typer.Option("--json", help="Print the difference as a JSON list.")] = False,
) -> None:
    """Measure one record again, with its own settings and seeds, and show how far it is off."""
    with interrupts_wait():
        from bnsuite.datasets import find
        from bnsuite.records import RecordError
        from bnsuite.submission.folder import rerun

    folders = records or [folder for folder in (Path("results"), Path("leaderboard")) if folder.is_dir()]
    try:
        data = [find(one, to_rgb=to_rgb) for one in dataset or ()]
        difference = rerun(id, folders, partial(sandbox, confine), data, scheme)
    except (RecordError, ValueError) as error:
        fail(str(error))
    if not as_json:
        print(difference.words)
        if difference.second_opinion:
            print(difference.second_opinion.words)
    _close([difference], as_json)


def _close(found: "list[Difference]", as_json: bool) -> None:
    if as_json:
        told = [
            {
                **one._asdict(),
                "reported": one.reported.id,
                "again": one.again.model_dump(mode="json"),
                "second_opinion": one.second_opinion and one.second_opinion._asdict(),
            }
            for one in found
        ]
        print(json.dumps(told, indent=1))
    off = [one for one in found if not one.agrees]
    if off:
        fail(f"{len(off)} of {len(found)} records do not agree with their re-run.", code=1)
