"""Calibration: every instrument measures something whose truth is known, and shows how far it is off."""

import math
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from functools import cache, partial
from statistics import geometric_mean
from typing import Any, NamedTuple

import numpy as np
import torch
from hessian_eigenthings import CurvatureOperator
from torch import Tensor, nn

from bnsuite.board.stats import ALPHA, sign_flip_p
from bnsuite.datasets import Dataset
from bnsuite.engine.curvature import Density, HessianOperator, extreme_eigenvalues, spectral_density
from bnsuite.engine.moments import Projected, orthonormal, output_moments, share
from bnsuite.engine.search import Climb, climb, log_grid
from bnsuite.engine.train import train, training_step
from bnsuite.networks import FAMILIES, Network, softplus
from bnsuite.norms import BatchNorm
from bnsuite.provenance import environment, reproducible
from bnsuite.records import CALIBRATION, Json, Outcome, Provenance, Record, median_interval
from bnsuite.schemes import SCHEMES, Scheme
from bnsuite.tasks import FirstStep, GradientGrowth, OverflowDepth, ScaleLaw, Subject, TimeToAccuracy
from bnsuite.tasks.smoothness import along_gradient
from bnsuite.words import lookup

SEEDS = (101, 102)


class Accept(NamedTuple):
    """What a row expects, and the ends between which a reading is right."""

    expected: float | None
    low: float
    high: float


class Row(NamedTuple):
    """One instrument on one experiment."""

    instrument: str
    experiment: str
    measure: Callable[[], float]
    accept: Accept


class Reading(NamedTuple):
    """A row that was measured. `tolerance` are the ends between which it is right; None: open."""

    instrument: str
    experiment: str
    measured: float | None
    expected: float | None
    tolerance: tuple[float | None, float | None]
    ok: bool


def relative(expected: float, share: float) -> Accept:
    return Accept(expected, expected * (1 - share), expected * (1 + share))


def absolute(expected: float, by: float) -> Accept:
    return Accept(expected, expected - by, expected + by)


def at_least(low: float) -> Accept:
    return Accept(None, low, math.inf)


def at_most(high: float) -> Accept:
    return Accept(None, -math.inf, high)


# --- gradients at initialization: rates of arXiv 1902.08129, simulated for this project ---


def gaussian(n: int, width: int, scale: float = 1.0, classes: int = 10) -> Dataset:
    """n inputs of `width` independent normal numbers."""
    draw = torch.Generator().manual_seed(0)
    x, y = scale * torch.randn(n, 1, 1, width, generator=draw), torch.arange(n) % classes
    return Dataset("gaussian", x, y, x, y, classes)


def mlp(scheme: Scheme, batch: int, scale: float = 1.0) -> Subject:
    return Subject(scheme, FAMILIES["mlp"], gaussian(batch, 256, scale))


def _exact(num_features: int) -> nn.Module:
    return BatchNorm(num_features, eps=1e-12)


@torch.no_grad()
def _tenfold(network: nn.Module) -> None:
    """Hidden weights × 10."""
    assert isinstance(network, Network)
    for layer in network.weights():
        for weight in layer:
            weight.mul_(10)


def growth(scheme: Scheme, activation: str, batch: int, width: int = 1000, depth: int = 40) -> float:
    """β, mean over the calibration's seeds."""
    task = GradientGrowth(
        width=width, batch=batch, tuning=(), confirmation=SEEDS, depth=depth, activation=activation
    )
    return value_of(task(mlp(scheme, batch)).value)


def residual_ratio(depth: int) -> float:
    """‖∂L/∂h_1‖² / ‖∂L/∂h_L‖² where h_1 has variance 1, at a batch so large that it adds little."""
    task = GradientGrowth(width=384, batch=512, tuning=(), confirmation=SEEDS, depth=depth)
    return value_of(task(mlp(SCHEMES["residual-batchnorm"], 512, math.sqrt(0.5))).derived["first_to_last"])


def value_of(found: object) -> float:
    return float(found) if isinstance(found, int | float) else math.nan


@cache
def first_step() -> dict[str, float]:
    task = FirstStep(width=384, batch=128, tuning=(), confirmation=SEEDS, depth=100, rate=0.1)
    found = task(mlp(Scheme("frozen", partial(BatchNorm, eps=1e-3, affine=False)), 128))
    return {"value": value_of(found.value), "growth": value_of(found.derived["weight_growth"])}


def overflow() -> float:
    task = OverflowDepth(
        width=256, batch=128, tuning=(), confirmation=SEEDS[:1], depths=(120, 480), half=(1, 1), ratio=1.03
    )
    return value_of(task(mlp(SCHEMES["batchnorm"], 128)).value)


