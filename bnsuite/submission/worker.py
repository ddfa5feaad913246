"""Within the sandbox: give up rights, load the foreign file, answer one question in JSON.

`python -m bnsuite.submission.worker` reads the question from standard input. Nothing of the file is
loaded before the limits are set.
"""

import ctypes
import json
import os
import resource
import signal
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from bnsuite.submission.seccomp import refuse_system_calls

if TYPE_CHECKING:
    from bnsuite.schemes import Scheme

Message = dict[str, Any]
Say = Callable[[Message], None]

WARNINGS = 8
"""How many different warnings of the foreign file are told."""

_DIE_WITH_PARENT, _NO_NEW_PRIVILEGES = 1, 38  # of Linux's prctl


def confine(limits: dict[str, Any]) -> None:
    """Set the limits of this process and its children, and leave the user root; there is no way back."""
    for kind, value in (
        (resource.RLIMIT_AS, limits["address_space"]),
        (resource.RLIMIT_FSIZE, limits["file"]),
        (resource.RLIMIT_NOFILE, 256),
        (resource.RLIMIT_NPROC, limits["processes"]),
    ):
        if value:
            hard = resource.getrlimit(kind)[1]
            value = value if hard == resource.RLIM_INFINITY else min(value, hard)
            with suppress(OSError, ValueError):  # macOS knows no limit of address space
                resource.setrlimit(kind, (value, value))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if limits["user"] is not None:
        os.setgroups([])
        os.setresgid(*[limits["user"]] * 3)
        os.setresuid(*[limits["user"]] * 3)
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
        libc.prctl(_DIE_WITH_PARENT, signal.SIGKILL, 0, 0, 0)
        if limits["filter"]:
            refuse_system_calls(libc)


def main() -> None:
    question = json.loads(sys.stdin.buffer.read())
    confine(question["limits"])
    answer_to = os.fdopen(question["answer_to"], "wb")

    def say(message: Message) -> None:
        answer_to.write(json.dumps(message, allow_nan=False).encode() + b"\n")
        answer_to.flush()

    warnings.showwarning = _teller(say)
    try:
        last = ANSWERS[question["ask"]](Path(question["path"]), question, say)
    except BaseException as error:  # sys.exit in foreign code ends nothing but its answer
        last = {"failed": _in_one_line(error)}
    say({**last, "last": True})
    os._exit(0)  # whatever it registered to run at exit stays away


def _teller(say: Say) -> Callable[..., None]:
    """In place of `warnings.showwarning`: says each text once, in a message {"warning": text}."""
    told: set[str] = set()

    def tell(message: Warning | str, category: type[Warning], *place: Any) -> None:
        text = " ".join(f"{category.__name__}: {message}".split())
        if text not in told and len(told) < WARNINGS:
            told.add(text)
            say({"warning": text})

    return tell


def describe(path: Path, question: Message, say: Say) -> Message:
    """What the scheme is called, what it is, and what holds of it."""
    scheme = _scheme(path)
    return {"name": scheme.name, "about": scheme.about, **_facets(scheme)}


def check(path: Path, question: Message, say: Say) -> Message:
    """The contract, a message a check, and the facets."""
    from bnsuite.submission.contract import contract

    scheme = _scheme(path)
    say({"name": scheme.name, "about": scheme.about})
    sound = True
    for found in contract(scheme):
        say({"check": found._asdict()})
        sound &= found.ok
    return _facets(scheme) if sound else {"words": [], "costs": {}}


def _facets(scheme: "Scheme") -> Message:
    from bnsuite.facets import facets_of

    found = facets_of(scheme)
    return {"words": list(found.words), "costs": found.costs}


def measure(path: Path, question: Message, say: Say) -> Message:
    """One cell: what was measured, and how."""
    import torch

    from bnsuite.datasets import Source
    from bnsuite.execute.measure import answer_here
    from bnsuite.execute.plan import job_of
    from bnsuite.records import Cell

    torch.set_num_threads(question["threads"])
    file = question["data_file"]
    data = Source(**question["data"], file=Path(file) if file else None)
    job = job_of(Cell(**question["cell"]), question["settings"], _scheme(path), data)
    say({"found": "loaded"})  # from here on the parent counts seconds
    say({"found": "measuring"})  # and hears a message when the next one comes
    answer = answer_here(job, lambda found: say({"found": found}))
    return {"measured": answer.measured.model_dump(mode="json"), "stacked": answer.stacked}


ANSWERS: dict[str, Callable[[Path, Message, Say], Message]] = {
    "describe": describe,
    "check": check,
    "measure": measure,
}


class LoadError(Exception):
    """A file that gives no scheme; the message is one line."""


def _scheme(path: Path) -> "Scheme":
    """The `scheme` of a file, which is run as the module `scheme`."""
    module = ModuleType("scheme")
    module.__file__ = str(path)
    sys.modules["scheme"] = module  # where pickle looks for its classes
    try:  # this very file, and no compiled one beside it
        exec(compile(path.read_bytes(), str(path), "exec", dont_inherit=True), module.__dict__)
    except SyntaxError as error:
        raise LoadError(f"line {error.lineno}: {error.msg}. Mend the syntax.") from error
    except ModuleNotFoundError as error:
        raise LoadError(_missing(str(error.name))) from error
    except Exception as error:
        line = _line_of(error, path)
        raise LoadError(f"line {line}: {type(error).__name__}: {error}") from error
    from bnsuite.schemes import Scheme

    found = getattr(module, "scheme", None)
    if not isinstance(found, Scheme):
        got = "nothing of that name" if found is None else repr(found)
        raise LoadError(f"wanted scheme = Scheme(…), got {got}.")
    return found


def _missing(module: str) -> str:
    root = module.partition(".")[0]
    return (
        f"no module {module!r} here. A scheme is one file: if {root}.py is your own, copy what you need of "
        "it into the scheme's file; otherwise install the package that it is in."
    )


def _line_of(error: BaseException, path: Path) -> int | None:
    line, trace = None, error.__traceback__
    while trace:
        if trace.tb_frame.f_code.co_filename == str(path):
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


def _in_one_line(error: BaseException) -> str:
    if isinstance(error, LoadError):
        return " ".join(str(error).split())[:500]
    return " ".join(f"{type(error).__name__}: {error}".split())[:500]


if __name__ == "__main__":
    main()
