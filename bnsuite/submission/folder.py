"""A submission's folder: begun, handed in, measured again."""

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
from bnsuite.submission.foreign import SCHEME, Foreign, check, load, scheme_file, source_of
from bnsuite.submission.sandbox import Limits, Sandbox
from bnsuite.verification import Difference, compare, sample_cells

OF_A_CELL = Limits(wall_s=3600)

_TEMPLATE = Path(__file__).parent / "template"
_TEMPLATE_AUTHOR = "Your Name"


def begin(name: str) -> Path:
    """Write a folder with a scheme that passes, its manifest and its test; returns it."""
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
        raise RecordError(f"{folder}: is there already. Give another name, or go on with it.") from None
    except OSError as error:
        raise RecordError(
            f"{folder}: cannot be written ({error.strerror}). Go where you may write."
        ) from error
    return folder


def hand_in(path: Path, records: Path, into: Path, sandbox: Sandbox) -> tuple[Path, list[Record]]:
    """Put a sound scheme, its manifest and its newest records into `into`/NAME, whole or not at all.

    Raises:
        RecordError: it has no manifest, fails its contract, has no records, has some that cannot be, or
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
        raise RecordError(f"{place}: is there already, by other authors. Give yours a name of its own.")
    checked = check(path, sandbox)
    for one in checked.checks:
        if not one.ok:
            raise RecordError(f"{path}: fails the check {one.name}: {one.message}")
    kept = _of_source(records, manifest.name, source_of(path / SCHEME))
    missing = [task for task in RANKED if task not in {record.task for record in kept}]
    if missing:
        raise RecordError(
            f"{records}: no record of this {SCHEME}, as it is now, for {', '.join(missing)}. Measure it: "
            f"bnsuite run --scheme {shlex.quote(str(path))}; or say with --records where its records lie."
        )
    for record in kept:
        if doubts := objections_to(record):
            raise RecordError(f"{record.cell}, record {record.id}: {doubts[0]}")
    try:
        _put(path, kept, place)
    except OSError as error:
        raise RecordError(
            f"{place}: cannot be written ({error.strerror}). What was there is there."
        ) from error
    return place, kept


def _put(path: Path, records: Sequence[Record], place: Path) -> None:
    """Write the entry beside its place, then rename; an old one is back where that fails."""
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
        here = place.resolve() == path.resolve()  # written in place: scheme and manifest stand there already
        new, target = (fresh / "records", place / "records") if here else (fresh, place)
        old = Path(room, "old")
        if target.exists():
            target.rename(old)
        try:
            new.rename(target)
        except OSError:
            if old.exists():  # or it would go with the room
                old.rename(target)
            raise


def _of_source(records: Path, name: str, source: str) -> list[Record]:
    """The newest result of each key that this very file gave."""
    if not records.is_dir():
        return []
    newest: dict[tuple[str, str], Record] = {}
    for record in sorted(Store(records).of_scheme(name), key=age):
        if record.provenance.scheme_source == source and record.outcome is not Outcome.ERROR:
            newest[record.key, record.profile] = record
    return list(newest.values())


def reruns(
    path: Path,
    sandbox: Sandbox,
    cells: int,
    seed: int,
    keep: Path | None = None,
    data: Sequence[Source] = (),
    tell: Callable[[str], None] = lambda line: None,
) -> Iterator[Difference]:
    """Measure a sample of a submission's records again, canaries first; each difference as it is known.

    Args:
        keep: folder to store the new records in, below the submission's name.
        data: data sets by path, for records that were measured on such.
        tell: called with a line for each canary that is sound.

    Raises:
        DataError: a data set by name that cannot be had.
        RecordError: a folder, manifest or record that is not sound, or of another scheme than its file; a
            `CanaryError`, before anything is stored.
    """
    if not path.is_dir():
        raise RecordError(f"{path}: no such folder. A submission lies in leaderboard/submissions/NAME.")
    scheme = load(path, sandbox, OF_A_CELL)
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
    jobs = [(record, replace(job, data=in_file(job.data))) for record, job in jobs]  # as canaries have theirs
    for line in canaries([(record, job.data) for record, job in jobs], scheme):
        tell(line)
    for record, job in jobs:
        again = measure(job, lambda found: None)
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
    """Measure one record again, from its own settings; `sandbox` is made where its scheme is foreign.

    A record of `top_eigenvalue` gets the second opinion of hessian-eigenthings.

    Args:
        data: its data set by path, where it was measured on such.
        scheme: its scheme by path, where that is no built-in one and lies not above the record.

    Raises:
        DataError: a data set by name that cannot be had.
        RecordError: no such record, or its scheme is not what it was, or not here.
    """
    found = {path: r for path, r in read_records(folders).items() if r.id.startswith(id)}
    if len(found) != 1:
        where = ", ".join(map(str, folders)) or "results/ or leaderboard/, which are not here"
        problem = "no record" if not found else f"{len(found)} records"
        raise RecordError(f"{problem} with the id {id!r} in {where}. The board shows each record's id.")
    (path, record), *_ = found.items()
    if record.task == CALIBRATION:
        raise RecordError(f"{record.id} is a calibration: `bnsuite calibrate` measures all of it again.")
    job = _job_again(record, _scheme_of(path, record, sandbox, scheme), data)
    difference = compare(record, measure(job, lambda found: None))
    return difference._replace(second_opinion=second_opinion(job))


def _scheme_of(
    path: Path, record: Record, sandbox: Callable[[], Sandbox], given: Path | None
) -> Scheme | Foreign:
    if record.scheme in SCHEMES:
        return SCHEMES[record.scheme]
    beside = (folder for folder in path.parents if (folder / SCHEME).is_file())
    place = given or next(beside, None)
    if place is None:
        raise RecordError(
            f"{record.id}: {record.scheme!r} is no built-in scheme, and its record has no {SCHEME} beside "
            "it. Say where its file is: --scheme PATH."
        )
    return load(place, sandbox(), OF_A_CELL)


def _data_of(record: Record, given: Sequence[Source]) -> Source:
    """The data set of a record: of those given the one of its checksum, else the one of its name."""
    wanted = record.provenance.dataset_checksum
    for source in given:
        if source.checksum == wanted:
            return replace(source, name=record.dataset)
    if record.dataset in DATASETS:
        return find(record.dataset)
    got = ", ".join(f"{source.name} with {source.checksum[:16]}" for source in given) or "none"
    raise RecordError(
        f"{record.id}: was measured on {record.dataset!r}, a data set by path with the checksum "
        f"{wanted[:16]}: got {got}. Give its files: --dataset PATH."
    )


def _job_again(record: Record, scheme: Scheme | Foreign, given: Sequence[Source]) -> Job:
    """The job that measures a record again; RecordError where that is no longer what it was, or not here."""
    job = job_of(record.cell, record.settings, scheme, _data_of(record, given))
    if job.key != record.key:
        what = [
            (job.scheme_source, record.provenance.scheme_source, "the source of the scheme"),
            (job.task.spec.version, record.task_version, "the version of the task"),
        ]
        changed = [words for now, then, words in what if now != then] or [
            "the data set or the suite's version"
        ]
        raise RecordError(
            f"{record.id}: {' and '.join(changed)} is not what it was: nothing to compare with. "
            f"It was measured at commit {record.provenance.commit or 'unknown'}."
        )
    try:
        resolve_device(record.device)
    except DeviceError as error:
        raise RecordError(f"{record.id} was measured on a GPU: {error}") from error
    return job
