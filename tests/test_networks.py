"""Networks: the protocol's equations, written out again by hand; initialization; shapes."""

import copy
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnsuite.datasets import digits
from bnsuite.engine.curvature import HessianOperator
from bnsuite.networks import FAMILIES, Network, UnsupportedError, relu, softplus
from bnsuite.norms import BatchNorm, LayerNorm
from bnsuite.schemes import REFERENCES, SCHEMES, Scheme

FAMILY = pytest.mark.parametrize("family", FAMILIES)
LAYERED = pytest.mark.parametrize("family", ["mlp", "cnn"])
SKIP = pytest.mark.parametrize("skip", ["none", "pre", "post"])
IMAGES = {8: torch.Size([1, 8, 8]), 20: torch.Size([3, 20, 20])}


def build(scheme: Scheme, family: str = "mlp", depth: int = 4, seed: int = 0, **changes: Any) -> Network:
    settled: dict[str, Any] = {"width": 6, "shape": IMAGES[8], "classes": 5}
    return FAMILIES[family].build(scheme, depth, seed=seed, **{**settled, **changes})


def images(side: int = 8, n: int = 7) -> Tensor:
    draw = torch.Generator().manual_seed(0)
    return torch.randn(n, *IMAGES[side], generator=draw, dtype=torch.float64)


def weights(network: Network) -> list[tuple[Tensor, Tensor]]:
    """Of every hidden weight layer."""
    layers = (network.get_submodule(name) for name in network.gains)
    return [(layer.weight, layer.bias) for layer in layers]  # type: ignore[misc]


def by_hand(
    network: Network, family: str, x: Tensor, skip: str, branch: Any = None, phi: Any = F.relu
) -> Tensor:
    """Logits by the protocol's equations, N_l being the network's own normalizers in their order."""
    norms, (stem, *hidden) = list(network.norms), weights(network)
    branch = branch or (lambda h: h)

    def linear(h: Tensor, w: Tensor, b: Tensor) -> Tensor:
        return h @ w.T + b if family == "mlp" else F.conv2d(h, w, b, padding=1)

    h = linear(x.flatten(1) if family == "mlp" else x, *stem)
    if family == "cnn":
        k = -(-x.shape[-1] // 8)
        h = h.unfold(2, k, k).unfold(3, k, k).mean((-2, -1))
    for i, (w, b) in enumerate(hidden):
        if skip == "none":
            h = linear(phi(norms[i](h)), w, b)
        elif skip == "pre":
            h = h + branch(linear(phi(norms[i](h)), w, b))
        else:
            h = norms[i](h + branch(linear(phi(h), w, b)))
    last = phi(h) if skip == "post" else phi(norms[-1](h))
    pooled = last if family == "mlp" else last.mean((2, 3))
    return pooled @ network.head.weight.T + network.head.bias


def perturbed(network: Network) -> Network:
    """Biases and shifts too, in float64."""
    for p in network.double().parameters():
        p.data += 0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1))
    return network


@LAYERED
@SKIP
@pytest.mark.parametrize("norm", [None, BatchNorm, LayerNorm])
@pytest.mark.parametrize("depth", [1, 2, 5])
def test_the_equations(family: str, skip: Any, norm: Any, depth: int) -> None:
    network = perturbed(build(Scheme("x", norm, skip=skip), family, depth))
    again = copy.deepcopy(network)
    assert torch.allclose(network(images()), by_hand(again, family, images(), skip), rtol=1e-10, atol=1e-12)
    assert len(network.norms) == (depth - 1 if skip == "post" else depth)


