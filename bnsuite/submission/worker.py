"""Process inside the sandbox: gives up rights, loads the foreign file and answers one question in JSON.

`python -m bnsuite.submission.worker` reads the question from standard input. It sets the limits before it
loads anything of the foreign file.
"""

import ctypes
import json
import os
import resource
import signal
import sys
import traceback
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
"""Largest number of different warnings of the foreign file that are passed on."""

_DIE_WITH_PARENT, _NO_NEW_PRIVILEGES = 1, 38  # of Linux's prctl


def confine(limits: dict[str, Any]) -> None:
    """Set the limits of this process and its children, and switch from root to another user, for good.

    Args:
        limits: address_space and file in bytes, processes, user (id, or None to stay), filter (whether system
            calls are refused).
    """
    for kind, value in (
        (resource.RLIMIT_AS, limits["address_space"]),
        (resource.RLIMIT_FSIZE, limits["file"]),
        (resource.RLIMIT_NOFILE, 256),
        (resource.RLIMIT_NPROC, limits["processes"]),
    ):
        if value:
            hard = resource.getrlimit(kind)[1]
            value = value if hard == resource.RLIM_INFINITY else min(value, hard)
            with suppress(OSError, ValueError):  # macOS has no limit of address space
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
    """Answer the question on standard input; never returns."""
    question = json.loads(sys.stdin.buffer.read())
    confine(question["limits"])
    answer_to = os.fdopen(question["answer_to"], "wb")

    def say(message: Message) -> None:
        answer_to.write(json.dumps(message, allow_nan=False).encode() + b"\n")
        answer_to.flush()

    warnings.showwarning = _teller(say)
    try:
        last = ANSWERS[question["ask"]](Path(question["path"]), question, say)
    except BaseException as error:  # also sys.exit in foreign code
        last = {"failed": _in_one_line(error)}
    say({**last, "last": True})
    os._exit(0)  # without what the foreign file registered to run at exit


def _teller(say: Say) -> Callable[..., None]:
    """Replacement of `warnings.showwarning` that sends each text once, as a message {"warning": text}."""
    sent: set[str] = set()

    def tell(message: Warning | str, category: type[Warning], *_place: Any) -> None:
        text = " ".join(f"{category.__name__}: {message}".split())
        if text not in sent and len(sent) < WARNINGS:
            sent.add(text)
            say({"warning": text})

    return tell


def _describe(path: Path, _question: Message, _say: Say) -> Message:
    """Answer with the scheme's name, description and facets."""
    scheme = _scheme(path)
    return {"name": scheme.name, "about": scheme.about, **_facets(scheme)}


def _check(path: Path, _question: Message, say: Say) -> Message:
    """Send one message per check of the contract; answer with the facets."""
    from bnsuite.submission.contract import contract

    scheme = _scheme(path)
    say({"name": scheme.name, "about": scheme.about})
    sound = True
    for check in contract(scheme):
        say({"check": check._asdict()})
        sound &= check.ok
    return _facets(scheme) if sound else {"words": [], "costs": {}}


def _facets(scheme: "Scheme") -> Message:
    from bnsuite.facets import facets_of

    facets = facets_of(scheme)
    return {"words": list(facets.words), "costs": facets.costs}


def _measure(path: Path, question: Message, say: Say) -> Message:
    """Answer with the measurement of one cell, and whether networks trained stacked."""
    import torch

    from bnsuite.datasets import Source
    from bnsuite.execute.measure import answer_here
    from bnsuite.execute.plan import job_of
    from bnsuite.records import Cell

    torch.set_num_threads(question["threads"])
    file = question["data_file"]
    data = Source(**question["data"], file=Path(file) if file else None)
    job = job_of(Cell(**question["cell"]), question["settings"], _scheme(path), data)
    # The parent counts seconds from the first message on, and gets a message when the next one is sent.
    say({"found": "loaded"})
    say({"found": "measuring"})
    answer = answer_here(job, lambda progress: say({"found": progress}))
    return {"measured": answer.measured.model_dump(mode="json"), "stacked": answer.stacked}


ANSWERS: dict[str, Callable[[Path, Message, Say], Message]] = {
    "describe": _describe,
    "check": _check,
    "measure": _measure,
}
"""Name of a question → function (path of the foreign file, question, say) → last message."""


class LoadError(Exception):
    """The file has no scheme; the message is one line."""


def _scheme(path: Path) -> "Scheme":
    """Run a file as the module `scheme`, and return the scheme in it."""
    module = ModuleType("scheme")
    module.__file__ = str(path)
    sys.modules["scheme"] = module  # where pickle looks for its classes
    try:  # the source itself, not a compiled file next to it
        exec(compile(path.read_bytes(), str(path), "exec", dont_inherit=True), module.__dict__)
    except SyntaxError as error:
        raise LoadError(f"line {error.lineno}: {error.msg}. Mend the syntax.") from error
    except ModuleNotFoundError as error:
        raise LoadError(_missing(str(error.name))) from error
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        *_, line = None, *(frame.lineno for frame in frames if frame.filename == str(path))
        raise LoadError(f"line {line}: {type(error).__name__}: {error}") from error
    from bnsuite.schemes import Scheme

    scheme = getattr(module, "scheme", None)
    if not isinstance(scheme, Scheme):
        got = "nothing of that name" if scheme is None else repr(scheme)
        raise LoadError(f"wanted scheme = Scheme(…), got {got}.")
    return scheme


def _missing(module: str) -> str:
    root = module.partition(".")[0]
    return (
        f"no module {module!r} here. A scheme is one file: if {root}.py is your own, copy what you need of "
        "it into the scheme's file; otherwise install the package that it is in."
    )


def _in_one_line(error: BaseException) -> str:
    text = str(error) if isinstance(error, LoadError) else f"{type(error).__name__}: {error}"
    return " ".join(text.split())[:500]


if __name__ == "__main__":
    main()
