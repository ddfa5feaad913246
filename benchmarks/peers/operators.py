"""The Hessian of the tasks, as each library is asked for it.

Digits in minibatches of 128, each with its own batch statistics, float64, at matched loss. Two libraries
need help: PyHessian sets the model to evaluation mode, which is undone here; curvlinops gets norms by
formula.
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
    """A network, and the minibatches over which its loss is taken."""

    network: nn.Module
    data: Partition
    stacked: bool

    @classmethod
    def of(cls, network: nn.Module, data: Partition, stacked: bool) -> Self:
        """In float64, and without running statistics, which `torch.func` cannot move."""
        replace_all_batch_norm_modules_(network.double())
        return cls(network, data, stacked)

    def to(self, dtype: torch.dtype) -> Self:
        """A copy in another precision."""
        network, (x, y) = copy.deepcopy(self.network).to(dtype), self.data
        return replace(self, network=network, data=Partition(x.to(dtype), y))

    @property
    def batches(self) -> list[tuple[Tensor, Tensor]]:
        return [*zip(*self.data, strict=True)]


def problems(
    scheme: str, seeds: Sequence[int], device: torch.device, **settings: Any
) -> list[Problem] | None:
    """Networks at matched loss, on a device; None where one does not come there.

    Args:
        settings: of `top_eigenvalue`, in place of those of the profile `quick`.
    """
    quick = load_profile("quick").settings("top_eigenvalue", "mlp")
    task = TopEigenvalue(**{**quick, **settings})
    subject = Subject(SCHEMES[scheme], FAMILIES["mlp"], digits().to(device))
    there = task.train(subject, [Lane(seed, task.rate) for seed in seeds], task.steps, task.limit(subject))
    data = task.partition(subject)
    found = []
    for seed in seeds:
        checkpoint = there[seed]
        if isinstance(checkpoint, Outcome):
            return None
        found.append(Problem.of(checkpoint.network, data, subject.stacked))
    return found


def ours(problem: Problem) -> HessianOperator:
    return HessianOperator(problem.network, *problem.data, stacked=problem.stacked)


def eigenthings(problem: Problem) -> hessian_eigenthings.HessianOperator:
    loss = hessian_eigenthings.supervised_loss(nn.CrossEntropyLoss())
    return hessian_eigenthings.HessianOperator(problem.network, problem.batches, loss)


def pyhessian(problem: Problem) -> Any:
    from pyhessian import hessian

    network = problem.network
    network.eval = lambda: network  # type: ignore[method-assign]  # it would take running statistics
    try:
        return hessian(
            network, nn.CrossEntropyLoss(), dataloader=problem.batches, cuda=problem.data.x.is_cuda
        )
    finally:
        del network.eval


@contextmanager
def as_pyhessian_expects(operator: Any) -> Iterator[None]:
    """Its starts are of the default dtype; it leaves gradients behind, and torch warns that it may."""
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
    """A batch or layer norm of (N, C) from elementary operations, with the norm's own γ and β.

    curvlinops takes forward- over reverse-mode derivatives, of which torch 2.13's fused norms have wrong
    ones: a product is 1.5 % off with batch norm, .3 % with layer norm, and no order mends that.
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
    """A product, and how often it was asked for."""

    product: Callable[[Any], Any]
    calls: int = 0

    def __call__(self, v: Any) -> Any:
        self.calls += 1
        return self.product(v)
