"""Directions in parameter space: gradients of the outputs' means and variances, and spaces projected out."""

from typing import NamedTuple

import torch
from hessian_eigenthings import CurvatureOperator, LambdaOperator
from torch import Tensor, nn

from bnsuite.engine.curvature import outputs
from bnsuite.engine.shapes import check_minibatches, check_network
from bnsuite.engine.train import vector_of


class Moments(NamedTuple):
    """Gradients, in the parameters, of each output's mean and variance over the examples."""

    means: Tensor  # (C, P) ∇E[f_c]
    variances: Tensor  # (C, P) ∇Var[f_c]


def output_moments(network: nn.Module, x: Tensor, *, stacked: bool) -> Moments:
    """Differentiate the mean and the variance of every output f_c, one per class, in the parameters.

    Batch statistics are those of each minibatch; E and Var run over all M N examples.

    Args:
        network: a network in training mode, left as it was.
        x: minibatches (M, N, …), on the network's device and in its dtype.
        stacked: whether minibatches may share one `vmap`.

    Raises:
        ValueError: impossible sizes, device or dtype.
    """
    check_minibatches(x)
    check_network(network, x)
    params = vector_of(network).requires_grad_()
    f = torch.cat([logits for _, logits in outputs(network, params, x, stacked=stacked)]).flatten(0, 1)
    deviations = f - f.mean(0)
    gradients = [
        torch.stack([torch.autograd.grad(of_class, params, retain_graph=True)[0] for of_class in moment])
        for moment in (f.mean(0), (deviations**2).mean(0))
    ]
    return Moments(*gradients)


def orthonormal(rows: Tensor, cutoff: float = 1e-8) -> Tensor:
    """Find orthonormal rows (r, P) with the span of the given rows (n, P), whatever the length of each.

    Every row is scaled to norm 1 (a zero row is left out); directions whose singular value is then below
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
    """Draw orthonormal rows (rank, P) that span a uniformly random subspace, on the CPU in float64.

    Args:
        rank: dimension of the subspace.
        like: rows (…, P) whose P, device and dtype the result has.
        seed: seed of the draw.
    """
    generator = torch.Generator().manual_seed(seed)
    normal = torch.randn(like.shape[1], rank, generator=generator, dtype=torch.float64)
    span: Tensor = torch.linalg.qr(normal).Q.T
    return span.to(like)


def share(vectors: Tensor, span: Tensor) -> Tensor:
    """Compute ‖Q v‖² / ‖v‖² (n,), the share of each row v (n, P) in the span of orthonormal rows Q (r, P)."""
    return (vectors @ span.T).square().sum(1) / vectors.square().sum(1)


def projected(operator: CurvatureOperator, span: Tensor) -> CurvatureOperator:
    """Project the span of Q's orthonormal rows (r, P) out of an operator: v ↦ (I − QᵀQ) H (I − QᵀQ) v."""

    def outside(v: Tensor) -> Tensor:
        return v - (span @ v) @ span

    return LambdaOperator(
        lambda v: outside(operator.matvec(outside(v))), operator.size, span.device, span.dtype
    )
