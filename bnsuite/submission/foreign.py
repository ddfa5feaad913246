"""A scheme in somebody's file: its code runs in the sandbox alone, and what it answers is doubted."""

import hashlib
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, ValidationError

from bnsuite.audit import objections
from bnsuite.execute.measure import without_value
from bnsuite.execute.plan import Answer, Job
from bnsuite.facets import COSTS, FACETS, Facets
from bnsuite.records import Measurement, Outcome, RecordError
from bnsuite.records.manifest import FILE, NAME, read_manifest
from bnsuite.records.record import Finite
from bnsuite.schemes import SCHEMES
from bnsuite.submission.contract import CONTRACT
from bnsuite.submission.sandbox import Limits, OutOfMemoryError, Sandbox, SandboxError
from bnsuite.text import clipped

SCHEME = "scheme.py"
LARGEST = 1024**2
"""Bytes of a scheme's file."""

TO_LOAD = Limits(wall_s=60)
TO_CHECK = Limits(wall_s=120)


class _Said(BaseModel):
    """Sizes are bounded, types are strict: what is said inside the sandbox is not trusted."""

    model_config = ConfigDict(extra="forbid", strict=True)


class _Facets(_Said):
    words: list[str] = Field(max_length=40)
    costs: dict[str, Finite] = Field(max_length=20)

    def known(self) -> Facets:
        """Those that have a definition: no words of its own stand on the board."""
        costs = {name: value for name, value in self.costs.items() if name in COSTS}
        return Facets(tuple(word for word in FACETS if word in self.words), costs)


class _Named(_Said):
    name: str = Field(pattern=f"^{NAME}$")
    about: Annotated[str, AfterValidator(lambda text: clipped(text, 300))]


class _Described(_Facets, _Named):
    """What a look at the file gives."""


class _Answered(_Said):
    measured: dict[str, JsonValue]
    stacked: bool | None


class Check(_Said):
    """One check of the contract: whether it holds, and if not what was got and wanted."""

    name: str
    ok: bool
    message: Annotated[str, AfterValidator(lambda text: clipped(text, 400))]


@dataclass(frozen=True)
class Checked:
    """What `check` found: every check in its order, and the facets of a scheme that is sound."""

    name: str
    about: str
    checks: tuple[Check, ...]
    facets: Facets

    @property
    def ok(self) -> bool:
        return all(one.ok for one in self.checks) and {*CONTRACT} <= {one.name for one in self.checks}


@dataclass(frozen=True)
class Foreign:
    """The `scheme` of a file that nobody vouches for.

    Attributes:
        name, about, facets: what a look at it in the sandbox gave.
        path: the file; all of it is the scheme's source.
        limits: of one cell.
    """

    name: str
    about: str
    facets: Facets
    path: Path
    source: str
    sandbox: Sandbox
    limits: Limits

    def source_hash(self) -> str:
        return self.source

    def answer(self, job: Job, report: Callable[[str], None]) -> Answer:
        """Measure one cell in the sandbox, and hold the answer against itself."""
        question = {
            "ask": "measure",
            "cell": job.cell.model_dump(),
            "settings": job.task.settings,
            "data": {"name": job.data.name, "checksum": job.data.checksum, "sha256": job.data.sha256},
            "threads": threads(),
        }

        def hear(message: dict[str, Any]) -> None:
            if isinstance(found := message.get("found"), str):
                report(clipped(found, 200))

        clock = time.perf_counter()
        try:
            if source_of(self.path) != self.source:
                raise SandboxError(f"{self.path.name} was changed while it was measured")
            cuda = job.cell.device == "cuda"
            said = self.sandbox.ask(self.path, question, self.limits, hear, cuda, job.data.file)
            found = _Answered.model_validate(_content(said))
            measured = Measurement.model_validate(found.measured)
        except OutOfMemoryError as error:
            return Answer(without_value(Outcome.OOM, str(error)))
        except SandboxError as error:
            return Answer(without_value(Outcome.ERROR, str(error)))
        except ValidationError as error:
            return Answer(without_value(Outcome.ERROR, f"its answer is no measurement: {_first(error)}"))
        doubts = objections(
            measured,
            job.cell.task,
            job.task.settings,
            better=job.task.spec.better,
            dataset=job.cell.dataset,
            duration_s=time.perf_counter() - clock,
        )
        if doubts:
            return Answer(without_value(Outcome.ERROR, f"its answer cannot be: {doubts[0]}"))
        return Answer(measured, found.stacked)


def _warned(message: dict[str, Any], warn: Callable[[str], None]) -> bool:
    """Whether the message is a warning of the file, which then goes to `warn` in one line."""
    text = message.get("warning")
    if isinstance(text, str):
        warn(clipped(text, 300))
    return isinstance(text, str)


