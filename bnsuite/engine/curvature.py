"""Curvature: a loss's Hessian as an operator, its certified extreme eigenvalues, its spectral density."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import hessian_eigenthings
import numpy as np
import torch
from hessian_eigenthings import CurvatureOperator
from scipy.linalg import eigh_tridiagonal
from torch import Tensor, nn

from bnsuite.engine.double_backward import Twice
from bnsuite.engine.shapes import check_minibatches, check_network
from bnsuite.engine.stack import Stack, can_stack
from bnsuite.engine.train import Loss, Parameters, mean_cross_entropy, trainable, vector_of

MINIBATCHES_AT_ONCE = 16
"""Number of minibatches in one forward pass."""


class GradientOperator(CurvatureOperator):  # type: ignore[misc]  # the library ships no types
    """v ↦ H v, H the derivative of a sum of gradients in the vector (P,) that they were taken in.

    Any algorithm of hessian-eigenthings runs on it.

    Args:
        params: the vector (P,), a leaf that requires a gradient.
        gradients: the summands (P,), each with the graph that leads to `params`; walked through in every
            product, so a list keeps its graphs and an iterable that builds them saves memory.

    >>> theta = torch.tensor([1.0, 2.0], requires_grad=True)
    >>> GradientOperator(theta, [theta**3]).matvec(torch.ones(2)).tolist()  # diag(3 θ²)
    [3.0, 12.0]
    """

    def __init__(self, params: Tensor, gradients: Iterable[Tensor]) -> None:
        self._params, self._gradients = params, gradients

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
        """Sum of the gradients, ∇L (P,)."""
        return torch.stack([gradient.detach() for gradient in self._gradients]).sum(0)

    def matvec(self, v: Tensor) -> Tensor:
        products = (
            torch.autograd.grad(gradient, self._params, v, retain_graph=True)[0]
            for gradient in self._gradients
        )
        return torch.stack(list(products)).sum(0)


class HessianOperator(GradientOperator):
    """v ↦ H v, H the Hessian of the mean loss over M minibatches in the network's trainable parameters (P,).

    Batch statistics are those of each minibatch. The graph of the gradient is built once and kept, so a
    product costs one backward pass through it; memory grows with the number of examples.

    Args:
        network: a network in training mode; neither its parameters nor its buffers are changed.
        x: inputs (M, N, …), on the network's device and in its dtype; a single minibatch is x[None].
        y: class indices (M, N), or the targets of `loss` (M, N, …).
        stacked: whether minibatches may share one `vmap`; None: as `can_stack` finds on the first of them.
        loss: (logits (m, N, classes), y (m, N, …)) → (m,), one mean per minibatch; None: cross-entropy.

    Raises:
        ValueError: impossible sizes, labels, device or dtype; no trainable parameter, or one with a hook.

    >>> x, y = torch.ones(1, 4, 1, dtype=torch.float64), torch.tensor([[0, 1, 0, 1]])
    >>> at_zero = nn.Linear(1, 2, bias=False, dtype=torch.float64)
    >>> _ = nn.init.zeros_(at_zero.weight)
    >>> H = HessianOperator(at_zero, x, y)  # (diag(p) − ppᵀ) x², p = ½
    >>> H.matvec(torch.tensor([1.0, 0.0], dtype=torch.float64)).tolist()
    [0.25, -0.25]
    """

    def __init__(
        self,
        network: nn.Module,
        x: Tensor,
        y: Tensor,
        *,
        stacked: bool | None = None,
        loss: Loss | None = None,
    ) -> None:
        check_minibatches(x, y, labels=loss is None)
        check_network(network, x)
        if stacked is None:
            stacked = can_stack(network, x[0], y[0], loss)
        params = vector_of(network).requires_grad_()
        gradients: list[Tensor] = []
        with Twice():
            for part, logits in outputs(network, params, x, stacked=stacked):
                losses = (loss or mean_cross_entropy)(logits, y[part])
                if losses.shape != part.shape:
                    raise ValueError(
                        f"a loss gives one number per minibatch, {tuple(part.shape)}: got "
                        f"{tuple(losses.shape)}. Average over the examples of each alone."
                    )
                gradients += torch.autograd.grad(losses.sum() / len(x), params, create_graph=True)
        super().__init__(params, gradients)


def outputs(
    network: nn.Module, params: Tensor, x: Tensor, *, stacked: bool
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield some of the minibatches x (M, N, …) at a time: their indices (m,) and logits (m, N, classes).

    Each minibatch has its own batch statistics. The logits are a function of `params`.

    Args:
        network: network in training mode.
        params: vector (P,) that replaces the network's own parameters.
        x: inputs (M, N, …).
        stacked: whether minibatches may share one `vmap`.
    """
    named = unflatten(params, network)
    for part in torch.split(torch.arange(len(x), device=x.device), MINIBATCHES_AT_ONCE):
        stack = Stack([network] * len(part), [0] * len(part), stacked=stacked)
        shared = {name: p.expand(len(part), *p.shape) for name, p in named.items()}
        yield part, stack.forward(shared, x[part])


