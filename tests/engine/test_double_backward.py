"""Operations made to be differentiated twice against torch's own, in float64."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import vmap

from bnsuite.engine.curvature import HessianOperator
from bnsuite.engine.double_backward import INSTEAD, Twice
from bnsuite.norms import BatchNorm

Operation = Callable[[Tensor, Tensor, Tensor], Tensor]
N, C = 5, 6
OPERATIONS: dict[str, Operation] = {
    "batch norm": lambda x, w, b: F.batch_norm(x, None, None, w, b, training=True),
    "batch norm, wide ε": lambda x, w, b: F.batch_norm(x, None, None, training=True, eps=0.5),
    "batch norm in evaluation": lambda x, w, b: F.batch_norm(x, b.detach(), w.detach().square(), w, b),
    "layer norm": lambda x, w, b: F.layer_norm(x.movedim(1, -1), (C,), w, b, 0.1),
    "layer norm over two": lambda x, w, b: F.layer_norm(x, x.shape[1:]) * w.sum() + b.sum(),
    "group norm": lambda x, w, b: F.group_norm(x, 2, w, b),
    "group norm without shift": lambda x, w, b: F.group_norm(x, 3, w),
    "softplus": lambda x, w, b: F.softplus(x) * w.sum(),
    "softplus, steep": lambda x, w, b: F.softplus(x, 10, 3) + b.sum(),
    "softplus, by keyword": lambda x, w, b: F.softplus(input=x, threshold=1, beta=4) + w.sum(),
}


def outcome(operation: Operation, shape: tuple[int, ...]) -> list[Tensor]:
    """Value, gradient, and the gradient's derivative in two directions, one after the other."""
    draw = torch.Generator().manual_seed(3)
    x, w, b, direction, other = (
        torch.randn(size, generator=draw, dtype=torch.float64) for size in (shape, C, C, shape, shape)
    )
    inputs = [tensor.requires_grad_() for tensor in (x, w, b)]
    y = operation(*inputs)
    weights = torch.randn(y.shape, generator=draw, dtype=torch.float64)
    first = torch.autograd.grad(
        (weights * y.square()).sum(), inputs, create_graph=True, materialize_grads=True
    )
    found = [y, *first]
    for v in (direction, other, direction):
        along = (first[0] * v).sum() + sum((g.square()).sum() for g in first[1:])
        found += torch.autograd.grad(along, inputs, retain_graph=True, materialize_grads=True)
    return found


@pytest.mark.parametrize("shape", [(N, C), (N, C, 4), (N, C, 3, 2)], ids=str)
@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
def test_an_operation_and_two_orders_of_derivatives_are_those_of_torch(
    operation: Operation, shape: tuple[int, ...]
) -> None:
    expected = outcome(operation, shape)
    with Twice():
        found = outcome(operation, shape)
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        assert torch.allclose(one, other, rtol=1e-9, atol=1e-11 * (1 + float(other.detach().abs().max())))


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
def test_it_maps(operation: Operation) -> None:
    def mapped(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        return vmap(operation, (0, None, None))(torch.stack([x, 2 * x]), w, b)  # type: ignore[no-any-return]

    expected = outcome(mapped, (N, C, 3))
    with Twice():
        found = outcome(mapped, (N, C, 3))
    assert all(torch.allclose(*pair, rtol=1e-9, atol=1e-9) for pair in zip(found, expected, strict=True))


def test_every_replacement_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    called = set()
    for func, instead in [*INSTEAD.items()]:

        def noted(*args: object, func: object = func, instead: object = instead, **kwargs: object) -> Tensor:
            called.add(func)
            return instead(*args, **kwargs)  # type: ignore[operator, no-any-return]

        monkeypatch.setitem(INSTEAD, func, noted)
    for operation in OPERATIONS.values():
        with Twice():
            outcome(operation, (N, C))
    assert called == set(INSTEAD)


def test_running_statistics_are_those_of_torch() -> None:
    x = torch.randn(N, C, generator=torch.Generator().manual_seed(0))
    plain, twice = BatchNorm(C), BatchNorm(C)
    plain(x)
    with Twice():
        twice(x)
    assert torch.equal(plain.running_mean, twice.running_mean)
    assert torch.equal(plain.running_var, twice.running_var)


def test_a_third_derivative_is_refused() -> None:
    x = torch.randn(N, C, dtype=torch.float64, requires_grad=True)
    with Twice():
        y = F.softplus(x).square().sum()
    (first,) = torch.autograd.grad(y, x, create_graph=True)
    with pytest.raises(NotImplementedError, match="differentiated once"):
        torch.autograd.grad(first.square().sum(), x, create_graph=True)


def test_the_hessian_operator_does_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def product() -> Tensor:
        network = torch.nn.Sequential(torch.nn.Linear(4, C), BatchNorm(C), torch.nn.Softplus(10))
        draw = torch.Generator().manual_seed(1)
        for p in network.parameters():
            torch.nn.init.uniform_(p, -1, 1, generator=draw)
        x = torch.randn(3, 8, 4, generator=draw, dtype=torch.float64)
        operator = HessianOperator(network.double(), x, torch.zeros(3, 8, dtype=torch.long), stacked=True)
        return operator.matvec(torch.ones(operator.size, dtype=torch.float64))

    found = product()
    for func in [*INSTEAD]:
        monkeypatch.setitem(INSTEAD, func, func)
    assert torch.allclose(product(), found, rtol=1e-10)
    monkeypatch.setitem(INSTEAD, F.softplus, lambda *args: 2 * F.softplus(*args))
    assert not torch.allclose(product(), found, rtol=1e-2)
