"""Theory: closed forms and quadratures that measurements are compared with."""

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.polynomial.legendre import leggauss
from numpy.typing import NDArray
from torch import Tensor

from bnsuite.activations import ACTIVATIONS, Function
from bnsuite.names import lookup

Array = NDArray[np.float64]
Norm = Literal["batch", "layer", "rms", "identity"]


def gradient_growth(norm: Norm, activation: str | Function = "relu", batch_size: int | None = None) -> float:
    """Growth β per layer of E‖∂L/∂h_l‖² at initialization, from the output towards the input.

    For wide networks without skips, the normalizer before φ, gain 1, shift 0, ε = 0, weights
    N(0, σ_w² / width) and z ~ N(0, 1):

    - `batch`: with u uniform on the unit sphere orthogonal to 1 in R^B, y = √B u, D = diag φ′(y),
      G = I − 11ᵀ/B and s = E‖Gφ(y)‖² / (B − 1), β = B / ((B − 1)(B − 3) s) · E‖(G − uuᵀ) D G‖²_F. For
      large B it tends to E φ′(z)² / Var φ(z): π / (π − 1) for ReLU. Any σ_w.
    - `layer`, `rms`: E φ′(z)² / E φ(z)². Any σ_w.
    - `identity`: 2 E φ′(√q z)² where q = 2 E φ(√q z)², that is at σ_w² = 2 (He).

    Source: Yang et al., arXiv 1902.08129; the forms for any φ were derived from its setting for this
    project. The norm ‖∂L/∂h_l‖ grows by √β. Derivatives are by autograd, integrals by Gauss quadrature that
    is split at 0, so that a kink there does no harm.

    The `batch` rate assumes that all examples of the batch have equal norms and equal angles. If
    `imbalance_growth` exceeds 1 (GELU from B = 39, SiLU from B = 26) the batch leaves that point with depth,
    and gradients grow at another rate, which depends on width and depth. Simulated at B = 128 and width 1000,
    in layers 4 to 30 of 40: GELU 1.36 (here 1.331), SiLU 1.33 (here 1.223); far from both ends of 160 layers:
    1.40 and 1.39.

    Args:
        norm: normalizer: `batch`, `layer`, `rms` or `identity`.
        activation: a name in `activations.ACTIVATIONS`, or an elementwise function of a tensor.
        batch_size: B; None for B → ∞. Only `batch` depends on it.

    Raises:
        UnknownNameError: no such normalizer or activation.
        ValueError: B ≤ 3 under batch normalization; an activation that is not elementwise, not
            differentiable, not finite or constant.
    """
    phi = lookup("activation", activation, ACTIVATIONS) if isinstance(activation, str) else activation
    if lookup("normalizer", norm, _GAUSSIAN) is not _batch or batch_size is None:
        return _GAUSSIAN[norm](phi)
    if batch_size <= 3:
        raise ValueError(
            f"batch normalization has a gradient of finite variance from 4 examples on: got {batch_size}"
        )
    return _finite_batch(phi, batch_size)


def imbalance_growth(activation: str | Function, batch_size: int) -> float:
    """Growth λ per layer of the difference between two examples' norms, under batch normalization.

    The `batch` rate of `gradient_growth` assumes that all examples of the batch have equal norms and equal
    angles. Every wide network starts near that point, off by about 1/√width. If λ < 1 it returns there. If λ
    > 1, examples that are a little larger become much larger, and the narrower the network, the sooner. λ is
    the eigenvalue of the recursion of the centred Gram matrix C → E[(Gφ(y))(Gφ(y))ᵀ], y along a sample of
    N(0, C), for perturbations G diag(v) G with Σ v = 0. In the notation of `gradient_growth`, with f = Gφ(y):
    λ = B / (2 (B − 2) s) · (B E u_i² f_i² − E‖f‖² / B).

    Args:
        activation: a name in `activations.ACTIVATIONS`, or an elementwise function of a tensor.
        batch_size: B, at least 4.

    Raises:
        UnknownNameError: no such activation.
        ValueError: B ≤ 3, or an activation that `gradient_growth` refuses.
    """
    phi = lookup("activation", activation, ACTIVATIONS) if isinstance(activation, str) else activation
    b = batch_size
    if b <= 3:
        raise ValueError(f"the law of two examples needs at least 4 in the batch: got {b}")
    weight, x, y = _pair(b)
    fx, fy = _evaluate(phi, x).phi, _evaluate(phi, y).phi

    def mean(values: Array) -> float:
        return float((weight * values).sum())

    square, product = mean(fx**2), mean(fx * fy)
    spread = square - product  # s
    own, other = mean(x**2 * fx**2), mean(x**2 * fx * fy)
    whole = (square + (b - 1) * product) / b  # E of the squared mean of φ(y) over the batch; Σ u² = 1
    of_f = own - 2 * (own + (b - 1) * other) / b + whole  # E y_i² f_i²
    return _ratio(b / (2 * (b - 2)) * (of_f - (b - 1) * spread / b), spread, square)


