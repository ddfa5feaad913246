"""Options and error messages that commands share."""

from enum import StrEnum
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.markup import escape

from bnsuite.text import printable

err = Console(stderr=True)


class DeviceChoice(StrEnum):
    """Device to measure on; auto: a GPU if there is one."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class SandboxChoice(StrEnum):
    """When bubblewrap confines foreign code.

    require: always, and without bubblewrap nothing is loaded; prefer: if it works; off: never.
    """

    require = "require"
    prefer = "prefer"
    off = "off"


SandboxOption = Annotated[
    SandboxChoice,
    typer.Option(
        "--sandbox",
        help="For a scheme by path. require: load none without bubblewrap; prefer: use it if it works; "
        "off: do without it.",
    ),
]


def fail(message: str, code: int = 2) -> NoReturn:
    """Print one line on standard error, and exit with status `code`."""
    err.print(f"[bold red]bnsuite:[/] {escape(printable(message))}", highlight=False, soft_wrap=True)
    raise typer.Exit(code)
