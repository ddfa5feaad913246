"""The race against airbench94, with a stand-in for the peer: what it needs, what it feeds, what it prints."""

import hashlib
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from bnsuite.datasets import Dataset, Source
from bnsuite.datasets.images import Arrays
from bnsuite.networks import FAMILIES
from bnsuite.schemes import SCHEMES
from bnsuite.tasks import Subject
from bnsuite.tasks.speedrun import Speedrun

STAND_IN = """
import torch
from torch import nn

hyp = {"opt": {"train_epochs": 9.9}}
runs = []

def print_training_details(variables, is_final_entry):
    raise AssertionError("its tables are not printed")

def make_net():
    return nn.Sequential(nn.Conv2d(1, 1, 1))

def main(run, trained, frozen):
    runs.append((run, trained[0].bias.requires_grad, frozen[0].bias.requires_grad))
    train, test = torch.load("cifar10/train.pt"), torch.load("cifar10/test.pt")
    assert train["images"].dtype == torch.uint8
    total_time_seconds = 100.0 if run == "warmup" else 2.0 + run
    print_training_details({"total_time_seconds": 0.5}, is_final_entry=False)
    print_training_details(locals(), is_final_entry=True)
    return train["images"][0, 1, 0, 2] / 255 if run == "warmup" else 0.9 + 0.01 * run

if __name__ == "__main__":
    raise AssertionError("it is loaded, not run")
"""


