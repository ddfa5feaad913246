"""Checkpoints at matched loss, where the curvature tasks measure, and the training that leads there."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from hessian_eigenthings import CurvatureOperator
from torch import Tensor, nn

from bnsuite.activations import activation
from bnsuite.engine.curvature import HessianOperator, Spectrum, extreme_eigenvalues
from bnsuite.engine.lanes import Examples, Lane
from bnsuite.engine.stack import Stack
from bnsuite.engine.train import accuracy, mean_cross_entropy
from bnsuite.networks import softplus
from bnsuite.protocol.sharpness import EDGE, HALVINGS, WINDOW
from bnsuite.records import Json, Outcome, Sample
from bnsuite.schemes import Factory
from bnsuite.tasks._guessing import frequencies_reach
from bnsuite.tasks._task import Subject, Task, added

PARTITION_SEED = 0
"""Seed of the frozen partition of the training set into minibatches."""


class Checkpoint(NamedTuple):
    """Network and the training step at which it was taken."""

    network: nn.Module
    step: int


class Partition(NamedTuple):
    """Training set in M minibatches of N examples, the training size, in float64; a remainder is left out."""

    x: Tensor  # (M, N, …)
    y: Tensor  # (M, N)


Measure = Callable[[Lane, Checkpoint], Sample | None]
"""(lane, checkpoint) → sample; None: the lane's rate was too large for its curvature."""


