"""Curvature where it is known: regressions, constructed spectra, quadratics."""

from functools import cache, partial
from statistics import geometric_mean

import torch
from hessian_eigenthings import CurvatureOperator
from torch import Tensor, nn

from bnsuite.calibration._row import SEEDS, Row, absolute, at_least, at_most, relative
from bnsuite.calibration.gradients import gaussian
from bnsuite.engine.curvature import Density, HessianOperator, extreme_eigenvalues, spectral_density
from bnsuite.engine.moments import Projected, orthonormal, output_moments, share
from bnsuite.engine.train import train
from bnsuite.networks import FAMILIES, softplus
from bnsuite.schemes import SCHEMES
from bnsuite.tasks.smoothness import along_gradient


class Diagonal(CurvatureOperator):  # type: ignore[misc]  # the library ships no types
    """A spectrum that is known, in a basis that is not."""

    def __init__(self, values: Tensor) -> None:
        draw = torch.Generator().manual_seed(0)
        self.values = values.double()
        self.q, _ = torch.linalg.qr(
            torch.randn(len(values), len(values), generator=draw, dtype=torch.float64)
        )

    @property
    def size(self) -> int:
        return len(self.values)

    @property
    def device(self) -> torch.device:
        return self.values.device

    @property
    def dtype(self) -> torch.dtype:
        return self.values.dtype

    def matvec(self, v: Tensor) -> Tensor:
        product: Tensor = self.q @ (self.values * (self.q.T @ v))
        return product


def near_degenerate(which: int) -> float:
    """Of a spectrum whose two largest are 10 and 9.99 above a bulk to 5."""
    values = torch.cat([torch.tensor([10.0, 9.99]), torch.linspace(-1, 5, 198)])
    return extreme_eigenvalues(Diagonal(values), 3, seed=1, tolerance=1e-5).top[which].value


def at_zero(inputs: int, classes: int = 10) -> nn.Module:
    linear = nn.Linear(inputs, classes, bias=False).double()
    nn.init.zeros_(linear.weight)
    return linear


def regression(x: Tensor) -> HessianOperator:
    """Softmax regression at zero on n inputs (n, d), 10 classes."""
    y = torch.arange(len(x)) % 10
    return HessianOperator(at_zero(x.shape[1]), x[None], y[None], stacked=True)


def shifted(mean: float) -> Tensor:
    draw = torch.Generator().manual_seed(0)
    return torch.randn(2000, 100, generator=draw, dtype=torch.float64) + mean


def softmax_regression() -> tuple[HessianOperator, float]:
    """At zero, with its λ_max: λ_max(XᵀX/n)/C, C − 1 times."""
    x = shifted(0.2)
    return regression(x), float(torch.linalg.eigvalsh(x.T @ x / len(x))[-1]) / 10


def regression_error() -> float:
    operator, truth = softmax_regression()
    return extreme_eigenvalues(operator, seed=0, tolerance=1e-5).top[0].value / truth


def multiplicity() -> float:
    """How often λ_max is found again once the vectors found before are projected out."""
    operator, truth = softmax_regression()
    found = torch.empty(0, operator.size, dtype=torch.float64)
    while True:
        top = extreme_eigenvalues(Projected(operator, found), seed=len(found), tolerance=1e-7).top[0]
        if top.value < 0.999 * truth:
            return len(found)
        found = orthonormal(torch.cat([found, unwrapped(top.vector)[None]]))


def unwrapped(vector: Tensor | None) -> Tensor:
    assert vector is not None
    return vector


def mean_share() -> float:
    """Share of the top eigenvector in the means' span, of softmax regression, over its closed form cos²."""
    x = shifted(0.2)
    direction = torch.linalg.eigh(x.T @ x / len(x)).eigenvectors[:, -1]
    truth = float((direction @ x.mean(0)) ** 2 / x.mean(0).square().sum())
    top = extreme_eigenvalues(regression(x), seed=0, tolerance=1e-6).top[0]
    span = orthonormal(output_moments(at_zero(x.shape[1]), x[None], stacked=True).means)
    return float(share(unwrapped(top.vector)[None], span)) / truth


def two_clusters() -> Density:
    """30 % of the eigenvalues about 1, 70 % about 5, 200 in all."""
    values = torch.cat([torch.linspace(0.9, 1.1, 60), torch.linspace(4.5, 5.5, 140)])
    return spectral_density(Diagonal(values), 40, range(40))


