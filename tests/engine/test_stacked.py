"""Stacked modules by rule against the same modules under `vmap`, in float64, with two orders of gradients."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import register_parametrization

from bnsuite.engine import stacked
from bnsuite.engine.stack import Stack
from bnsuite.engine.stacked import FORMULAS, StackedCall, transposed_in_memory
from bnsuite.networks import FAMILIES, relu
from bnsuite.networks.transformer import Attention, Perceptron, Positions
from bnsuite.norms import BatchNorm, LayerNorm
from bnsuite.schemes import REFERENCES, SCHEMES

R, N, C = 3, 5, 4
PLAIN, IMAGE = (C,), (C, 2, 3)
BATCH_NORMS: list[Callable[[], nn.Module]] = [
    lambda: BatchNorm(C),
    lambda: nn.BatchNorm1d(C, momentum=0.3, eps=0.1),
    lambda: nn.BatchNorm1d(C, affine=False),
    lambda: nn.BatchNorm1d(C, track_running_stats=False),
]
RULED: list[Callable[[int], nn.Module]] = [nn.Identity, BatchNorm, LayerNorm]  # the others: see test_zoo
CASES = [
    *((norm, PLAIN) for norm in BATCH_NORMS),
    *((lambda norm=norm: norm(C), shape) for norm in RULED for shape in (PLAIN, IMAGE)),
    (lambda: nn.Linear(C, 7), PLAIN),
    (lambda: nn.Linear(C, 7, bias=False), PLAIN),
    (lambda: nn.Linear(C, 7), (6, C)),
    (nn.Flatten, IMAGE),
    (lambda: nn.Flatten(0, -2), IMAGE),
    (nn.ReLU, IMAGE),
    (lambda: nn.Softplus(beta=10), PLAIN),
    (lambda: Attention(8), (8, 5)),
    (lambda: Attention(6), (6, 5)),
    (lambda: Perceptron(C, relu), (C, 3)),
    (lambda: Positions(5, C), (5, C)),
]
Run = Callable[[], tuple[list[Tensor], dict[str, Tensor]]]


def stack(module: nn.Module) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """R random copies of its parameters and buffers."""
    draw = torch.Generator().manual_seed(1)

    def noisy(tensor: Tensor) -> Tensor:
        copies = tensor.detach().expand(R, *tensor.shape).clone()
        if not copies.is_floating_point():
            return copies
        return copies + torch.rand(copies.shape, generator=draw, dtype=copies.dtype)

    params = transposed_in_memory({name: noisy(p) for name, p in module.named_parameters()})
    for p in params.values():
        p.requires_grad_()
    return params, {name: noisy(b) for name, b in module.named_buffers()}


def outcome(module: nn.Module, shape: tuple[int, ...], call: Any) -> tuple[list[Tensor], dict[str, Tensor]]:
    """What comes out, its gradients, the gradients of these, and the buffers after."""
    params, buffers = stack(module)
    draw = torch.Generator().manual_seed(2)
    x = torch.randn(R, N, *shape, generator=draw, dtype=torch.float64).requires_grad_()
    y = call(params, buffers, x)
    inputs = [x, *params.values()]
    weights = torch.randn(y.shape, generator=draw, dtype=y.dtype)
    first = torch.autograd.grad((weights * y**2).sum(), inputs, create_graph=True)
    second = torch.autograd.grad(sum((g**2).sum() for g in first), inputs, materialize_grads=True)  # type: ignore[arg-type]
    return [y, *first, *second], buffers


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize(("build", "shape"), CASES)
def test_a_rule_gives_what_vmap_gives(
    build: Callable[[], nn.Module], shape: tuple[int, ...], training: bool
) -> None:
    module = build().double().train(training)
    found, buffers = outcome(module, shape, StackedCall(module))
    expected, others = outcome(module, shape, lambda *args: stacked._mapped(module, *args))
    assert [tensor.shape for tensor in found] == [tensor.shape for tensor in expected]
    for one, other in zip(found, expected, strict=True):
        scale = 1 + float(other.detach().abs().max())
        assert torch.allclose(one, other, rtol=1e-9, atol=1e-11 * scale)
    for name in others:
        assert torch.allclose(buffers[name], others[name], rtol=1e-12), name


def without_rules(module: nn.Module, monkeypatch: pytest.MonkeyPatch) -> int:
    """How often a call of the module goes through `vmap`."""
    calls = []
    mapped = stacked._mapped

    def counted(part: nn.Module, *args: Any) -> Tensor:
        calls.append(part)
        return mapped(part, *args)

    monkeypatch.setattr(stacked, "_mapped", counted)
    outcome(module, PLAIN, StackedCall(module))
    return len(calls)


class Shifted(LayerNorm):
    """Has a `forward` of its own, and so none of its base's rule."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) + 1


