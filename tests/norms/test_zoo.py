"""Every other normalizer against its formula written again, in float64: values, gradients, state, stacks."""

import copy
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnsuite.engine.stacked import StackedCall
from bnsuite.norms import (
    NORMS,
    TLU,
    BatchRenorm,
    EvoNormS0,
    GhostBatchNorm,
    GroupNorm,
    InstanceNorm,
    LayerScale,
    MeanOnlyBatchNorm,
    OnlineNorm,
    OverAlpha,
    OverDepth,
    PowerNorm,
    SkipInit,
    scaled_weight_standardization,
    weight_norm,
    weight_standardization,
)

Params = dict[str, Tensor]
EPS = 1e-5
BUILD: dict[str, Callable[[int], nn.Module]] = {
    name: norm for name, norm in NORMS.items() if name not in ("identity", "batch", "layer")
} | {"group": partial(GroupNorm, groups=2), "tlu": TLU, "layerscale": partial(LayerScale, depth=3)}
BUILD |= {"skipinit": partial(SkipInit, depth=3), "over-depth": partial(OverDepth, depth=3)}
BUILD |= {"evonorm-s0": partial(EvoNormS0, groups=2), "over-alpha": partial(OverAlpha, depth=3)}
OF_BATCH = ("mean-only", "ghostbatch", "batchrenorm", "power", "online")
CASES = [
    (name, shape)
    for name in BUILD
    for shape in ((70, 4), (6, 4, 3, 2))
    if (name, shape[2:]) != ("instance", ())
]
CASE = pytest.mark.parametrize(("name", "shape"), CASES, ids=str)


