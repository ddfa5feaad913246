"""λ of models as a person brings them, against explicit Hessians, closed forms and peers."""

import copy
import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import hessian_eigenthings
import pytest
import torch
import torch.nn.functional as F
from own_models import Batches, dense, gpt, images, of_tokens, resnet, sentences
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import bnsuite

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    pyhessian = pytest.importorskip("pyhessian")

MODELS: dict[str, tuple[Callable[[], nn.Module], Callable[..., Tensor], Batches]] = {
    "resnet": (resnet, F.cross_entropy, images(10)),
    "resnet, minibatches of 6 and 4": (resnet, nn.CrossEntropyLoss(), images(6, 4)),
    "gpt": (gpt, of_tokens, sentences(4)),
    "gpt, minibatches of 2, 2 and 1": (gpt, of_tokens, sentences(2, 2, 1)),
}


@cache
def truth(name: str) -> Tensor:
    build, loss, batches = MODELS[name]
    return dense(build(), loss, batches)


@pytest.mark.parametrize("name", MODELS)
def test_both_ends_of_the_explicit_hessian(name: str) -> None:
    build, loss, batches = MODELS[name]
    data = batches[0] if len(batches) == 1 else batches
    found = bnsuite.sharpness(build(), loss, data, top=3, bottom=2, tolerance=1e-4)
    matrix = truth(name)
    values = torch.linalg.eigvalsh(matrix)
    assert found.top == pytest.approx(values.flip(0)[:3].tolist(), rel=1e-6)
    assert found.bottom == pytest.approx(values[:2].tolist(), rel=1e-6)
    assert (found.value, found.residual) == (found.top[0], found.residuals[0])
    assert found.vectors.shape == (5, len(matrix))
    for value, residual, vector in zip(
        (*found.top, *found.bottom), found.residuals, found.vectors, strict=True
    ):
        assert float(vector.norm()) == pytest.approx(1)
        left = float((matrix @ vector - value * vector).norm()) / abs(value)
        assert left == pytest.approx(residual, rel=1e-3, abs=1e-11)
        assert residual <= 1e-4


def small(norm: bool = True) -> nn.Sequential:
    torch.manual_seed(0)
    middle = nn.BatchNorm1d(5) if norm else nn.Identity()
    return nn.Sequential(nn.Linear(4, 5), middle, nn.Tanh(), nn.Linear(5, 3))


def points(n: int = 12) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(2)
    return torch.randn(n, 4, generator=draw), torch.randint(3, (n,), generator=draw)


def lambda_max(*args: Any, **more: Any) -> float:
    return float(bnsuite.sharpness(*args, tolerance=1e-8, **more).value)


def test_modes() -> None:
    """Batch statistics, running ones, and a mixture of both."""
    model, data = small(), points()
    model(data[0])  # running statistics of their own
    frozen = copy.deepcopy(model)
    frozen[1].eval()
    in_mode = {mode: copy.deepcopy(model).train(mode == "train") for mode in ("train", "eval")}
    top = {
        mode: float(torch.linalg.eigvalsh(dense(twin, F.cross_entropy, [data]))[-1])
        for mode, twin in {**in_mode, None: frozen}.items()
    }
    assert len({round(value, 3) for value in top.values()}) == 2
    for given in (model, frozen, in_mode["eval"]):
        assert lambda_max(given, F.cross_entropy, data, mode="train") == pytest.approx(top["train"])
        assert lambda_max(given, F.cross_entropy, data, mode="eval") == pytest.approx(top["eval"])
    assert lambda_max(model, F.cross_entropy, data) == pytest.approx(top["train"])
    assert lambda_max(frozen, F.cross_entropy, data) == pytest.approx(top[None])


