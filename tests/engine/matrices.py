"""Symmetric matrices as operators, and matrices with a given spectrum."""

import torch
from hessian_eigenthings import LambdaOperator
from torch import Tensor


class Matrix(LambdaOperator):  # type: ignore[misc]
    """A symmetric matrix as an operator, exact for the first products and off by `error` after."""

    def __init__(self, matrix: Tensor, exact: int = 10**9, error: float = 0.0) -> None:
        super().__init__(self._product, len(matrix), matrix.device, matrix.dtype)
        self.matrix, self.exact, self.error, self.products = matrix, exact, error, 0

    def _product(self, v: Tensor) -> Tensor:
        self.products += 1
        off = self.error * v.flip(0) if self.products > self.exact else 0
        return self.matrix @ v + off


def with_spectrum(values: Tensor, seed: int = 0) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    q, _ = torch.linalg.qr(torch.randn(len(values), len(values), generator=draw, dtype=torch.float64))
    return q @ torch.diag(values.double()) @ q.T