def blocks_by_hand(
    network: Network, x: Tensor, skip: str, heads: int, alpha: float = 1.0, phi: Any = F.relu
) -> tuple[Tensor, list[Tensor]]:
    """Logits of a transformer, with torch's own attention and tokens cut out singly; h before each block."""
    side, norms, p = x.shape[-1], list(network.norms), dict(network.named_parameters())
    if side <= 16:
        tokens = [x[:, :, i].flatten(1) for i in range(side)]
    else:
        corners = [(i, j) for i in range(0, side, 4) for j in range(0, side, 4)]
        tokens = [x[:, :, i : i + 4, j : j + 4].flatten(1) for i, j in corners]

    def linear(h: Tensor, name: str) -> Tensor:
        return F.linear(h, p[f"{name}.weight"], p[f"{name}.bias"])

    def normed(i: int, h: Tensor) -> Tensor:
        y: Tensor = norms[i](h.transpose(1, 2)).transpose(1, 2)
        return y

    def attention(h: Tensor, name: str) -> Tensor:
        q, k, v = (
            part.unflatten(-1, (heads, -1)).transpose(1, 2)
            for part in linear(h, f"{name}.read").chunk(3, dim=-1)
        )
        mixed = F.scaled_dot_product_attention(q, k, v)
        return linear(mixed.transpose(1, 2).flatten(2), f"{name}.write")

    def perceptron(h: Tensor, name: str) -> Tensor:
        return linear(phi(linear(h, f"{name}.expand")), f"{name}.contract")

    h = linear(torch.stack(tokens, 1), "stem") + p["positions.start"]
    inputs = []
    for i in range(len(network.layers)):  # type: ignore[arg-type]
        if i % 2 == 0:
            inputs.append(h)
        part = perceptron if i % 2 else attention
        if skip == "post":
            h = normed(i, h + alpha * part(h, f"layers.{i}"))
        else:
            h = h + alpha * part(normed(i, h), f"layers.{i}")
    if skip != "post":
        h = normed(len(network.layers), h)  # type: ignore[arg-type]
    return linear(h.mean(1), "head"), inputs


@SKIP
@pytest.mark.parametrize("norm", [None, BatchNorm, LayerNorm])
@pytest.mark.parametrize(
    ("width", "heads", "side", "depth"), [(6, 1, 8, 1), (8, 4, 8, 1), (8, 4, 20, 2), (12, 4, 8, 4)]
)
def test_the_equations_of_the_transformer(
    skip: Any, norm: Any, width: int, heads: int, side: int, depth: int
) -> None:
    scheme = Scheme("x", norm, skip=skip, branch=1.0 if skip == "none" else 0.3)
    network = perturbed(build(scheme, "transformer", depth, width=width, shape=IMAGES[side]))
    x, hidden = images(side), list[Tensor]()
    alpha = 1.0 if skip == "none" else 0.3
    expected, inputs = blocks_by_hand(copy.deepcopy(network), x, skip, heads, alpha)
    found = network.compose(x, lambda part, h: part(h), hidden.append)
    assert torch.allclose(found, expected, rtol=1e-10, atol=1e-12)
    assert len(network.norms) == 2 * depth + (skip != "post")
    assert len(hidden) == depth
    assert all(torch.allclose(h.mT, other, rtol=1e-10) for h, other in zip(hidden, inputs, strict=True))


def test_the_transformer_brings_its_own_residual_paths() -> None:
    plain, residual = (build(SCHEMES[name], "transformer") for name in ("batchnorm", "residual-batchnorm"))
    assert torch.equal(plain(images().float()), residual(images().float()))


@pytest.mark.parametrize(
    ("shape", "tokens"),
    [
        ((1, 8, 8), 8),
        ((3, 16, 16), 16),
        ((3, 5, 16), 5),
        ((3, 20, 20), 25),
        ((1, 28, 28), 49),
        ((3, 8, 32), 16),
    ],
)
def test_tokens(shape: tuple[int, int, int], tokens: int) -> None:
    network = build(SCHEMES["layernorm"], "transformer", 1, shape=torch.Size(shape))
    assert network.positions.start.shape == (tokens, 6)
    assert network.stem.in_features == math.prod(shape) // tokens
    assert network(torch.randn(2, *shape)).shape == (2, 5)


