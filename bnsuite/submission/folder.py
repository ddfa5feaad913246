"""Folder of a submission: begin it, hand it in, and measure its records again."""

import re
import shlex
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from bnsuite.audit import objections_to
from bnsuite.datasets import DATASETS, Source, find, in_file
from bnsuite.execute.measure import measure, second_opinion
from bnsuite.execute.plan import DeviceError, Job, job_of, resolve_device
from bnsuite.records import CALIBRATION, Outcome, Record, RecordError, Store, read_records
from bnsuite.records.manifest import FILE, NAME, read_manifest
from bnsuite.records.store import age
from bnsuite.schemes import SCHEMES, Scheme
from bnsuite.specs import RANKED
from bnsuite.submission.canary import canaries
from bnsuite.submission.conversation import Limits
from bnsuite.submission.foreign import SCHEME, Foreign, check_contract, load_scheme, scheme_file, source_of
from bnsuite.submission.sandbox import Sandbox
from bnsuite.verification import Difference, compare, sample_cells

OF_A_CELL = Limits(wall_s=3600)
"""Limits of a cell that is measured again."""

_TEMPLATE = Path(__file__).parent / "template"
_TEMPLATE_AUTHOR = "Your Name"


def begin(name: str) -> Path:
    """Write a folder with a scheme that passes the contract, its manifest and its test; returns the folder.

    Raises:
        RecordError: the name is malformed or taken, or the folder exists or cannot be written.
    """
    if not re.fullmatch(NAME, name):
        raise RecordError(f"a name is 1 to 40 lower-case letters, digits and hyphens: got {name!r}")
    if name in SCHEMES:
        raise RecordError(f"{name!r} is a built-in scheme. Give yours a name of its own.")
    folder = Path(name)
    try:
        folder.mkdir()
        for template in sorted(_TEMPLATE.glob("*.in")):
            text = template.read_text(encoding="utf-8").replace("{name}", name)
            (folder / template.stem).write_text(text, encoding="utf-8")
    except FileExistsError:
        raise RecordError(f"{folder}: exists already. Give another name, or go on with it.") from None
    except OSError as error:
        raise RecordError(
            f"{folder}: cannot be written ({error.strerror}). Change to a folder where you may write."
        ) from error
    return folder


def hand_in(path: Path, records: Path, into: Path, sandbox: Sandbox) -> tuple[Path, list[Record]]:
    """Copy a sound scheme, its manifest and its newest records to `into`/NAME, all of it or nothing.

    Args:
        path: folder of the scheme and its manifest.
        records: folder of its records.
        into: folder of all submissions.
        sandbox: where the scheme's code runs.

    Returns:
        Folder of the submission, and its records.

    Raises:
        RecordError: the scheme has no manifest, fails the contract, lacks records, has impossible ones, or
            cannot be written there.
    """
    if not into.parent.is_dir():
        raise RecordError(f"{into.parent}: no such folder. Submit from the root of a checkout of the suite.")
    if not path.is_dir():
        raise RecordError(f"{path}: not a folder. `bnsuite new NAME` writes one, with a manifest.")
    scheme_file(path)
    manifest = read_manifest(path)
    if _TEMPLATE_AUTHOR in manifest.authors:
        raise RecordError(f"{path / FILE}: authors is still {_TEMPLATE_AUTHOR!r}. Say who you are.")
    place = into / manifest.name
    if (place / FILE).exists() and not {*read_manifest(place).authors} & {*manifest.authors}:
        raise RecordError(f"{place}: exists already, by other authors. Give yours a name of its own.")
    for check in check_contract(path, sandbox).checks:
        if not check.ok:
            raise RecordError(f"{path}: fails the check {check.name}: {check.message}")
    own_records = _publishable(path, records, manifest.name)
    try:
        _put(path, own_records, place)
    except OSError as error:
        raise RecordError(
            f"{place}: cannot be written ({error.strerror}). Nothing there was changed."
        ) from error
    return place, own_records


def _publishable(path: Path, records: Path, name: str) -> list[Record]:
    """Newest records of a scheme's file; raises RecordError if one is missing or impossible."""
    own_records = _of_source(records, name, source_of(path / SCHEME))
    missing = [task for task in RANKED if task not in {record.task for record in own_records}]
    if missing:
        raise RecordError(
            f"{records}: no record of this {SCHEME}, as it is now, for {', '.join(missing)}. Measure it: "
            f"bnsuite run --scheme {shlex.quote(str(path))}; or say with --records where its records lie."
        )
    for record in own_records:
        if doubts := objections_to(record):
            raise RecordError(f"{record.cell}, record {record.id}: {doubts[0]}")
    return own_records


def _put(path: Path, records: Sequence[Record], place: Path) -> None:
    """Write the entry next to its place, then rename it; restores the old entry if that fails."""
    place.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=f".{place.name}.") as room:
        fresh = Path(room, "new")
        fresh.mkdir()
        for name in (SCHEME, FILE):
            shutil.copyfile(path / name, fresh / name)
        store = Store(fresh / "records")
        for record in records:
            store.add(record)
        fresh.chmod(0o755)
        in_place = place.resolve() == path.resolve()  # scheme and manifest are there already
        new, target = (fresh / "records", place / "records") if in_place else (fresh, place)
        old = Path(room, "old")
        if target.exists():
            target.rename(old)
        try:
            new.rename(target)
        except OSError:
            if old.exists():  # otherwise it would be deleted with the temporary folder
                old.rename(target)
            raise


def _of_source(records: Path, name: str, source: str) -> list[Record]:
    """Newest record of each key and profile that was measured with this very file."""
    newest = {
        (record.key, record.profile): record
        for record in sorted(Store(records).of_scheme(name), key=age)
        if record.provenance.scheme_source == source and record.outcome is not Outcome.ERROR
    }
    return list(newest.values())


