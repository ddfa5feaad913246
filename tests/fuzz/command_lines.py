"""Fuzz command lines: random arguments for `bnsuite`, run in this process from an empty folder."""

import contextlib
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from typer.testing import CliRunner

from bnsuite.cli import app

CODES = {0, 1, 2, 3, 130}
_ODD = ["", "x", "-1", "1e400", "nan", "a\x00b", "a" * 300, "missing/path", "[red]", "--", "=", "ü", "0"]
_RUN = ["run", "--time-limit", "0", "--profile", "smoke"]
_BASES = [
    *(["list"], ["list", "schemes"], ["list", "tasks", "--json"], ["schema"], ["board"], ["new"], ["check"]),
    *(["submit"], ["verify"], ["reproduce"], [], _RUN, [*_RUN, "--task", "stable_lr"]),
    *(["claims", "--no-measure"], ["calibrate", "--only"]),
]
_OPTIONS = [
    *("--json", "--help", "--version", "--task", "--scheme", "--family", "--dataset", "--set", "--device"),
    *("--records", "--out", "--workers", "--cell-limit", "--cells", "--seed", "--only", "--readme"),
]
STRATEGY = st.tuples(
    st.sampled_from(_BASES), st.lists(st.sampled_from([*_OPTIONS, *_ODD, "batch=16"]), max_size=4)
).map(lambda parts: [*parts[0], *parts[1]])
"""The arguments of one call; `run` starts no cell."""


def try_one(case: Any, folder: Path) -> str:
    """Run the command; `accepted` where it exits with 0, else `refused`.

    Raises:
        AssertionError: another exit status than those that `bnsuite` documents, or an exception.
    """
    room = folder / "here"
    room.mkdir(exist_ok=True)
    before = {path.name for path in folder.iterdir()}
    with contextlib.chdir(room):
        done = CliRunner().invoke(app, case)
    unforeseen = done.exception
    refused = isinstance(unforeseen, (SystemExit, OSError)) or unforeseen is None  # `main` words an OSError
    assert refused, (case, repr(unforeseen))
    assert isinstance(unforeseen, OSError) or done.exit_code in CODES, (case, done.exit_code)
    assert "Traceback" not in done.output, (case, done.output)
    assert {path.name for path in folder.iterdir()} == before
    return "accepted" if done.exit_code == 0 else "refused"
