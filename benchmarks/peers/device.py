"""The option `--device`, and the machine as a header line names it."""

import platform
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence

import torch

from bnsuite.execute import DeviceError, resolve_device
from bnsuite.provenance import cpu_name


def parse(parser: ArgumentParser, arguments: Sequence[str] | None) -> tuple[Namespace, torch.device]:
    """The options, and the device that they name; where it is not there, one line and status 2."""
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="cpu")
    options = parser.parse_args(arguments)
    try:
        return options, torch.device(resolve_device(options.device))
    except DeviceError as error:
        parser.exit(2, f"{error}\n")


def machine(device: torch.device, cores: str = "one thread") -> str:
    """The GPU, or the CPU with what of it is used; system and torch."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{cpu_name()}, {cores}"
    return f"{name}, {platform.system()}, torch {torch.__version__}"
