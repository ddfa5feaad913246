"""At matched loss: where the curvature tasks look, and how a network comes there."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from bnsuite.activations import activation
from bnsuite.engine.curvature import HessianOperator, Spectrum
from bnsuite.engine.lanes import Examples, Lane, Stack
from bnsuite.engine.train import accuracy, mean_cross_entropy
from bnsuite.networks import softplus
from bnsuite.protocol.sharpness import EDGE, HALVINGS, WINDOW
from bnsuite.records import Json, Outcome, Sample
from bnsuite.schemes import Factory
from bnsuite.tasks._guessing import frequencies_reach
from bnsuite.tasks._task import Subject, Task, added

PARTITION_SEED = 0
"""Of the frozen partition of the training set into minibatches."""


class Checkpoint(NamedTuple):
    """A network and the step at which it stood."""

    network: nn.Module
    step: int


class Partition(NamedTuple):
    """The training set in minibatches of training size, in float64, without a shorter remainder."""

    x: Tensor  # (M, N, …)
    y: Tensor  # (M, N)


Measure = Callable[[Lane, Checkpoint], Sample | None]
"""The sample of a lane at its checkpoint; None where its rate was too large for its curvature."""


@dataclass(frozen=True, kw_only=True)
class MatchedLoss(Task):
    """A task on the Hessian at matched loss.

    The checkpoint is the first step of plain SGD at `rate` at which the loss, mean over 5 steps, is at
    most `loss_ratio` · ln C; where rate · λ/2 > ½ there, training starts again at half the rate, so that λ
    is the loss's own and not 2 / rate. Never reached in `steps` · 2^k steps after k halvings, as far as
    `steps` steps go at the first rate: `stuck`. So is what is too sharp after `HALVINGS` of them.

    Attributes:
        minibatches: of the partition, from its first, that the Hessian is taken over; 0 for all.
    """

    depth: int = 8
    rate: float = 0.01
    steps: int = 400
    tolerance: float = 1e-3
    max_products: int = 200
    loss_ratio: float = added(0.5)
    minibatches: int = added(0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps < WINDOW:
            raise ValueError(
                f"steps of {self.spec.name}: got {self.steps}, wanted {WINDOW} at least, over which the loss "
                "is averaged. Try steps=400."
            )

    @property
    def phi(self) -> Factory:
        """φ of the networks."""
        return softplus

    def reached_by_guessing(self, train: Sequence[int], test: Sequence[int]) -> str | None:
        return frequencies_reach(self.spec.name, train, self.loss_ratio)

    def limit(self, subject: Subject) -> float:
        """The loss of the checkpoint, in nats."""
        return self.loss_ratio * math.log(subject.data.classes)

    def partition(self, subject: Subject) -> Partition:
        examples = Examples(subject.data.train_x, subject.data.train_y, self.batch)
        whole = examples.order(PARTITION_SEED, len(examples.x) // self.batch)
        order = whole[: self.minibatches or None]
        return Partition(examples.x[order].double(), examples.y[order])

    def hessian(
        self,
        subject: Subject,
        network: nn.Module,
        partition: Partition,
        dtype: torch.dtype = torch.float64,
    ) -> HessianOperator:
        """Of the network, which has this precision from now on."""
        x, y = partition
        return HessianOperator(network.to(dtype), x.to(dtype), y, stacked=subject.stacked)

    def at_matched_loss(self, subject: Subject, measure: Measure, symbol: str) -> list[Sample]:
        """One sample a confirmation seed, at the largest rate · 2^-k that its curvature bears."""
        samples: dict[int, Sample] = {}
        for k in range(HALVINGS + 1):
            rate, steps = self.rate / 2**k, self.steps * 2**k
            waiting = [Lane(seed, rate) for seed in self.confirmation if seed not in samples]
            if not waiting:
                break
            reached = self.train(subject, waiting, steps, self.limit(subject))
            for lane in waiting:
                there = reached[lane.seed]
                if isinstance(there, Outcome):
                    sample: Sample | None = Sample(seed=lane.seed, value=None, outcome=there)
                else:
                    sample = measure(lane, there)
                if sample is None and k < HALVINGS:
                    continue
                sample = sample or Sample(seed=lane.seed, value=None, outcome=Outcome.STUCK)
                samples[lane.seed] = sample
                value = str(sample.outcome) if sample.value is None else f"{symbol} = {sample.value:.4g}"
                subject.report(value)
        return [samples[seed] for seed in self.confirmation]

    def train(
        self, subject: Subject, lanes: Sequence[Lane], steps: int, limit: float | None
    ) -> dict[int, Checkpoint | Outcome]:
        """By seed, the network at the first step whose windowed loss is at most `limit` (None: the last).

        In its place `nonfinite` for a seed that died, `stuck` for one that never came so far.
        """
        reached: dict[int, Checkpoint | Outcome] = {}

        def watch(step: int, stack: Stack, rows: Sequence[Lane], losses: Tensor) -> list[int]:
            if limit is None:
                there = torch.isfinite(losses[-1]) & (step == steps)
            else:
                there = (losses[-WINDOW:].mean(0) <= limit) & (len(losses) >= WINDOW)
            leaving: list[int] = there.nonzero().flatten().tolist()
            for i in leaving:
                network = stack.network(i)
                finite = all(bool(torch.isfinite(p).all()) for p in network.parameters())
                reached[rows[i].seed] = Checkpoint(network, step) if finite else Outcome.NONFINITE
            return leaving

        curves = self.sweep(subject, self.depth, lanes, steps, activation=self.phi, watch=watch)
        alive = torch.isfinite(curves.losses).all(0).tolist()
        fates = (Outcome.STUCK if living else Outcome.NONFINITE for living in alive)
        return {lane.seed: fate for lane, fate in zip(lanes, fates, strict=True)} | reached


@dataclass(frozen=True, kw_only=True)
class Diagnostic(MatchedLoss):
    """A task at matched loss that ranks nobody, for any activation.

    Attributes:
        activation: φ, by its name in `bnsuite.activations`.
    """

    activation: str = "softplus"

    def __post_init__(self) -> None:
        super().__post_init__()
        activation(self.activation)

    @property
    def phi(self) -> Factory:
        return activation(self.activation)


def too_sharp(lane: Lane, spectrum: Spectrum) -> bool:
    """Whether rate · λ_max/2 is above `EDGE`."""
    return lane.rate * spectrum.top[0].value / 2 > EDGE


@torch.no_grad()
def standing(network: nn.Module, partition: Partition) -> dict[str, Json]:
    """Mean loss and accuracy over the partition, with the batch statistics of each minibatch."""
    x, y = partition
    logits = torch.stack([network(part) for part in x])
    return {
        "loss": float(mean_cross_entropy(logits, y).mean()),
        "accuracy": float(accuracy(logits, y).mean()),
    }