def load(path: Path, sandbox: Sandbox, limits: Limits) -> Foreign:
    """The scheme of a submission's folder, or of a single file, after one look at it in the sandbox.

    Raises `RecordError`, one line: what is wrong with the folder, the manifest or the file.
    """
    file = scheme_file(path)
    source = source_of(file)
    try:
        described = _Described.model_validate(_content(sandbox.ask(file, {"ask": "describe"}, TO_LOAD)))
    except SandboxError as error:
        raise RecordError(f"{file}: {error}") from error
    except ValidationError as error:
        raise RecordError(
            f"{file}: {_first(error)}. A name is 1 to 40 letters, digits and hyphens."
        ) from error
    _same_name(path, described.name)
    return Foreign(described.name, described.about, described.known(), file, source, sandbox, limits)


def check(
    path: Path,
    sandbox: Sandbox,
    hear: Callable[[Check], None] = lambda one: None,
    warn: Callable[[str], None] = lambda text: None,
) -> Checked:
    """Every check of the contract, and the facets; a check that ends the process is a failed one.

    Args:
        hear: called with each check as it comes.
        warn: called with each warning that the file's code makes, in one line.

    Raises `RecordError` where there is nothing to check.
    """
    file = scheme_file(path)
    if path.is_dir() and (path / FILE).exists():
        read_manifest(path)
    due = list(CONTRACT)
    done: list[Check] = []
    described: list[_Named] = []

    def take(message: dict[str, Any]) -> None:
        if _warned(message, warn):
            return
        if not described:
            described.append(_Named.model_validate(message))
            return
        one = Check.model_validate(message.get("check"))
        if not due or one.name != due[0]:
            raise SandboxError(f"its answer is that of the check {clipped(one.name, 40)!r}, which is not due")
        done.append(one)
        due.pop(0)
        hear(one)

    try:
        found = _Facets.model_validate(_content(sandbox.ask(file, {"ask": "check"}, TO_CHECK, take)))
        if due and all(one.ok for one in done):
            raise SandboxError("its answer leaves out the rest")
    except (SandboxError, ValidationError) as error:
        words = str(error) if isinstance(error, SandboxError) else f"its answer is none: {_first(error)}"
        if not described:
            raise RecordError(f"{file}: {words}") from error
        done.append(Check(name=due[0] if due else "facets", ok=False, message=words))
        hear(done[-1])
        found = _Facets(words=[], costs={})
    if not described:
        raise RecordError(f"{file}: it did not say what it is")
    _same_name(path, described[0].name)
    return Checked(described[0].name, described[0].about, tuple(done), found.known())


def _same_name(path: Path, name: str) -> None:
    """RecordError where a scheme is named as a built-in one, or as its manifest does not say."""
    if name in SCHEMES:
        raise RecordError(f"{path}: {name!r} is a built-in scheme. Give yours a name of its own.")
    if path.is_dir() and (path / FILE).exists():
        said = read_manifest(path).name
        if said != name:
            raise RecordError(
                f"{path}: {SCHEME} names its scheme {name!r}, and {FILE} {said!r}. Give both one name, and "
                "the folder, too."
            )


def scheme_file(path: Path) -> Path:
    """The file of a scheme, or of a submission's folder that holds nothing but plain files and folders."""
    if not path.exists():
        if str(path) in SCHEMES:
            raise RecordError(f"{path} is a built-in scheme, which CI holds to the contract. Give a path.")
        raise RecordError(f"{path}: no such file or folder. `bnsuite new NAME` writes one to begin with.")
    file = path / SCHEME if path.is_dir() else path
    for one in [*_below(path)] if path.is_dir() else [path]:
        mode = one.lstat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise RecordError(f"{one}: a submission holds plain files and folders, and no links. Remove it.")
    if not file.is_file():
        raise RecordError(f"{file}: no such file. A submission's folder holds its scheme there.")
    if file.suffix != ".py":
        raise RecordError(f"{file}: a scheme is a Python file, or a folder that holds a {SCHEME}.")
    return file


def _below(folder: Path) -> Iterator[Path]:
    for one in sorted(folder.iterdir()):
        if one.name == "__pycache__":
            continue
        yield one
        if one.is_dir() and not one.is_symlink():
            yield from _below(one)


def source_of(file: Path) -> str:
    """SHA-256 of a scheme's file."""
    if file.stat().st_size > LARGEST:
        raise RecordError(f"{file}: larger than {LARGEST // 1024} KiB. A scheme is one file of code.")
    return hashlib.sha256(file.read_bytes()).hexdigest()


def threads() -> int:
    """As many as a torch operation may use here."""
    import torch

    return torch.get_num_threads()


def _content(said: dict[str, Any]) -> dict[str, Any]:
    """The last message without its mark; SandboxError where it tells of a failure."""
    if "failed" in said:
        raise SandboxError(clipped(str(said["failed"]), 500))
    return {name: value for name, value in said.items() if name != "last"}


def _first(error: ValidationError) -> str:
    first = error.errors()[0]
    return clipped(f"{'.'.join(map(str, first['loc']))}: {first['msg']}", 200)
