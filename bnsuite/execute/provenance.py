"""Provenance of a number: package, machine and flags, but no host name, user or path."""

import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch

import bnsuite

_PACKAGE = Path(bnsuite.__file__).parent


def environment(device: torch.device) -> dict[str, Any]:
    """Fields of `Provenance` that are equal for all cells of a process."""
    commit, dirty = checkout()
    cuda = device.type == "cuda"
    return {
        "package_version": bnsuite.__version__,
        "commit": commit,
        "dirty": dirty,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "os": f"{platform.system()} {platform.machine()}",
        "cpu": cpu_name(),
        "gpu": torch.cuda.get_device_name(device) if cuda else None,
        "driver": driver_version() if cuda else None,
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "tf32": cuda and (torch.backends.cuda.matmul.allow_tf32 or torch.backends.cudnn.allow_tf32),
        "flush_subnormals": subnormals_are_flushed(),
    }


@contextmanager
def reproducible(device: torch.device) -> Iterator[None]:
    """Context with deterministic kernels, float32 by default, TF32 off and subnormals flushed.

    The settings of the calling thread are restored at its end.

    Subnormal arithmetic is 10 to 60 times slower on a CPU, and networks whose activations vanish are full of
    it.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    off: list[tuple[Any, str]] = [(torch.utils.deterministic, "fill_uninitialized_memory")]
    if device.type == "cuda":
        off += [(torch.backends.cuda.matmul, "allow_tf32"), (torch.backends.cudnn, "allow_tf32")]
    with ExitStack() as restored:
        restored.callback(torch.set_default_dtype, torch.get_default_dtype())
        torch.set_default_dtype(torch.float32)
        # Not use_deterministic_algorithms, which imports the compiler and takes 2 s.
        restored.callback(torch.set_deterministic_debug_mode, torch.get_deterministic_debug_mode())
        torch.set_deterministic_debug_mode("error")
        restored.callback(torch.set_flush_denormal, sys.float_info.min / 2 == 0.0)
        torch.set_flush_denormal(True)
        for module, switch in off:
            restored.callback(setattr, module, switch, getattr(module, switch))
            setattr(module, switch, False)
        yield


def subnormals_are_flushed() -> bool:
    """Tell whether products too small for a normal float32 become 0, in all threads of an operation."""
    tiny = torch.full((1 << 18,), 1e-30)
    return not bool((tiny * 1e-10).any())


def cpu_name() -> str:
    """Model name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


@cache
def driver_version() -> str | None:
    """Version of the NVIDIA driver."""
    return _output(["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"], Path.cwd())


@cache
def checkout() -> tuple[str | None, bool | None]:
    """Commit of the checkout that holds this package, and whether the package differs from that commit."""
    root = _PACKAGE.parent
    if _output(["git", "rev-parse", "--show-toplevel"], root) != str(root):
        return None, None
    status = _output(["git", "status", "--porcelain", "--", _PACKAGE.name, "pyproject.toml"], root)
    return _output(["git", "rev-parse", "HEAD"], root), None if status is None else bool(status)


def _output(command: list[str], folder: Path) -> str | None:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
