"""Known cases of curvature: regressions, constructed spectra, quadratics."""

from collections.abc import Callable
from functools import cache, partial
from statistics import geometric_mean

import torch
from hessian_eigenthings import CurvatureOperator, LambdaOperator
from torch import Tensor, nn

from bnsuite.calibration._case import SEEDS, KnownCase, absolute, at_least, at_most, relative
from bnsuite.calibration.gradients import gaussian
from bnsuite.datasets import Dataset
from bnsuite.engine.curvature import (
    HessianOperator,
    eigenthings_lambda_max,
    extreme_eigenvalues,
    spectral_density,
)
from bnsuite.engine.moments import orthonormal, output_moments, projected, share
from bnsuite.engine.train import train
from bnsuite.networks import FAMILIES, softplus
from bnsuite.schemes import SCHEMES
from bnsuite.tasks import Subject
from bnsuite.tasks.smoothness import Along, along_gradient


def in_random_basis(values: Tensor) -> CurvatureOperator:
    """Build an operator with the given eigenvalues (n,) in a random orthonormal basis."""
    draw = torch.Generator().manual_seed(0)
    q, _ = torch.linalg.qr(torch.randn(len(values), len(values), generator=draw, dtype=torch.float64))
    values = values.double()
    return LambdaOperator(lambda v: q @ (values * (q.T @ v)), len(values), dtype=torch.float64)


NEAR_DEGENERATE = torch.cat([torch.tensor([10.0, 9.99]), torch.linspace(-1, 5, 198)])
"""Eigenvalues of which the two largest are 10 and 9.99 above a bulk that reaches 5."""


def near_degenerate(which: int) -> float:
    """Measure one of the largest eigenvalues of `NEAR_DEGENERATE`, counted from 0."""
    operator = in_random_basis(NEAR_DEGENERATE)
    return extreme_eigenvalues(operator, 3, seed=1, tolerance=1e-5).top[which].value


def at_zero(inputs: int, classes: int = 10) -> nn.Module:
    """Build a linear map whose weights (classes, inputs) are 0, in float64."""
    linear = nn.Linear(inputs, classes, bias=False).double()
    nn.init.zeros_(linear.weight)
    return linear


def regression(x: Tensor) -> HessianOperator:
    """Build the Hessian of softmax regression at zero on n inputs (n, d), 10 classes."""
    y = torch.arange(len(x)) % 10
    return HessianOperator(at_zero(x.shape[1]), x[None], y[None], stacked=True)


def shifted(mean: float) -> Tensor:
    """Draw 2,000 Gaussian inputs of dimension 100, each coordinate with this mean and variance 1."""
    draw = torch.Generator().manual_seed(0)
    return torch.randn(2000, 100, generator=draw, dtype=torch.float64) + mean


def softmax_regression() -> tuple[HessianOperator, float]:
    """Build softmax regression at zero, and compute its λ_max in closed form: λ_max(XᵀX/n)/C, C − 1 times."""
    x = shifted(0.2)
    return regression(x), float(torch.linalg.eigvalsh(x.T @ x / len(x))[-1]) / 10


def regression_error() -> float:
    """Divide the measured λ_max of softmax regression by its closed form."""
    operator, truth = softmax_regression()
    return extreme_eigenvalues(operator, seed=0, tolerance=1e-5).top[0].value / truth


def multiplicity() -> float:
    """Count the eigenvectors of λ_max by projecting out one after the other."""
    operator, truth = softmax_regression()
    vectors = torch.empty(0, operator.size, dtype=torch.float64)
    while True:
        top = extreme_eigenvalues(projected(operator, vectors), seed=len(vectors), tolerance=1e-7).top[0]
        if top.value < 0.999 * truth:
            return len(vectors)
        vectors = orthonormal(torch.cat([vectors, unwrapped(top.vector)[None]]))