@pytest.mark.parametrize("side", [17, 18, 30])
def test_an_image_that_patches_do_not_cover(side: int) -> None:
    with pytest.raises(UnsupportedError, match=rf"layernorm .* transformer: patches of 4×4 .* {side}×{side}"):
        build(SCHEMES["layernorm"], "transformer", shape=torch.Size([3, side, side]))


def test_the_order_of_tokens_counts_from_the_start() -> None:
    network, x = build(SCHEMES["layernorm"], "transformer").double(), images()
    assert not torch.allclose(network(x.flip(2)), network(x), rtol=1e-3)
    torch.nn.init.zeros_(network.positions.start)
    assert torch.allclose(network(x.flip(2)), network(x), rtol=1e-10)


@FAMILY
@pytest.mark.parametrize("stacked", [True, False], ids=["stacked", "one by one"])
@pytest.mark.parametrize("norm", [BatchNorm, LayerNorm])
def test_the_hessian_of_every_family_is_symmetric(family: str, stacked: bool, norm: Any) -> None:
    network = build(Scheme("x", norm, skip="post"), family, 2, activation=softplus).double()
    x, y = images(n=12).view(2, 6, 1, 8, 8), torch.arange(12).view(2, 6) % 5
    operator = HessianOperator(network, x, y, stacked=stacked)
    draw = torch.Generator().manual_seed(1)
    u, v = torch.randn(2, operator.size, generator=draw, dtype=torch.float64)
    assert float(u @ operator.matvec(v)) == pytest.approx(float(v @ operator.matvec(u)), rel=1e-9)
    step = 1e-5  # the gradient's own change along v
    ends = []
    for sign in (1, -1):
        moved = copy.deepcopy(network)
        torch.nn.utils.vector_to_parameters(
            torch.nn.utils.parameters_to_vector(network.parameters()) + sign * step * v, moved.parameters()
        )
        ends.append(HessianOperator(moved, x, y, stacked=stacked).gradient)
    slope = (ends[0] - ends[1]) / (2 * step)
    assert torch.allclose(operator.matvec(v), slope, rtol=1e-4, atol=1e-4 * float(slope.norm()))


@pytest.mark.parametrize("branch", [0.25, lambda c, depth: nn.Linear(c, c)])
@pytest.mark.parametrize("skip", ["pre", "post"])
def test_a_branch_scale(skip: Any, branch: Any) -> None:
    network = build(Scheme("x", LayerNorm, skip=skip, branch=branch)).double()
    own = network.branches[0]
    if callable(branch):
        for other in network.branches:
            other.load_state_dict(own.state_dict())
    expected = by_hand(network, "mlp", images(), skip, own if callable(branch) else lambda h: 0.25 * h)
    assert torch.allclose(network(images()), expected, rtol=1e-10)


def test_a_branch_is_told_width_and_depth() -> None:
    told: list[tuple[int, int]] = []

    def branch(width: int, depth: int) -> nn.Module:
        told.append((width, depth))
        return nn.Identity()

    build(Scheme("x", skip="pre", branch=branch), depth=4)
    assert told == [(6, 4)] * 3
    build(Scheme("x", skip="pre", branch=branch), "transformer", depth=2)
    assert told[3:] == [(6, 2)] * 4


@FAMILY
@pytest.mark.parametrize("depth", [1, 2, 9])
@pytest.mark.parametrize("scheme", [SCHEMES[name] for name in REFERENCES], ids=REFERENCES)
def test_depth_counts_hidden_weight_layers_or_blocks(family: str, depth: int, scheme: Scheme) -> None:
    network = build(scheme, family, depth)
    kind = nn.Conv2d if family == "cnn" else nn.Linear
    found = [m for m in network.modules() if isinstance(m, kind) and m is not network.head]
    assert len(found) == len(network.gains) == (1 + 4 * depth if family == "transformer" else depth)
    assert network(images().float()).shape == (7, 5)
    with pytest.raises(ValueError, match="at least 1 hidden layer: got depth 0"):
        build(scheme, family, 0)


