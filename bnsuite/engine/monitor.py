"""What stands beside a clock: whether others use its device, and the energy that it draws."""

import math
import os
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch

OTHERS = 0.05
"""Share of a device's time that others may take while it is called idle."""

REST_S, LOOK_S = 2.0, 0.1
"""How long a GPU may take to come to rest, and between two looks: NVML averages over up to a second."""

_TICKS = 2
"""Error of the kernel's count of processor time, in its ticks."""


class Processors:
    """The CPU since now: others are all that ran on the machine but this process."""

    def __init__(self) -> None:
        self._since = _spent()

    def idle(self) -> bool | None:
        """Whether others took little time; None where the system does not say or too little has passed."""
        now = _spent()
        if self._since is None or now is None:
            return None
        busy, own, total = (b - a for a, b in zip(self._since, now, strict=True))
        if OTHERS * total < _TICKS / os.sysconf("SC_CLK_TCK"):
            return None
        return busy - own <= OTHERS * total

    def joules(self) -> float:
        """NaN: no counter that a user may read."""
        return math.nan


class _Spent(NamedTuple):
    """Processor seconds."""

    busy: float  # of the machine, since it was started
    own: float  # of this process, all threads
    total: float  # of the machine, idle ones too


def _spent() -> _Spent | None:
    """From `/proc/stat` (proc_stat(5)), None where there is none."""
    try:
        first, _, _ = Path("/proc/stat").read_text(encoding="ascii").partition("\n")
        # user, nice, system, idle, iowait, irq, softirq, steal; guests are counted as user
        ticks = [int(field) for field in first.split()[1:9]]
        tick_s = 1 / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError):
        return None
    return _Spent((sum(ticks) - sum(ticks[3:5])) * tick_s, time.process_time(), sum(ticks) * tick_s)


class Gpu:
    """A CUDA device since now, as NVML sees it (the extra `gpu`).

    Idle: no other process computes on it, and it comes to rest when this one does, now and at the end. A
    process in another container is not seen, the load that it makes is.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._nvml, self._handle = _open(device)
        self._rested = self._rests()

    def idle(self) -> bool | None:
        """Whether others kept off, None where NVML does not say."""
        looks = self._rested, self._rests()
        return False if False in looks else None if None in looks else True

    def joules(self) -> float:
        """Energy since the driver was loaded; NaN where there is no counter, as before Volta."""
        energy = self._ask("TotalEnergyConsumption")
        return math.nan if energy is None else energy / 1e3  # from mJ

    def _rests(self) -> bool | None:
        torch.cuda.synchronize(self._device)
        processes = self._ask("ComputeRunningProcesses")
        if processes is None:
            return None
        if len(processes) > 1:  # counted, since in a container one's own has another number
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
    """NVML and its handle of a device, None and None where one of them is missing, as for a part of a GPU."""
    try:
        import pynvml
    except ImportError:
        return None, None
    try:
        pynvml.nvmlInit()
        # not by index: CUDA_VISIBLE_DEVICES makes that another device for NVML
        uuid = torch.cuda.get_device_properties(device).uuid
        return pynvml, pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
    except pynvml.NVMLError:
        return None, None


def watch(device: torch.device) -> Processors | Gpu:
    """Watch a device from now on."""
    return Gpu(device) if device.type == "cuda" else Processors()