def some(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return 0.5 + 2 * torch.randn(shape, generator=draw, dtype=torch.float64)


def module(name: str) -> nn.Module:
    """With parameters and buffers away from their start."""
    built = BUILD[name](4).double()
    with torch.no_grad():
        for i, tensor in enumerate([*built.parameters(), *built.buffers()]):
            if tensor.is_floating_point():
                tensor.add_(0.3 * torch.rand(tensor.shape, generator=torch.Generator().manual_seed(i)))
    return built


class Given(torch.autograd.Function):
    """y, with a gradient to x written out by hand."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, gradient: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.gradient = gradient
        return y.detach().clone()

    @staticmethod
    def backward(ctx: Any, *g: Tensor) -> Any:
        return ctx.gradient(*g), None, None


def streamed(x: Tensor, mean: Tensor, var: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Online norm's statistics before each sample of x (N, C, P), by a loop, and those after the last."""
    means, variances = [], []
    for sample in x:
        means.append(mean)
        variances.append(var)
        now = sample.mean(1)
        var = 0.999 * var + 0.001 * sample.var(1, correction=0) + 0.000999 * (now - mean) ** 2
        mean = mean + 0.001 * (now - mean)
    return torch.stack(means), torch.stack(variances), mean, var


def formula(name: str, x: Tensor, p: Params, buffers: Params) -> Tensor:
    """In training; parameters of a channel as (C, 1, …)."""
    over = (0, *range(2, x.dim()))
    positions = over[1:]
    mean, var = (f(x, over, keepdim=True) for f in (torch.mean, partial(torch.var, correction=0)))
    if name == "mean-only":
        return x - mean + p["bias"]
    if name == "ghostbatch":
        parts = [x[:35], x[35:]] if len(x) == 70 else [x]
        return torch.cat(
            [
                F.batch_norm(part, None, None, p["weight"].flatten(), p["bias"].flatten(), True)
                for part in parts
            ]
        )
    if name == "batchrenorm":
        std, before = (
            (var + EPS).sqrt(),
            {key: b.view(1, -1, *[1] * len(positions)) for key, b in buffers.items()},
        )
        r = (std / before["running_std"]).clip(1 / 3, 3).detach()
        d = ((mean - before["running_mean"]) / before["running_std"]).clip(-5, 5).detach()
        return p["weight"] * ((x - mean) / std * r + d) + p["bias"]
    if name == "power":
        psi = (buffers["running_square"].view(1, -1, *[1] * len(positions)) + EPS).sqrt()
        y = (x / psi).detach()

        def gradient(g: Tensor) -> Tensor:
            nu = (g * y).mean(over, keepdim=True) / (y.square().mean(over, keepdim=True) + EPS)
            return (g - nu * y) / psi

        return p["weight"] * Given.apply(x, y, gradient) + p["bias"]
    if name == "online":
        means, variances, *_ = streamed(
            x.detach().flatten(2) if positions else x.detach()[..., None],
            buffers["running_mean"],
            buffers["running_var"],
        )
        shape = (*x.shape[:2], *[1] * len(positions))
        sigma = (variances.view(shape) + EPS).sqrt()
        y = (x.detach() - means.view(shape)) / sigma

        def controlled(g: Tensor) -> Tensor:
            ratio = (g * y).mean(over, keepdim=True) / (y.square().mean(over, keepdim=True) + EPS)
            inner = (g - ratio * y) / sigma
            return inner - inner.mean(over, keepdim=True)

        z = p["weight"] * Given.apply(x, y, controlled) + p["bias"]
        return z / (z.square().flatten(1).mean(1).view(-1, *[1] * (x.dim() - 1)) + EPS).sqrt()
    if name == "rms":
        return p["weight"] * x / (x.square().sum(1, keepdim=True) / 4 + EPS).sqrt()
    if name == "group":
        grouped = x.unflatten(1, (2, 2)).flatten(2)
        found_mean, found_var = grouped.mean(2, keepdim=True), grouped.var(2, correction=0, keepdim=True)
        return p["weight"] * ((grouped - found_mean) / (found_var + EPS).sqrt()).view_as(x) + p["bias"]
    if name == "evonorm-s0":
        deviation = (x.unflatten(1, (2, 2)).flatten(2).var(2, correction=0, keepdim=True) + EPS).sqrt()
        swish = x / (1 + torch.exp(-p["v"] * x))
        divided = (swish.unflatten(1, (2, 2)).flatten(2) / deviation).view_as(x)
        return p["weight"] * divided + p["bias"]
    if name == "instance":
        return F.instance_norm(x, weight=p["weight"].flatten(), bias=p["bias"].flatten())
    if name == "frn":
        squares = x.square().mean(positions, keepdim=True) if positions else x.square()
        return p["weight"] * x / (squares + 1e-6 + p["eps"].abs()).sqrt() + p["bias"]
    if name == "dyt":
        exp = torch.exp(2 * p["alpha"] * x)
        return p["weight"] * (exp - 1) / (exp + 1) + p["bias"]
    if name == "derf":
        z = p["alpha"] * x + p["shift"]
        return p["weight"] * (2 * torch.special.ndtr(math.sqrt(2) * z) - 1) + p["bias"]
    if name == "scalar-bias":
        return x + p["bias"]
    if name == "over-alpha":
        return x / buffers["alpha"]
    if name == "tlu":
        return F.relu(x - p["threshold"]) + p["threshold"]
    return (
        x
        * {"layerscale": lambda: p["gain"], "skipinit": lambda: p["alpha"], "over-depth": lambda: 1 / 3}[
            name
        ]()
    )


@CASE
def test_against_its_formula_forward_and_backward(name: str, shape: tuple[int, ...]) -> None:
    norm, x = module(name), some(shape).requires_grad_()
    before = {key: value.clone() for key, value in norm.named_buffers()}
    each = {key: p.view(-1, *[1] * (len(shape) - 2)) if p.dim() else p for key, p in norm.named_parameters()}
    expected, found = formula(name, x, each, before), norm(x)
    assert torch.allclose(found, expected, rtol=1e-10, atol=1e-12)
    inputs, mix = [x, *norm.parameters()], some(shape, 1)
    pairs = zip(*(torch.autograd.grad((mix * y**2).sum(), inputs) for y in (found, expected)), strict=True)
    for one, other in pairs:
        assert one.isfinite().all()
        assert torch.allclose(one, other, rtol=1e-8, atol=1e-8)


@CASE
def test_evaluation(name: str, shape: tuple[int, ...]) -> None:
    """Running statistics, which evaluation leaves alone; without any it is what training is."""
    norm, x = module(name), some(shape)
    trained = norm(x)
    state = {key: value.clone() for key, value in norm.state_dict().items()}
    found = norm.eval()(x)
    assert all(torch.equal(value, state[key]) for key, value in norm.state_dict().items())
    assert torch.equal(found, trained) == (name not in OF_BATCH)
    if name in OF_BATCH:
        assert torch.allclose(norm(x[:1]), found[:1], rtol=1e-12)
        each = {key: value.view(-1, *[1] * (len(shape) - 2)) for key, value in state.items()}
        scale = {"mean-only": 1, "batchrenorm": each.get("running_std")}
        var = each.get("running_var", each.get("running_square", 0))
        std = scale[name] if name in scale else (var + EPS) ** 0.5
        expected = each.get("weight", 1) * (x - each.get("running_mean", 0)) / std + each["bias"]
        if name == "online":
            expected = F.rms_norm(expected, expected.shape[1:], eps=EPS)
        assert torch.allclose(found, expected, rtol=1e-12)


def test_running_statistics() -> None:
    x = some((70, 4))
    built = (MeanOnlyBatchNorm, BatchRenorm, GhostBatchNorm, PowerNorm, OnlineNorm)
    norms: list[Any] = [build(4).double() for build in built]
    for norm in norms:
        norm(x)
    mean_only, renorm, ghost, power, online = norms
    assert torch.allclose(mean_only.running_mean, 0.1 * x.mean(0))
    assert torch.allclose(renorm.running_mean, 0.1 * x.mean(0))
    assert torch.allclose(renorm.running_std, 0.9 + 0.1 * (x.var(0, correction=0) + EPS).sqrt())
    assert torch.allclose(ghost.running_mean, 0.09 * x[:35].mean(0) + 0.1 * x[35:].mean(0))
    assert int(ghost.num_batches_tracked) == 2
    assert torch.allclose(power.running_square, 0.9 + 0.1 * x.square().mean(0))
    *_, mean, var = streamed(x[..., None], torch.zeros(4).double(), torch.ones(4).double())
    assert torch.allclose(online.running_mean, mean)
    assert torch.allclose(online.running_var, var)


@pytest.mark.parametrize("name", ["power", "online"])
def test_the_papers_controllers_settle_in_this_gradient(name: str) -> None:
    """On one batch again and again, each of the paper's updates as it has it."""
    norm: Any = module(name)
    x, g = some((70, 4)).requires_grad_(), some((70, 4), 1)
    before = {key: value.clone() for key, value in norm.named_buffers()}
    norm.weight, norm.bias = nn.Parameter(torch.ones(4).double()), nn.Parameter(torch.zeros(4).double())
    y = norm(x)
    if name == "power":
        (found,) = torch.autograd.grad(y, x, g)
        psi, nu = before["running_square"].sqrt(), torch.zeros(4).double()
        hat = x.detach() / psi
        for _ in range(1000):
            expected = (g - nu * hat) / psi
            nu = nu * (1 - 0.1 * hat.square().mean(0)) + 0.1 * (g * hat).mean(0)
    else:
        means, variances, *_ = streamed(x.detach()[..., None], before["running_mean"], before["running_var"])
        hat = (x.detach() - means) / variances.sqrt()
        rms = hat.square().mean(1, keepdim=True).sqrt()
        (found,) = torch.autograd.grad(y, x, g)
        g = (g - hat * (g * hat).mean(1, keepdim=True) / rms**2) / rms  # through the layer scaling
        along, constant = torch.zeros(4).double(), torch.zeros(4).double()
        for _ in range(5000):
            inner = g - 0.01 * along * hat
            along = along + (inner * hat).mean(0)
            expected = inner / variances.sqrt() - 0.01 * constant
            constant = constant + expected.mean(0)
    assert torch.allclose(found, expected, rtol=1e-3, atol=1e-4)


@CASE
def test_a_state_dict_is_the_whole_state(name: str, shape: tuple[int, ...]) -> None:
    norm, other, x = module(name), BUILD[name](4).double(), some(shape)
    norm(x)
    other.load_state_dict(norm.state_dict())
    assert torch.equal(norm(x), other(x))
    assert torch.equal(norm.eval()(x), other.eval()(x))


@CASE
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_stacked_is_one_by_one(name: str, shape: tuple[int, ...], training: bool) -> None:
    norm = module(name).train(training)
    copies = [copy.deepcopy(norm) for _ in range(3)]
    with torch.no_grad():
        for i, one in enumerate(copies):
            for tensor in [*one.parameters(), *one.buffers()]:
                tensor.add_(i if tensor.is_floating_point() else 0)
    x = torch.stack([some(shape, seed) for seed in range(3)])
    params, buffers = (
        {key: torch.stack([getattr(one, key).detach() for one in copies]) for key, _ in named}
        for named in (norm.named_parameters(), norm.named_buffers())
    )
    found = StackedCall(norm)(params, buffers, x)
    for i, one in enumerate(copies):
        assert torch.allclose(found[i], one(x[i]), rtol=1e-10, atol=1e-12)
        assert all(torch.allclose(buffers[key][i], value, rtol=1e-12) for key, value in one.named_buffers())


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match=r"width that its 8 groups divide: got 12\. Choose such a width, or"):
        GroupNorm(12)
    with pytest.raises(ValueError, match=r"EvoNormS0 needs a width .* divide: got 12\..*partial\(EvoNormS0"):
        EvoNormS0(12)
    for shape in ((5, 4), (5, 4, 1, 1)):
        with pytest.raises(ValueError, match=r"2 positions at least, since .*: got \(5, 4.*Choose a family"):
            InstanceNorm(4)(torch.zeros(shape))