@cache
def scale_law() -> tuple[float, float, float]:
    task = ScaleLaw(width=64, batch=32, tuning=(), confirmation=SEEDS[:1])
    return task.exponents(mlp(Scheme("exact", _exact), 32), SEEDS[0])


# --- rates and curvature ---


def stable_rate(momentum: float) -> float:
    """λ times the largest rate at which training on λ θ² / 2 does not diverge, by counting, λ = 7."""
    sharpness = torch.tensor([7.0, 2.0, 0.5], dtype=torch.float64)
    rates = log_grid(0.1 / 7, 400, 800)
    params = {"theta": torch.ones(len(rates), 3, dtype=torch.float64)}
    velocity = None
    nothing = torch.zeros(len(rates), 1, dtype=torch.long)
    for _ in range(1500):
        stepped = training_step(
            lambda params, x: params["theta"].unsqueeze(1),
            params,
            velocity,
            nothing,
            nothing,
            torch.tensor(rates, dtype=torch.float64),
            momentum,
            loss=lambda theta, y: (sharpness * theta.square()).sum((-1, -2)) / 2,
        )
        params, velocity = stepped.params, stepped.velocity
    stable = int((params["theta"].norm(dim=1) <= math.sqrt(3)).sum())
    return 7 * rates[stable - 1]


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


# --- searches, clocks and intervals ---


class Countdown(nn.Module):
    """Right about every test example from the 38th training step on: x holds the label."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.register_buffer("steps", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        steps = self.get_buffer("steps")
        if self.training:
            steps.add_(1)
        right = torch.where(steps >= 38, 1.0, -1.0)
        return x.flatten(1) * right + self.weight


class _Countdowns:
    """A family of nothing else."""

    name = "countdown"

    def build(self, *args: object, **kwargs: object) -> nn.Module:
        return Countdown()


def steps_to_target() -> float:
    y = torch.arange(64) % 4
    x = nn.functional.one_hot(y, 4).float().view(64, 1, 1, 4)
    family: Any = _Countdowns()
    subject = Subject(SCHEMES["none"], family, Dataset("labels", x, y, x, y, 4))
    task = TimeToAccuracy(
        width=1, batch=16, tuning=(1,), confirmation=SEEDS, rates=(1e-3,), target=0.95, steps=60, every=2
    )
    return value_of(task(subject).value)


def searches_inside(trials: int = 2000) -> float:
    """Share of searches over depth whose every bracket holds its seed's own threshold."""
    draw = np.random.default_rng(0)
    inside = 0
    for _ in range(trials):
        thresholds = np.exp(draw.uniform(math.log(4), math.log(100), size=5)).astype(int)
        steps = climb(4, 128, 1.13)
        probe = next(steps)
        while True:
            try:
                probe = steps.send([bool(probe.depth <= threshold) for threshold in thresholds])
            except StopIteration as ended:
                found: Climb = ended.value
                break
        inside += all(
            (b.passed or 0) <= threshold and (b.failed is None or threshold < b.failed)
            for b, threshold in zip(found.brackets, thresholds, strict=True)
        )
    return inside / trials


def coverage(trials: int = 20_000) -> float:
    """How often the interval of the median of 6 draws from a skewed law holds the median."""
    interval = median_interval(6)
    draws = np.sort(np.random.default_rng(0).lognormal(size=(trials, 6)))
    return float(((draws[:, interval.low] <= 1) & (draws[:, interval.high] >= 1)).mean())


def false_positives(trials: int = 4000) -> float:
    """How often the paired test tells apart what does not differ, 6 pairs."""
    draws = np.random.default_rng(0).laplace(size=(trials, 6))
    return float(np.mean([sign_flip_p(differences) < ALPHA for differences in draws]))


_BN, _NONE, _LN = (SCHEMES[name] for name in ("batchnorm", "none", "layernorm"))
_WIDE = "width 1000, 40 layers"

