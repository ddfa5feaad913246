"""Where a number comes from: package, machine, flags. No host name, no user, no path."""

import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch

import bnsuite

_PACKAGE = Path(bnsuite.__file__).parent


def environment(device: torch.device) -> dict[str, Any]:
    """The fields of `Provenance` that a process shares over all its cells."""
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
    """Deterministic kernels, TF32 off, subnormals flushed; the calling thread's own ways are restored.

    On a CPU subnormal arithmetic is 10 to 60 times slower, and dying networks are full of it.
    """
    mode = torch.get_deterministic_debug_mode()
    memory: Any = torch.utils.deterministic
    fill = memory.fill_uninitialized_memory
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_deterministic_debug_mode("error")  # use_deterministic_algorithms would import the compiler: 2 s
    memory.fill_uninitialized_memory = False
    flushed = sys.float_info.min / 2 == 0.0
    torch.set_flush_denormal(True)
    cuda = device.type == "cuda"
    if cuda:
        matmul, cudnn = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.set_flush_denormal(flushed)
        torch.set_deterministic_debug_mode(mode)
        memory.fill_uninitialized_memory = fill
        if cuda:
            torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = matmul, cudnn


def subnormals_are_flushed() -> bool:
    """Whether products too small for a normal float32 come out as 0, in every thread of an operation."""
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
    """Commit of the checkout that this package runs from, and whether the package differs from it."""
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
