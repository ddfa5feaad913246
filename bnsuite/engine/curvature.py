"""Curvature: a loss's Hessian as an operator, and its extreme eigenvalues with a certificate."""

from typing import NamedTuple

import torch
from hessian_eigenthings import CurvatureOperator
from scipy.linalg import eigh_tridiagonal
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector

from bnsuite.engine.lanes import Stack
from bnsuite.engine.train import Parameters, mean_cross_entropy

MINIBATCHES_AT_ONCE = 16


class HessianOperator(CurvatureOperator):  # type: ignore[misc]  # the library ships no types
    """v ↦ H v, H the Hessian of the mean loss over M minibatches at the network's parameters.

    Batch statistics are those of each minibatch. The graph of the gradient is built once and kept, so a
    product costs one backward pass through it; memory grows with the number of examples. Any algorithm
    of hessian-eigenthings runs on it.

    Args:
        network: in training mode; neither its parameters nor its buffers are changed.
        x, y: (M, N, …) and (M, N), on the network's device; the products have the network's dtype.
    """

    def __init__(self, network: nn.Module, x: Tensor, y: Tensor, *, stacked: bool) -> None:
        self._params = parameters_to_vector(network.parameters()).detach().requires_grad_()
        named = unflatten(self._params, network)
        self._gradients: list[Tensor] = []
        for part in torch.split(torch.arange(len(x)), MINIBATCHES_AT_ONCE):
            stack = Stack([network] * len(part), [0] * len(part), stacked=stacked)
            shared = {name: p.expand(len(part), *p.shape) for name, p in named.items()}
            logits = stack.forward(shared, x[part])
            loss = mean_cross_entropy(logits, y[part]).sum() / len(x)
            self._gradients += torch.autograd.grad(loss, self._params, create_graph=True)

    @property
    def size(self) -> int:
        return self._params.numel()

    @property
    def device(self) -> torch.device:
        return self._params.device

    @property
    def dtype(self) -> torch.dtype:
        return self._params.dtype

    @property
    def gradient(self) -> Tensor:
        """∇L (P,)."""
        return torch.stack([gradient.detach() for gradient in self._gradients]).sum(0)

    def matvec(self, v: Tensor) -> Tensor:
        products = (
            torch.autograd.grad(gradient, self._params, v, retain_graph=True)[0]
            for gradient in self._gradients
        )
        return torch.stack(list(products)).sum(0)


def unflatten(vector: Tensor, network: nn.Module) -> Parameters:
    """Views of a vector (P,) as the parameters of a network by name."""
    named = dict(network.named_parameters())
    parts = torch.split(vector, [p.numel() for p in named.values()])
    return {name: part.view(p.shape) for (name, p), part in zip(named.items(), parts, strict=True)}


class Eigenvalue(NamedTuple):
    """An eigenvalue and how far it may be off.

    `residual` is ‖Hv − λv‖ / |λ|, computed from the returned unit vector where one is returned, else
    Lanczos' own estimate of it. For a symmetric H an eigenvalue lies within residual · |λ| of λ.
    """

    value: float
    residual: float
    vector: Tensor | None  # (P,), of unit norm


class Spectrum(NamedTuple):
    """The ends of a spectrum: `top` from the largest down, `bottom` from the smallest up."""

    top: tuple[Eigenvalue, ...]
    bottom: tuple[Eigenvalue, ...]
    products: int


def extreme_eigenvalues(
    operator: CurvatureOperator,
    top: int = 1,
    bottom: int = 0,
    *,
    seed: int,
    tolerance: float = 1e-3,
    max_products: int = 200,
) -> Spectrum:
    """Largest and smallest (algebraic) eigenvalues by Lanczos with full reorthogonalization.

    Stops once every wanted Ritz pair has an estimated residual of at most tolerance / 2, or at
    `max_products`; then λ_max (and λ_min, where wanted) is certified by a product with its own vector.
    Source: C. Paige, "Computational variants of the Lanczos method", 1972.

    Args:
        seed: of the Gaussian start, drawn on the CPU in float64.

    Raises:
        ValueError: more eigenvalues wanted than the operator has.
    """
    if not 1 <= top + bottom <= operator.size:
        raise ValueError(f"wanted {top} + {bottom} eigenvalues of an operator of size {operator.size}")
    generator = torch.Generator().manual_seed(seed)
    start = torch.randn(operator.size, generator=generator, dtype=torch.float64)
    start = start.to(operator.device, operator.dtype)
    basis = [start / start.norm()]
    alphas: list[float] = []
    betas: list[float] = []
    limit = min(max_products, operator.size)
    while True:
        w = operator.matvec(basis[-1])
        alphas.append(float(basis[-1] @ w))
        q = torch.stack(basis)  # (m, P)
        for _ in range(2):  # twice is enough (Kahan, Parlett)
            w = w - (q @ w) @ q
        beta = float(w.norm())
        values, vectors = eigh_tridiagonal(alphas, betas)  # ascending
        m = len(alphas)
        wanted = [*range(m - 1, max(m - 1 - top, -1), -1), *range(min(bottom, m))]
        estimates = {i: beta * abs(vectors[-1, i]) / max(abs(values[i]), 1e-300) for i in wanted}
        settled = m >= top + bottom and max(estimates.values()) <= tolerance / 2
        if settled or m >= limit or beta <= 1e-12 * max(map(abs, values)):
            break
        betas.append(beta)
        basis.append(w / beta)

    def pair(i: int, certify: bool) -> Eigenvalue:
        if not certify:
            return Eigenvalue(float(values[i]), float(estimates[i]), None)
        vector = torch.as_tensor(vectors[:, i].copy(), dtype=q.dtype, device=q.device) @ q
        return certified(operator, vector)

    tops = tuple(pair(m - 1 - i, certify=i == 0) for i in range(min(top, m)))
    bottoms = tuple(pair(i, certify=i == 0) for i in range(min(bottom, m)))
    return Spectrum(tops, bottoms, products=m + (top > 0) + (bottom > 0))


def certified(operator: CurvatureOperator, vector: Tensor) -> Eigenvalue:
    """Rayleigh quotient λ = vᵀHv of a vector and its residual ‖Hv − λv‖ / |λ|, by one product."""
    vector = vector / vector.norm()
    product = operator.matvec(vector)
    value = float(vector @ product)
    residual = float((product - value * vector).norm()) / max(abs(value), 1e-300)
    return Eigenvalue(value, residual, vector)