@pytest.mark.parametrize(
    ("height", "width", "after"),
    [(8, 8, (8, 8)), (9, 9, (4, 4)), (16, 16, (8, 8)), (28, 28, (7, 7)), (32, 32, (8, 8)), (8, 32, (8, 8))],
)
def test_one_pool_leaves_a_side_of_at_most_8(height: int, width: int, after: tuple[int, int]) -> None:
    shape = torch.Size([3, height, width])
    network = build(SCHEMES["none"], "cnn", shape=shape)
    hidden: list[Tensor] = []
    network.compose(torch.zeros(1, *shape), lambda part, h: part(h), hidden.append)
    assert {h.shape[2:] for h in hidden} == {after}
    assert isinstance(network.pool, nn.Identity) is (after == (height, width)), (
        "digits' networks as they were"
    )
    assert isinstance(build(SCHEMES["none"], "mlp", shape=shape).pool, nn.Identity)
    network = build(SCHEMES["none"], "cnn", shape=IMAGES[20]).double()
    assert torch.allclose(network(images(20)), by_hand(network, "cnn", images(20), "none"), rtol=1e-10)


@FAMILY
def test_initial_variances(family: str) -> None:
    network = build(SCHEMES["batchnorm"], family, 3, width=128, shape=torch.Size([3, 12, 12]), classes=200)
    for (weight, bias), name in zip(weights(network), network.gains, strict=True):
        he = family != "transformer" or "expand" in name  # φ follows
        deviation = math.sqrt((1 + he) / weight[0].numel())
        assert float(weight.detach().std()) == pytest.approx(deviation, rel=0.05)
        assert abs(float(weight.detach().mean())) < 0.05 * deviation
        assert not bias.any()
    if family == "transformer":
        assert float(network.positions.start.detach().std()) == pytest.approx(1, rel=0.05)
    head = network.head
    assert float(head.weight.detach().std()) == pytest.approx(math.sqrt(1 / 128), rel=0.05)
    assert not head.bias.any()
    gaussian = weights(network)[1][0].detach().flatten()
    assert float((gaussian**4).mean() / (gaussian**2).mean() ** 2) == pytest.approx(3, rel=0.15)


