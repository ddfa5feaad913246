"""speedrun: how accurate does a fast recipe get with it?"""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any, ClassVar, NamedTuple, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from bnsuite.engine.augmentation import Views, alternating, augmented
from bnsuite.engine.clock import race
from bnsuite.engine.lanes import Examples
from bnsuite.networks import UnsupportedError
from bnsuite.networks.recipe import RecipeNetwork, build
from bnsuite.protocol.search import rounded
from bnsuite.records import Json, Measurement, Outcome, Sample
from bnsuite.specs import SPECS, TaskSpec
from bnsuite.tasks._task import Subject, Task

PRECISIONS = {"auto": None, "float32": torch.float32, "bfloat16": torch.bfloat16}
WHITENED = 5000
"""Number of training images whose patches the whitening is fitted to."""
LOOK_BACK, KEPT = 5, 0.75
"""Steps between two averages of Lookahead, and the share of the slow weights that the last one keeps."""
AT_ONCE = 2000
"""Number of test images in one call."""


def triangle(step: int, steps: int, peak: float) -> float:
    """Compute η_t / η at step t of T: a line from 0 up to 1 at peak · T, and one down to 0 at T.

    Args:
        step: t, from 0.
        steps: T.
        peak: share of the steps before the peak.
    """
    progress = (step + 0.5) / steps
    return min(progress / peak, (1 - progress) / (1 - peak))


class Run(NamedTuple):
    """Result of one seed: test accuracy, losses (steps,) before each step, and seconds without compiling."""

    accuracy: float
    losses: Tensor
    train_s: float
    eval_s: float


