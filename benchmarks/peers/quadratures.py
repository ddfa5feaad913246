"""Stochastic Lanczos quadrature as each library has it: k probes of m products, the first seeded with 0."""

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


def ours(operator: Any, order: int, probes: int) -> Density:
    return spectral_density(operator, order, range(probes))


def eigenthings(operator: Any, order: int, probes: int) -> Density:
    """Its own smoothing is asked for one point, and not used."""
    found = hessian_eigenthings.spectral_density(
        operator, num_runs=probes, lanczos_steps=order, num_grid_points=1, seed=0
    )
    return Density(found.raw_eigenvalues, found.raw_weights)


def pyhessian(operator: Any, order: int, probes: int) -> Density:
    """It calls `torch.eig`, which torch no longer has, for a symmetric matrix."""

    def eig(matrix: Tensor, eigenvectors: bool) -> tuple[Tensor, Tensor]:
        values, vectors = torch.linalg.eigh(matrix)
        return values.unsqueeze(1), vectors

    torch.manual_seed(0)
    with as_pyhessian_expects(operator), patch("torch.eig", eig, create=True):
        nodes, weights = operator.density(iter=order, n_v=probes)
    return Density(torch.tensor(nodes), torch.tensor(weights))


def curvlinops(operator: Any, order: int, probes: int) -> Density:
    """Its quadrature alone: its densities have a kernel that follows the order, and bounds that cost."""
    from curvlinops.papyan2020traces.spectrum import fast_lanczos

    torch.manual_seed(0)
    found = [fast_lanczos(operator, order) for _ in range(probes)]
    return Density(
        torch.stack([values for values, _ in found]), torch.stack([vectors[0] ** 2 for _, vectors in found])
    )


def as_operator(matrix: Tensor, problem: Problem) -> Any:
    return hessian_eigenthings.LambdaOperator(matrix.mv, len(matrix), matrix.device, matrix.dtype)


def as_pyhessian(matrix: Tensor, problem: Problem) -> Any:
    operator = operators.pyhessian(problem)

    def product(v: list[Tensor]) -> tuple[None, list[Tensor]]:
        parts = (matrix @ torch.cat([part.flatten() for part in v])).split([part.numel() for part in v])
        return None, [part.view_as(like) for part, like in zip(parts, v, strict=True)]

    operator.dataloader_hv_product = product
    return operator


class Side(NamedTuple):
    """The operator of a problem, the same from its matrix, and the density of either."""

    operator: Callable[[Problem], Any]
    from_matrix: Callable[[Tensor, Problem], Any]
    density: Callable[[Any, int, int], Density]


SIDES = {
    OURS: Side(operators.ours, as_operator, ours),
    "eigenthings": Side(operators.eigenthings, as_operator, eigenthings),
    "pyhessian": Side(operators.pyhessian, as_pyhessian, pyhessian),
    "curvlinops": Side(operators.curvlinops, lambda matrix, problem: matrix, curvlinops),
}