def over_eigenthings(build: Callable[[], CurvatureOperator]) -> float:
    """Divide our λ_max by that of hessian-eigenthings' Lanczos, with as many products from another start."""
    operator = build()
    ours = extreme_eigenvalues(operator, seed=0, tolerance=1e-5)
    return ours.top[0].value / eigenthings_lambda_max(operator, ours.products, seed=1)


def unwrapped(vector: Tensor | None) -> Tensor:
    """Return the vector of a certified eigenvalue, which always has one."""
    assert vector is not None
    return vector


def mean_share() -> float:
    """Divide the top vector's share in the means' span by its closed form cos² (softmax regression)."""
    x = shifted(0.2)
    direction = torch.linalg.eigh(x.T @ x / len(x)).eigenvectors[:, -1]
    truth = float((direction @ x.mean(0)) ** 2 / x.mean(0).square().sum())
    top = extreme_eigenvalues(regression(x), seed=0, tolerance=1e-6).top[0]
    span = orthonormal(output_moments(at_zero(x.shape[1]), x[None], stacked=True).means)
    return float(share(unwrapped(top.vector)[None], span)) / truth


def mass(low: float, high: float) -> float:
    """Estimate the mass in [low, high] of 200 eigenvalues, 30 % of them about 1 and 70 % about 5."""
    values = torch.cat([torch.linspace(0.9, 1.1, 60), torch.linspace(4.5, 5.5, 140)])
    return spectral_density(in_random_basis(values), 40, range(40)).mass(low, high)[0]


def toy_gap(scheme: str) -> float:
    """Measure λ_{C−1} / λ_C of two hidden layers of 40 after 400 steps of gradient descent.

    There are 512 inputs in C = 4 classes. Geometric mean over seeds, which fix network and data.
    """
    gaps = []
    for seed in (*SEEDS, 103):
        draw = torch.Generator().manual_seed(seed)
        y = torch.arange(512) % 4
        centres = 0.5 * torch.randn(4, 20, generator=draw)
        x = (centres[y] + torch.randn(512, 20, generator=draw)).view(512, 1, 1, 20)
        data = Dataset("toy", x, y, x, y, classes=4)
        network = Subject(SCHEMES[scheme], FAMILIES["mlp"], data).network(2, 40, seed, softplus)
        train(network, [(x, y)] * 400, 0.1)
        operator = HessianOperator(network.double(), x[None].double(), y[None], stacked=False)
        top = extreme_eigenvalues(operator, 4, seed=0).top
        gaps.append(top[2].value / top[3].value)
    return geometric_mean(gaps)


def sharpness_at_mean(mean: float) -> float:
    """Measure λ_max of softmax regression on inputs with this mean."""
    return extreme_eigenvalues(regression(shifted(mean)), seed=0).top[0].value


def hessian_at_init(scheme: str, depth: int, seed: int) -> HessianOperator:
    """Build the Hessian of an MLP at initialization: width 100, one batch of 256 Gaussian inputs.

    Args:
        scheme: name of the scheme.
        depth: number of layers.
        seed: seed of the initialization.
    """
    data = gaussian(256, 100)
    network = Subject(SCHEMES[scheme], FAMILIES["mlp"], data).network(depth, 100, seed, softplus)
    x, y = data.train_x[None].double(), data.train_y[None]
    return HessianOperator(network.double(), x, y, stacked=False)


@cache
def sharpness_at_init(scheme: str, depth: int) -> float:
    """Measure λ_max of `hessian_at_init`, geometric mean over the seeds."""
    return geometric_mean(
        extreme_eigenvalues(hessian_at_init(scheme, depth, seed), seed=seed, tolerance=1e-2).top[0].value
        for seed in (*SEEDS, 103)
    )


def crossover(depth: int) -> float:
    """Divide λ_max with batch norm at initialization by λ_max without normalization."""
    return sharpness_at_init("batchnorm", depth) / sharpness_at_init("none", depth)


class Point(nn.Module):
    """Module whose output is its parameters θ, whatever the input."""

    def __init__(self, theta: Tensor) -> None:
        super().__init__()
        self.theta = nn.Parameter(theta)

    def forward(self, x: Tensor) -> Tensor:  # noqa: ARG002
        return self.theta


