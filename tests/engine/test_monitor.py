"""Who else uses a device: processor time by `/proc/stat`, processes and load by NVML."""

import sys
import time
from pathlib import Path
from typing import Any

import gpu_stand_in
import pytest
import torch
from gpu_stand_in import CUDA

from bnsuite.engine.monitor import watch

CPU = torch.device("cpu")


@pytest.fixture
def spend(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Processor seconds of others, of this process and of nobody, as the kernel counts them from now on."""
    spent = {"others": 50.0, "stolen": 5.0, "own": 7.0, "idle": 100.0, "waiting": 10.0, "guests": 33.0}

    def stat(path: Path, **_: object) -> str:
        assert str(path) == "/proc/stat"
        user = spent["others"] + spent["own"]
        fields = user, 0, 0, spent["idle"], spent["waiting"], 0, 0, spent["stolen"], spent["guests"], 0
        return "cpu  " + " ".join(str(round(100 * field)) for field in fields) + "\ncpu0 1 2 3\n"

    def add(**seconds: float) -> None:
        for name, more in seconds.items():
            spent[name] += more

    monkeypatch.setattr("os.sysconf", lambda name: 100)
    monkeypatch.setattr(Path, "read_text", stat)
    monkeypatch.setattr(time, "process_time", lambda: spent["own"])
    return add


@pytest.mark.parametrize(
    ("seconds", "idle"),
    [
        ({"own": 2, "idle": 2}, True),
        ({"own": 2, "others": 0.19, "idle": 1.81}, True),
        ({"own": 2, "others": 0.21, "idle": 1.79}, False),
        ({"own": 2, "stolen": 0.3, "waiting": 1.7}, False),
        ({"own": 2, "waiting": 2}, True),
        ({"own": 2, "idle": 2, "guests": 1}, True),  # in the user's time already
        ({"own": 0.1, "others": 0.2}, None),  # too short to tell
        ({}, None),
    ],
)
def test_processors_are_idle_where_others_take_a_twentieth_at_most(
    spend: Any, seconds: dict[str, float], idle: bool | None
) -> None:
    watched = watch(CPU)
    spend(**seconds)
    assert watched.idle() is idle


@pytest.mark.parametrize("text", [None, "", "cpu of another kind\n"])
def test_where_the_system_does_not_tell_it_is_not_known(
    monkeypatch: pytest.MonkeyPatch, text: str | None
) -> None:
    def read(*_: object, **__: object) -> str:
        if text is None:
            raise FileNotFoundError
        return text

    monkeypatch.setattr(Path, "read_text", read)
    assert watch(CPU).idle() is None


def test_this_machine_answers() -> None:
    watched = watch(CPU)
    assert watched.idle() in (True, False, None)
    assert str(watched.joules()) == "nan"


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> gpu_stand_in.StandIn:
    return gpu_stand_in.install(monkeypatch)


def test_a_gpu_is_idle_once_it_has_come_to_rest(gpu: gpu_stand_in.StandIn) -> None:
    gpu.loads = [100, 60, 5]
    assert watch(CUDA).idle() is True
    assert gpu.looks == 3 + 1


@pytest.mark.parametrize("loads", [[6], [0, 6], [6] * 20 + [0]])
def test_a_load_that_stays_is_that_of_others(gpu: gpu_stand_in.StandIn, loads: list[int]) -> None:
    gpu.loads = loads
    assert watch(CUDA).idle() is False
    assert gpu.looks <= 40


def test_so_is_another_process_at_either_look(gpu: gpu_stand_in.StandIn) -> None:
    gpu.processes = ["us", "another"]
    watched = watch(CUDA)
    gpu.processes = ["us"]
    assert watched.idle() is False
    watched = watch(CUDA)
    gpu.processes = ["another", "us"]
    assert watched.idle() is False
    gpu.processes = []  # in a container none is listed
    assert watch(CUDA).idle() is True


def test_what_nvml_does_not_tell_is_not_known(gpu: gpu_stand_in.StandIn) -> None:
    gpu.loads = [gpu.NVMLError()]
    assert watch(CUDA).idle() is None
    gpu.loads, gpu.processes = [0], gpu.NVMLError()
    watched = watch(CUDA)
    assert watched.idle() is None
    gpu.processes = ["us", "another"]
    assert watched.idle() is False, "one look that shows another is enough"


@pytest.mark.parametrize("lacks", ["nvmlInit", "nvmlDeviceGetHandleByUUID"])
def test_without_nvml_nothing_is_known(
    gpu: gpu_stand_in.StandIn, monkeypatch: pytest.MonkeyPatch, lacks: str
) -> None:
    def fail(*_: object) -> None:
        raise gpu.NVMLError

    monkeypatch.setattr(gpu, lacks, fail)
    assert (watch(CUDA).idle(), str(watch(CUDA).joules())) == (None, "nan")
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert (watch(CUDA).idle(), str(watch(CUDA).joules())) == (None, "nan")


def test_millijoules_are_told_in_joules(gpu: gpu_stand_in.StandIn) -> None:
    gpu.energy_mj = 2500
    assert watch(CUDA).joules() == 2.5