@final
@dataclass(frozen=True, kw_only=True)
class Speedrun(Task):
    """Test accuracy after a fixed number of epochs of one fast recipe, with the scheme in its slots.

    The recipe is frozen and made for batch norm: its network (`RecipeNetwork`), alternating mirrors and
    random shifts, label smoothing, SGD with Nesterov momentum and weight decay at a rate that rises
    linearly to its peak and falls to 0, shifts at `shift_rate` times that rate, Lookahead, and logits that
    are the mean over six views at test. Ideas of Page, "How to train your ResNet", 2018-19, and Jordan,
    arXiv 2404.00498; words, code and numbers are ours. One network per seed, with float32 weights.

    Derived: seconds of one training and of its test, medians over seeds, with whitening and drawing, without
    loading, building and compiling.

    Attributes:
        width: channels of the first two convolutions; the other four have 4 times as many.
        epochs: passes over the training set.
        rate: learning rate at its peak.
        peak: share of the steps before the peak.
        shift_rate: learning rate of shifts, as a multiple of that of weights.
        momentum: Nesterov momentum.
        decay: weight decay of the weights; shifts and gains have none.
        smoothing: label smoothing.
        translation: largest random shift, in pixels.
        precision: precision of activations: float32, bfloat16, or auto (bfloat16 on a GPU).
        compiled: whether torch compiles the network on a GPU; never on a CPU.
    """

    spec: ClassVar[TaskSpec] = SPECS["speedrun"]

    epochs: float = 8.0
    rate: float = 1.5
    peak: float = 0.25
    shift_rate: float = 64.0
    momentum: float = 0.85
    decay: float = 1.3e-3
    smoothing: float = 0.2
    translation: int = 2
    precision: str = "auto"
    compiled: bool = True

    def __call__(self, subject: Subject) -> Measurement:
        if not subject.family.convolutional:
            raise UnsupportedError(
                f"speedrun has a convolutional network of its own, family cnn: got {subject.family.name}. "
                "Use --family cnn."
            )
        data, device = subject.data, subject.device
        images = data.train_x.contiguous(memory_format=torch.channels_last)
        examples = Examples(images, data.train_y, self.batch)
        runs = []
        for seed in self.confirmation:
            runs.append(self.run(subject, examples, seed))
            subject.report(f"{runs[-1].accuracy:.2%} at seed {seed}, {runs[-1].train_s:.3g} s")
        train_s = median(run.train_s for run in runs)
        derived: dict[str, Json] = {
            "train_s": train_s,
            "eval_s": median(run.eval_s for run in runs),
            "examples_per_s": self.steps_of(examples) * self.batch / train_s,
            "precision": str(self.dtype(device)).removeprefix("torch."),
            "compiled": self.compiles(device),
        }
        trace: list[dict[str, Json]] = [
            {
                "phase": "confirm",
                "seed": seed,
                "loss": [rounded(float(part.mean())) for part in run.losses.tensor_split(10) if len(part)],
                "train_s": run.train_s,
                "eval_s": run.eval_s,
            }
            for seed, run in zip(self.confirmation, runs, strict=True)
        ]
        samples = [_sample(seed, run) for seed, run in zip(self.confirmation, runs, strict=True)]
        return self.measurement(samples, derived, trace)

    def steps_of(self, examples: Examples) -> int:
        """Count the steps of one training; the short batch of an epoch is left out."""
        return max(1, round(self.epochs * (len(examples.x) // self.batch)))

    def dtype(self, device: torch.device) -> torch.dtype:
        """Choose the precision of activations."""
        return PRECISIONS[self.precision] or (torch.bfloat16 if device.type == "cuda" else torch.float32)

    def compiles(self, device: torch.device) -> bool:
        """Tell whether the network is compiled."""
        return self.compiled and device.type == "cuda"

    def run(self, subject: Subject, examples: Examples, seed: int) -> Run:
        """Train and test one network.

        Args:
            subject: what is measured.
            examples: training examples.
            seed: seed of everything random.

        Raises:
            UnsupportedError: a part of the network refuses its input, with a ValueError.
        """
        data, device = subject.data, subject.device
        network = build(subject.scheme, self.width, data.shape, data.classes, seed)
        network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if self.compiles(device):
            torch.compiler.reset()  # otherwise many seeds would use up the number of graphs that it keeps
            network.compile(dynamic=False)
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            self._warm_up(subject, network, examples)
            torch.manual_seed(seed)
            steps = self.steps_of(examples)
            losses, train_s = _timed(lambda: self.train(network, examples, seed, steps), device)
            logits, eval_s = _timed(lambda: self.evaluate(network, data.test_x), device)
        accuracy = float((logits.argmax(-1) == data.test_y).double().mean())
        return Run(accuracy, losses.cpu(), train_s, eval_s)

    def _warm_up(self, subject: Subject, network: RecipeNetwork, examples: Examples) -> None:
        """Run two steps and the calls of a test, so that the network is compiled and kernels are chosen.

        The network's state is then as before.

        Raises:
            UnsupportedError: a part of the network refuses its input, with a ValueError.
        """
        before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        test_x = subject.data.test_x
        shapes = test_x[: AT_ONCE + len(test_x) % AT_ONCE]  # a full call, and the last one
        try:
            self.train(network, examples, 0, 2)
            self.evaluate(network, shapes)
        except ValueError as error:
            raise UnsupportedError(f"{subject.scheme.name} cannot be used in speedrun: {error}") from error
        network.load_state_dict(before)

    def train(self, network: RecipeNetwork, examples: Examples, seed: int, steps: int) -> Tensor:
        """Train by the recipe and return the losses (steps,). No step waits for the device.

        Args:
            network: network that is trained in place.
            examples: training examples.
            seed: seed of the views.
            steps: training steps.
        """
        network.train()
        network.whiten.fit(examples.x[:WHITENED])
        optimizer = self._optimizer(network)
        views = alternating(examples, seed, steps, self.translation)
        losses = []
        schedule = LambdaLR(optimizer, lambda step: triangle(step, steps, self.peak))
        slow = {name: t.clone() for name, t in network.state_dict().items() if t.is_floating_point()}
        for step, seen in enumerate(map(Views._make, zip(*views, strict=True)), 1):
            logits = self._logits(network, augmented(examples.x, seen))
            loss = F.cross_entropy(logits, examples.y[seen.chosen], label_smoothing=self.smoothing)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            losses.append(loss.detach())
            if step % LOOK_BACK == 0 or step == steps:
                look_back(network, slow, KEPT * (step / steps) ** 3)
        return torch.stack(losses)

    def _optimizer(self, network: nn.Module) -> torch.optim.Optimizer:
        """Build SGD with one group each for weights, shifts and gains."""
        groups: list[dict[str, Any]] = [
            {"params": [], "weight_decay": self.decay},
            {"params": [], "lr": self.rate * self.shift_rate},
            {"params": []},
        ]
        for name, p in network.named_parameters():
            groups[0 if p.dim() > 1 else 1 if name.endswith("bias") else 2]["params"].append(p)
        nesterov = self.momentum > 0  # torch refuses Nesterov without momentum
        return torch.optim.SGD(groups, lr=self.rate, momentum=self.momentum, nesterov=nesterov, fused=True)

    def _logits(self, network: nn.Module, x: Tensor) -> Tensor:
        dtype = self.dtype(x.device)
        with torch.autocast(x.device.type, dtype, enabled=dtype != torch.float32):
            logits: Tensor = network(x)
        return logits.float()

    @torch.no_grad()
    def evaluate(self, network: nn.Module, x: Tensor) -> Tensor:
        """Average the logits (N, classes) over six views: both mirrors, moved by −1, 0 and 1 pixels.

        Args:
            network: network that is put into evaluation mode.
            x: images (N, C, H, W).
        """
        network.eval()
        means = []
        moves = [(side, by) for side in (False, True) for by in (-1, 0, 1)]
        for rows in torch.split(torch.arange(len(x), device=x.device), AT_ONCE):
            shifts = rows.new_ones(len(rows), 2)
            seen = [
                Views(rows, torch.full_like(rows, side, dtype=torch.bool), by * shifts) for side, by in moves
            ]
            means.append(torch.stack([self._logits(network, augmented(x, views)) for views in seen]).mean(0))
        return torch.cat(means)


def _timed(work: Callable[[], Tensor], device: torch.device) -> tuple[Tensor, float]:
    """Call `work` and return its result and its seconds."""
    results: list[Tensor] = []
    times = race([lambda: results.append(work())], rounds=1, device=device, warmup=0)
    return results[0], times.median(0)


@torch.no_grad()
def look_back(network: nn.Module, slow: dict[str, Tensor], kept: float) -> None:
    """Average by Lookahead: slow ← kept · slow + (1 − kept) · fast, fast ← slow, with running statistics.

    Source: Zhang et al., arXiv 1907.08610.

    Args:
        network: network whose state is `fast`; changed in place.
        slow: name → slow weights; changed in place.
        kept: share of the slow weights that is kept.
    """
    fast = network.state_dict()
    for name, tensor in slow.items():
        fast[name].copy_(tensor.lerp_(fast[name], 1 - kept))


def _sample(seed: int, run: Run) -> Sample:
    if not bool(torch.isfinite(run.losses).all()):
        return Sample(seed=seed, value=None, outcome=Outcome.NONFINITE)
    return Sample(seed=seed, value=run.accuracy)