def unflatten(vector: Tensor, network: nn.Module) -> Parameters:
    """View a vector (P,) as the trainable parameters of a network, by name."""
    named = trainable(network)
    parts = torch.split(vector, [p.numel() for p in named.values()])
    return {name: part.view(p.shape) for (name, p), part in zip(named.items(), parts, strict=True)}


class Eigenvalue(NamedTuple):
    """Eigenvalue λ with a bound on its error.

    `residual` is ‖Hv − λv‖ / |λ|, computed from the returned unit vector if there is one, otherwise estimated
    by Lanczos. For a symmetric H some eigenvalue lies within residual · |λ| of λ.
    """

    value: float
    residual: float
    vector: Tensor | None  # (P,), of unit norm


class Spectrum(NamedTuple):
    """Both ends of a spectrum: `top` from the largest down, `bottom` from the smallest up."""

    top: tuple[Eigenvalue, ...]
    bottom: tuple[Eigenvalue, ...]
    products: int


class Ritz(NamedTuple):
    """Ritz pairs after m steps of Lanczos: values (m,), ascending; vectors (m, m), columns, in the basis."""

    values: np.ndarray
    vectors: np.ndarray
    rest: float  # β_m, the norm of the last product's part outside the basis
    basis: Tensor  # (m, P), orthonormal rows

    def residual(self, i: int) -> float:
        """Estimate ‖Hv − θv‖ / |θ| of pair i."""
        return float(self.rest * abs(self.vectors[-1, i]) / max(abs(self.values[i]), 1e-300))


def lanczos(operator: CurvatureOperator, seed: int) -> Iterator[Ritz]:
    """Run Lanczos with full reorthogonalization, one product per step, until the space is exhausted.

    It ends when β ≤ 1e-12 max|θ|: the basis then spans an invariant subspace, and the θ are its eigenvalues.
    Source: C. Paige, "Computational variants of the Lanczos method", 1972.

    Args:
        operator: a symmetric operator.
        seed: seed of the Gaussian start, which is drawn on the CPU in float64.

    Raises:
        FloatingPointError: a product is not finite.
    """
    generator = torch.Generator().manual_seed(seed)
    start = torch.randn(operator.size, generator=generator, dtype=torch.float64)
    start = start.to(operator.device, operator.dtype)
    basis = [start / start.norm()]
    alphas: list[float] = []
    betas: list[float] = []
    while True:
        w = operator.matvec(basis[-1])
        alphas.append(float(basis[-1] @ w))
        q = torch.stack(basis)  # (m, P)
        for _ in range(2):  # twice is enough (Kahan, Parlett)
            w = w - (q @ w) @ q
        beta = float(w.norm())
        if not math.isfinite(beta):
            raise FloatingPointError(f"a product with an operator is finite: got one of norm {beta}")
        values, vectors = eigh_tridiagonal(alphas, betas)  # ascending
        yield Ritz(values, vectors, beta, q)
        if len(basis) == operator.size or beta <= 1e-12 * max(map(abs, values)):
            return
        betas.append(beta)
        basis.append(w / beta)