def test_starts() -> None:
    x = some((6, 4))
    assert torch.equal(TLU(4)(x), F.relu(x))
    assert torch.allclose(LayerScale(4, 9)(x), 1e-5 * x)
    assert not SkipInit(4, 9)(x).any()
    assert torch.allclose(NORMS["dyt"](4)(x), torch.tanh(x / 2))
    assert torch.allclose(NORMS["derf"](4)(x), torch.erf(x / 2))


LAYERS = pytest.mark.parametrize(
    "build", [lambda: nn.Linear(5, 3), lambda: nn.Conv2d(5, 3, 3)], ids=["linear", "conv"]
)


@LAYERS
def test_weight_norm_against_torchs(build: Callable[[], nn.Module]) -> None:
    plain: Any = build().double()
    ours, theirs = (
        weight_norm(copy.deepcopy(plain)),
        nn.utils.parametrizations.weight_norm(copy.deepcopy(plain)),
    )
    x = some((2, 5, 4, 4) if plain.weight.dim() > 2 else (2, 5))
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    assert torch.allclose(ours(x), plain(x), rtol=1e-12)
    for layer in (ours, theirs):
        with torch.no_grad():
            for p in layer.parameters():
                p.mul_(1.5).add_(0.1)
        layer(x).square().sum().backward()
    assert torch.allclose(ours(x), theirs(x), rtol=1e-12)
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(one.grad, other.grad, rtol=1e-10, atol=1e-12)  # type: ignore[arg-type]


