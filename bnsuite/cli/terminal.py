"""Notes and error messages that commands share."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import typer
from rich.console import Console
from rich.markup import escape

from bnsuite.text import printable

err = Console(stderr=True)


def note(label: str, text: str, style: str = "yellow") -> None:
    """Print one line on standard error.

    Args:
        label: how the line begins, in the style.
        text: rest of the line.
        style: style of rich.
    """
    err.print(f"[{style}]{escape(label)}[/] {escape(text)}", highlight=False, soft_wrap=True)


def fail(message: str, code: int = 2) -> NoReturn:
    """Print one line on standard error, and exit with status `code`."""
    note("bnsuite:", printable(message), "bold red")
    raise typer.Exit(code)


@contextmanager
def one_line_errors(*others: type[Exception]) -> Iterator[None]:
    """Context in which a `RecordError`, or an error of the `others`, ends the command by `fail`."""
    try:
        yield
    except Exception as error:
        from bnsuite.records import RecordError

        if isinstance(error, (RecordError, *others)):
            fail(str(error))
        raise


@contextmanager
def resumable() -> Iterator[None]:
    """Context in which Ctrl-C ends the command with status 130, and says that what is finished is kept."""
    try:
        yield
    except KeyboardInterrupt:
        err.print("\nStopped. Finished cells are kept; the same command goes on with the rest.")
        raise typer.Exit(130) from None