def smoothness(which: str) -> float:
    """Divide one of the three numbers of `along_gradient` by its closed form on Σ h θ² / 2."""
    h, theta = torch.tensor([[3.0, 1.0, 0.1], [1.0, -2.0, 5.0]], dtype=torch.float64)
    steps = (0.05, 0.1, 0.2)

    def loss(theta: Tensor, _y: Tensor) -> Tensor:
        half: Tensor = (h * theta.square()).sum() / 2
        return half

    g = h * theta
    losses = [float(loss(theta - eta * g, theta)) for eta in (0.0, *steps)]
    beta = float((h * g).norm() / g.norm())
    truth = {
        "loss_range": max(losses) - min(losses),
        "gradient_change": max(steps) * beta,
        "effective_beta": beta,
    }
    along = along_gradient(Point(theta), torch.empty(0), torch.empty(0), steps, loss=loss)
    return float(along._asdict()[which]) / truth[which]


CASES: tuple[KnownCase, ...] = (
    KnownCase(
        "top_eigenvalue",
        "softmax regression at zero: λ_1 over λ_max(XᵀX/n)/C",
        regression_error,
        absolute(1, 1e-3),
    ),
    KnownCase("top_eigenvalue", "the same: its multiplicity, C − 1", multiplicity, absolute(9, 0)),
    *(
        KnownCase(
            "top_eigenvalue", f"10 and 9.99 above a bulk: λ_{i + 1}", partial(near_degenerate, i), accept
        )
        for i, accept in enumerate((relative(10, 1e-3), relative(9.99, 5e-4)))
    ),
    *(
        KnownCase(
            "top_eigenvalue",
            f"{experiment}: λ_1 over that of hessian-eigenthings' Lanczos",
            partial(over_eigenthings, build),
            absolute(1, 1e-6),
        )
        for experiment, build in (
            ("10 and 9.99 above a bulk", partial(in_random_basis, NEAR_DEGENERATE)),
            ("softmax regression at zero", lambda: softmax_regression()[0]),
            ("at initialization, 8 layers of batchnorm", partial(hessian_at_init, "batchnorm", 8, SEEDS[0])),
        )
    ),
    *(
        KnownCase(
            "top_eigenvalue",
            f"softmax regression, d = 100, inputs of mean {mean}",
            partial(sharpness_at_mean, float(mean)),
            relative(expected, 0.03),
        )
        for mean, expected in (("0", 0.146), (".5", 2.65))
    ),
    *(
        KnownCase(
            "top_eigenvalue",
            f"at initialization, {depth} layers: batchnorm over none",
            partial(crossover, depth),
            accept,
        )
        for depth, accept in ((4, at_most(0.5)), (24, at_least(10)))
    ),
    *(
        KnownCase(
            "smoothness",
            f"a quadratic: {name.replace('_', ' ')} over its closed form",
            partial(smoothness, name),
            absolute(1, 1e-3),
        )
        for name in Along._fields
    ),
    KnownCase(
        "spectrum", "30 % of eigenvalues about 1: their mass", partial(mass, 0, 2), absolute(0.3, 1e-2)
    ),
    KnownCase("spectrum", "70 % about 5: their mass", partial(mass, 4, 6), absolute(0.7, 1e-2)),
    KnownCase("spectrum", "mass in all", partial(mass, -99, 99), absolute(1, 1e-6)),
    KnownCase(
        "spectrum", "four classes, no normalization: λ_{C−1}/λ_C", partial(toy_gap, "none"), at_least(2)
    ),
    KnownCase(
        "spectrum", "four classes, batchnorm: λ_{C−1}/λ_C", partial(toy_gap, "batchnorm"), at_most(1.4)
    ),
    KnownCase("mean_shift", "softmax regression: share over its closed form", mean_share, absolute(1, 1e-3)),
)