ROWS: tuple[Row, ...] = (
    Row(
        "gradient_growth",
        f"batchnorm, ReLU, batch 128, {_WIDE}",
        partial(growth, _BN, "relu", 128),
        relative(1.4797, 0.02),
    ),
    Row(
        "gradient_growth",
        f"batchnorm, ReLU, batch 16, {_WIDE}",
        partial(growth, _BN, "relu", 16),
        relative(1.590, 0.03),
    ),
    Row(
        "gradient_growth",
        f"batchnorm, linear, batch 16, {_WIDE}",
        partial(growth, _BN, "linear", 16),
        absolute(1.0769, 0.01),
    ),
    Row(
        "gradient_growth",
        f"batchnorm, tanh, batch 128, {_WIDE}",
        partial(growth, _BN, "tanh", 128),
        relative(1.186, 0.015),
    ),
    Row(
        "gradient_growth",
        f"none, ReLU, batch 128, {_WIDE}",
        partial(growth, _NONE, "relu", 128),
        absolute(1, 0.03),
    ),
    Row(
        "gradient_growth",
        f"layernorm, ReLU, batch 128, {_WIDE}",
        partial(growth, _LN, "relu", 128),
        absolute(1, 0.03),
    ),
    Row(
        "gradient_growth",
        "batchnorm, hidden weights × 10 over × 1",
        lambda: (
            growth(Scheme("tenfold", _exact, init=_tenfold), "relu", 16, 256, 24)
            / growth(Scheme("exact", _exact), "relu", 16, 256, 24)
        ),
        absolute(1, 1e-3),
    ),
    Row(
        "gradient_growth",
        "residual-batchnorm, 17 layers: first over last",
        partial(residual_ratio, 17),
        relative(31.8, 0.1),
    ),
    Row(
        "gradient_growth",
        "residual-batchnorm, 257 layers: first over last",
        partial(residual_ratio, 257),
        relative(1619, 0.1),
    ),
    Row(
        "first_step",
        "batchnorm, γ and β frozen, 100 layers, rate .1: ‖W_2‖ grows by",
        lambda: first_step()["growth"],
        at_least(1e5),
    ),
    Row(
        "first_step",
        "relative gradient of layer 2 over the last",
        lambda: first_step()["value"],
        Accept(1e-4, 1e-5, 1e-3),
    ),
    Row("overflow_depth", "batchnorm, batch 128, width 256: Σ g² in float32", overflow, relative(226, 0.15)),
    Row("scale_law", "exponent of the weight gradient", lambda: scale_law()[0], absolute(-1, 1e-4)),
    Row(
        "scale_law",
        "exponent of the gradient before the normalizer",
        lambda: scale_law()[1],
        absolute(-1, 1e-4),
    ),
    Row("scale_law", "|cos(W, ∇W)|", lambda: scale_law()[2], absolute(0, 1e-4)),
    Row("stable_lr", "a quadratic: rate · λ, plain SGD", partial(stable_rate, 0.0), relative(2, 0.02)),
    Row(
        "time_to_accuracy",
        "a quadratic: rate · λ, Nesterov .9: 2(1 + m)/(1 + 2m)",
        partial(stable_rate, 0.9),
        relative(3.8 / 2.8, 0.02),
    ),
    Row("time_to_accuracy", "a network that is right from step 38 on", steps_to_target, absolute(38, 0)),
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
    Row("max_depth", "known thresholds inside their brackets", searches_inside, absolute(1, 0)),
    Row("intervals", "coverage of the interval of the median, n = 6", coverage, absolute(0.96875, 0.015)),
    Row("intervals", "false positives of the paired test, n = 6", false_positives, at_most(ALPHA + 0.015)),
)
"""Every row, by instrument. Where figures come from: arXiv 1902.08129 and simulations for this project."""


def readings(only: str | None = None) -> Iterator[Reading]:
    """Measure the rows of one instrument, or of all, one after the other.

    Raises:
        UnknownNameError: no such instrument.
    """
    if only is not None:
        lookup("instrument", only, {row.instrument: row for row in ROWS})
    for row in ROWS:
        if only in (None, row.instrument):
            with reproducible(torch.device("cpu")):
                reading = read(row)
            yield reading


def read(row: Row) -> Reading:
    """Measure one row; what is not finite is not right."""
    measured = float(row.measure())
    expected, low, high = row.accept
    ends = (low if math.isfinite(low) else None, high if math.isfinite(high) else None)
    shown = measured if math.isfinite(measured) else None
    return Reading(row.instrument, row.experiment, shown, expected, ends, low <= measured <= high)


def as_record(rows: Sequence[Reading], started: datetime, seconds: float) -> Record:
    """The readings as one record, by which they reach the board."""
    provenance = Provenance(
        **environment(torch.device("cpu")),
        scheme_source="",
        dataset_checksum="",
        stacked=None,
        seeds={"confirmation": list(SEEDS)},
        started=started.isoformat(timespec="milliseconds"),
        duration_s=round(seconds, 3),
    )
    trace: list[dict[str, Json]] = [{**row._asdict(), "tolerance": list(row.tolerance)} for row in rows]
    return Record(
        id="",
        key="",
        task=CALIBRATION,
        task_version=1,
        question="How far off are the instruments where the truth is known?",
        scheme="none",
        family="mlp",
        dataset="known",
        profile=CALIBRATION,
        device="cpu",
        settings={},
        unit="share of rows that hold",
        better="higher",
        value=sum(row.ok for row in rows) / len(rows),
        outcome=Outcome.OK,
        trace=tuple(trace),
        provenance=provenance,
    ).sealed()
