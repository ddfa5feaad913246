"""Foreign schemes: their code runs only in the sandbox, and their answers are checked."""

import hashlib
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, ValidationError

from bnsuite.audit import objections
from bnsuite.execute.measure import without_value
from bnsuite.execute.plan import Answer, Job
from bnsuite.facets import COSTS, FACETS, Facets
from bnsuite.records import Measurement, Outcome, RecordError
from bnsuite.records.manifest import FILE, NAME, read_manifest
from bnsuite.records.record import Finite
from bnsuite.records.store import files_below
from bnsuite.schemes import SCHEMES
from bnsuite.submission.contract import CONTRACT, NOT_TRIED
from bnsuite.submission.conversation import Limits, OutOfMemoryError, SandboxError
from bnsuite.submission.sandbox import Sandbox
from bnsuite.text import clipped

SCHEME = "scheme.py"
"""Name of the file that holds the scheme of a submission."""

MOST_SOURCE_BYTES = 1024**2
"""Largest size of a scheme's file, in bytes."""

TO_LOAD = Limits(wall_s=60)
"""Limits of a look at the file."""

TO_CHECK = Limits(wall_s=120)
"""Limits of the whole contract."""


class _FromSandbox(BaseModel):
    """Message from inside the sandbox: nothing in it is trusted, so sizes are bounded and types strict."""

    model_config = ConfigDict(extra="forbid", strict=True)


class _Facets(_FromSandbox):
    words: list[str] = Field(max_length=40)
    costs: dict[str, Finite] = Field(max_length=20)

    def known(self) -> Facets:
        """Drop facets we do not define, so that a submission cannot put its own text on the board."""
        costs = {name: value for name, value in self.costs.items() if name in COSTS}
        return Facets(tuple(word for word in FACETS if word in self.words), costs)


class _Named(_FromSandbox):
    name: str = Field(pattern=f"^{NAME}$")
    about: Annotated[str, AfterValidator(lambda text: clipped(text, 300))]


class _Described(_Facets, _Named):
    """Answer to the question `describe`."""


class _Answered(_FromSandbox):
    measured: dict[str, JsonValue]
    stacked: bool | None


class ReportedCheck(_FromSandbox):
    """Result of one check of the contract; if it does not hold, the message says got, wanted, do."""

    name: str
    ok: bool
    message: Annotated[str, AfterValidator(lambda text: clipped(text, 400))]

    @property
    def tried(self) -> bool:
        """Whether the check was tried; one that would repeat the fault of an earlier check is not."""
        return not self.message.startswith(NOT_TRIED)


@dataclass(frozen=True)
class ContractReport:
    """Results of all checks in their order, and the facets of a scheme that passes them."""

    name: str
    about: str
    checks: tuple[ReportedCheck, ...]
    facets: Facets

    @property
    def ok(self) -> bool:
        """Whether every check of the contract was made and holds."""
        return self.complete and all(check.ok for check in self.checks)

    @property
    def complete(self) -> bool:
        """Whether every check of the contract has a result."""
        return {*CONTRACT} <= {check.name for check in self.checks}

    @property
    def failed(self) -> list[ReportedCheck]:
        """Checks that were tried and do not hold."""
        return [check for check in self.checks if check.tried and not check.ok]


@dataclass(frozen=True)
class Foreign:
    """Scheme in a file whose code is not trusted.

    Attributes:
        name: name of the scheme.
        about: description in one line.
        facets: facets and costs.
        path: the file; all of it is the scheme's source.
        source: SHA-256 of the file.
        sandbox: where the code runs.
        limits: limits of one cell.
    """

    name: str
    about: str
    facets: Facets
    path: Path
    source: str
    sandbox: Sandbox
    limits: Limits

    def source_hash(self) -> str:
        """SHA-256 of the file."""
        return self.source

    def answer(self, job: Job, report: Callable[[str], None]) -> Answer:
        """Measure one cell in the sandbox, and check the answer against its own trace.

        Args:
            job: the cell.
            report: gets the progress, a few words at a time.
        """
        question = {
            "ask": "measure",
            "cell": job.cell.model_dump(),
            "settings": job.task.settings,
            "data": {"name": job.data.name, "checksum": job.data.checksum, "sha256": job.data.sha256},
            "threads": torch.get_num_threads(),
        }

        def hear(message: dict[str, Any]) -> None:
            if isinstance(progress := message.get("found"), str):
                report(clipped(progress, 200))

        clock = time.perf_counter()
        try:
            if source_of(self.path) != self.source:
                raise SandboxError(f"{self.path.name} was changed while it was measured")
            cuda = job.cell.device == "cuda"
            reply = self.sandbox.ask(self.path, question, self.limits, hear, cuda, job.data.file)
            answer = _Answered.model_validate(_content(reply))
            measured = Measurement.model_validate(answer.measured)
        except SandboxError as error:
            outcome = Outcome.OOM if isinstance(error, OutOfMemoryError) else Outcome.ERROR
            return Answer(without_value(outcome, str(error)))
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
        return Answer(measured, answer.stacked)