@dataclass(frozen=True, kw_only=True)
class MatchedLoss(Task):
    """Task on the Hessian at matched loss.

    The checkpoint is the first step of plain SGD at `rate` at which the loss, mean over 5 steps, is at
    most `loss_ratio` · ln C. If rate · λ_max/2 > ½ there, training starts again at half the rate, so that
    λ_max is a property of the loss and not 2 / rate. After k halvings the budget is `steps` · 2^k steps, as
    far as `steps` steps go at the first rate. A seed that does not reach the loss within it, or is still too
    sharp after `HALVINGS` halvings, is `stuck`.

    Attributes:
        rate: learning rate of the first try.
        steps: budget at that rate.
        tolerance: largest residual ‖Hv − λv‖ / |λ| of an eigenvalue.
        max_products: limit on the steps of Lanczos.
        loss_ratio: loss of the checkpoint, in units of ln C.
        minibatches: number of minibatches of the partition, from its first, that the Hessian is taken over;
            0: all.
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
        self.at_least("steps", WINDOW, "over which the loss is averaged")

    @property
    def phi(self) -> Factory:
        """Activation φ of the networks."""
        return softplus

    def reached_by_guessing(self, train: Sequence[int], test: Sequence[int]) -> str | None:  # noqa: ARG002
        return frequencies_reach(self.spec.name, train, self.loss_ratio)

    def limit(self, subject: Subject) -> float:
        """Compute the loss of the checkpoint, loss_ratio · ln C, in nats."""
        return self.loss_ratio * math.log(subject.data.classes)

    def partition(self, subject: Subject) -> Partition:
        """Build the frozen partition that the Hessian is taken over."""
        examples = Examples(subject.data.train_x, subject.data.train_y, self.batch)
        whole = examples.order(PARTITION_SEED, len(examples.x) // self.batch)
        order = whole[: self.minibatches or None]
        return Partition(examples.x[order].double(), examples.y[order])

    def hessian(
        self, subject: Subject, network: nn.Module, partition: Partition, dtype: torch.dtype = torch.float64
    ) -> HessianOperator:
        """Build the Hessian at a network; converts the network to `dtype` in place.

        Args:
            subject: what is measured.
            network: network of the subject.
            partition: minibatches over which the loss is taken.
            dtype: precision of network, inputs and products.
        """
        x, y = partition
        return HessianOperator(network.to(dtype), x.to(dtype), y, stacked=subject.stacked)

    def at_matched_loss(self, subject: Subject, measure: Measure, symbol: str) -> list[Sample]:
        """Measure one sample per confirmation seed, at the largest rate · 2^-k that its curvature allows.

        Args:
            subject: what is measured.
            measure: measures a sample at a checkpoint; None: the rate was too large there.
            symbol: name of the value, for progress.
        """
        samples: dict[int, Sample] = {}
        for k in range(HALVINGS + 1):
            rate, steps = self.rate / 2**k, self.steps * 2**k
            waiting = [Lane(seed, rate) for seed in self.confirmation if seed not in samples]
            if not waiting:
                break
            reached = self.train(subject, waiting, steps, self.limit(subject))
            for lane in waiting:
                checkpoint = reached[lane.seed]
                sample, outcome = None, Outcome.STUCK
                if isinstance(checkpoint, Outcome):
                    outcome = checkpoint
                elif (sample := measure(lane, checkpoint)) is None and k < HALVINGS:
                    continue
                sample = sample or Sample(seed=lane.seed, value=None, outcome=outcome)
                samples[lane.seed] = sample
                subject.report(sample.outcome if sample.value is None else f"{symbol} = {sample.value:.4g}")
        return [samples[seed] for seed in self.confirmation]

    def train(
        self, subject: Subject, lanes: Sequence[Lane], steps: int, limit: float | None
    ) -> dict[int, Checkpoint | Outcome]:
        """Train lanes up to their checkpoints: seed → the first network at the limit, or an outcome.

        Args:
            subject: what is trained.
            lanes: seeds and rates, one lane per seed.
            steps: budget of each lane.
            limit: loss, mean over `WINDOW` steps, at which a lane ends; None: it ends with its last step.

        Returns:
            `Outcome.NONFINITE` for a seed that died, `Outcome.STUCK` for one that did not reach the limit.
        """
        reached: dict[int, Checkpoint | Outcome] = {}

        def watch(step: int, stack: Stack, rows: Sequence[Lane], losses: Tensor) -> list[int]:
            if limit is None:
                at_checkpoint = torch.isfinite(losses[-1]) & (step == steps)
            else:
                at_checkpoint = (losses[-WINDOW:].mean(0) <= limit) & (len(losses) >= WINDOW)
            leaving: list[int] = at_checkpoint.nonzero().flatten().tolist()
            for i in leaving:
                network = stack.network(i)
                finite = all(bool(torch.isfinite(p).all()) for p in network.parameters())
                reached[rows[i].seed] = Checkpoint(network, step) if finite else Outcome.NONFINITE
            return leaving

        curves = self.sweep(subject, self.depth, lanes, steps, activation=self.phi, watch=watch)
        alive = torch.isfinite(curves.losses).all(0).tolist()
        outcomes = (Outcome.STUCK if finite else Outcome.NONFINITE for finite in alive)
        return {lane.seed: outcome for lane, outcome in zip(lanes, outcomes, strict=True)} | reached


@dataclass(frozen=True, kw_only=True)
class Diagnostic(MatchedLoss):
    """Unranked task at matched loss, for any activation, on at least 2 classes.

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

    def partition(self, subject: Subject) -> Partition:
        """Build the frozen partition that the Hessian is taken over.

        Raises:
            ValueError: the data has one class.
        """
        if subject.data.classes < 2:
            raise ValueError(
                f"{self.spec.name} needs at least 2 classes: got {subject.data.classes} in "
                f"{subject.data.name}. Use another data set."
            )
        return super().partition(subject)

    def top(self, operator: CurvatureOperator, count: int, seed: int) -> Spectrum:
        """Find the largest eigenvalues, each certified by its own vector.

        Args:
            operator: a symmetric operator.
            count: how many; all, if there are fewer.
            seed: seed of the start of Lanczos.
        """
        return extreme_eigenvalues(
            operator,
            min(count, operator.size),
            seed=seed,
            tolerance=self.tolerance,
            max_products=self.max_products,
            vectors=True,
        )


def too_sharp(lane: Lane, spectrum: Spectrum) -> bool:
    """Tell whether rate · λ_max/2 is above `EDGE`."""
    return lane.rate * spectrum.top[0].value / 2 > EDGE


@torch.no_grad()
def described(
    lane: Lane, checkpoint: Checkpoint, partition: Partition, spectrum: Spectrum
) -> dict[str, Json]:
    """Describe a checkpoint for the detail of its sample: step, rate, loss, accuracy, largest eigenvalues.

    Args:
        lane: seed and rate.
        checkpoint: network and its step.
        partition: minibatches over which loss and accuracy are means, with the batch statistics of each.
        spectrum: spectrum of the Hessian there.
    """
    logits = torch.stack([checkpoint.network(minibatch) for minibatch in partition.x])
    return {
        "step": checkpoint.step,
        "rate": lane.rate,
        "loss": float(mean_cross_entropy(logits, partition.y).mean()),
        "accuracy": float(accuracy(logits, partition.y).mean()),
        "eigenvalues": [e.value for e in spectrum.top],
        "residuals": [e.residual for e in spectrum.top],
    }
