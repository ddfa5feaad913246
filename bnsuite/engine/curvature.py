"""Curvature: a loss's Hessian as an operator, its certified extreme eigenvalues, its spectral density."""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

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


class HessianOperator(CurvatureOperator):  # type: ignore[misc]  # the library ships no types
    """v ↦ H v, H the Hessian of the mean loss over M minibatches in the network's trainable parameters (P,).

    Batch statistics are those of each minibatch. The graph of the gradient is built once and kept, so a
    product costs one backward pass through it; memory grows with the number of examples. Any algorithm
    of hessian-eigenthings runs on it.

    Args:
        network: in training mode; neither its parameters nor its buffers are changed.
        x, y: (M, N, …) and (M, N), on the network's device and in its dtype, y class indices; one minibatch
            is x[None], y[None].
        stacked: whether minibatches may share one `vmap`; None: as `can_stack` finds on the first of them.
        loss: (logits (m, N, classes), y (m, N, …)) → (m,), one mean per minibatch; None: cross-entropy.

    Raises:
        ValueError: sizes, labels, device or dtype that cannot be; no trainable parameter, or one with a hook.

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
        self._params = vector_of(network).requires_grad_()
        self._gradients: list[Tensor] = []
        with Twice():
            for part, logits in outputs(network, self._params, x, stacked=stacked):
                losses = (loss or mean_cross_entropy)(logits, y[part])
                if losses.shape != part.shape:
                    raise ValueError(
                        f"a loss gives one number per minibatch, {tuple(part.shape)}: got "
                        f"{tuple(losses.shape)}. Average over the examples of each alone."
                    )
                mean = losses.sum() / len(x)
                self._gradients += torch.autograd.grad(mean, self._params, create_graph=True)

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


def outputs(
    network: nn.Module, params: Tensor, x: Tensor, *, stacked: bool
) -> Iterator[tuple[Tensor, Tensor]]:
    """Some of the minibatches x (M, N, …) at a time: which ones, and their logits (m, N, classes).

    With the batch statistics of each; a function of the parameters (P,), which are not the network's own.
    """
    named = unflatten(params, network)
    for part in torch.split(torch.arange(len(x), device=x.device), MINIBATCHES_AT_ONCE):
        stack = Stack([network] * len(part), [0] * len(part), stacked=stacked)
        shared = {name: p.expand(len(part), *p.shape) for name, p in named.items()}
        yield part, stack.forward(shared, x[part])


def unflatten(vector: Tensor, network: nn.Module) -> Parameters:
    """Views of a vector (P,) as the trainable parameters of a network by name."""
    named = trainable(network)
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


class Ritz(NamedTuple):
    """What m steps of Lanczos know: values (m,), ascending; vectors (m, m), a column each, in the basis."""

    values: np.ndarray
    vectors: np.ndarray
    rest: float  # β_m, the norm of what the basis leaves of its last product
    basis: Tensor  # (m, P), orthonormal rows

    def residual(self, i: int) -> float:
        """Estimate of ‖Hv − θv‖ / |θ| for pair i."""
        return float(self.rest * abs(self.vectors[-1, i]) / max(abs(self.values[i]), 1e-300))


def lanczos(operator: CurvatureOperator, seed: int) -> Iterator[Ritz]:
    """Lanczos with full reorthogonalization, a product a step, until nothing is left of the space.

    With β ≤ 1e-12 max|θ| the basis spans an invariant subspace, whose eigenvalues the θ are; this ends it.
    Source: C. Paige, "Computational variants of the Lanczos method", 1972.

    Args:
        seed: of the Gaussian start, drawn on the CPU in float64.

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
    """Largest and smallest (algebraic) eigenvalues by Lanczos with full reorthogonalization.

    Stops once every wanted Ritz pair has an estimated residual of at most tolerance / 2, or at
    `max_products`; then λ_max (and λ_min, where wanted) is certified by a product with its own vector.

    Args:
        seed: of the Gaussian start, drawn on the CPU in float64.
        vectors: certify every wanted pair so, and return its vector.

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
    """`extreme_eigenvalues` with Lanczos in float32, where a product costs about half, certified in float64.

    Where float32 overflows, or a residual is above `tolerance`, all is done again in float64.

    Args:
        hessian: builds the operator in a precision; one at a time is kept.
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
        raise ValueError(f"wanted {top} + {bottom} eigenvalues of an operator of size {operator.size}")
    for ritz in islice(lanczos(operator, seed), max(1, max_products)):
        m = len(ritz.values)
        wanted = [*range(m - 1, max(m - 1 - top, -1), -1), *range(min(bottom, m))]
        if m >= top + bottom and max(map(ritz.residual, wanted)) <= tolerance / 2:
            break
    return ritz


def _certify(
    operator: CurvatureOperator, ritz: Ritz, top: int, bottom: int, vectors: bool = False
) -> Spectrum:
    """The ends of the spectrum from Ritz pairs, perhaps of a lower precision; λ_max and λ_min by products."""

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
    """Rayleigh quotient λ = vᵀHv of a vector and its residual ‖Hv − λv‖ / |λ|, by one product."""
    vector = vector / vector.norm()
    product = operator.matvec(vector)
    value = float(vector @ product)
    residual = float((product - value * vector).norm()) / max(abs(value), 1e-300)
    return Eigenvalue(value, residual, vector)


class Density(NamedTuple):
    """A spectral measure by quadrature, a row a probe: Σ_j w_j f(θ_j) ≈ tr f(H) / P; Σ_j w_j = 1."""

    nodes: Tensor  # (k, m) θ, ascending
    weights: Tensor  # (k, m) w

    def smoothed(self, at: Tensor, width: float) -> tuple[Tensor, Tensor]:
        """Density at the points (n,), smoothed by a Gaussian of deviation `width` in units of H.

        Mean over probes and its standard error, each (n,), in 1 / units of H.
        """
        if width <= 0:
            raise ValueError(f"the width of a kernel is above 0: got {width}")
        distance = (at - self.nodes.unsqueeze(-1)) / width  # (k, m, n)
        bumps = torch.exp(-(distance**2) / 2) / (width * math.sqrt(2 * math.pi))
        return _mean((self.weights.unsqueeze(-1) * bumps).sum(1))

    def mass(self, low: float, high: float) -> tuple[float, float]:
        """Share of the eigenvalues in [low, high], mean over probes and its standard error."""
        inside = (self.nodes >= low) & (self.nodes <= high)
        mean, error = _mean((self.weights * inside).sum(1))
        return float(mean), float(error)


def _mean(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Mean over rows (k, …) and its standard error, NaN for a single row."""
    mean = rows.mean(0)
    squares = ((rows - mean) ** 2).sum(0)
    return mean, (squares / (len(rows) - 1) / len(rows)).sqrt() if len(rows) > 1 else mean * math.nan


def spectral_density(operator: CurvatureOperator, order: int, seeds: Sequence[int]) -> Density:
    """Stochastic Lanczos quadrature: of every probe the Ritz values and their squared first components.

    The rule of order m is exact for polynomials up to degree 2m − 1 in its probe's own spectral measure;
    where Lanczos ends early it is exact for all functions, and its row is filled up with nodes of weight 0.
    Sources: G. Golub and J. Welsch, 1969; B. Ghorbani et al., arXiv 1901.10159.

    Args:
        order: m, nodes a probe.
        seeds: one a probe, of its Gaussian start, drawn on the CPU in float64.

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
        torch.as_tensor(np.stack(each), dtype=torch.float64) for each in zip(*rows, strict=True)
    )
    return Density(nodes, weights)
