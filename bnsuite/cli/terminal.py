"""What every command says and takes."""

from enum import StrEnum
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.markup import escape

from bnsuite.text import printable

err = Console(stderr=True)


class DeviceChoice(StrEnum):
    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class SandboxChoice(StrEnum):
    """Whether bubblewrap confines foreign code: always, else refuse to load it; where it works; never."""

    require = "require"
    prefer = "prefer"
    off = "off"


SandboxOption = Annotated[
    SandboxChoice,
    typer.Option(
        "--sandbox",
        help="For a scheme by path. require: load none without bubblewrap; prefer: use it where it works; "
        "off: do without it.",
    ),
]


def fail(message: str, code: int = 2) -> NoReturn:
    """One clear line on standard error, and a non-zero exit."""
    err.print(f"[bold red]bnsuite:[/] {escape(printable(message))}", highlight=False, soft_wrap=True)
    raise typer.Exit(code)