def toy_gap(scheme: str) -> float:
    """λ_{C−1} / λ_C of two hidden layers of 40 after 400 steps of gradient descent; 512 inputs, 4 classes.

    Geometric mean over seeds, of the data too.
    """
    gaps = []
    for seed in (*SEEDS, 103):
        draw = torch.Generator().manual_seed(seed)
        y = torch.arange(512) % 4
        centres = 0.5 * torch.randn(4, 20, generator=draw)
        x = (centres[y] + torch.randn(512, 20, generator=draw)).view(512, 1, 1, 20)
        network = FAMILIES["mlp"].build(
            SCHEMES[scheme], 2, width=40, shape=x.shape[1:], classes=4, seed=seed, activation=softplus
        )
        train(network, [(x, y)] * 400, 0.1)
        operator = HessianOperator(network.double(), x[None].double(), y[None], stacked=False)
        top = extreme_eigenvalues(operator, 4, seed=0).top
        gaps.append(top[2].value / top[3].value)
    return geometric_mean(gaps)


def centering(mean: float) -> float:
    return extreme_eigenvalues(regression(shifted(mean)), seed=0).top[0].value


@cache
def sharpness_at_init(scheme: str, depth: int) -> float:
    """λ_max at initialization, width 100, batch 256, geometric mean over the seeds."""
    data = gaussian(256, 100)
    values = []
    for seed in (*SEEDS, 103):
        network = FAMILIES["mlp"].build(
            SCHEMES[scheme],
            depth,
            width=100,
            shape=data.shape,
            classes=10,
            seed=seed,
            activation=softplus,
        )
        operator = HessianOperator(
            network.double(), data.train_x[None].double(), data.train_y[None], stacked=False
        )
        values.append(extreme_eigenvalues(operator, seed=seed, tolerance=1e-2).top[0].value)
    return geometric_mean(values)


def crossover(depth: int) -> float:
    return sharpness_at_init("batchnorm", depth) / sharpness_at_init("none", depth)


class Point(nn.Module):
    """Parameters θ, whatever the input."""

    def __init__(self, theta: Tensor) -> None:
        super().__init__()
        self.theta = nn.Parameter(theta)

    def forward(self, x: Tensor) -> Tensor:
        return self.theta


def smoothness(which: str) -> float:
    """One of the three over its closed form, on Σ h θ² / 2."""
    h, theta = torch.tensor([[3.0, 1.0, 0.1], [1.0, -2.0, 5.0]], dtype=torch.float64)
    steps = (0.05, 0.1, 0.2)

    def loss(theta: Tensor, y: Tensor) -> Tensor:
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
    found = along_gradient(Point(theta), torch.empty(0), torch.empty(0), steps, loss=loss)
    return float(found._asdict()[which]) / truth[which]


ROWS: tuple[Row, ...] = (
    Row(
        "top_eigenvalue",
        "softmax regression at zero: λ_1 over λ_max(XᵀX/n)/C",
        regression_error,
        absolute(1, 1e-3),
    ),
    Row(
        "top_eigenvalue",
        "the same: its multiplicity, C − 1",
        multiplicity,
        absolute(9, 0),
    ),
    Row("top_eigenvalue", "10 and 9.99 above a bulk: λ_1", partial(near_degenerate, 0), relative(10, 1e-3)),
    Row("top_eigenvalue", "10 and 9.99 above a bulk: λ_2", partial(near_degenerate, 1), relative(9.99, 5e-4)),
    Row(
        "top_eigenvalue",
        "softmax regression, d = 100, inputs of mean 0",
        partial(centering, 0.0),
        relative(0.146, 0.03),
    ),
    Row(
        "top_eigenvalue",
        "softmax regression, d = 100, inputs of mean .5",
        partial(centering, 0.5),
        relative(2.65, 0.03),
    ),
    Row(
        "top_eigenvalue",
        "at initialization, 4 layers: batchnorm over none",
        partial(crossover, 4),
        at_most(0.5),
    ),
    Row(
        "top_eigenvalue",
        "at initialization, 24 layers: batchnorm over none",
        partial(crossover, 24),
        at_least(10),
    ),
    *(
        Row(
            "smoothness",
            f"a quadratic: {name.replace('_', ' ')} over its closed form",
            partial(smoothness, name),
            absolute(1, 1e-3),
        )
        for name in ("loss_range", "gradient_change", "effective_beta")
    ),
    Row(
        "spectrum",
        "30 % of eigenvalues about 1: their mass",
        lambda: two_clusters().mass(0, 2)[0],
        absolute(0.3, 1e-2),
    ),
    Row("spectrum", "70 % about 5: their mass", lambda: two_clusters().mass(4, 6)[0], absolute(0.7, 1e-2)),
    Row("spectrum", "mass in all", lambda: two_clusters().mass(-99, 99)[0], absolute(1, 1e-6)),
    Row("spectrum", "four classes, no normalization: λ_{C−1}/λ_C", partial(toy_gap, "none"), at_least(2)),
    Row("spectrum", "four classes, batchnorm: λ_{C−1}/λ_C", partial(toy_gap, "batchnorm"), at_most(1.4)),
    Row("mean_shift", "softmax regression: share over its closed form", mean_share, absolute(1, 1e-3)),
)