class Kept(LayerNorm):
    """Only its name is new."""


@pytest.mark.parametrize(
    ("module", "calls"),
    [
        (Kept(C), 0),
        (Shifted(C), 1),
        (register_parametrization(nn.Linear(C, C), "weight", nn.Tanh()), 1),
        (nn.Linear(C, C), 0),
        (nn.Softsign(), 1),
    ],
)
def test_a_rule_serves_only_the_forward_that_it_stands_for(
    module: nn.Module, calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert without_rules(module.double(), monkeypatch) == calls


@pytest.mark.parametrize("hook", ["register_forward_hook", "register_forward_pre_hook"])
def test_a_hook_is_not_skipped(hook: str) -> None:
    module = nn.Linear(C, C).double()
    plain = copy.deepcopy(module)
    double = (lambda part, inputs: (2 * inputs[0],)) if "pre" in hook else (lambda part, inputs, y: 2 * y)
    getattr(module, hook)(double)
    found, expected = (outcome(part, PLAIN, StackedCall(part))[0][0] for part in (module, plain))
    assert not torch.allclose(found, expected)


class Tied(nn.Module):
    """One weight under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(C, C), nn.Linear(C, C)
        self.two.weight = self.one.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.compose(x, lambda part, h: part(h))

    def compose(self, x: Tensor, apply: Any) -> Tensor:
        h: Tensor = apply(self.two, apply(torch.sin, apply(self.one, x)))
        return x + h


def test_a_composed_module_and_a_tied_weight() -> None:
    module = Tied().double()
    found, _ = outcome(module, PLAIN, StackedCall(module))
    expected, _ = outcome(module, PLAIN, lambda *args: stacked._mapped(module, *args))
    assert all(torch.allclose(*pair) for pair in zip(found, expected, strict=True))


def test_every_rule_is_tried_above() -> None:
    tried = {type(build()).forward for build, _ in CASES}
    elementwise = {forward for forward, formula in FORMULAS.items() if formula is stacked._elementwise}
    assert set(FORMULAS) - elementwise <= tried
    assert elementwise & tried


@pytest.mark.parametrize("bias", [True, False])
def test_a_weight_that_all_lanes_share(bias: bool) -> None:
    module = nn.Linear(C, 7, bias=bias).double()
    x = torch.randn(R, N, 2, C, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    inputs = [*module.parameters()]
    weights = torch.arange(1.0, R + 1, dtype=torch.float64).view(R, 1, 1, 1)
    shared = {name: p.expand(R, *p.shape) for name, p in module.named_parameters()}
    found, expected = StackedCall(module)(shared, {}, x), torch.stack([module(one) for one in x])
    assert torch.allclose(found, expected, rtol=1e-12)
    for pair in zip(
        *(torch.autograd.grad((weights * y**2).sum(), inputs) for y in (found, expected)), strict=True
    ):
        assert torch.allclose(*pair, rtol=1e-12)


@pytest.mark.parametrize("scheme", REFERENCES)
def test_gradients_lie_as_their_parameters_do(scheme: str) -> None:
    network = FAMILIES["mlp"].build(
        SCHEMES[scheme], 3, width=C, shape=torch.Size((1, 2, 3)), classes=5, seed=0
    )
    both = Stack([network] * R, range(R), stacked=True)
    both.keep(torch.tensor([True, False, True]))
    leaves = {name: p.requires_grad_() for name, p in both.params.items()}
    logits = both.forward(leaves, torch.randn(2, N, 1, 2, 3))
    for p, g in zip(leaves.values(), torch.autograd.grad(logits.sum(), [*leaves.values()]), strict=True):
        assert g.stride() == p.stride() or p.dim() < 3
