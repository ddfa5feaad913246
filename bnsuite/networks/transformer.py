"""Family `transformer`: blocks of self-attention and a perceptron, with the normalizers of a scheme."""

import math
from collections.abc import Callable, Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from bnsuite.networks.base import Apply, Family, Gain, Network, See, Size, branch_scale, unseen
from bnsuite.schemes import Factory, Scheme

PATCHES_ABOVE = 16
"""Largest image side, in pixels, for which tokens are rows; for larger images they are patches."""

PATCH = 4
"""Side of a patch, in pixels."""

HEADS = 4
"""Heads of attention if they divide the width; otherwise there is one head."""


class Transformer(Network):
    """Network of `depth` blocks of self-attention A and a perceptron M, with residual paths.

    With tokens x_t and h_1 = W_1 x_t + b_1 + p_t, p_t learned for each position t, block l is

    - skip="none", skip="pre": h ← h + α_l A(N_l(h)); h ← h + α'_l M(N'_l(h)); logits = V mean_t N(h) + c
    - skip="post": h ← N_l(h + α_l A(h)); h ← N'_l(h + α'_l M(h)); logits = V mean_t h + c

    with every N on (N, C, T), and h_l the input of block l. The residual paths belong to the family, so
    skip="none" and skip="pre" differ by the branch scale alone: `batchnorm` and `residual-batchnorm` are one
    network. Tokens are rows of images up to 16×16, and patches of 4×4 of larger images.

    Args:
        scheme: the scheme.
        size: depth, width, shape of one input and number of classes.
        activation: factory of φ in the perceptrons, unless the scheme has its own.

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
        self.branches = nn.ModuleList(branch_scale(scheme, width, depth) for _ in layers)
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

    def initialize_own(self, generator: torch.Generator) -> None:
        nn.init.normal_(self.positions.start, generator=generator)

    def blocks(self) -> list[nn.Module]:
        return [nn.ModuleList(pair) for pair in zip(self.layers[::2], self.layers[1::2], strict=True)]


class Positions(nn.Module):
    """Learned positions x → x + p, p (T, C) drawn from N(0, 1): at first as large as standardized tokens."""

    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.start = nn.Parameter(torch.empty(tokens, width))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.start


class Attention(nn.Module):
    """Self-attention among the T tokens of (N, C, T): W mix(Q x + q, K x + k, V x + v) + w.

    Q, K and V are one layer. There are 4 heads if they divide C, otherwise 1.
    """

    gains: ClassVar[dict[str, Gain]] = {"read": "linear", "write": "linear"}

    def __init__(self, width: int) -> None:
        super().__init__()
        self.read, self.write = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mix = Mix(HEADS if width % HEADS == 0 else 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.compose(x, lambda part, h: part(h))

    def compose(self, x: Tensor, apply: Apply) -> Tensor:
        """Forward pass in which every part is called by `apply`."""
        return apply(self.write, apply(self.mix, apply(self.read, x.mT))).mT


class Mix(nn.Module):
    """Attention (q, k, v) → Σ_s softmax_s(q_t · k_s / √d) v_s in each head, d = C / heads.

    Maps (…, T, 3 C) to (…, T, C). Written out, since torch's fused attention has no second derivative.
    Source: Vaswani et al., arXiv 1706.03762.
    """

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.heads = heads

    def forward(self, x: Tensor) -> Tensor:
        parts = x.reshape(*x.shape[:-1], 3, self.heads, -1)  # (…, T, 3, heads, d)
        q, k, v = parts.transpose(-4, -2).unbind(-3)  # (…, heads, T, d)
        scores = q @ k.mT / math.sqrt(q.shape[-1])
        return (torch.softmax(scores, -1) @ v).transpose(-3, -2).flatten(-2)

    def stacked(self, _params: Mapping[str, Tensor], _buffers: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """Stacked formula of `engine.stacked`: attention treats lanes like any leading dimension."""
        return self.forward(x)


class Perceptron(nn.Module):
    """Perceptron W φ(U x + u) + w at each position of (N, C, T), with 4 C hidden features."""

    gains: ClassVar[dict[str, Gain]] = {"expand": "relu", "contract": "linear"}

    def __init__(self, width: int, activation: Factory) -> None:
        super().__init__()
        self.expand, self.contract = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.activation = activation(4 * width)

    def forward(self, x: Tensor) -> Tensor:
        return self.compose(x, lambda part, h: part(h))

    def compose(self, x: Tensor, apply: Apply) -> Tensor:
        """Forward pass in which every part is called by `apply`."""
        h = apply(self.activation, apply(self.expand, x.mT).mT)
        return apply(self.contract, h.mT).mT


def _tokens(shape: torch.Size) -> tuple[Callable[[Tensor], Tensor], int]:
    """Function from images (N, *shape) to tokens (N, T, features), and T."""
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


TRANSFORMER = Family("transformer", "residual blocks of self-attention and a perceptron", Transformer)