@pytest.mark.filterwarnings("ignore:Using backward")
def test_peers() -> None:
    x, y = points()
    peer = hessian_eigenthings.HessianOperator(
        small().double(), [(x.double(), y)], hessian_eigenthings.supervised_loss(nn.CrossEntropyLoss())
    )
    theirs = hessian_eigenthings.lanczos(peer, k=1, max_iter=40, which="LA", seed=1)
    ours = lambda_max(small(), F.cross_entropy, (x, y))
    assert ours == pytest.approx(float(theirs.eigenvalues[0]), rel=1e-6)
    other = pyhessian.hessian(small().double(), nn.CrossEntropyLoss(), data=(x.double(), y), cuda=False)
    (largest,), _ = other.eigenvalues(maxIter=500, tol=1e-9, top_n=1)  # it switches to evaluation mode
    assert lambda_max(small(), F.cross_entropy, (x, y), mode="eval") == pytest.approx(largest, rel=1e-4)


class Sum(nn.Module):
    """W a + W b, of two inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3, bias=False)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        out: Tensor = self.linear(a + b)
        return out


def test_forms_of_data() -> None:
    """Least squares: H is 2 xᵀx / (N C) for each output, however the examples come."""
    x = points(9)[0]
    y = torch.zeros(9, 3)
    expected = 2 * float(torch.linalg.eigvalsh(x.double().T @ x.double())[-1]) / 27
    linear, loss = nn.Linear(4, 3, bias=False), nn.MSELoss()
    loader = DataLoader(TensorDataset(x, y), batch_size=4, shuffle=True)
    for data in ((x, y), [x, y], [(x[:2], y[:2]), (x[2:], y[2:])], ((x, y), (x, y)), loader, iter(loader)):
        assert lambda_max(linear, loss, data) == pytest.approx(expected)
    for inputs in ((x / 2, x / 2), [x / 4, 3 * x / 4], {"a": x, "b": torch.zeros_like(x)}):
        assert lambda_max(Sum(), loss, (inputs, y)) == pytest.approx(expected)
        assert lambda_max(Sum(), loss, [(inputs, y)]) == pytest.approx(expected)


def test_frozen_parameters_are_held_fixed() -> None:
    model, data = small(), points()
    model[0].requires_grad_(False)
    matrix = dense(model, F.cross_entropy, [data])
    found = bnsuite.sharpness(model, F.cross_entropy, data, tolerance=1e-8)
    assert found.vectors.shape == (1, 5 + 5 + 3 * 6) == (1, len(matrix))
    assert found.value == pytest.approx(float(torch.linalg.eigvalsh(matrix)[-1]))


def test_the_certificate_says_that_products_were_too_few() -> None:
    found = bnsuite.sharpness(small(), F.cross_entropy, points(), max_products=2)
    assert found.residual > 1e-3


def test_float64_by_default() -> None:
    found = [bnsuite.sharpness(small(), F.cross_entropy, points(), dtype=dtype) for dtype in
             (torch.float64, torch.float32)]  # fmt: skip
    assert [sharp.vectors.dtype for sharp in found] == [torch.float64, torch.float32]
    assert found[1].value == pytest.approx(found[0].value, rel=1e-4)
    half = small().to(torch.bfloat16)
    x, y = points()
    wide = copy.deepcopy(half).double()
    expected = lambda_max(wide, F.cross_entropy, (x.to(torch.bfloat16).double(), y))
    assert lambda_max(half, F.cross_entropy, (x.to(torch.bfloat16), y)) == pytest.approx(expected, rel=1e-9)


def test_a_loss_with_tensors_of_its_own() -> None:
    weighted = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 3.0]))
    expected = torch.linalg.eigvalsh(dense(small(), copy.deepcopy(weighted).double(), [points()]))[-1]
    assert lambda_max(small(), weighted, points()) == pytest.approx(float(expected))
    assert weighted.weight is not None
    assert weighted.weight.dtype == torch.float32


def test_on_any_device(device: str) -> None:
    x, y = points()
    found = bnsuite.sharpness(small().to(device), F.cross_entropy, (x.to(device), y.to(device)))
    assert found.vectors.device.type == device
    assert found.value == pytest.approx(bnsuite.sharpness(small(), F.cross_entropy, (x, y)).value)
