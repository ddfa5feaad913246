"""Stochastic Lanczos quadrature: moments, masses and smoothed densities of constructed spectra."""

import math

import pytest
import torch
from matrices import Matrix, with_spectrum
from torch import Tensor

from bnsuite.engine.curvature import Density, spectral_density

CLUSTERS = torch.cat([torch.linspace(-0.1, 0.1, 270), torch.linspace(4.9, 5.1, 30)]).double()


def starts(size: int, seeds: range) -> Tensor:
    drawn = [
        torch.randn(size, generator=torch.Generator().manual_seed(s), dtype=torch.float64) for s in seeds
    ]
    return torch.stack([start / start.norm() for start in drawn])


def test_the_rule_is_exact_for_polynomials_up_to_twice_its_order() -> None:
    """Σ w θ^d = vᵀ H^d v for d ≤ 2m − 1: the definition of a Gauss rule; at 2m it is no longer so."""
    matrix = with_spectrum(torch.linspace(-1, 1, 50))
    found = spectral_density(Matrix(matrix), 5, range(3))
    assert found.nodes.shape == found.weights.shape == (3, 5)
    v = starts(50, range(3))
    for degree in range(10):
        truth = ((v @ torch.linalg.matrix_power(matrix, degree)) * v).sum(1)
        assert torch.allclose((found.weights * found.nodes**degree).sum(1), truth, atol=1e-12)
    truth = ((v @ torch.linalg.matrix_power(matrix, 10)) * v).sum(1)
    assert not torch.allclose((found.weights * found.nodes**10).sum(1), truth, atol=1e-6)


def test_the_whole_order_gives_the_whole_spectrum() -> None:
    """Without reorthogonalization the Ritz values of 120 steps hold ghosts of the largest."""
    values = torch.cat([torch.linspace(0, 1, 100), torch.logspace(1, 4, 20)]).double()
    found = spectral_density(Matrix(with_spectrum(values)), 120, [0])
    assert found.nodes[0].tolist() == pytest.approx(values.tolist(), rel=1e-7, abs=1e-8)


def test_two_clusters() -> None:
    found = spectral_density(Matrix(torch.diag(CLUSTERS)), 40, range(48))
    assert found.weights.sum(1).tolist() == pytest.approx([1] * 48, abs=1e-12)
    assert found.mass(-math.inf, math.inf)[0] == pytest.approx(1, abs=1e-12)
    for low, high, truth in [(-1, 1, 0.9), (4, 6, 0.1), (1, 4, 0.0)]:
        mass, error = found.mass(low, high)
        assert mass == pytest.approx(truth, abs=1e-2)
        assert abs(mass - truth) <= 4 * error + 1e-12
        assert error < 1e-2


def test_the_standard_error_is_that_of_the_probes() -> None:
    found = Density(torch.tensor([[0.0, 1.0]] * 3), torch.tensor([[0.1, 0.9], [0.2, 0.8], [0.6, 0.4]]))
    mass, error = found.mass(-0.5, 0.5)
    assert mass == pytest.approx(0.3)
    assert error == pytest.approx(math.sqrt((0.04 + 0.01 + 0.09) / 2 / 3))
    _, errors = Density(found.nodes[:1], found.weights[:1]).smoothed(torch.tensor([0.0]), 1.0)
    assert math.isnan(float(errors))


def test_the_smoothed_density_is_a_density_and_that_of_its_eigenvalues() -> None:
    at = torch.linspace(-2, 7, 2001, dtype=torch.float64)
    density, errors = spectral_density(Matrix(torch.diag(CLUSTERS)), 60, range(16)).smoothed(at, 0.3)
    assert float(torch.trapezoid(density, at)) == pytest.approx(1, abs=1e-6)
    bumps = torch.exp(-(((at[:, None] - CLUSTERS) / 0.3) ** 2) / 2) / (0.3 * math.sqrt(2 * math.pi))
    assert float((density - bumps.mean(1)).abs().max()) < 0.02
    assert float(((density - bumps.mean(1)).abs() / (errors + 1e-6)).max()) < 5


def test_it_ends_early_where_the_space_does() -> None:
    matrix = torch.zeros(50, 50, dtype=torch.float64)
    matrix[0, 0] = 2
    operator = Matrix(matrix)
    found = spectral_density(operator, 10, range(4))
    assert operator.products <= 4 * 3
    assert found.nodes.shape == (4, 10)
    assert found.weights.sum(1).tolist() == pytest.approx([1] * 4)
    v = starts(50, range(4))
    assert found.mass(1, 3)[0] == pytest.approx(float((v[:, 0] ** 2).mean()))
    nothing = spectral_density(Matrix(torch.zeros(5, 5, dtype=torch.float64)), 5, [0])
    assert (nothing.mass(-1e-9, 1e-9)[0], nothing.mass(1e-9, 1)[0]) == (1, 0)


@pytest.mark.parametrize(
    ("order", "seeds", "said"), [(4, [0], "size 3: got 4"), (0, [0], "got 0"), (2, [], "at least 1 probe")]
)
def test_what_is_refused(order: int, seeds: list[int], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        spectral_density(Matrix(torch.eye(3, dtype=torch.float64)), order, seeds)


def test_a_kernel_has_a_width() -> None:
    with pytest.raises(ValueError, match="above 0: got 0"):
        Density(torch.zeros(1, 1), torch.ones(1, 1)).smoothed(torch.zeros(1), 0.0)