def load_scheme(path: Path, sandbox: Sandbox, limits: Limits) -> Foreign:
    """Load the scheme of a submission's folder or of a single file, after a look at it in the sandbox.

    Args:
        path: the folder or file.
        sandbox: where the code runs.
        limits: limits of each cell that is measured later.

    Raises:
        RecordError: the folder, the manifest or the file is not sound; in one line.
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
    _refuse_name(path, described.name)
    return Foreign(described.name, described.about, described.known(), file, source, sandbox, limits)


def check_contract(
    path: Path,
    sandbox: Sandbox,
    hear: Callable[[ReportedCheck], None] = lambda _: None,
    warn: Callable[[str], None] = lambda _: None,
) -> ContractReport:
    """Hold a scheme to the contract in the sandbox, and find its facets.

    A check that ends the process counts as failed.

    Args:
        path: submission's folder, or a single file.
        sandbox: where the code runs.
        hear: called with each result as it comes.
        warn: called with each warning that the file's code makes, in one line.

    Raises:
        RecordError: there is nothing to check.
    """
    file = scheme_file(path)
    if path.is_dir() and (path / FILE).exists():
        read_manifest(path)
    due = list(CONTRACT)
    done: list[ReportedCheck] = []
    described: list[_Named] = []

    def take(message: dict[str, Any]) -> None:
        if isinstance(text := message.get("warning"), str):
            warn(clipped(text, 300))
            return
        if not described:
            described.append(_Named.model_validate(message))
            return
        result = ReportedCheck.model_validate(message.get("check"))
        if not due or result.name != due[0]:
            raise SandboxError(
                f"its answer is that of the check {clipped(result.name, 40)!r}, which is not due"
            )
        done.append(result)
        due.pop(0)
        hear(result)

    try:
        facets = _Facets.model_validate(_content(sandbox.ask(file, {"ask": "check"}, TO_CHECK, take)))
        if due and all(result.ok for result in done):
            raise SandboxError("its answer leaves out the rest")
    except (SandboxError, ValidationError) as error:
        words = str(error) if isinstance(error, SandboxError) else f"its answer is none: {_first(error)}"
        if not described:
            raise RecordError(f"{file}: {words}") from error
        done.append(ReportedCheck(name=due[0] if due else "facets", ok=False, message=words))
        hear(done[-1])
        facets = _Facets(words=[], costs={})
    if not described:
        raise RecordError(f"{file}: it did not say what it is")
    _refuse_name(path, described[0].name)
    return ContractReport(described[0].name, described[0].about, tuple(done), facets.known())


def _refuse_name(path: Path, name: str) -> None:
    """Raise RecordError if a built-in scheme has the name, or if the manifest gives another name."""
    if name in SCHEMES:
        raise RecordError(f"{path}: {name!r} is a built-in scheme. Give yours a name of its own.")
    if path.is_dir() and (path / FILE).exists():
        in_manifest = read_manifest(path).name
        if in_manifest != name:
            raise RecordError(
                f"{path}: {SCHEME} names its scheme {name!r}, and {FILE} {in_manifest!r}. "
                "Give both one name, and the folder, too."
            )


def scheme_file(path: Path) -> Path:
    """Find the file of a scheme, given that file or a submission's folder.

    Raises:
        RecordError: there is no such file, or the folder holds anything but plain files and folders.
    """
    if not path.exists():
        if str(path) in SCHEMES:
            raise RecordError(f"{path} is a built-in scheme, which CI holds to the contract. Give a path.")
        raise RecordError(f"{path}: no such file or folder. `bnsuite new NAME` writes one to begin with.")
    file = path / SCHEME if path.is_dir() else path
    for place in sorted(files_below(path)) if path.is_dir() else [path]:
        cached = "__pycache__" in place.relative_to(path).parts
        if not cached and not stat.S_ISREG(place.lstat().st_mode):
            raise RecordError(
                f"{place}: a submission holds plain files and folders, and no links. Remove it."
            )
    if not file.is_file():
        raise RecordError(f"{file}: no such file. A submission's folder holds its scheme there.")
    if file.suffix != ".py":
        raise RecordError(f"{file}: a scheme is a Python file, or a folder that holds a {SCHEME}.")
    return file


def source_of(file: Path) -> str:
    """SHA-256 of a scheme's file.

    Raises:
        RecordError: the file is larger than `MOST_SOURCE_BYTES`.
    """
    if file.stat().st_size > MOST_SOURCE_BYTES:
        raise RecordError(
            f"{file}: larger than {MOST_SOURCE_BYTES // 1024} KiB. A scheme is one file of code."
        )
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _content(message: dict[str, Any]) -> dict[str, Any]:
    """Content of the last message; raises SandboxError if that reports a failure."""
    if "failed" in message:
        raise SandboxError(clipped(str(message["failed"]), 500))
    return {name: value for name, value in message.items() if name != "last"}


def _first(error: ValidationError) -> str:
    first = error.errors()[0]
    return clipped(f"{'.'.join(map(str, first['loc']))}: {first['msg']}", 200)
