"""The rate of gradient growth against closed forms, against its definition, against a simulated network."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bnsuite.activations import ACTIVATIONS
from bnsuite.names import UnknownNameError
from bnsuite.theory import gradient_growth, imbalance_growth

SIZES = [4, 5, 6, 8, 16, 64, 128, 1000]


@pytest.mark.parametrize("b", SIZES)
def test_linear(b: int) -> None:
    assert gradient_growth("batch", "linear", b) == pytest.approx((b - 2) / (b - 3), rel=1e-5)


@pytest.mark.parametrize("b", SIZES)
def test_relu_against_the_papers_closed_form(b: int) -> None:
    c = -1 / (b - 1)
    j = (math.sqrt(1 - c * c) + (math.pi - math.acos(c)) * c) / math.pi
    slope = (math.pi - math.acos(c)) / math.pi
    expected = ((b - 1 + slope) / (1 - j) - 1) / (b - 3)
    assert gradient_growth("batch", "relu", b) == pytest.approx(expected, rel=1e-5)


def test_large_batches() -> None:
    assert gradient_growth("batch", "relu") == pytest.approx(math.pi / (math.pi - 1), rel=1e-9)
    for name in ("relu", "tanh", "gelu", "leaky_relu"):
        limit = gradient_growth("batch", name)
        assert gradient_growth("batch", name, 10**5) == pytest.approx(limit, rel=2e-4)


@pytest.mark.parametrize("norm", ["layer", "rms", "identity"])
def test_relu_without_the_batch_neither_grows_nor_vanishes(norm: Any) -> None:
    assert gradient_growth(norm, "relu") == pytest.approx(1, rel=1e-9)
    assert gradient_growth(norm, "relu", 16) == gradient_growth(norm, "relu")


def test_without_normalization() -> None:
    assert gradient_growth("identity", "linear") == pytest.approx(2)
    scaled = gradient_growth("identity", lambda x: 0.5 * x)
    assert scaled == pytest.approx(0.5)


def test_a_scale_of_the_activation_does_not_matter_under_normalization() -> None:
    for norm in ("batch", "layer"):
        one, ten = (gradient_growth(norm, lambda x, a=a: a * torch.tanh(x), 16) for a in (1.0, 10.0))
        assert one == pytest.approx(ten, rel=1e-12)


@pytest.mark.parametrize("name", ["tanh", "relu", "silu", "erf"])
def test_finite_batches_against_the_definition(name: str) -> None:
    """The mean over random u of ‖(G − uuᵀ) D G‖², with matrices, in place of the quadrature."""
    b, n = 7, 50_000
    phi = ACTIVATIONS[name]
    g = torch.eye(b, dtype=torch.float64) - 1 / b
    u = torch.randn(n, b, generator=torch.Generator().manual_seed(0), dtype=torch.float64) @ g
    u = u / u.norm(dim=1, keepdim=True)
    y = (math.sqrt(b) * u).requires_grad_()
    value = phi(y)
    (d,) = torch.autograd.grad(value.sum(), y)
    value = value.detach()
    spread = (value @ g).square().sum(1).mean() / (b - 1)
    matrices = (g - u[:, :, None] * u[:, None, :]) @ (d[:, :, None] * g)
    expected = b / ((b - 1) * (b - 3)) * matrices.square().sum((1, 2)).mean() / spread
    assert gradient_growth("batch", name, b) == pytest.approx(expected.item(), rel=2e-2)


def simulated(phi: Any, b: int, width: int = 512, depth: int = 24) -> float:
    """Growth a layer in one wide random network, middle layers, by autograd alone."""
    draw = torch.Generator().manual_seed(0)
    hidden: list[Tensor] = [torch.randn(b, width, generator=draw).requires_grad_()]
    for _ in range(depth):
        weight = torch.randn(width, width, generator=draw) / math.sqrt(width)
        hidden.append(phi(F.batch_norm(hidden[-1], None, None, training=True, eps=1e-12)) @ weight)
    loss = (hidden[-1] * torch.randn(b, width, generator=draw)).sum()
    gradients = torch.autograd.grad(loss, hidden)
    first, last = (math.log(float(gradients[i].square().sum())) for i in (4, depth - 4))
    return math.exp((first - last) / (depth - 8))


@pytest.mark.parametrize(
    ("name", "b"),
    [
        ("relu", 16),
        ("tanh", 16),
        ("relu", 48),
        ("leaky_relu", 24),
        ("gelu", 16),
        ("silu", 16),
        ("mish", 24),
    ],
)
def test_a_wide_network_does_so(name: str, b: int) -> None:
    found = simulated(ACTIVATIONS[name], b)
    assert found == pytest.approx(gradient_growth("batch", name, b), rel=0.04)
    assert abs(found - gradient_growth("batch", name, 4)) > 0.1
    assert imbalance_growth(name, b) < 1


def test_a_batch_that_grows_unequal_leaves_the_rate() -> None:
    def steep(x: Tensor) -> Tensor:
        return F.relu(x) ** 1.5

    for b, imbalance in ((8, 0.956), (32, 1.341)):
        rate = gradient_growth("batch", steep, b)
        assert imbalance_growth(steep, b) == pytest.approx(imbalance, abs=1e-3)
        assert (simulated(steep, b) < 1.05 * rate) == (imbalance < 1)


@pytest.mark.parametrize("b", SIZES)
def test_imbalance_of_a_linear_network(b: int) -> None:
    assert imbalance_growth("linear", b) == pytest.approx((b - 1) / (b + 1), rel=1e-4)


@pytest.mark.parametrize(("name", "b"), [("silu", 8), ("tanh", 8), ("relu", 6), ("gelu", 64)])
def test_imbalance_against_the_recursion(name: str, b: int) -> None:
    """One step from C = G ± εΔ, the same draws on both sides."""
    n, size = 1_600_000 // b, 0.02
    g = torch.eye(b, dtype=torch.float64) - 1 / b
    v = torch.ones(b, dtype=torch.float64)
    v[: b // 2] = -1
    delta = g @ torch.diag(v) @ g
    z = torch.randn(n, b, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    after = []
    for sign in (1, -1):
        values, vectors = torch.linalg.eigh(g + sign * size * delta)
        root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
        y = z @ root
        f = ACTIVATIONS[name](math.sqrt(b) * y / y.norm(dim=1, keepdim=True)) @ g
        gram = f.T @ f
        after.append(gram / gram.trace() * (b - 1))
    found = ((after[0] - after[1]) * delta).sum() / (2 * size * delta.square().sum())
    assert imbalance_growth(name, b) == pytest.approx(found.item(), abs=0.02)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("batch", "relu", 3), "from 4 examples on: got 3"),
        (("batch", "rleu"), "unknown activation 'rleu'. Did you mean relu?"),
        (("bacth", "relu"), "unknown normalizer 'bacth'. Did you mean batch?"),
        (("batch", torch.sign, 8), "constant|not differentiable"),
        (("batch", lambda x: x.detach()), "not differentiable"),
        (("batch", torch.log), "not finite between"),
        (("layer", lambda x: x[:1]), "of the same shape"),
        (("batch", lambda x: x * 0 + 1), "constant where its input lies"),
    ],
)
def test_bad_input(arguments: Any, words: str) -> None:
    if arguments[1] is torch.sign:  # its derivative is 0 wherever it has one: no gradient, no growth
        assert gradient_growth(*arguments) == 0
        return
    with pytest.raises((UnknownNameError, ValueError), match=words):
        gradient_growth(*arguments)


def test_imbalance_needs_four_examples() -> None:
    with pytest.raises(ValueError, match="at least 4 in the batch: got 3"):
        imbalance_growth("relu", 3)


@pytest.mark.parametrize(("name", "b"), [("gelu", 39), ("silu", 26)])
def test_the_batch_from_which_on_norms_drift_apart_is_what_the_board_says(name: str, b: int) -> None:
    assert imbalance_growth(name, b - 1) < 1 < imbalance_growth(name, b)
