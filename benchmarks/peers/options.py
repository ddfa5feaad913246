"""Options that all races share, the machine in one line, and rows as JSON."""

import json
import platform
from argparse import ArgumentDefaultsHelpFormatter, ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

import torch

from bnsuite.execute.plan import DeviceError, resolve_device
from bnsuite.execute.provenance import cpu_name
from bnsuite.schemes import REFERENCES, SCHEMES


def count(text: str) -> int:
    """Parse a whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"wanted a whole number of at least 1: got {text!r}")
    return int(text)


def new_file(text: str) -> Path:
    """Parse the path of a file that can be written, so that a wrong one is refused before the measurement."""
    path = Path(text)
    if not path.parent.is_dir() or path.is_dir():
        raise ArgumentTypeError(f"wanted a file in a folder that is there: got {text!r}")
    return path


def add_schemes(
    parser: ArgumentParser, default: Sequence[str] = REFERENCES, among: Iterable[str] = SCHEMES
) -> None:
    """Add the option --schemes.

    Args:
        parser: parser to add it to.
        default: names of schemes.
        among: valid names.
    """
    parser.add_argument(
        "--schemes",
        nargs="+",
        metavar="SCHEME",
        choices=list(among),
        default=list(default),
        help="by name, see bnsuite list schemes",
    )


class Options(ArgumentParser):
    """Parser with the options of all races: --schemes, --rounds and --json.

    Args:
        doc: docstring of the script; its first line is the description.
        rounds: default number of rounds.
        schemes: default schemes.
        among: valid schemes.
    """

    def __init__(
        self,
        doc: str | None,
        *,
        rounds: int,
        schemes: Sequence[str] = REFERENCES,
        among: Iterable[str] = SCHEMES,
    ) -> None:
        super().__init__(
            description=(doc or "").splitlines()[0], formatter_class=ArgumentDefaultsHelpFormatter
        )
        add_schemes(self, schemes, among)
        self.add_argument("--rounds", type=count, default=rounds, help="number of turns of every side")
        self.add_argument("--json", type=new_file, metavar="FILE", help="file to write the rows to")

    def error(self, message: str) -> NoReturn:
        """Print one line and exit with status 2."""
        self.exit(2, f"{message}\n")

    def on_device(self, arguments: Sequence[str] | None) -> tuple[Namespace, torch.device]:
        """Parse the options and resolve --device; without the GPU asked for, exits with status 2."""
        self.add_argument("--device", choices=["auto", "cpu", "cuda"], default="cpu", help="where it runs")
        options = self.parse_args(arguments)
        try:
            return options, torch.device(resolve_device(options.device))
        except DeviceError as error:
            self.error(str(error))


def machine(device: torch.device, cores: str = "one thread") -> str:
    """Name of the GPU, or of the CPU and how much of it is used, with system and version of torch."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{cpu_name()}, {cores}"
    return f"{name}, {platform.system()}, torch {torch.__version__}"


def write(rows: Sequence[Any], file: Path | None) -> None:
    """Write rows (dataclasses) as a JSON list, if a file is given."""
    if file:
        file.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n", encoding="utf-8")