class _Values(NamedTuple):
    """Values of φ and φ′ at a set of points."""

    phi: Array
    slope: Array


def _evaluate(phi: Function, points: Array) -> _Values:
    x = torch.from_numpy(points).requires_grad_()
    y = phi(x)
    if not isinstance(y, Tensor) or y.shape != x.shape:
        raise ValueError("an activation maps a tensor to one of the same shape: this one does not")
    if not y.requires_grad:
        raise ValueError("the activation is not differentiable: autograd finds no path back from its value")
    (slope,) = torch.autograd.grad(y.sum(), x)
    if not bool((torch.isfinite(y) & torch.isfinite(slope)).all()):
        where = f"between {points.min():.3g} and {points.max():.3g}"
        raise ValueError(f"the activation, or its derivative, is not finite {where}")
    return _Values(y.detach().numpy(), slope.numpy())


def _gaussian(phi: Function, deviation: float = 1.0) -> tuple[float, float, float]:
    """E φ, E φ² and E φ′² under N(0, deviation²), by Gauss–Legendre on both sides of 0."""
    nodes, weights = leggauss(200)
    z = 5 * (nodes + 1)  # 0 … 10
    z, weights = np.concatenate([-z[::-1], z]), np.concatenate([weights[::-1], weights])
    weights = 5 * weights * np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    value, slope = _evaluate(phi, deviation * z)
    return float(weights @ value), float(weights @ value**2), float(weights @ slope**2)


def _ratio(slope: float, spread: float, square: float) -> float:
    if spread <= 1e-9 * square or square == 0:  # rounding of the quadrature
        raise ValueError("the activation is constant where its input lies: nothing to normalize")
    return slope / spread


def _batch(phi: Function) -> float:
    mean, square, slope = _gaussian(phi)
    return _ratio(slope, square - mean**2, square)


def _per_sample(phi: Function) -> float:
    _, square, slope = _gaussian(phi)
    return _ratio(slope, square, square)


def _identity(phi: Function) -> float:
    """Rate without a normalizer: follows the variance through layers until it stays, vanishes or explodes."""
    q, slope = 1.0, 0.0
    for _ in range(10_000):
        _, square, slope = _gaussian(phi, math.sqrt(q))
        if abs(2 * square - q) <= 1e-12 * q or not 1e-12 < square < 1e12:
            break
        q = 2 * square
    return 2 * slope


_GAUSSIAN: dict[str, Callable[[Function], float]] = {
    "batch": _batch,
    "layer": _per_sample,
    "rms": _per_sample,
    "identity": _identity,
}


def _finite_batch(phi: Function, b: int) -> float:
    """Rate at batch size b.

    With d = φ′(y), E‖(G − uuᵀ) D G‖² = (b−1) E d_i² (1 − 1/b − y_i²/b) + (b−1)/b · E d_i d_j (1 + y_i y_j).
    """
    weight, x, y = _pair(b)
    (phi_x, dx), (phi_y, dy) = _evaluate(phi, x), _evaluate(phi, y)

    def mean(values: Array) -> float:
        return float((weight * values).sum())

    square = mean(phi_x**2)
    spread = square - mean(phi_x * phi_y)
    trace = (b - 1) * mean(dx**2 * (1 - 1 / b - x**2 / b)) + (b - 1) / b * mean(dx * dy * (1 + x * y))
    return b / ((b - 1) * (b - 3)) * _ratio(trace, spread, square)


def _pair(b: int) -> tuple[Array, Array, Array]:
    """Weights and nodes of a quadrature over the joint distribution of two coordinates of y.

    Two coordinates of a uniform unit vector in R^{b−1} are (t₁, t₂) = r (cos θ, sin θ), θ uniform and
    1 − r² = w^{2/(b−3)} with w uniform in (0, 1); y_i = √(b−1) t₁, and y_j likewise at correlation
    −1 / (b−1).
    """
    rho = -1 / (b - 1)
    turn = math.asin(-rho)  # where y_j changes its sign
    corners = np.array([-math.pi / 2, turn, math.pi / 2, turn + math.pi, 3 * math.pi / 2])
    nodes, weights = leggauss(48)
    middle, half = (corners[1:] + corners[:-1]) / 2, np.diff(corners) / 2
    theta = (middle[:, None] + np.outer(half, nodes)).ravel()
    of_theta = np.outer(half, weights).ravel()
    nodes, weights = leggauss(400)
    radius = np.sqrt(1 - ((nodes + 1) / 2) ** (2 / (b - 3)))
    weight = np.outer(weights / 2, of_theta / (2 * math.pi))
    t1, t2 = np.outer(radius, np.cos(theta)), np.outer(radius, np.sin(theta))
    return weight, math.sqrt(b - 1) * t1, math.sqrt(b - 1) * (rho * t1 + math.sqrt(1 - rho**2) * t2)
