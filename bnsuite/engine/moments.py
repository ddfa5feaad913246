"""Directions in parameter space: gradients of the outputs' means and variances, and spaces projected out."""

from typing import NamedTuple

import torch
from hessian_eigenthings import CurvatureOperator
from torch import Tensor, nn

from bnsuite.engine.curvature import outputs
from bnsuite.engine.shapes import check_minibatches, check_network
from bnsuite.engine.train import vector_of


class Moments(NamedTuple):
    """Gradients, in the parameters, of the mean and of the variance over the examples of every output."""

    means: Tensor  # (C, P) ∇E[f_c]
    variances: Tensor  # (C, P) ∇Var[f_c]


def output_moments(network: nn.Module, x: Tensor, *, stacked: bool) -> Moments:
    """Of the outputs f_c, one a class, over all examples of the minibatches x (M, N, …).

    Batch statistics are those of each minibatch; E and Var run over all M N examples.

    Raises:
        ValueError: sizes, device or dtype that cannot be.
    """
    check_minibatches(x)
    check_network(network, x)
    params = vector_of(network).requires_grad_()
    f = torch.cat([logits for _, logits in outputs(network, params, x, stacked=stacked)]).flatten(0, 1)
    deviations = f - f.mean(0)
    found = [
        torch.stack([torch.autograd.grad(one, params, retain_graph=True)[0] for one in moment])
        for moment in (f.mean(0), (deviations**2).mean(0))
    ]
    return Moments(*found)


def orthonormal(rows: Tensor, cutoff: float = 1e-8) -> Tensor:
    """Orthonormal rows (r, P) that span the given ones (n, P), whatever the length of each.

    Every row is scaled to norm 1 (a zero one is left out); directions whose singular value is then below
    `cutoff` of the largest are dropped.
    """
    norms = rows.norm(dim=1, keepdim=True)
    unit = (rows / norms)[norms.flatten() > 0]
    if not len(unit):
        return rows[:0]
    _, strengths, directions = torch.linalg.svd(unit, full_matrices=False)
    kept: Tensor = directions[strengths > cutoff * strengths[0]]
    return kept


def random_orthonormal(rank: int, like: Tensor, seed: int) -> Tensor:
    """Orthonormal rows (rank, P) of a uniformly random subspace, drawn on the CPU in float64."""
    generator = torch.Generator().manual_seed(seed)
    normal = torch.randn(like.shape[1], rank, generator=generator, dtype=torch.float64)
    span: Tensor = torch.linalg.qr(normal).Q.T
    return span.to(like)


def share(vectors: Tensor, span: Tensor) -> Tensor:
    """‖Q v‖² / ‖v‖² of every row v of (n, P), the part of its energy in the span of Q's rows (r, P): (n,)."""
    return (vectors @ span.T).square().sum(1) / vectors.square().sum(1)


class Projected(CurvatureOperator):  # type: ignore[misc]  # the library ships no types
    """v ↦ (I − QᵀQ) H (I − QᵀQ) v: an operator with the span of Q's orthonormal rows (r, P) projected out."""

    def __init__(self, operator: CurvatureOperator, span: Tensor) -> None:
        self._operator, self._span = operator, span

    @property
    def size(self) -> int:
        return int(self._operator.size)

    @property
    def device(self) -> torch.device:
        return self._span.device

    @property
    def dtype(self) -> torch.dtype:
        return self._span.dtype

    def matvec(self, v: Tensor) -> Tensor:
        return self._outside(self._operator.matvec(self._outside(v)))

    def _outside(self, v: Tensor) -> Tensor:
        return v - (self._span @ v) @ self._span
