"""Hessian of the tasks as an operator of each library.

Digits in minibatches of 128, each with its own batch statistics, float64, at matched loss. Two libraries need
help: PyHessian sets the model to evaluation mode, which is undone here; curvlinops gets norms by formula.
"""

import copy
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Self

import hessian_eigenthings
import torch
from torch import Tensor, nn
from torch.func import replace_all_batch_norm_modules_

from bnsuite.datasets import digits
from bnsuite.engine.curvature import HessianOperator
from bnsuite.engine.lanes import Lane
from bnsuite.networks import FAMILIES
from bnsuite.norms import BatchNorm, LayerNorm
from bnsuite.profiles import load_profile
from bnsuite.records import Outcome
from bnsuite.schemes import SCHEMES
from bnsuite.tasks import Subject
from bnsuite.tasks._checkpoint import Partition
from bnsuite.tasks.top_eigenvalue import TopEigenvalue


@dataclass(frozen=True)
class Problem:
    """Network, and the minibatches of its loss."""

    network: nn.Module
    data: Partition
    stacked: bool

    @classmethod
    def of(cls, network: nn.Module, data: Partition, stacked: bool) -> Self:
        """Convert a network to float64, without running statistics, which `torch.func` cannot update.

        Args:
            network: the network, changed in place.
            data: minibatches.
            stacked: whether copies of the network can be stacked.
        """
        replace_all_batch_norm_modules_(network.double())
        return cls(network, data, stacked)

    def to(self, dtype: torch.dtype) -> Self:
        """Copy in another precision."""
        network, (x, y) = copy.deepcopy(self.network).to(dtype), self.data
        return replace(self, network=network, data=Partition(x.to(dtype), y))

    @property
    def batches(self) -> list[tuple[Tensor, Tensor]]:
        """List of (x, y) of each minibatch."""
        return [*zip(*self.data, strict=True)]


def problems(
    scheme: str, seeds: Sequence[int], device: torch.device, **settings: Any
) -> list[Problem] | None:
    """Networks at matched loss; None if one of them does not reach that loss.

    Args:
        scheme: name of the scheme.
        seeds: seed of each network.
        device: where they train.
        settings: settings of `top_eigenvalue` that replace those of the profile `quick`.
    """
    quick = load_profile("quick").settings("top_eigenvalue", "mlp")
    task = TopEigenvalue(**{**quick, **settings})
    subject = Subject(SCHEMES[scheme], FAMILIES["mlp"], digits().to(device))
    there = task.train(subject, [Lane(seed, task.rate) for seed in seeds], task.steps, task.limit(subject))
    data = task.partition(subject)
    at_loss = []
    for seed in seeds:
        checkpoint = there[seed]
        if isinstance(checkpoint, Outcome):
            return None
        at_loss.append(Problem.of(checkpoint.network, data, subject.stacked))
    return at_loss


def ours(problem: Problem) -> HessianOperator:
    """Operator of this suite."""
    return HessianOperator(problem.network, *problem.data, stacked=problem.stacked)


def eigenthings(problem: Problem) -> hessian_eigenthings.HessianOperator:
    """Operator of hessian-eigenthings."""
    loss = hessian_eigenthings.supervised_loss(nn.CrossEntropyLoss())
    return hessian_eigenthings.HessianOperator(problem.network, problem.batches, loss)


def pyhessian(problem: Problem) -> Any:
    """Operator of PyHessian, kept in training mode."""
    from pyhessian import hessian

    network = problem.network
    network.eval = lambda: network  # type: ignore[method-assign]  # evaluation takes running statistics
    try:
        return hessian(
            network, nn.CrossEntropyLoss(), dataloader=problem.batches, cuda=problem.data.x.is_cuda
        )
    finally:
        del network.eval


@contextmanager
def as_pyhessian_expects(operator: Any) -> Iterator[None]:
    """Context for PyHessian: its start vectors have the default dtype, and it leaves gradients behind."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"Using backward\(\) with create_graph=True", UserWarning)
            yield
    finally:
        torch.set_default_dtype(before)
        operator.model.zero_grad(set_to_none=True)


class ByFormula(nn.Module):
    """Batch or layer norm of (N, C) from elementary operations, with the γ and β of the original norm.

    curvlinops takes forward-over-reverse derivatives, which are wrong for torch 2.13's fused norms: a product
    is off by 1.5 % with batch norm and by 0.3 % with layer norm, whatever the order.
    """

    def __init__(self, norm: BatchNorm | LayerNorm) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = norm.weight, norm.bias, norm.eps
        self.axis = 0 if isinstance(norm, BatchNorm) else 1

    def forward(self, x: Tensor) -> Tensor:
        centered = x - x.mean(self.axis, keepdim=True)
        variance = centered.square().mean(self.axis, keepdim=True)
        return self.weight * centered * (variance + self.eps).rsqrt() + self.bias


def curvlinops(problem: Problem) -> Any:
    """Operator of curvlinops, with norms by formula."""
    from curvlinops import HessianLinearOperator

    network = copy.deepcopy(problem.network)
    for name, norm in [*network.named_modules()]:
        if isinstance(norm, BatchNorm | LayerNorm):
            network.set_submodule(name, ByFormula(norm))
    parameters = [*network.parameters()]
    return HessianLinearOperator(
        network, nn.CrossEntropyLoss(), parameters, problem.batches, check_deterministic=False
    )


@dataclass
class Counted:
    """Matrix-vector product that counts its calls."""

    product: Callable[[Any], Any]
    calls: int = 0

    def __call__(self, v: Any) -> Any:
        self.calls += 1
        return self.product(v)
