"""Families: how a network is built from a scheme and a depth, exactly by the protocol's equations."""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from bnsuite.engine.train import trainable
from bnsuite.schemes import Factory, Scheme

N = TypeVar("N", bound=nn.Module)

SIDE = 8
"""Largest height and width of what the `cnn` has after its stem: above it pools once, by averages."""

PATCHES_ABOVE = 16
"""Image side up to which the tokens of the `transformer` are rows; patches above."""

PATCH = 4
"""Side of a patch."""

HEADS = 4
"""Heads of attention where they divide the width; otherwise there is one."""

Apply = Callable[[Callable[[Tensor], Tensor], Tensor], Tensor]
"""(part of a network, h) → what the part makes of h"""

See = Callable[[Tensor], object]
"""Takes h_l."""


Gain = Literal["relu", "linear"]
"""How a weight starts: He normal (before φ) or LeCun normal."""


def unseen(h: Tensor) -> None:
    """Takes h_l and forgets it: a tensor that nobody keeps gives its place in the caches to the next."""


class UnsupportedError(Exception):
    """The scheme cannot be built for this family: a result, not a failure."""


class Size(NamedTuple):
    """What a network is built to."""

    depth: int
    width: int
    shape: torch.Size  # (channels, height, width) of one input
    classes: int


class Network(nn.Module):
    """x (N, *shape) → logits (N, classes).

    Attributes:
        gains: every hidden weight layer by its name, in the order in which they are drawn.
        head: the readout.
    """

    gains: dict[str, Gain]
    head: nn.Linear

    def compose(self, x: Tensor, apply: Apply, see: See = unseen) -> Tensor:
        """The forward pass with every part called by `apply`, for one network or for stacked ones.

        `see` is called with h_1 … h_L.
        """
        raise NotImplementedError

    def weights(self) -> list[list[nn.Parameter]]:
        """Of each of the L hidden layers, or blocks, the weights: parameters of more than one dimension."""
        return [[p for p in block.parameters() if p.dim() > 1] for block in self.blocks()]

    def blocks(self) -> list[nn.Module]:
        """The L hidden weight layers, or blocks."""
        raise NotImplementedError


class Layered(Network):
    """depth hidden weight layers around a scheme, by the equations of `Scheme`."""

    def __init__(
        self,
        scheme: Scheme,
        layers: list[nn.Module],
        width: int,
        classes: int,
        activation: Factory,
        prepare: Callable[[Tensor], Tensor],
        pool: nn.Module,
        gather: Callable[[Tensor], Tensor],
    ) -> None:
        super().__init__()
        depth = len(layers)
        norm = scheme.norm or nn.Identity
        self.skip = scheme.skip
        self.stem, self.layers = layers[0], nn.ModuleList(layers[1:])
        self.norms = nn.ModuleList(norm(width) for _ in range(depth - (self.skip == "post")))
        self.activations = nn.ModuleList((scheme.activation or activation)(width) for _ in range(depth))
        self.branches = nn.ModuleList(_branch(scheme, width, depth) for _ in range(depth - 1))
        self.head = nn.Linear(width, classes)
        self.pool = pool
        self.gains = {"stem": "relu", **{f"layers.{i}": "relu" for i in range(depth - 1)}}
        self._prepare, self._gather = prepare, gather

    def forward(self, x: Tensor) -> Tensor:
        return self.compose(x, lambda part, h: part(h))

    def compose(self, x: Tensor, apply: Apply, see: See = unseen) -> Tensor:
        h = apply(self.pool, apply(self.stem, apply(self._prepare, x)))
        *inner, last = self.activations
        for i, (layer, phi, branch) in enumerate(zip(self.layers, inner, self.branches, strict=True)):
            see(h)
            if self.skip == "none":
                h = apply(layer, apply(phi, apply(self.norms[i], h)))
            elif self.skip == "pre":
                h = h + apply(branch, apply(layer, apply(phi, apply(self.norms[i], h))))
            else:
                h = apply(self.norms[i], h + apply(branch, apply(layer, apply(phi, h))))
        see(h)
        if self.skip != "post":
            h = apply(self.norms[-1], h)
        return apply(self.head, apply(self._gather, apply(last, h)))

    def blocks(self) -> list[nn.Module]:
        return [self.stem, *self.layers]


