"""`speedrun` with `batchnorm` against airbench94: seconds to the accuracy that the peer has on average.

The peer (K. Jordan, arXiv 2404.00498) is fetched by whoever runs this, and is no part of this project:

    git clone https://github.com/KellerJordan/cifar10-airbench
    git -C cifar10-airbench checkout f1c599c4af24aca803e3e65a6a7e52a502e09d0e
    pip install torchvision
    python benchmarks/peers/speedrun.py --airbench cifar10-airbench

It trains on the images and the GPU that we train on. Its mean accuracy over all runs is the target; ours is
the first number of epochs on the ladder whose mean over as many seeds is at least that. Seconds are of
training with whitening, and of the one test with all views, without loading and compiling: on the peer's
side its own count, on ours `train_s` and `eval_s`. Both sides are warmed up; medians over runs.
"""

import argparse
import contextlib
import hashlib
import importlib.util
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean, median, stdev
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from bnsuite.datasets import DATASETS, DataError, Source, find
from bnsuite.datasets.images import Arrays
from bnsuite.networks import FAMILIES
from bnsuite.profiles import load_profile
from bnsuite.records import Json
from bnsuite.schemes import SCHEMES
from bnsuite.tasks import Subject
from bnsuite.tasks.speedrun import Speedrun

SCRIPT = "legacy/airbench94_compiled.py"
BLOB = "2cbf7fe163c2ef1f2a64a353c969da49b48021b2"
"""Git's name of the script's content at the commit above."""

DEVICE = "cuda"
CEILING = 1.25
"""Our seconds over the peer's that are promised."""


class Side(NamedTuple):
    """What one side came to; a run that was not finite has accuracy 0."""

    name: str
    epochs: float
    accuracies: list[float]
    seconds: list[float]

    @property
    def mean(self) -> float:
        return fmean(self.accuracies)

    def row(self) -> dict[str, Json]:
        n = len(self.accuracies)
        return {
            "side": self.name,
            "epochs": self.epochs,
            "n": n,
            "accuracy": self.mean,
            "standard_error": stdev(self.accuracies) / n**0.5,
            "seconds": median(self.seconds),
            "accuracies": list(self.accuracies),
            "all_seconds": list(self.seconds),
        }


def missing(folder: Path | None) -> str:
    """What is not here that the race needs, and how to get it; empty where nothing is missing."""
    if not torch.cuda.is_available():
        return "no GPU: the peer runs on CUDA alone. Run this where torch sees one."
    script = folder / SCRIPT if folder else None
    if script is None or not script.is_file():
        return f"no {SCRIPT} in --airbench {folder or 'PATH'}. Get it by the commands of --help."
    content = script.read_bytes()
    if hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest() != BLOB:
        return f"{script} is of another version. Check out the commit of --help."
    if importlib.util.find_spec("torchvision") is None:
        return "the peer imports torchvision: pip install torchvision, of the version that fits this torch."
    return ""


def load(script: Path) -> ModuleType:
    """The peer's script as a module; what stands under its __main__ is not run."""
    spec = importlib.util.spec_from_file_location(script.stem, script)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run_peer(peer: ModuleType, arrays: Arrays, runs: int) -> Side:
    """Its accuracies and its own seconds on these images, after one warm-up; its tables are not printed."""
    seconds: list[float] = []

    def note(variables: dict[str, Any], is_final_entry: bool) -> None:
        if is_final_entry:
            seconds.append(float(variables["total_time_seconds"]))

    peer.print_training_details = note  # type: ignore[attr-defined]
    networks: list[Any] = [peer.make_net(), peer.make_net()]
    networks[1][0].bias.requires_grad_(False)  # the second trains all but the first bias
    compiled: list[nn.Module] = [torch.compile(network, mode="max-autotune") for network in networks]
    with peer_data(arrays):
        accuracies = [float(peer.main(run, *compiled)) for run in ("warmup", *range(runs))]
    return Side("airbench94", peer.hyp["opt"]["train_epochs"], accuracies[1:], seconds[1:])


