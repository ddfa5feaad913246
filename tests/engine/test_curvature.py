"""The Hessian and its extreme eigenvalues against closed forms, explicit matrices and a rival library."""

import copy
import math
from collections.abc import Callable

import pytest
import torch
from hessian_eigenthings import lanczos
from matrices import Matrix, with_spectrum
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector

from bnsuite.datasets import digits
from bnsuite.engine import curvature
from bnsuite.engine.curvature import (
    HessianOperator,
    certified,
    eigenthings_lambda_max,
    extreme_eigenvalues,
    mixed_precision_eigenvalues,
)
from bnsuite.norms import BatchNorm

STACKED = pytest.mark.parametrize("stacked", [True, False], ids=["stacked", "one by one"])
INPUTS, WIDTH, CLASSES = 3, 4, 3


def true_residual(matrix: Tensor, vector: Tensor, value: float) -> float:
    return float((matrix @ vector - value * vector).norm()) / abs(value)


def softmax_regression(x: Tensor, y: Tensor, classes: int) -> HessianOperator:
    """At zero; x (M, N, …)."""
    linear = nn.Linear(x[0, 0].numel(), classes, bias=False).double()
    nn.init.zeros_(linear.weight)
    return HessianOperator(nn.Sequential(nn.Flatten(), linear), x, y, stacked=True)


def test_softmax_regression_on_digits() -> None:
    data = digits()
    x, y = data.train_x[:1408].double().view(11, 128, 1, 8, 8), data.train_y[:1408].view(11, 128)
    found = extreme_eigenvalues(softmax_regression(x, y, 10), seed=0).top[0]
    flat = x.reshape(1408, 64)
    truth = float(torch.linalg.eigvalsh(flat.T @ flat / 1408)[-1]) / 10
    assert found.value == pytest.approx(truth, rel=1e-3)
    assert found.residual <= 1e-3


@pytest.mark.parametrize("classes", [2, 7])
def test_softmax_regression_on_synthetic_data(classes: int) -> None:
    draw = torch.Generator().manual_seed(classes)
    scales = torch.linspace(0.1, 3, 12, dtype=torch.float64)
    x = torch.randn(5, 20, 12, generator=draw, dtype=torch.float64) * scales
    y = torch.randint(classes, (5, 20), generator=draw)
    found = extreme_eigenvalues(softmax_regression(x, y, classes), seed=1).top[0]
    truth = float(torch.linalg.eigvalsh(x.view(100, 12).T @ x.view(100, 12) / 100)[-1]) / classes
    assert found.value == pytest.approx(truth, rel=1e-3)


def test_a_near_degenerate_top_pair() -> None:
    matrix = with_spectrum(torch.cat([torch.tensor([10.0, 9.99]), torch.linspace(-1, 5, 98)]))
    found = extreme_eigenvalues(Matrix(matrix), 2, seed=0, tolerance=1e-6)
    assert [e.value for e in found.top] == pytest.approx([10, 9.99], rel=1e-5)
    loose = extreme_eigenvalues(Matrix(matrix), seed=0)
    assert loose.top[0].value == pytest.approx(10, rel=1e-3)
    assert loose.products < found.products


def test_the_largest_algebraic_not_the_largest_in_magnitude() -> None:
    matrix = with_spectrum(
        torch.cat([torch.linspace(-50, -40, 30), torch.linspace(0, 2, 69), torch.tensor([3.0])])
    )
    found = extreme_eigenvalues(Matrix(matrix), 1, 1, seed=0)
    assert found.top[0].value == pytest.approx(3, rel=1e-3)
    assert found.bottom[0].value == pytest.approx(-50, rel=1e-3)
    assert eigenthings_lambda_max(Matrix(matrix), 40, seed=1) == pytest.approx(3, rel=1e-3)


def test_both_ends_in_order() -> None:
    values = torch.linspace(-3, 7, 40)
    operator = Matrix(with_spectrum(values))
    found = extreme_eigenvalues(operator, 4, 3, seed=0, tolerance=1e-8)
    assert [e.value for e in found.top] == pytest.approx(values.flip(0)[:4].tolist())
    assert [e.value for e in found.bottom] == pytest.approx(values[:3].tolist())
    assert found.products == operator.products
    assert max(e.residual for e in found.top) <= 1e-8


def test_every_wanted_pair_with_its_vector() -> None:
    values = torch.cat([torch.linspace(-1, 1, 60), torch.linspace(2, 6, 5)])
    matrix = with_spectrum(values)
    operator = Matrix(matrix)
    found = extreme_eigenvalues(operator, 6, 1, seed=1, vectors=True)
    plain = extreme_eigenvalues(Matrix(matrix), 6, 1, seed=1)
    assert found.products == operator.products == plain.products + 5
    assert [e.vector is None for e in (*plain.top, *plain.bottom)] == [False, *[True] * 5, False]
    truth = torch.linalg.eigh(matrix)
    for i, (value, residual, vector) in enumerate(found.top):
        assert vector is not None
        assert residual == pytest.approx(true_residual(matrix, vector, value), rel=1e-6, abs=1e-12)
        assert residual <= 1e-3
        assert abs(float(vector @ truth.eigenvectors[:, -1 - i])) == pytest.approx(1, abs=1e-4)
    vectors = torch.stack([e.vector for e in found.top if e.vector is not None])
    assert torch.allclose(vectors @ vectors.T, torch.eye(6, dtype=torch.float64), atol=1e-10)