class Scale(nn.Module):
    """A fixed branch scale: α x."""

    def __init__(self, alpha: float) -> None:
        super().__init__()
        self.alpha = alpha

    def forward(self, x: Tensor) -> Tensor:
        return self.alpha * x


def _branch(scheme: Scheme, width: int, depth: int) -> nn.Module:
    if callable(scheme.branch):
        return scheme.branch(width, depth)
    return nn.Identity() if scheme.branch == 1.0 else Scale(scheme.branch)


class Transformer(Network):
    """depth blocks of self-attention A and a perceptron M, with residual paths, around a scheme.

    With tokens x_t and h_1 = W_1 x_t + b_1 + p_t, p_t learned for each position t, block l is

    - skip="none", skip="pre": h ← h + α_l A(N_l(h)); h ← h + α'_l M(N'_l(h)); logits = V mean_t N(h) + c
    - skip="post": h ← N_l(h + α_l A(h)); h ← N'_l(h + α'_l M(h)); logits = V mean_t h + c

    with every N on (N, C, T), and h_l what block l is given. The residual paths are the family's own, so
    skip="none" and skip="pre" are the same network but for the branch scale: `batchnorm` and
    `residual-batchnorm` coincide. Tokens are the rows of an image up to 16×16, patches of 4×4 above.

    Raises:
        ValueError: patches do not cover the image.
    """

    def __init__(self, scheme: Scheme, size: Size, activation: Factory) -> None:
        super().__init__()
        depth, width, shape, classes = size
        self._prepare, tokens = _tokens(shape)
        self.stem = nn.Linear(shape.numel() // tokens, width)
        layers: list[Attention | Perceptron] = []
        for _ in range(depth):
            layers += [Attention(width), Perceptron(width, scheme.activation or activation)]
        self.skip = scheme.skip
        self.positions = Positions(tokens, width)
        self.layers = nn.ModuleList(layers)
        norm = scheme.norm or nn.Identity
        self.norms = nn.ModuleList(norm(width) for _ in range(2 * depth + (self.skip != "post")))
        self.branches = nn.ModuleList(_branch(scheme, width, depth) for _ in layers)
        self.head = nn.Linear(width, classes)
        self.gains = {"stem": "linear"}
        for i, layer in enumerate(layers):
            self.gains |= {f"layers.{i}.{name}": gain for name, gain in layer.gains.items()}

    def forward(self, x: Tensor) -> Tensor:
        return self.compose(x, lambda part, h: part(h))

    def compose(self, x: Tensor, apply: Apply, see: See = unseen) -> Tensor:
        h = apply(self.positions, apply(self.stem, apply(self._prepare, x))).mT
        for i, (layer, branch) in enumerate(zip(self.layers, self.branches, strict=True)):
            if i % 2 == 0:
                see(h)
            if self.skip == "post":
                h = apply(self.norms[i], h + apply(branch, apply(layer, h)))
            else:
                h = h + apply(branch, apply(layer, apply(self.norms[i], h)))
        if self.skip != "post":
            h = apply(self.norms[-1], h)
        return apply(self.head, h.mean(-1))

    def blocks(self) -> list[nn.Module]:
        return [nn.ModuleList(pair) for pair in zip(self.layers[::2], self.layers[1::2], strict=True)]


class Positions(nn.Module):
    """x + p, with p (T, C) learned from N(0, 1): at the start as large as standardized tokens are."""

    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.start = nn.Parameter(torch.empty(tokens, width))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.start


class Attention(nn.Module):
    """Self-attention among the T tokens of (N, C, T): W mix(Q x + q, K x + k, V x + v) + w.

    Q, K and V are one layer; 4 heads where they divide C, otherwise 1.
    """

    gains: ClassVar[dict[str, Gain]] = {"read": "linear", "write": "linear"}

    def __init__(self, width: int) -> None:
        super().__init__()
        self.read, self.write = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mix = Mix(HEADS if width % HEADS == 0 else 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.compose(x, lambda part, h: part(h))

    def compose(self, x: Tensor, apply: Apply) -> Tensor:
        return apply(self.write, apply(self.mix, apply(self.read, x.mT))).mT


class Mix(nn.Module):
    """q, k, v (…, T, 3 C) → Σ_s softmax_s(q_t · k_s / √d) v_s (…, T, C), in each head of d = C / heads.

    Written out, since torch's fused attention has no second derivative. Source: Vaswani et al., arXiv
    1706.03762.
    """

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.heads = heads

    def forward(self, x: Tensor) -> Tensor:
        parts = x.reshape(*x.shape[:-1], 3, self.heads, -1)  # (…, T, 3, heads, d)
        q, k, v = parts.transpose(-4, -2).unbind(-3)  # (…, heads, T, d)
        scores = q @ k.mT / math.sqrt(q.shape[-1])
        return (torch.softmax(scores, -1) @ v).transpose(-3, -2).flatten(-2)

    def stacked(self, params: Mapping[str, Tensor], buffers: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """The rule of `engine.stacked`: attention does not know of lanes."""
        return self.forward(x)


class Perceptron(nn.Module):
    """W φ(U x + u) + w at each position of (N, C, T), with 4 C hidden features."""

    gains: ClassVar[dict[str, Gain]] = {"expand": "relu", "contract": "linear"}

    def __init__(self, width: int, activation: Factory) -> None:
        super().__init__()
        self.expand, self.contract = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.activation = activation(4 * width)

    def forward(self, x: Tensor) -> Tensor:
        return self.compose(x, lambda part, h: part(h))

    def compose(self, x: Tensor, apply: Apply) -> Tensor:
        h = apply(self.activation, apply(self.expand, x.mT).mT)
        return apply(self.contract, h.mT).mT


@dataclass(frozen=True)
class Family:
    """A way to build networks."""

    name: str
    about: str
    network: Callable[[Scheme, Size, Factory], Network]

    def build(
        self,
        scheme: Scheme,
        depth: int,
        *,
        width: int,
        shape: torch.Size,
        classes: int,
        seed: int,
        activation: Factory | None = None,
    ) -> Network:
        """A network of `depth` hidden weight layers, or blocks, initialized by `seed` alone.

        Weights before φ are He normal (fan-in), all others LeCun normal, biases 0. They are drawn after
        everything else was built, so that two schemes at one seed start from the same weights.

        Args:
            shape: (channels, height, width) of one input.
            activation: φ from `num_features`; ReLU by default. A scheme with its own keeps it.

        Raises:
            UnsupportedError: the family or the scheme's parts refuse this size, with a ValueError; or its
                parameters cannot be trained (see `checked`).
            ValueError: depth below 1.
        """
        if depth < 1:
            raise ValueError(f"a network has at least 1 hidden layer: got depth {depth}")
        size = Size(depth, width, shape, classes)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            try:
                network = self.network(scheme, size, activation or relu)
            except ValueError as error:
                raise UnsupportedError(f"{scheme.name} cannot be built for {self.name}: {error}") from error
            _initialize(network, seed)
            if scheme.init is not None:
                scheme.init(network)
            if scheme.weight is not None:
                for name in network.gains:
                    network.set_submodule(name, scheme.weight(network.get_submodule(name)))
        refuse_unbatched(network)
        return checked(network, scheme)


def checked(network: N, scheme: Scheme) -> N:
    """The network, where its parameters can be trained (see `engine.train.trainable`).

    Raises:
        UnsupportedError: they cannot; names the parameter.
    """
    try:
        trainable(network)
    except ValueError as error:
        raise UnsupportedError(f"{scheme.name} cannot be trained: {error}") from error
    return network


def refuse_unbatched(network: nn.Module) -> None:
    """Let torch modules of a scheme raise ValueError where they would read (N, C, *S) as one example.

    Torch's instance norms, convolutions and channelwise dropouts also take an input without a batch
    dimension, with one dimension less: (N, C) would be (channels, positions), silently. Its pools and
    pads do so too, but compute the same for each row.
    """
    for name, module in network.named_modules():
        if re.match(r"(norms|activations|branches)\.|.*\.activation\b", name) and _positions(module):
            module.register_forward_pre_hook(_with_batch)


def _positions(module: nn.Module) -> int | None:
    """Dimensions of S, where `module` is one of torch's whose (C, *S) means another thing than (N, C, *S)."""
    for kind in type(module).__mro__:
        found = re.fullmatch(r"(?:InstanceNorm|Conv|ConvTranspose|Dropout)([123])d", kind.__name__)
        if found and kind.__module__.startswith("torch.nn.modules."):
            return None if kind is nn.Dropout2d else int(found[1])
    return None


def _with_batch(module: nn.Module, given: tuple[Tensor, ...]) -> None:
    if given and given[0].dim() == (_positions(module) or 0) + 1:
        name = type(module).__name__
        raise ValueError(f"{name} reads {tuple(given[0].shape)} as one example without a batch dimension")


def relu(num_features: int) -> nn.Module:
    """φ(x) = max(x, 0), of every task but the curvature ones."""
    return nn.ReLU()


def softplus(num_features: int) -> nn.Module:
    """φ(x) = ln(1 + e^{10 x}) / 10, the smooth stand-in for ReLU of the curvature tasks."""
    return nn.Softplus(beta=10)


def _initialize(network: Network, seed: int) -> None:
    """Weights in their order, the readout, positions where there are any, all from one stream."""
    generator = torch.Generator().manual_seed(seed)
    for name, gain in [*network.gains.items(), ("head", "linear")]:
        layer = network.get_submodule(name)
        weight, bias = layer.weight, layer.bias
        assert isinstance(weight, Tensor)
        assert isinstance(bias, Tensor)
        nn.init.kaiming_normal_(weight, nonlinearity=gain, generator=generator)
        nn.init.zeros_(bias)
    if isinstance(network, Transformer):
        nn.init.normal_(network.positions.start, generator=generator)


def _mlp(scheme: Scheme, size: Size, activation: Factory) -> Network:
    depth, width, shape, classes = size
    layers: list[nn.Module] = [nn.Linear(width if i else shape.numel(), width) for i in range(depth)]
    return Layered(scheme, layers, width, classes, activation, nn.Flatten(), nn.Identity(), nn.Identity())


def _cnn(scheme: Scheme, size: Size, activation: Factory) -> Network:
    depth, width, shape, classes = size
    layers: list[nn.Module] = [nn.Conv2d(width if i else shape[0], width, 3, padding=1) for i in range(depth)]
    window = math.ceil(shape[1] / SIDE), math.ceil(shape[2] / SIDE)
    pool = nn.AvgPool2d(window) if max(window) > 1 else nn.Identity()
    mean = partial(torch.mean, dim=(-2, -1))
    return Layered(scheme, layers, width, classes, activation, nn.Identity(), pool, mean)


def _tokens(shape: torch.Size) -> tuple[Callable[[Tensor], Tensor], int]:
    """How images (N, *shape) become tokens (N, T, features), and T."""
    _, height, width = shape
    if max(height, width) <= PATCHES_ABOVE:
        return _rows, height
    if height % PATCH or width % PATCH:
        raise ValueError(f"patches of {PATCH}×{PATCH} do not cover an image of {height}×{width}")
    return _patches, (height // PATCH) * (width // PATCH)


def _rows(x: Tensor) -> Tensor:
    return x.transpose(1, 2).flatten(2)


def _patches(x: Tensor) -> Tensor:
    n, channels, height, width = x.shape
    grid = x.reshape(n, channels, height // PATCH, PATCH, width // PATCH, PATCH)
    return grid.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        Family("mlp", "linear layers", _mlp),
        Family("cnn", "3×3 convolutions, global average before the readout", _cnn),
        Family("transformer", "residual blocks of self-attention and a perceptron", Transformer),
    )
}
"""Every family by name."""
