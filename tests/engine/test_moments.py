"""Gradients of the outputs' moments by an explicit Jacobian; spans, random ones, and spaces projected out."""

import pytest
import torch
from matrices import Matrix, with_spectrum
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils import parameters_to_vector

from bnsuite.engine import curvature
from bnsuite.engine.curvature import extreme_eigenvalues, unflatten
from bnsuite.engine.moments import orthonormal, output_moments, projected, random_orthonormal, share
from bnsuite.norms import BatchNorm


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("norm", [nn.Identity, BatchNorm])
@pytest.mark.parametrize("stacked", [True, False])
def test_against_the_explicit_jacobian(
    norm: type[nn.Module], stacked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """∇E[f] = E[∇f] and ∇Var[f] = 2 E[(f − E f) ∇f], from the Jacobian of every example's output."""
    monkeypatch.setattr(curvature, "MINIBATCHES_AT_ONCE", 2)
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), norm(4), nn.Softplus(beta=10), nn.Linear(4, 3)).double()
    x = normal(5, 6, 3)
    theta = parameters_to_vector(network.parameters()).detach()

    def outputs(theta: Tensor) -> Tensor:
        return torch.cat([functional_call(network, unflatten(theta, network), (part,)) for part in x])

    f, jacobian = outputs(theta), torch.autograd.functional.jacobian(outputs, theta)  # (30, 3), (30, 3, P)
    found = output_moments(network, x, stacked=stacked)
    assert torch.allclose(found.means, jacobian.mean(0), atol=1e-12)
    variances = 2 * ((f - f.mean(0)).unsqueeze(-1) * jacobian).mean(0)
    assert torch.allclose(found.variances, variances, atol=1e-12)


def test_a_basis_of_what_is_independent() -> None:
    rows = normal(3, 20)
    dependent = torch.cat([1e6 * rows, rows[:1] + rows[1:2], 1e-6 * rows[2:], torch.zeros(1, 20)])
    basis = orthonormal(dependent)
    assert basis.shape == (3, 20)
    assert torch.allclose(basis @ basis.T, torch.eye(3, dtype=torch.float64), atol=1e-12)
    assert share(rows, basis).tolist() == pytest.approx([1] * 3)
    assert orthonormal(torch.zeros(2, 5)).shape == (0, 5)
    assert share(normal(2, 20), orthonormal(torch.zeros(2, 20).double())).tolist() == [0, 0]


def test_the_cutoff_is_relative_to_the_largest() -> None:
    first, second = torch.eye(2, 6, dtype=torch.float64)
    for off, rank in [(1e-6, 2), (1e-10, 1)]:
        assert len(orthonormal(torch.stack([first, first + off * second]))) == rank


def test_a_random_subspace_holds_its_share_of_the_dimensions() -> None:
    vectors = torch.eye(400, dtype=torch.float64)[:10]
    shares = [float(share(vectors, random_orthonormal(20, vectors, seed)).mean()) for seed in range(20)]
    assert sum(shares) / 20 == pytest.approx(20 / 400, rel=0.1)
    span = random_orthonormal(20, vectors, 3)
    assert torch.allclose(span @ span.T, torch.eye(20, dtype=torch.float64), atol=1e-12)
    assert torch.equal(span, random_orthonormal(20, vectors, 3))


def test_what_is_projected_out_is_gone() -> None:
    values = torch.cat([torch.linspace(0, 1, 40), torch.tensor([5.0, 7.0, 9.0])]).double()
    matrix = with_spectrum(values)
    vectors = torch.linalg.eigh(matrix).eigenvectors.T
    left = projected(Matrix(matrix), vectors[-2:])
    assert extreme_eigenvalues(left, seed=0).top[0].value == pytest.approx(5, rel=1e-3)
    columns = torch.stack([left @ row for row in torch.eye(43, dtype=torch.float64)])
    outside = torch.eye(43, dtype=torch.float64) - vectors[-2:].T @ vectors[-2:]
    assert torch.allclose(columns, outside @ matrix @ outside, atol=1e-12)
    assert float((columns @ vectors[-1]).norm()) < 1e-12
