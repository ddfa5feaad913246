"""A GPU that is not there: its clock, its events, and NVML, in one made-up time."""

import sys
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

CUDA = torch.device("cuda", 0)


class StandIn:
    """Time passes only in turns; what NVML answers can be set, an exception to be raised."""

    class NVMLError(Exception):
        pass

    def __init__(self) -> None:
        self.now_s, self.energy_mj = 0.0, 0.0
        self.processes: Any = ["us"]
        self.loads: list[Any] = [0]  # percent, look by look; the last one lasts
        self.looks, self.waits, self.asked_for = 0, 0, ""
        self.counts_energy = True

    def turn(self, seconds: float, watts: float = 0.0) -> Callable[[], None]:
        def run() -> None:
            self.now_s += seconds
            self.energy_mj += 1e3 * watts * seconds

        return run

    def nvmlInit(self) -> None:  # noqa: N802
        pass

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:  # noqa: N802
        self.asked_for = uuid
        return uuid

    def nvmlDeviceGetComputeRunningProcesses(self, handle: str) -> Any:  # noqa: N802
        assert handle == self.asked_for
        if isinstance(self.processes, Exception):
            raise self.processes
        return self.processes

    def nvmlDeviceGetUtilizationRates(self, handle: str) -> Any:  # noqa: N802
        assert handle == self.asked_for
        self.looks += 1
        load = self.loads.pop(0) if len(self.loads) > 1 else self.loads[0]
        if isinstance(load, Exception):
            raise load
        return SimpleNamespace(gpu=load)

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: str) -> int:  # noqa: N802
        assert handle == self.asked_for
        if not self.counts_energy:
            raise self.NVMLError
        return int(self.energy_mj)


class Event:
    """Remembers the stand-in's time; a distance is told only after a wait for the device."""

    def __init__(self, gpu: StandIn) -> None:
        self.gpu, self.at_s, self.waits = gpu, 0.0, 0

    def record(self, stream: object) -> None:
        assert stream == "the stream"
        self.at_s, self.waits = self.gpu.now_s, self.gpu.waits

    def elapsed_time(self, end: "Event") -> float:
        assert end.waits == self.waits < self.gpu.waits, "waited within the turn, or not after it"
        return 1e3 * (end.at_s - self.at_s)


def install(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    gpu = StandIn()

    def wait(device: torch.device) -> None:
        assert device == CUDA
        gpu.waits += 1

    def properties(device: torch.device) -> SimpleNamespace:
        assert device == CUDA
        return SimpleNamespace(uuid="1-2-3")

    def event(enable_timing: bool) -> Event:
        assert enable_timing
        return Event(gpu)

    monkeypatch.setitem(sys.modules, "pynvml", gpu)
    monkeypatch.setattr(torch.cuda, "Event", event)
    monkeypatch.setattr(torch.cuda, "synchronize", wait)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: "the stream")
    monkeypatch.setattr(torch.cuda, "get_device_properties", properties)
    monkeypatch.setattr(time, "perf_counter", lambda: gpu.now_s)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    return gpu
