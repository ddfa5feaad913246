"""smoothness: how smooth is the loss along its gradient, from initialization through training?"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import geometric_mean, median
from typing import ClassVar, NamedTuple, final

import torch
from torch import Tensor, nn
from torch.func import functional_call

from bnsuite.activations import activation
from bnsuite.engine.curvature import HessianOperator, extreme_eigenvalues, unflatten
from bnsuite.engine.lanes import Examples, Lane
from bnsuite.engine.stack import Stack
from bnsuite.engine.train import Loss, mean_cross_entropy, vector_of
from bnsuite.protocol.search import rounded
from bnsuite.records import Json, Measurement, Outcome, Sample
from bnsuite.specs import SPECS, TaskSpec
from bnsuite.tasks._initial import AtInitialization, with_medians
from bnsuite.tasks._task import Subject


class Along(NamedTuple):
    """Changes of loss and gradient along the gradient g, at θ − η g for every step η.

    Attributes:
        loss_range: max − min of the loss, at θ itself too, in nats.
        gradient_change: max of ‖∇L(θ) − ∇L(θ − η g)‖ / ‖∇L(θ)‖.
        effective_beta: max of ‖∇L(θ) − ∇L(θ − η g)‖ / ‖η g‖, 1/learning rate.
    """

    loss_range: float
    gradient_change: float
    effective_beta: float


@final
@dataclass(frozen=True, kw_only=True)
class Smoothness(AtInitialization):
    """Effective β along the gradient, geometric mean over checkpoints 1, 2, 4, … of training.

    At a checkpoint θ with gradient g on the next minibatch the loss is followed along θ − η g, η a few
    multiples of the common rate. β is the largest change of the gradient over the distance moved, about the
    curvature in that direction. If the gradient is lost altogether within the shortest step η, β has a
    ceiling of some √2/η. All in float64, on one minibatch, in one network at a time: no two runs are
    compared. Derived: the range of the loss and the change of the gradient; all three at initialization;
    λ_max of this minibatch's loss at initialization and at the end. Source: Santurkar et al.,
    arXiv 1805.11604, section 3.

    Attributes:
        depth: number of layers.
        rate: learning rate of plain SGD, common to all schemes.
        steps: training steps.
        reach: η over `rate`, one per point.
        beside: number of confirmation seeds, from the first, at which λ_max is measured.
    """

    spec: ClassVar[TaskSpec] = SPECS["smoothness"]

    activation: str = "softplus"
    depth: int = 8
    rate: float = 0.01
    steps: int = 128
    reach: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0)

    beside: int = 3

    def __call__(self, subject: Subject) -> Measurement:
        examples = Examples(subject.data.train_x.double(), subject.data.train_y, self.batch)
        trace = dict[tuple[int, int], dict[str, Json]]()

        def look(step: int, seed: int, network: nn.Module) -> None:
            chosen = examples.order(seed, step + 1)[-1]
            x, y = examples.x[chosen], examples.y[chosen]
            network = network.double()
            along = along_gradient(network, x, y, [self.rate * factor for factor in self.reach])
            row: dict[str, Json] = {name: rounded(value) for name, value in along._asdict().items()}
            if seed in self.confirmation[: self.beside]:
                operator = HessianOperator(network, x[None], y[None], stacked=False)
                row["lambda_max"] = extreme_eigenvalues(operator, seed=seed).top[0].value
            trace[seed, step] = {"phase": "checkpoint", "seed": seed, "step": step, **row}
            subject.report(f"step {step}: β = {along.effective_beta:.3g}")

        def watch(step: int, stack: Stack, rows: list[Lane], losses: Tensor) -> list[int]:
            if step & (step - 1) == 0:  # powers of 2
                for i, lane in enumerate(rows):
                    if bool(torch.isfinite(losses[-1, i])):
                        look(step, lane.seed, stack.network(i))
            return []

        for seed in self.confirmation:
            look(0, seed, self.network(subject, self.depth, seed))
        lanes = [Lane(seed, self.rate) for seed in self.confirmation]
        phi = activation(self.activation)
        self.sweep(subject, self.depth, lanes, self.steps, activation=phi, watch=watch)
        checkpoints = 1 + self.steps.bit_length()
        samples = [
            _sample(seed, [row for (row_seed, _), row in trace.items() if row_seed == seed], checkpoints)
            for seed in self.confirmation
        ]
        return with_medians(self.measurement(samples, trace=[*trace.values()]))


def along_gradient(
    network: nn.Module, x: Tensor, y: Tensor, steps: Sequence[float], loss: Loss = mean_cross_entropy
) -> Along:
    """Measure loss and gradient of one minibatch along its own gradient; the network is left as it was.

    Args:
        network: network whose trainable parameters are θ.
        x: inputs (N, …).
        y: targets, one per input.
        steps: η, the factors of the gradient.
        loss: (outputs, targets) → a scalar.
    """

    def loss_and_gradient(vector: Tensor) -> tuple[float, Tensor]:
        vector = vector.detach().requires_grad_()
        buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
        value = loss(functional_call(network, {**unflatten(vector, network), **buffers}, (x,)), y)
        return float(value.detach()), torch.autograd.grad(value, vector)[0]

    start = vector_of(network)
    here, gradient = loss_and_gradient(start)
    points = [loss_and_gradient(start - eta * gradient) for eta in steps]
    losses = [here, *(value for value, _ in points)]
    changes = [float((turned - gradient).norm() / gradient.norm()) for _, turned in points]
    return Along(
        loss_range=max(losses) - min(losses),
        gradient_change=max(changes),
        effective_beta=max(change / eta for change, eta in zip(changes, steps, strict=True)),
    )


def _sample(seed: int, rows: list[dict[str, Json]], checkpoints: int) -> Sample:
    """Build a sample from the checkpoints of its seed, the first at initialization; a value needs all."""

    def column(name: str) -> list[float]:
        return [value for row in rows[1:] if isinstance(value := row.get(name), float)]

    first, last = rows[0], rows[-1]
    detail = {f"{name}_at_init": first.get(name) for name in (*Along._fields, "lambda_max")}
    detail |= {name: median(column(name)) for name in Along._fields[:2] if column(name)}
    detail |= {"lambda_max_at_end": last.get("lambda_max"), "last_step": last["step"]}
    betas = column("effective_beta")
    if len(betas) < checkpoints - 1:
        return Sample(seed=seed, value=None, outcome=Outcome.NONFINITE, detail=detail)
    return Sample(seed=seed, value=geometric_mean(betas), detail=detail)