@pytest.fixture
def speedrun(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks" / "peers")
    return importlib.import_module("speedrun")


@pytest.fixture
def checkout(speedrun: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout of the stand-in, a GPU and torchvision, as far as the script asks for them."""
    script = tmp_path / speedrun.SCRIPT
    script.parent.mkdir(parents=True)
    script.write_text(STAND_IN)
    content = STAND_IN.encode()
    monkeypatch.setattr(speedrun, "BLOB", hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    monkeypatch.setattr(torch, "compile", lambda network, mode: network)
    brought(monkeypatch, torchvision=True)
    return tmp_path


def brought(monkeypatch: pytest.MonkeyPatch, torchvision: bool) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: torchvision or None if name == "torchvision" else find(name)
    )


def arrays(train: int = 12, test: int = 4) -> Arrays:
    draw = np.random.default_rng(0)
    parts: list[Any] = []
    for n in (train, test):
        parts += [draw.integers(0, 256, (n, 3, 4, 5), dtype=np.uint8), np.arange(n) % 2]
    return Arrays(*parts)


def test_what_is_missing_is_said_in_a_line_and_the_exit_is_2(
    speedrun: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    if not torch.cuda.is_available():
        assert speedrun.main([]) == 2
        said = capsys.readouterr()
        assert (said.out, said.err.count("\n")) == ("", 1)
        assert "no GPU" in said.err


def test_what_is_missing_beside_a_gpu(
    speedrun: ModuleType, checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert speedrun.missing(checkout) == ""
    assert "no legacy/airbench94_compiled.py in --airbench PATH" in speedrun.missing(None)
    assert "Get it by the commands of --help" in speedrun.missing(checkout / "elsewhere")
    brought(monkeypatch, torchvision=False)
    assert "pip install torchvision" in speedrun.missing(checkout)
    (checkout / speedrun.SCRIPT).write_text("print('another')")
    assert "another version" in speedrun.missing(checkout)


def test_help_says_how_to_get_the_peer(speedrun: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        speedrun.main(["--help"])
    said = capsys.readouterr().out
    assert "git clone https://github.com/KellerJordan/cifar10-airbench" in said
    with pytest.raises(SystemExit):
        speedrun.main(["--runs", "9"])


def test_the_peer_trains_on_our_images_and_its_own_count_is_taken(
    speedrun: ModuleType, checkout: Path
) -> None:
    peer, images = speedrun.load(checkout / speedrun.SCRIPT), arrays()
    before = Path.cwd()
    side = speedrun.run_peer(peer, images, 3)
    assert Path.cwd() == before
    assert side.accuracies == pytest.approx([0.9, 0.91, 0.92])
    assert (side.seconds, side.epochs) == ([2.0, 3.0, 4.0], 9.9)
    assert peer.runs == [(run, True, False) for run in ("warmup", 0, 1, 2)]
    with speedrun.peer_data(images):
        held = torch.load("cifar10/test.pt")
    assert torch.equal(held["images"].permute(0, 3, 1, 2), torch.from_numpy(images.test_x))
    assert torch.equal(held["labels"], torch.from_numpy(images.test_y))
    row = side.row()
    assert (row["n"], row["accuracy"], row["seconds"]) == (3, pytest.approx(0.91), 3.0)
    assert row["standard_error"] == pytest.approx(0.01 / 3**0.5)


def test_our_side_is_the_task(speedrun: ModuleType) -> None:
    draw = torch.Generator().manual_seed(0)
    x, y = torch.randn(16, 3, 16, 16, generator=draw), torch.arange(16) % 2
    subject = Subject(SCHEMES["batchnorm"], FAMILIES["cnn"], Dataset("noise", x, y, x, y, 2))
    task = Speedrun(width=2, batch=8, tuning=(), confirmation=(1, 2), epochs=1)
    side = speedrun.run_ours(task, subject)
    measured = task(subject)
    assert side.accuracies == [sample.value for sample in measured.samples]
    assert len(side.seconds) == 2
    assert all(seconds > 0 for seconds in side.seconds)
    assert (side.name, side.epochs) == ("speedrun, batchnorm", 1)


@pytest.fixture
def ours(speedrun: ModuleType, checkout: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Replace our side: accuracy .9 + a hundredth an epoch above 6, and the seconds given, an epoch."""

    def install(seconds: float) -> None:
        def run_ours(task: Speedrun, subject: Subject) -> Any:
            n = len(task.confirmation)
            return speedrun.Side(
                "ours", task.epochs, [0.9 + 0.01 * (task.epochs - 6)] * n, [seconds * task.epochs] * n
            )

        monkeypatch.setattr(speedrun, "run_ours", run_ours)

    held = checkout / "held"
    with held.open("wb") as file:
        for array in arrays():
            np.save(file, array)
    monkeypatch.setattr(speedrun, "find", lambda wanted: Source("cifar10", "", held))
    monkeypatch.setattr(Source, "load", lambda self: Dataset("cifar10", *[torch.zeros(1)] * 4, classes=2))
    monkeypatch.setattr(speedrun, "DEVICE", "cpu")
    return install


@pytest.mark.parametrize(("seconds", "code"), [(0.6, 0), (0.8, 1)])
def test_the_fewest_epochs_at_the_target_and_their_ratio(
    seconds: float,
    code: int,
    speedrun: ModuleType,
    checkout: Path,
    ours: Callable[[float], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    ours(seconds)
    written = checkout / "rows.json"
    given = ["--airbench", str(checkout), "--json", str(written), "--epochs", "12", "9", "10", "11"]
    assert speedrun.main(given) == code
    found = json.loads(written.read_text())
    assert found["target"] == pytest.approx(0.945)  # of .90 … .99
    assert [side["epochs"] for side in found["sides"]] == [9.9, 9, 10, 11]
    assert found["ratio"] == pytest.approx(11 * seconds / 6.5)
    assert [side["n"] for side in found["sides"]] == [10] * 4
    assert f"ratio {11 * seconds / 6.5:.2f} at 11 epochs" in capsys.readouterr().out


def test_a_target_out_of_reach_fails(
    speedrun: ModuleType, checkout: Path, ours: Callable[[float], None], capsys: pytest.CaptureFixture[str]
) -> None:
    ours(0.1)
    assert speedrun.main(["--airbench", str(checkout), "--epochs", "7", "8"]) == 1
    assert "not at 0.9450 within 8 epochs" in capsys.readouterr().out
