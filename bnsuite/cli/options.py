"""Options that commands share."""

from pathlib import Path
from typing import Annotated, Literal

import typer

RESULTS = Path("results")
"""Folder of a run's records by default."""

DeviceChoice = Literal["auto", "cpu", "cuda"]
"""Device to measure on; auto: a GPU if there is one."""

SandboxChoice = Literal["require", "prefer", "off"]
"""When bubblewrap confines foreign code.

require: always, and without bubblewrap nothing is loaded; prefer: if it works; off: never.
"""

DeviceOption = Annotated[DeviceChoice, typer.Option(help="auto takes a GPU if there is one.")]
RecordsOption = Annotated[Path, typer.Option(help="Folder of the records: read, and added to.")]
SandboxOption = Annotated[
    SandboxChoice,
    typer.Option(
        "--sandbox",
        help="For a scheme by path. require: load none without bubblewrap; prefer: use it if it works; "
        "off: do without it.",
    ),
]
WorkersOption = Annotated[
    int, typer.Option(min=0, help="Processes in parallel. 0: one per CPU core, or a single one on a GPU.")
]