@contextlib.contextmanager
def peer_data(arrays: Arrays) -> Iterator[None]:
    """A working directory in which the peer finds the images where it would have put its download."""
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        Path("cifar10").mkdir()
        for part, images, labels in (
            ("train", arrays.train_x, arrays.train_y),
            ("test", arrays.test_x, arrays.test_y),
        ):
            held = {
                "images": torch.from_numpy(images).permute(0, 2, 3, 1).contiguous(),  # (N, H, W, C) uint8
                "labels": torch.from_numpy(labels),
                "classes": list(range(arrays.classes)),
            }
            torch.save(held, f"cifar10/{part}.pt")
        yield


def run_ours(task: Speedrun, subject: Subject) -> Side:
    """The task's samples and seconds, a run a confirmation seed."""
    found = task(subject)
    return Side(
        f"speedrun, {subject.scheme.name}",
        task.epochs,
        [sample.value or 0.0 for sample in found.samples],
        [float(row["train_s"]) + float(row["eval_s"]) for row in found.trace],  # type: ignore[arg-type]
    )


def fewest(task: Speedrun, subject: Subject, target: float, ladder: Sequence[float]) -> list[Side]:
    """Sides of ascending epochs, up to the first whose mean accuracy is at the target."""
    sides: list[Side] = []
    for epochs in sorted(ladder):
        sides.append(run_ours(replace(task, epochs=epochs), subject))
        print(line(sides[-1]), flush=True)
        if sides[-1].mean >= target:
            break
    return sides


def raw(source: Source) -> Arrays:
    """The images as they were decoded, before standardization."""
    if source.file is None:
        raise DataError(f"{source.name}: the peer needs 32×32 RGB images: name cifar10, or a folder of it")
    with source.file.open("rb") as held:
        return Arrays(*(np.load(held, allow_pickle=False) for _ in Arrays._fields))


def line(side: Side) -> str:
    row = side.row()
    return (
        f"{side.name:<22}{side.epochs:>7g}{row['n']:>5}{side.mean:>10.4f} ±{row['standard_error']:.4f}"
        f"{row['seconds']:>9.2f}"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; 0 within the promise, 1 beyond it or short of the target, 2 where something lacks."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--airbench", type=Path, metavar="PATH", help="the peer's checkout")
    parser.add_argument("--dataset", default="cifar10", help="a name, or a folder of the same images")
    parser.add_argument("--runs", type=int, default=10, help="of each side, 10 at least")
    parser.add_argument("--epochs", type=float, nargs="+", default=[7, 8, 9, 10, 11, 12, 14, 16])
    parser.add_argument("--json", type=Path, help="file to write the rows to")
    options = parser.parse_args(arguments)
    if options.runs < 10:
        parser.error(f"a mean over 10 runs at least: got {options.runs}")
    if lack := missing(options.airbench):
        print(lack, file=sys.stderr)
        return 2
    try:
        source = find(options.dataset if options.dataset in DATASETS else Path(options.dataset))
        arrays = raw(source)
    except DataError as error:
        print(error, file=sys.stderr)
        return 2

    settings = load_profile("standard").settings("speedrun", "cnn")
    task = replace(Speedrun(**settings), tuning=(), confirmation=tuple(range(101, 101 + options.runs)))
    subject = Subject(SCHEMES["batchnorm"], FAMILIES["cnn"], source.load().to(DEVICE))
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, {source.name}")
    print(f"{'side':<22}{'epochs':>7}{'n':>5}{'accuracy':>10} {'error':>7}{'seconds':>9}")
    peer = run_peer(load(options.airbench / SCRIPT), arrays, options.runs)
    print(line(peer), flush=True)
    ours = fewest(task, subject, peer.mean, options.epochs)
    reached = ours[-1].mean >= peer.mean
    ratio = median(ours[-1].seconds) / median(peer.seconds)
    print(
        f"ratio {ratio:.2f} at {ours[-1].epochs:g} epochs; {CEILING} at most is promised"
        if reached
        else f"not at {peer.mean:.4f} within {ours[-1].epochs:g} epochs"
    )
    if options.json:
        rows = [side.row() for side in (peer, *ours)]
        found = {"target": peer.mean, "ratio": ratio if reached else None, "sides": rows}
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0 if reached and ratio <= CEILING else 1


if __name__ == "__main__":
    raise SystemExit(main())
