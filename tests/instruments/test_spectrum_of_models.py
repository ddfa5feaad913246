"""The density of a person's own model: moments of explicit Hessians."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from own_models import Batches, dense, gpt, images, of_tokens, resnet, sentences
from torch import Tensor, nn

import bnsuite


@pytest.mark.parametrize(
    ("build", "loss", "batches"), [(resnet, F.cross_entropy, images(6, 4)), (gpt, of_tokens, sentences(4))]
)
def test_moments(build: Callable[[], nn.Module], loss: Callable[..., Tensor], batches: Batches) -> None:
    """Each probe has those of its own start z exactly; their mean is near tr Hᵏ / P."""
    matrix = dense(build(), loss, batches)
    size, probes = len(matrix), 12
    found = bnsuite.spectrum(build(), loss, batches, order=3, probes=probes, seed=5)
    assert found.nodes.shape == found.weights.shape == (probes, 3)
    for power in (1, 2, 5):
        moments = (found.weights * found.nodes**power).sum(1)
        for seed, moment in zip(range(5, 5 + probes), moments.tolist(), strict=True):
            draw = torch.Generator().manual_seed(seed)
            z = torch.randn(size, generator=draw, dtype=torch.float64)
            exact = float(z @ torch.linalg.matrix_power(matrix, power) @ z / (z @ z))
            assert moment == pytest.approx(exact, rel=1e-8)
    values = torch.linalg.eigvalsh(matrix)
    for power in (1, 2):
        moments = (found.weights * found.nodes**power).sum(1)
        error = float(moments.std()) / probes**0.5
        assert float(moments.mean()) == pytest.approx(float((values**power).mean()), abs=4 * error)


def test_all_nodes_are_all_eigenvalues() -> None:
    torch.manual_seed(0)
    linear = nn.Linear(4, 1, bias=False)
    x = torch.randn(9, 4)
    values = 2 * torch.linalg.eigvalsh(x.double().T @ x.double() / 9)
    found = bnsuite.spectrum(linear, nn.MSELoss(), (x, torch.zeros(9, 1)), order=4, probes=3)
    assert torch.allclose(found.nodes, values.expand(3, 4))
    assert found.mass(float(values[0]) - 1, float(values[-1]) + 1)[0] == pytest.approx(1)
    at = torch.linspace(-5, 15, 4001, dtype=torch.float64)
    density, error = found.smoothed(at, 0.2)
    assert float(torch.trapezoid(density, at)) == pytest.approx(1)
    assert error.shape == at.shape


def test_in_evaluation_mode() -> None:
    ((x, y),) = images(10)
    model = resnet()
    model(x)
    model.eval()
    matrix = dense(model, F.cross_entropy, [(x, y)])
    found = bnsuite.spectrum(model, F.cross_entropy, (x, y), order=1, probes=1, seed=3, mode="eval")
    z = torch.randn(len(matrix), generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    assert float(found.nodes) == pytest.approx(float(z @ matrix @ z / (z @ z)), rel=1e-9)
