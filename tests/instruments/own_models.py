"""Models as a person brings them, written here alone; their Hessians as explicit matrices."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

Batches = Sequence[tuple[Any, Tensor]]


class Block(nn.Module):
    """Two 3×3 convolutions with batch norm, a shortcut around them, ReLU in place."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = None
        if inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        out += x if self.downsample is None else self.downsample(x)
        activated: Tensor = self.relu(out)
        return activated


def resnet(widths: Sequence[int] = (2, 3), classes: int = 3) -> nn.Module:
    """Build a residual network of two blocks per width; images (N, 1, S, S) → (N, classes)."""
    torch.manual_seed(0)
    stages = [
        block
        for before, width in zip([widths[0], *widths], widths, strict=False)
        for block in (Block(before, width, 1 + (before != width)), Block(width, width, 1))
    ]
    stem = nn.Sequential(nn.Conv2d(1, widths[0], 3, padding=1, bias=False), nn.BatchNorm2d(widths[0]))
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], classes))
    return nn.Sequential(stem, nn.ReLU(inplace=True), *stages, head)


class Attention(nn.Module):
    """Causal self-attention by torch's fused kernel."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.qkv(x).chunk(3, dim=-1)
        )
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return out


class Layer(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.ln1, self.attention = nn.LayerNorm(width), Attention(width, heads)
        self.ln2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.ln1(x))
        out: Tensor = x + self.mlp(self.ln2(x))
        return out


class Gpt(nn.Module):
    """Tokens (N, T) → logits (N, T, V); the head shares the weights of the embedding."""

    def __init__(self, vocabulary: int = 7, width: int = 6, heads: int = 2, layers: int = 2) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Parameter(0.1 * torch.randn(1, 5, width))
        self.layers = nn.ModuleList(Layer(width, heads) for _ in range(layers))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary, bias=False)
        self.head.weight = self.tokens.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.tokens(tokens) + self.positions
        for layer in self.layers:
            x = layer(x)
        logits: Tensor = self.head(self.norm(x))
        return logits


def gpt() -> nn.Module:
    torch.manual_seed(0)
    return Gpt()


def of_tokens(logits: Tensor, y: Tensor) -> Tensor:
    """Mean cross-entropy over all tokens: (N, T, V), (N, T) → ()."""
    return F.cross_entropy(logits.flatten(0, 1), y.flatten())


def images(*sizes: int) -> Batches:
    draw = torch.Generator().manual_seed(1)
    return [(torch.randn(n, 1, 5, 5, generator=draw), torch.randint(3, (n,), generator=draw)) for n in sizes]


def sentences(*sizes: int) -> Batches:
    draw = torch.Generator().manual_seed(1)
    return [
        (torch.randint(7, (n, 5), generator=draw), torch.randint(7, (n, 5), generator=draw)) for n in sizes
    ]


def double(x: Any) -> Any:
    return x.double() if isinstance(x, Tensor) and x.is_floating_point() else x


def dense(model: nn.Module, loss: Callable[[Any, Tensor], Tensor], batches: Batches) -> Tensor:
    """The Hessian (P, P) of the mean over all examples, by torch's own double backward in float64."""
    model = copy.deepcopy(model).double()
    params = [p for p in model.parameters() if p.requires_grad]
    examples = sum(len(y) for _, y in batches)
    with sdpa_kernel(SDPBackend.MATH):
        mean = sum(loss(model(double(x)), double(y)) * len(y) / examples for x, y in batches)
    assert isinstance(mean, Tensor)
    gradient = torch.cat(
        [g.flatten() for g in torch.autograd.grad(mean, params, create_graph=True, materialize_grads=True)]
    )
    eye = torch.eye(len(gradient), dtype=torch.float64)
    rows = torch.autograd.grad(gradient, params, eye, is_grads_batched=True, materialize_grads=True)
    return torch.cat([row.flatten(1) for row in rows], 1)
