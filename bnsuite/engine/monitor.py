"""Monitor other load and energy use of a device while timing."""

import math
import os
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch

OTHERS = 0.05
"""Share of a device's time that other processes may use while the device still counts as idle."""

REST_S, LOOK_S = 2.0, 0.1
"""Seconds that a GPU may take to come to rest, and between two looks: NVML averages over up to a second."""

_TICKS = 2
"""Error of the kernel's count of processor time, in clock ticks."""


class Processors:
    """CPU monitor, from its creation on; everything on the machine but this process counts as others."""

    def __init__(self) -> None:
        self._since = _spent()

    def idle(self) -> bool | None:
        """Whether others used at most `OTHERS` of the time; None: not known, or too little time passed."""
        now = _spent()
        if self._since is None or now is None:
            return None
        busy, own, total = (after - before for before, after in zip(self._since, now, strict=True))
        if OTHERS * total < _TICKS / os.sysconf("SC_CLK_TCK"):
            return None
        return busy - own <= OTHERS * total

    def joules(self) -> float:
        """NaN: a CPU has no energy counter that an ordinary user may read."""
        return math.nan


class _Spent(NamedTuple):
    """Processor seconds."""

    busy: float  # of the machine, since it was started
    own: float  # of all threads of this process
    total: float  # of the machine, idle time included


def _spent() -> _Spent | None:
    """Read `/proc/stat` (proc_stat(5)); None where there is no such file."""
    try:
        first, _, _ = Path("/proc/stat").read_text(encoding="ascii").partition("\n")
        # user, nice, system, idle, iowait, irq, softirq, steal; guests count as user
        ticks = [int(field) for field in first.split()[1:9]]
        tick_s = 1 / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError):
        return None
    return _Spent((sum(ticks) - sum(ticks[3:5])) * tick_s, time.process_time(), sum(ticks) * tick_s)


class Gpu:
    """Monitor of a CUDA device through NVML (the extra `gpu`), from its creation on.

    The device counts as idle if no other process computes on it, and if its load falls to at most `OTHERS`
    when this process pauses, at the start and at the end. A process in another container is invisible, its
    load is not.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._nvml, self._handle = _open(device)
        self._rested = self._rests()

    def idle(self) -> bool | None:
        """Whether no other process used the device; None where NVML does not say."""
        rested = self._rested, self._rests()
        return False if False in rested else None if None in rested else True

    def joules(self) -> float:
        """Energy in joules since the driver was loaded; NaN without a counter, as on GPUs before Volta."""
        energy = self._ask("TotalEnergyConsumption")
        return math.nan if energy is None else energy / 1e3  # from mJ

    def _rests(self) -> bool | None:
        torch.cuda.synchronize(self._device)
        processes = self._ask("ComputeRunningProcesses")
        if processes is None:
            return None
        if len(processes) > 1:  # counted, not looked up: in a container this process has another id
            return False
        for _ in range(round(REST_S / LOOK_S)):
            load = self._ask("UtilizationRates")
            if load is None:
                return None
            if load.gpu <= 100 * OTHERS:
                return True
            time.sleep(LOOK_S)
        return False

    def _ask(self, what: str) -> Any:
        if self._nvml is None:
            return None
        try:
            return getattr(self._nvml, f"nvmlDeviceGet{what}")(self._handle)
        except self._nvml.NVMLError:
            return None


def _open(device: torch.device) -> tuple[Any, Any]:
    """NVML and its handle of a device; (None, None) without NVML or handle, as for a partition of a GPU."""
    try:
        import pynvml
    except ImportError:
        return None, None
    try:
        pynvml.nvmlInit()
        # Not by index: NVML ignores CUDA_VISIBLE_DEVICES, and the index would be another device.
        uuid = torch.cuda.get_device_properties(device).uuid
        return pynvml, pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
    except pynvml.NVMLError:
        return None, None


def watch(device: torch.device) -> Processors | Gpu:
    """Start monitoring a device."""
    return Gpu(device) if device.type == "cuda" else Processors()