@pytest.mark.parametrize("products", [3, 8, 200])
def test_the_certificate_is_that_of_the_returned_vector(products: int) -> None:
    matrix = with_spectrum(torch.linspace(-1, 4, 60))
    found = extreme_eigenvalues(Matrix(matrix), 1, 1, seed=3, max_products=products)
    for value, residual, vector in (found.top[0], found.bottom[0]):
        assert vector is not None
        assert float(vector.norm()) == pytest.approx(1)
        assert value == pytest.approx(float(vector @ matrix @ vector))
        assert residual == pytest.approx(true_residual(matrix, vector, value), rel=1e-6, abs=1e-12)
    assert (found.top[0].residual <= 1e-3) == (products == 200)
    assert found.products <= products + 2


def test_the_certificate_asks_the_operator_again() -> None:
    matrix = with_spectrum(torch.linspace(-1, 4, 60))
    steps = extreme_eigenvalues(Matrix(matrix), seed=3).products - 1
    honest = extreme_eigenvalues(Matrix(matrix, exact=steps), seed=3).top[0]
    caught = extreme_eigenvalues(Matrix(matrix, exact=steps, error=1.0), seed=3).top[0]
    assert honest.residual <= 1e-3 < caught.residual


def test_certified_by_hand() -> None:
    matrix = torch.diag(torch.tensor([1.0, 3.0], dtype=torch.float64))
    value, residual, vector = certified(Matrix(matrix), torch.tensor([5.0, 5.0], dtype=torch.float64))
    assert (value, residual) == pytest.approx((2, 0.5))
    assert vector is not None
    assert vector.tolist() == pytest.approx([2**-0.5] * 2)


def test_a_low_rank_operator_ends_early() -> None:
    matrix = torch.zeros(50, 50, dtype=torch.float64)
    matrix[0, 0] = 2
    operator = Matrix(matrix)
    assert extreme_eigenvalues(operator, 2, seed=0).top[0].value == pytest.approx(2)
    assert operator.products <= 5


@pytest.mark.parametrize(("top", "bottom"), [(0, 0), (3, 1)])
def test_more_eigenvalues_than_there_are(top: int, bottom: int) -> None:
    with pytest.raises(ValueError, match="operator of size 3 has 1 to 3 eigenvalues"):
        extreme_eigenvalues(Matrix(torch.eye(3)), top, bottom, seed=0)


def in_both(
    matrix: Tensor, **low: float
) -> tuple[dict[torch.dtype, Matrix], Callable[[torch.dtype], Matrix]]:
    """Operators of one matrix by precision, as they are asked for; `low`: how that in float32 is off."""
    asked: dict[torch.dtype, Matrix] = {}

    def operator(dtype: torch.dtype) -> Matrix:
        off = low if dtype == torch.float32 else {}
        return asked.setdefault(dtype, Matrix(matrix.to(dtype), **off))  # type: ignore[arg-type]

    return asked, operator


def test_mixed_precision_searches_in_float32_and_certifies_in_float64() -> None:
    matrix = with_spectrum(torch.linspace(-1, 4, 60))
    asked, operator = in_both(matrix)
    found = mixed_precision_eigenvalues(operator, 3, 1, seed=3)
    alone = extreme_eigenvalues(Matrix(matrix), 3, 1, seed=3)
    assert found.products == alone.products == sum(each.products for each in asked.values())
    assert asked[torch.float64].products == 2
    for one, other in zip((*found.top, *found.bottom), (*alone.top, *alone.bottom), strict=True):
        assert one.value == pytest.approx(other.value, rel=1e-5)
        assert one.residual == pytest.approx(other.residual, rel=0.05, abs=1e-6)
    assert found.top[0].vector is not None
    assert found.top[0].vector.dtype == torch.float64
    assert found.top[0].residual == pytest.approx(
        true_residual(matrix, found.top[0].vector, found.top[0].value)
    )


@pytest.mark.parametrize("error", [1.0, math.nan, math.inf])
def test_what_float32_cannot_do_is_done_again_in_float64(error: float) -> None:
    matrix = with_spectrum(torch.linspace(-1, 4, 60))
    asked, operator = in_both(matrix, exact=2, error=error)
    found = mixed_precision_eigenvalues(operator, seed=3)
    alone = extreme_eigenvalues(Matrix(matrix), seed=3)
    assert found.top[0].residual <= 1e-3
    assert found.top[0].value == alone.top[0].value
    assert asked[torch.float32].products > 2
    assert found.products >= alone.products