def extreme_eigenvalues(
    operator: CurvatureOperator,
    top: int = 1,
    bottom: int = 0,
    *,
    seed: int,
    tolerance: float = 1e-3,
    max_products: int = 200,
    vectors: bool = False,
) -> Spectrum:
    """Find the largest and smallest (algebraic) eigenvalues by Lanczos with full reorthogonalization.

    Stops once every wanted Ritz pair has an estimated residual of at most tolerance / 2, or at
    `max_products`; λ_max (and λ_min, if wanted) is then certified by a product with its own vector.

    Args:
        operator: a symmetric operator.
        top: number of eigenvalues wanted from the largest down.
        bottom: number of eigenvalues wanted from the smallest up.
        seed: seed of the Gaussian start, which is drawn on the CPU in float64.
        tolerance: largest residual ‖Hv − λv‖ / |λ| that is aimed at.
        max_products: limit on the steps of Lanczos.
        vectors: certify every wanted pair, and return its vector.

    Raises:
        ValueError: more eigenvalues wanted than the operator has.
        FloatingPointError: a product is not finite.
    """
    ritz = _search(operator, top, bottom, seed, tolerance, max_products)
    return _certify(operator, ritz, top, bottom, vectors)


def mixed_precision_eigenvalues(
    hessian: Callable[[torch.dtype], CurvatureOperator],
    top: int = 1,
    bottom: int = 0,
    *,
    seed: int,
    tolerance: float = 1e-3,
    max_products: int = 200,
) -> Spectrum:
    """Run `extreme_eigenvalues` in float32, where a product costs about half, and certify in float64.

    If float32 overflows, or a residual is above `tolerance`, everything is done again in float64.

    Args:
        hessian: builds the operator in a given precision; one operator is kept at a time.
        top: number of eigenvalues wanted from the largest down.
        bottom: number of eigenvalues wanted from the smallest up.
        seed: seed of the Gaussian start, which is drawn on the CPU in float64.
        tolerance: largest residual ‖Hv − λv‖ / |λ| that is aimed at.
        max_products: limit on the steps of Lanczos in each precision.
    """
    spent = 0
    try:
        ritz = _search(hessian(torch.float32), top, bottom, seed, tolerance, max_products)
        spectrum = _certify(hessian(torch.float64), ritz, top, bottom)
        if all(e.residual <= tolerance for e in (*spectrum.top, *spectrum.bottom)):
            return spectrum
        spent = spectrum.products
    except FloatingPointError:
        pass
    again = extreme_eigenvalues(
        hessian(torch.float64), top, bottom, seed=seed, tolerance=tolerance, max_products=max_products
    )
    return again._replace(products=spent + again.products)


def _search(
    operator: CurvatureOperator, top: int, bottom: int, seed: int, tolerance: float, max_products: int
) -> Ritz:
    if not 1 <= top + bottom <= operator.size:
        raise ValueError(
            f"an operator of size {operator.size} has 1 to {operator.size} eigenvalues: got {top} + {bottom} "
            "wanted ones. Change top or bottom."
        )
    for ritz in islice(lanczos(operator, seed), max(1, max_products)):
        m = len(ritz.values)
        wanted = [*range(m - 1, max(m - 1 - top, -1), -1), *range(min(bottom, m))]
        if m >= top + bottom and max(map(ritz.residual, wanted)) <= tolerance / 2:
            break
    return ritz


def _certify(
    operator: CurvatureOperator, ritz: Ritz, top: int, bottom: int, vectors: bool = False
) -> Spectrum:
    """Certify Ritz pairs, which may come from a lower precision: λ_max and λ_min by products."""

    def pair(i: int, certify: bool) -> Eigenvalue:
        if not certify:
            return Eigenvalue(float(ritz.values[i]), ritz.residual(i), None)
        vector = ritz.basis.new_tensor(ritz.vectors[:, i]) @ ritz.basis
        return certified(operator, vector.to(operator.dtype))

    m = len(ritz.values)
    tops = tuple(pair(m - 1 - i, vectors or i == 0) for i in range(min(top, m)))
    bottoms = tuple(pair(i, vectors or i == 0) for i in range(min(bottom, m)))
    return Spectrum(tops, bottoms, products=m + sum(e.vector is not None for e in (*tops, *bottoms)))