def reruns(
    path: Path,
    sandbox: Sandbox,
    cells: int,
    seed: int,
    keep: Path | None = None,
    data: Sequence[Source] = (),
    tell: Callable[[str], None] = lambda _: None,
) -> Iterator[Difference]:
    """Measure a sample of a submission's records again, after canaries; yields each difference as it comes.

    Args:
        path: folder of the submission.
        sandbox: where the scheme's code runs.
        cells: number of records to measure again.
        seed: seed of the choice among them.
        keep: folder to store the new records in, below the submission's name; None: not stored.
        data: data sets by path, for records that were measured on such.
        tell: called with a line for each canary that passes.

    Raises:
        DataError: a data set cannot be read.
        RecordError: a folder, manifest or record is not sound, or is of another scheme than the file's.
        CanaryError: a canary fails; nothing is stored then.
    """
    if not path.is_dir():
        raise RecordError(f"{path}: no such folder. A submission lies in leaderboard/submissions/NAME.")
    scheme = load_scheme(path, sandbox, OF_A_CELL)
    manifest = read_manifest(path)
    stored = [record for record in Store(path / "records") if record.task != CALIBRATION]
    for record in stored:
        if record.scheme != manifest.name:
            raise RecordError(
                f"{path}: record {record.id} is of {record.scheme!r}, not of {manifest.name!r}."
            )
        if doubts := objections_to(record):
            raise RecordError(f"{path}: record {record.id} of {record.cell}: {doubts[0]}")
    if not stored:
        raise RecordError(f"{path}: holds no records. `bnsuite submit` puts them there.")
    jobs = [(record, _job_again(record, scheme, data)) for record in sample_cells(stored, cells, seed)]
    # In files, as for canaries.
    jobs = [(record, replace(job, data=in_file(job.data))) for record, job in jobs]
    for line in canaries([(record, job.data) for record, job in jobs], scheme):
        tell(line)
    for record, job in jobs:
        again = measure(job, lambda _: None)
        if keep is not None:
            Store(keep / manifest.name).add(again)
        yield compare(record, again)


def rerun(
    id: str,
    folders: Sequence[Path],
    sandbox: Callable[[], Sandbox],
    data: Sequence[Source] = (),
    scheme: Path | None = None,
) -> Difference:
    """Measure one record again with its own settings.

    A record of `top_eigenvalue` gets the second opinion of hessian-eigenthings.

    Args:
        id: id of the record, or how it begins.
        folders: folders to look for the record in.
        sandbox: makes the sandbox; called if the scheme is foreign.
        data: data set by path, if the record was measured on such.
        scheme: scheme by path; None: a built-in scheme, or the file in a folder above the record.

    Raises:
        DataError: a data set cannot be read.
        RecordError: there is no such record, or its scheme has changed or is not here.
    """
    matches = {path: record for path, record in read_records(folders).items() if record.id.startswith(id)}
    if len(matches) != 1:
        where = ", ".join(map(str, folders)) or "results/ or leaderboard/, which are not here"
        problem = "no record" if not matches else f"{len(matches)} records"
        raise RecordError(f"{problem} with the id {id!r} in {where}. The board shows each record's id.")
    (path, record), *_ = matches.items()
    if record.task == CALIBRATION:
        raise RecordError(f"{record.id} is a calibration: `bnsuite calibrate` measures all of it again.")
    job = _job_again(record, _scheme_of(path, record, sandbox, scheme), data)
    difference = compare(record, measure(job, lambda _: None))
    return difference._replace(second_opinion=second_opinion(job))


def _scheme_of(
    path: Path, record: Record, sandbox: Callable[[], Sandbox], scheme: Path | None
) -> Scheme | Foreign:
    if record.scheme in SCHEMES:
        return SCHEMES[record.scheme]
    above = (folder for folder in path.parents if (folder / SCHEME).is_file())
    place = scheme or next(above, None)
    if place is None:
        raise RecordError(
            f"{record.id}: {record.scheme!r} is no built-in scheme, and no folder above its record has a "
            f"{SCHEME}. Say where its file is: --scheme PATH."
        )
    return load_scheme(place, sandbox(), OF_A_CELL)


def _data_of(record: Record, sources: Sequence[Source]) -> Source:
    """Data set of a record: among `sources` by its checksum, otherwise by its name."""
    wanted = record.provenance.dataset_checksum
    for source in sources:
        if source.checksum == wanted:
            return replace(source, name=record.dataset)
    if record.dataset in DATASETS:
        return find(record.dataset)
    got = ", ".join(f"{source.name} with {source.checksum[:16]}" for source in sources) or "none"
    raise RecordError(
        f"{record.id}: was measured on {record.dataset!r}, a data set by path with the checksum "
        f"{wanted[:16]}: got {got}. Give its files: --dataset PATH."
    )


def _job_again(record: Record, scheme: Scheme | Foreign, sources: Sequence[Source]) -> Job:
    """Job that measures a record again; raises RecordError if that is another question now."""
    job = job_of(record.cell, record.settings, scheme, _data_of(record, sources))
    if job.key != record.key:
        parts = [
            (job.scheme_source, record.provenance.scheme_source, "the source of the scheme"),
            (job.task.spec.version, record.task_version, "the version of the task"),
        ]
        changed = " and ".join(words for now, then, words in parts if now != then)
        changed = changed or "the data set or the suite's version"
        raise RecordError(
            f"{record.id}: {changed} is not what it was: nothing to compare with. "
            f"It was measured at commit {record.provenance.commit or 'unknown'}."
        )
    try:
        resolve_device(record.device)
    except DeviceError as error:
        raise RecordError(f"{record.id} was measured on a GPU: {error}") from error
    return job