def test_what_neither_precision_can_do_says_so() -> None:
    matrix = with_spectrum(torch.linspace(-1, 4, 60))
    found = mixed_precision_eigenvalues(in_both(matrix)[1], seed=3, max_products=4)
    assert found.top[0][:2] == extreme_eigenvalues(Matrix(matrix), seed=3, max_products=4).top[0][:2]
    assert found.top[0].residual > 1e-3


def test_a_product_that_is_not_finite_is_told() -> None:
    with pytest.raises(FloatingPointError, match="is finite: got one of norm nan"):
        extreme_eigenvalues(Matrix(with_spectrum(torch.arange(4.0)), exact=1, error=math.nan), seed=0)


def tiny(norm: type[nn.Module]) -> nn.Sequential:
    torch.manual_seed(0)
    layers = nn.Linear(INPUTS, WIDTH), norm(WIDTH), nn.Softplus(beta=10), nn.Linear(WIDTH, CLASSES)
    return nn.Sequential(*layers).double()


def minibatches(m: int = 5) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(4)
    x = torch.randn(m, 6, INPUTS, generator=draw, dtype=torch.float64)
    return x, torch.randint(CLASSES, (m, 6), generator=draw)


def loss_by_hand(theta: Tensor, x: Tensor, y: Tensor, batch_norm: bool) -> Tensor:
    """The loss of `tiny`, written out: theta (P,) → mean over minibatches with their own statistics."""
    sizes = [WIDTH * INPUTS, WIDTH, *([WIDTH, WIDTH] if batch_norm else []), CLASSES * WIDTH, CLASSES]
    first, first_bias, *gain_shift, last, last_bias = torch.split(theta, sizes)
    h = x @ first.view(WIDTH, INPUTS).T + first_bias  # (M, N, width)
    if batch_norm:
        centred = h - h.mean(1, keepdim=True)
        h = gain_shift[0] * centred / (centred.square().mean(1, keepdim=True) + 1e-5).sqrt() + gain_shift[1]
    h = torch.log1p(torch.exp(10 * h)) / 10
    logits = h @ last.view(CLASSES, WIDTH).T + last_bias
    return -torch.log_softmax(logits, -1).gather(-1, y.unsqueeze(-1)).mean()


@STACKED
@pytest.mark.parametrize("norm", [nn.Identity, BatchNorm])
@pytest.mark.parametrize("at_once", [16, 2])
def test_against_the_explicit_hessian(
    norm: type[nn.Module], stacked: bool, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(curvature, "MINIBATCHES_AT_ONCE", at_once)
    network, (x, y) = tiny(norm), minibatches()
    before = copy.deepcopy(network.state_dict())
    operator = HessianOperator(network, x, y, stacked=stacked)
    theta = parameters_to_vector(network.parameters()).detach()
    columns = torch.stack([operator @ row for row in torch.eye(operator.size, dtype=torch.float64)])
    truth = torch.func.jacrev(torch.func.grad(loss_by_hand))(theta, x, y, norm is BatchNorm)
    assert torch.allclose(columns, truth, rtol=1e-8, atol=1e-10)
    slope = torch.func.grad(loss_by_hand)(theta, x, y, norm is BatchNorm)
    assert torch.allclose(operator.gradient, slope, rtol=1e-8, atol=1e-10)
    found = extreme_eigenvalues(operator, 2, 1, seed=0, tolerance=1e-9)
    values = torch.linalg.eigvalsh(truth)
    assert [e.value for e in found.top] == pytest.approx(values.flip(0)[:2].tolist(), rel=1e-7)
    assert found.bottom[0].value == pytest.approx(float(values[0]), rel=1e-7)
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


@STACKED
def test_a_rival_agrees_on_our_operator(stacked: bool) -> None:
    operator = HessianOperator(tiny(BatchNorm), *minibatches(), stacked=stacked)
    ours = extreme_eigenvalues(operator, 3, 1, seed=0, tolerance=1e-8)
    top = lanczos(operator, k=3, max_iter=operator.size - 1, which="LA", seed=5)
    assert sorted(top.eigenvalues.tolist(), reverse=True) == pytest.approx(
        [e.value for e in ours.top], rel=1e-5
    )
    bottom = lanczos(operator, k=1, max_iter=operator.size - 1, which="SA", seed=5)
    assert bottom.eigenvalues.tolist() == pytest.approx([ours.bottom[0].value], rel=1e-5)


def test_the_start_is_the_seeds_alone() -> None:
    matrix = with_spectrum(torch.linspace(0, 1, 80))
    torch.manual_seed(1)
    first = extreme_eigenvalues(Matrix(matrix), seed=7, max_products=6)
    torch.manual_seed(2)
    assert extreme_eigenvalues(Matrix(matrix), seed=7, max_products=6).top[0].value == first.top[0].value
    assert extreme_eigenvalues(Matrix(matrix), seed=8, max_products=6).top[0].value != first.top[0].value