def certified(operator: CurvatureOperator, vector: Tensor) -> Eigenvalue:
    """Compute the Rayleigh quotient λ = vᵀHv of a vector and its residual ‖Hv − λv‖ / |λ|, by one product."""
    vector = vector / vector.norm()
    product = operator.matvec(vector)
    value = float(vector @ product)
    residual = float((product - value * vector).norm()) / max(abs(value), 1e-300)
    return Eigenvalue(value, residual, vector)


def eigenthings_lambda_max(operator: CurvatureOperator, products: int, *, seed: int) -> float:
    """Compute λ_max by the Lanczos of hessian-eigenthings, which shares no code with `extreme_eigenvalues`.

    Args:
        operator: a symmetric operator.
        products: number of steps, which it takes in full (at most the operator's size).
        seed: seed of its Gaussian start.
    """
    result = hessian_eigenthings.lanczos(
        operator, k=1, max_iter=min(products, operator.size), which="LA", reorthogonalize=True, seed=seed
    )
    return float(result.eigenvalues[0])


class Density(NamedTuple):
    """Spectral measure by quadrature, one row per probe: Σ_j w_j f(θ_j) ≈ tr f(H) / P; Σ_j w_j = 1."""

    nodes: Tensor  # (k, m) θ, ascending
    weights: Tensor  # (k, m) w

    def smoothed(self, at: Tensor, width: float) -> tuple[Tensor, Tensor]:
        """Smooth the density by a Gaussian of standard deviation `width`, in units of H.

        Args:
            at: points (n,) at which to evaluate it.
            width: above 0.

        Returns:
            Mean over probes and its standard error (NaN for one probe), each (n,), in 1 / units of H.

        Raises:
            ValueError: a width of 0 or below.
        """
        if width <= 0:
            raise ValueError(f"the width of a kernel is above 0: got {width}")
        distance = (at - self.nodes.unsqueeze(-1)) / width  # (k, m, n)
        bumps = torch.exp(-(distance**2) / 2) / (width * math.sqrt(2 * math.pi))
        return _mean((self.weights.unsqueeze(-1) * bumps).sum(1))

    def mass(self, low: float, high: float) -> tuple[float, float]:
        """Estimate the share of eigenvalues in [low, high]: mean over probes and its standard error."""
        inside = (self.nodes >= low) & (self.nodes <= high)
        mean, error = _mean((self.weights * inside).sum(1))
        return float(mean), float(error)


def _mean(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the mean over rows (k, …) and its standard error, NaN for a single row."""
    mean = rows.mean(0)
    squares = ((rows - mean) ** 2).sum(0)
    return mean, (squares / (len(rows) - 1) / len(rows)).sqrt() if len(rows) > 1 else mean * math.nan


def spectral_density(operator: CurvatureOperator, order: int, seeds: Sequence[int]) -> Density:
    """Estimate the spectral density by stochastic Lanczos quadrature.

    Each probe's nodes are Ritz values, its weights their squared first components. A rule of order m is
    exact for polynomials up to degree 2m − 1 in the spectral measure of its probe; if Lanczos ends early it
    is exact for all functions, and its row is filled up with nodes of weight 0.
    Sources: G. Golub and J. Welsch, 1969; B. Ghorbani et al., arXiv 1901.10159.

    Args:
        operator: a symmetric operator.
        order: m, the number of nodes per probe.
        seeds: one per probe, for its Gaussian start, which is drawn on the CPU in float64.

    Raises:
        ValueError: no probes, or an order below 1 or above the operator's size.
    """
    if not 1 <= order <= operator.size:
        raise ValueError(
            f"the order of a quadrature is from 1 to the operator's size {operator.size}: got {order}; "
            "lower the order or take a larger network"
        )
    if not seeds:
        raise ValueError("a spectral density needs at least 1 probe: got no seeds")
    rows = []
    for seed in seeds:
        for ritz in islice(lanczos(operator, seed), order):  # noqa: B007 - the last one, and it alone is kept
            pass
        missing = order - len(ritz.values)
        rows.append((np.pad(ritz.values, (0, missing), "edge"), np.pad(ritz.vectors[0] ** 2, (0, missing))))
    nodes, weights = (
        torch.as_tensor(np.stack(column), dtype=torch.float64) for column in zip(*rows, strict=True)
    )
    return Density(nodes, weights)