class Drawing(nn.Module):
    """Draws from the global stream while it is built."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.start = nn.Parameter(torch.randn(num_features))

    def forward(self, x: Tensor) -> Tensor:
        return x + 0 * self.start


@FAMILY
def test_one_seed_gives_every_scheme_the_same_weights(family: str) -> None:
    schemes = [
        *map(SCHEMES.__getitem__, REFERENCES),
        Scheme("drawing", Drawing),
        Scheme("post", BatchNorm, skip="post"),
    ]
    networks = [build(scheme, family, seed=3) for scheme in schemes]

    def started(network: Network) -> list[Tensor]:
        positions = [network.positions.start] if family == "transformer" else []
        pairs = [*weights(network), (network.head.weight, network.head.bias)]
        return [*(tensor for pair in pairs for tensor in pair), *positions]

    for network in networks[1:]:
        assert all(map(torch.equal, started(network), started(networks[0])))
    assert torch.equal(build(schemes[4], family, seed=3).norms[0].start, networks[4].norms[0].start)
    assert not torch.equal(build(SCHEMES["none"], family, seed=4).stem.weight, networks[0].stem.weight)


@FAMILY
def test_building_leaves_the_callers_random_stream_alone(family: str) -> None:
    state = torch.get_rng_state()
    build(Scheme("drawing", Drawing), family)
    assert torch.equal(torch.get_rng_state(), state)


def test_own_activation_takes_the_place_of_the_tasks() -> None:
    def own(num_features: int) -> nn.Module:
        return nn.PReLU(num_features)

    network = build(Scheme("x", activation=own), activation=softplus)
    assert len([m for m in network.modules() if isinstance(m, nn.PReLU)]) == 4
    wide = build(Scheme("x", activation=own), "transformer", depth=3, width=8)
    assert [m.num_parameters for m in wide.modules() if isinstance(m, nn.PReLU)] == [4 * 8] * 3
    assert not [m for m in network.modules() if isinstance(m, nn.Softplus)]
    smooth = build(SCHEMES["none"], activation=softplus).double()
    expected = by_hand(smooth, "mlp", images(), "none", phi=lambda h: torch.log1p(torch.exp(10 * h)) / 10)
    assert torch.allclose(smooth(images()), expected, rtol=1e-9)
    assert isinstance(relu(3), nn.ReLU)


def test_own_init_sees_the_initialized_network() -> None:
    seen: list[float] = []

    def init(network: nn.Module) -> None:
        seen.append(float(network.stem.weight.detach().std()))
        nn.init.zeros_(network.head.weight)

    network = build(Scheme("x", init=init))
    assert seen == [pytest.approx(math.sqrt(2 / 64), rel=0.2)]
    assert not network(images().float()).any()


@FAMILY
def test_own_weight_wraps_every_hidden_layer_and_keeps_its_start(family: str) -> None:
    plain = build(SCHEMES["none"], family)
    wrapped = build(Scheme("x", weight=nn.utils.parametrizations.weight_norm), family)
    names = [name for name, _ in wrapped.named_parameters() if "original" in name]
    assert len(names) == 2 * len(plain.gains)
    assert not any("head" in name for name in names)
    assert torch.allclose(wrapped(images().float()), plain(images().float()), rtol=1e-4, atol=1e-5)


def test_a_weight_wrapper_may_return_another_module() -> None:
    class Doubled(nn.Module):
        def __init__(self, layer: nn.Module) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, x: Tensor) -> Tensor:
            return 2 * self.layer(x)  # type: ignore[no-any-return]

    plain, doubled = build(Scheme("plain")), build(Scheme("doubled", weight=Doubled))
    x = images().float()
    depth = len(plain.layers) + 1
    assert not plain.head.bias.any()  # without biases a ReLU network is homogeneous
    assert torch.allclose(doubled(x), 2**depth * plain(x), rtol=1e-4, atol=1e-5)


@FAMILY
@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES)
def test_every_scheme_has_finite_gradients_in_every_family(family: str, scheme: Scheme) -> None:
    if (scheme.name, family) == ("instancenorm", "mlp"):
        pytest.skip("needs positions")
    network = build(scheme, family, width=16)
    network(images().float()).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


@FAMILY
def test_skipinit_starts_without_its_branches_and_layerscale_nearly(family: str) -> None:
    def hidden(name: str) -> list[Tensor]:
        found: list[Tensor] = []
        network = build(SCHEMES[name], family)
        network.compose(images().float(), lambda part, h: part(h), found.append)
        return found

    skipped, scaled = hidden("skipinit"), hidden("layerscale")
    assert all(torch.equal(h, skipped[0]) for h in skipped)
    assert all(torch.allclose(h, scaled[0], atol=1e-3) for h in scaled)
    assert not torch.equal(scaled[-1], scaled[0])


def outputs(network: Network) -> list[Tensor]:
    """h_1 … h_L and the logits."""
    found: list[Tensor] = []
    logits = network.compose(images(), lambda part, h: part(h), found.append)
    return [*found, logits]


@FAMILY
def test_fixup_starts_as_the_stem_alone(family: str) -> None:
    network, plain = (build(SCHEMES[name], family).double() for name in ("fixup", "none"))
    *hidden, logits = outputs(network)
    assert all(torch.equal(h, hidden[0]) for h in hidden)
    assert not logits.any()
    branches = len(network.layers)
    assert branches == (8 if family == "transformer" else 3)
    for name in network.gains:
        one, other = (n.get_submodule(name).weight for n in (network, plain))
        first = any(part in name for part in ("read", "expand"))
        scale = 1 if name == "stem" else branches**-0.5 if first else 0
        assert torch.allclose(one, scale * other, rtol=1e-6)
    assert [branch.alpha.item() for branch in network.branches] == [1] * branches
    assert all(not norm.bias.any() for norm in network.norms)


@FAMILY
def test_deepnorm_against_the_papers_equation(family: str) -> None:
    network, plain = (build(SCHEMES[name], family).double() for name in ("deepnorm", "none"))
    *hidden, _ = outputs(network)
    branches = len(network.layers)
    alpha, beta = branches**0.25, (4 * branches) ** -0.25
    h, found = hidden[0], []
    for i, (layer, norm) in enumerate(zip(network.layers, network.norms, strict=True)):
        h = norm(alpha * h + layer(h if family == "transformer" else F.relu(h)))
        found += [h] if family != "transformer" or i % 2 else []
    for one, other in zip(found, hidden[1:], strict=False):
        assert torch.allclose(one, other, rtol=1e-3, atol=1e-4)  # ε is worth α² ε
    for name in network.gains:
        one, other = (n.get_submodule(name).weight for n in (network, plain))
        kept = len(other) if name == "stem" else 12 if "read" in name else 0  # Q and K, 6 rows each
        assert torch.equal(one[:kept], other[:kept])
        assert torch.allclose(one[kept:], beta * other[kept:], rtol=1e-6)


def test_what_cannot_be_built_is_unsupported() -> None:
    def groups(num_features: int) -> nn.Module:
        return nn.GroupNorm(4, num_features)

    with pytest.raises(UnsupportedError, match=r"groups cannot be built for mlp: .*divisible"):
        build(Scheme("groups", groups))
    build(Scheme("groups", groups), width=8)


@FAMILY
def test_a_real_batch_goes_through(family: str) -> None:
    data = digits()
    network = FAMILIES[family].build(SCHEMES["batchnorm"], 3, width=8, shape=data.shape, classes=10, seed=0)
    assert network.training
    assert network(data.train_x[:5]).shape == (5, 10)


class Wrapped(nn.Module):
    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.inner = nn.InstanceNorm1d(num_features)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.inner(x)
        return out


@pytest.mark.parametrize(
    ("family", "norm", "name"),
    [
        ("mlp", nn.InstanceNorm1d, "InstanceNorm1d"),
        ("mlp", Wrapped, "InstanceNorm1d"),
        ("mlp", lambda c: nn.Dropout1d(), "Dropout1d"),
        ("transformer", nn.InstanceNorm2d, "InstanceNorm2d"),
        ("cnn", nn.InstanceNorm3d, "InstanceNorm3d"),
    ],
)
def test_a_module_that_reads_a_batch_as_one_example_refuses(family: str, norm: Any, name: str) -> None:
    network = build(Scheme("odd", norm), family).double()
    for copied in (network, copy.deepcopy(network)):
        with pytest.raises(
            ValueError, match=rf"{name} reads \(7, 6.* as one example without a batch dimension"
        ):
            copied(images())


@pytest.mark.parametrize(
    ("family", "norm"),
    [("mlp", nn.BatchNorm1d), ("transformer", nn.InstanceNorm1d), ("cnn", nn.InstanceNorm2d)],
)
def test_modules_that_read_a_batch_as_one_are_taken(family: str, norm: Any) -> None:
    assert build(Scheme("plain", norm), family).double()(images()).shape == (7, 5)


def test_a_pool_over_channels_is_no_reading_of_a_batch() -> None:
    """(N, C) or (1, N, C): each row is pooled by itself."""
    network = build(Scheme("pooled", lambda c: nn.AvgPool1d(3, 1, 1)), "mlp").double().eval()
    x = images()
    assert torch.allclose(network(x)[:1], network(x[:1]))