@LAYERS
@pytest.mark.parametrize(
    ("wrap", "gain"),
    [(weight_standardization, 2), (scaled_weight_standardization, 2 / (1 - 1 / math.pi))],
    ids=["plain", "scaled"],
)
def test_standardized_weights(build: Callable[[], nn.Module], wrap: Any, gain: float) -> None:
    plain: Any = build().double()
    rows = plain.weight.detach().flatten(1).requires_grad_()
    n, mean, std = rows.shape[1], rows.mean(1, keepdim=True), rows.std(1, correction=0, keepdim=True)
    layer: Any = wrap(copy.deepcopy(plain))
    expected = math.sqrt(gain) * (rows - mean) / (n * std**2 + 1e-4).sqrt()
    assert torch.allclose(layer.weight.flatten(1), expected, rtol=1e-10, atol=1e-14)
    mix = some(rows.shape)
    (mix * layer.weight.flatten(1)).sum().backward()
    (truth,) = torch.autograd.grad((mix * expected).sum(), rows)
    assert torch.allclose(
        layer.parametrizations.weight.original.grad.flatten(1), truth, rtol=1e-9, atol=1e-12
    )
    again: Any = wrap(build().double())
    again.load_state_dict(layer.state_dict())
    assert torch.equal(again.weight, layer.weight)


def test_scaled_standardization_keeps_the_variance_through_relu() -> None:
    x = torch.randn(500, 1000, generator=torch.Generator().manual_seed(0))
    y = scaled_weight_standardization(nn.Linear(1000, 1000, bias=False))(F.relu(x))
    assert float(y.detach().var(0).mean()) == pytest.approx(1, rel=0.03)
