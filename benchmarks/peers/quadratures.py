"""Stochastic Lanczos quadrature of each library: k probes of m Hessian products, with seeds from 0 on."""

from collections.abc import Callable
from typing import Any, NamedTuple
from unittest.mock import patch

import hessian_eigenthings
import operators
import torch
from operators import Problem, as_pyhessian_expects
from torch import Tensor

from bnsuite.engine.curvature import Density, spectral_density

OURS = "ours"
"""Name of this suite's side."""

# Every side takes an operator, the order m (nodes per probe) and the number k of probes.


def ours(operator: Any, order: int, probes: int) -> Density:
    """Density by this suite."""
    return spectral_density(operator, order, range(probes))


def eigenthings(operator: Any, order: int, probes: int) -> Density:
    """Density by hessian-eigenthings, whose smoothing is computed at one point and not used."""
    result = hessian_eigenthings.spectral_density(
        operator, num_runs=probes, lanczos_steps=order, num_grid_points=1, seed=0
    )
    return Density(result.raw_eigenvalues, result.raw_weights)


def pyhessian(operator: Any, order: int, probes: int) -> Density:
    """Density by PyHessian, which calls `torch.eig` for a symmetric matrix; torch no longer has that."""

    def eig(matrix: Tensor, eigenvectors: bool) -> tuple[Tensor, Tensor]:  # noqa: ARG001  # called by name
        values, vectors = torch.linalg.eigh(matrix)
        return values.unsqueeze(1), vectors

    torch.manual_seed(0)
    with as_pyhessian_expects(operator), patch("torch.eig", eig, create=True):
        nodes, weights = operator.density(iter=order, n_v=probes)
    return Density(torch.tensor(nodes), torch.tensor(weights))


def curvlinops(operator: Any, order: int, probes: int) -> Density:
    """Density by the quadrature of curvlinops, without its smoothing, whose kernel depends on the order."""
    from curvlinops.papyan2020traces.spectrum import fast_lanczos

    torch.manual_seed(0)
    pairs = [fast_lanczos(operator, order) for _ in range(probes)]
    return Density(
        torch.stack([values for values, _ in pairs]), torch.stack([vectors[0] ** 2 for _, vectors in pairs])
    )


def as_operator(matrix: Tensor, _problem: Problem) -> Any:
    """Operator of a matrix (P, P), for this suite and hessian-eigenthings."""
    return hessian_eigenthings.LambdaOperator(matrix.mv, len(matrix), matrix.device, matrix.dtype)


def as_pyhessian(matrix: Tensor, problem: Problem) -> Any:
    """Operator of a matrix (P, P), for PyHessian."""
    operator = operators.pyhessian(problem)

    def product(v: list[Tensor]) -> tuple[None, list[Tensor]]:
        parts = (matrix @ torch.cat([part.flatten() for part in v])).split([part.numel() for part in v])
        return None, [part.view_as(like) for part, like in zip(parts, v, strict=True)]

    operator.dataloader_hv_product = product
    return operator


class Side(NamedTuple):
    """Library: its operator of a problem, its operator of a matrix, and its density of either."""

    operator: Callable[[Problem], Any]
    from_matrix: Callable[[Tensor, Problem], Any]
    density: Callable[[Any, int, int], Density]


SIDES = {
    OURS: Side(operators.ours, as_operator, ours),
    "eigenthings": Side(operators.eigenthings, as_operator, eigenthings),
    "pyhessian": Side(operators.pyhessian, as_pyhessian, pyhessian),
    "curvlinops": Side(operators.curvlinops, lambda matrix, _: matrix, curvlinops),
}
