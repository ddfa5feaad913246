"""Quantities of the curvature tasks, computed by explicit matrices and the single training loop."""

from typing import Any

import torch
from torch import Tensor

from bnsuite.engine.curvature import HessianOperator
from bnsuite.engine.lanes import Examples
from bnsuite.engine.train import train
from bnsuite.networks import softplus
from bnsuite.records import Sample
from bnsuite.schemes import Factory
from bnsuite.tasks import Subject
from bnsuite.tasks._checkpoint import PARTITION_SEED


def partition(subject: Subject, task: Any) -> tuple[Tensor, Tensor]:
    examples = Examples(subject.data.train_x.double(), subject.data.train_y, task.batch)
    order = examples.order(PARTITION_SEED, 4)
    assert sorted(order.flatten().tolist()) == list(range(64))  # the whole training set, once
    return examples.x[order], examples.y[order]


def hessian(subject: Subject, network: torch.nn.Module, task: Any) -> Tensor:
    """Build the explicit Hessian (P, P)."""
    operator = HessianOperator(network.double(), *partition(subject, task), stacked=False)
    return torch.stack([operator @ row for row in torch.eye(operator.size, dtype=torch.float64)])


def checkpoint(
    subject: Subject, task: Any, sample: Sample, phi: Factory = softplus
) -> tuple[torch.nn.Module, list[float]]:
    """Train a sample's seed to its step at its rate by the single loop; return the network and its losses."""
    rate, steps = sample.detail["rate"], sample.detail["step"]
    assert isinstance(rate, float)
    assert isinstance(steps, int)
    network = subject.network(task.depth, task.width, sample.seed, phi)
    data = Examples(subject.data.train_x, subject.data.train_y, task.batch)
    batches = [(data.x[row], data.y[row]) for row in data.order(sample.seed, steps)]
    return network, train(network, batches, rate).tolist()
