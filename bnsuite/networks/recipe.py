"""The network of `speedrun`: whitened patches, six convolutions with a slot for a normalizer behind each."""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnsuite.networks.base import UnsupportedError, checked, refuse_unbatched
from bnsuite.schemes import Scheme

SIDE = 16
"""Least side of an image: 16 → 15 → 7 → 3 → 1."""

PATCH, EPS = 2, 5e-4
"""Side of the patches that are whitened, and what is added to their variances."""

LOGIT_SCALE = 1 / 8


class RecipeNetwork(nn.Module):
    """x (N, c, H, W) → logits (N, classes): six 3×3 convolutions W_l of C, C, 4C, 4C, 4C, 4C channels.

    h_0 = φ(whitened 2×2 patches of x); h_l = φ(N_l(pool W_l h_{l−1})), a 2×2 max-pool at odd l, none at
    even; logits = V max(h_6) / 8, the maximum over all positions. A layout of Jordan, arXiv 2404.00498.

    Attributes:
        layers, branches, head: what an initialization of a scheme finds in all networks.
    """

    def __init__(self, scheme: Scheme, width: int, shape: torch.Size, classes: int) -> None:
        super().__init__()
        norm, phi = scheme.norm or nn.Identity, scheme.activation or gelu
        self.whiten = Whitening(shape[0])
        widths = (2 * shape[0] * PATCH**2, width, width, *[4 * width] * 4)
        bare = scheme.norm is None  # otherwise the shift is the normalizer's
        self.layers = nn.ModuleList(nn.Conv2d(i, o, 3, padding=1, bias=bare) for i, o in pairwise(widths))
        self.norms = nn.ModuleList(norm(out) for out in widths[1:])
        self.activations = nn.ModuleList(phi(out) for out in widths)
        self.branches = nn.ModuleList(nn.Identity() for _ in self.layers)
        self.head = nn.Linear(4 * width, classes, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        first, *activations = self.activations
        h = first(self.whiten(x))
        for place, parts in enumerate(zip(self.layers, self.norms, activations, strict=True)):
            layer, norm, phi = parts
            h = layer(h)
            h = phi(norm(F.max_pool2d(h, 2) if place % 2 == 0 else h))
        return self.head(h.amax((-2, -1))) * LOGIT_SCALE  # type: ignore[no-any-return]


class Whitening(nn.Module):
    """x → [F x, −F x]: the 2×2 patches of stride 1, decorrelated, with both signs, for φ to keep.

    F is set from training images and not trained; in float32, for it takes differences of neighbours.
    """

    filters: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        k = channels * PATCH**2
        self.register_buffer("filters", torch.eye(k).view(k, channels, PATCH, PATCH))

    def fit(self, images: Tensor) -> None:
        """F = (Λ + ε)^{−1/2} Qᵀ with Cov(patches) = Q Λ Qᵀ; a patch then has Cov(F p) = Λ / (Λ + ε).

        Source: Page, "How to train your ResNet" 8, 2019.
        """
        patches = images.unfold(2, PATCH, 1).unfold(3, PATCH, 1).movedim(1, 3)  # (N, H', W', c, 2, 2)
        values, vectors = torch.linalg.eigh(torch.cov(patches.flatten(3).flatten(0, 2).mT))
        self.filters.copy_((vectors * (values + EPS).rsqrt()).mT.view_as(self.filters))

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return F.conv2d(x, torch.cat([self.filters, -self.filters]))


def gelu(num_features: int) -> nn.Module:
    """φ of the recipe."""
    return nn.GELU()


def build(scheme: Scheme, width: int, shape: torch.Size, classes: int, seed: int) -> RecipeNetwork:
    """The network with the scheme in its slots, initialized by `seed` alone.

    Weights are LeCun normal; then the first filters of each W_l, as many as it has inputs, pass one input
    on: norms are about 1 in both. Then come the scheme's own initialization and weight parametrization.

    Raises:
        UnsupportedError: the images are too small, the scheme has residual paths, or refuses a size.
    """
    if min(shape[1:]) < SIDE:
        raise UnsupportedError(f"speedrun needs images of {SIDE}×{SIDE} at least: got {shape[1]}×{shape[2]}")
    if scheme.skip != "none":
        raise UnsupportedError(
            f"{scheme.name} has residual paths, and the recipe's network has none to scale or to normalize: "
            "measure its normalizer in a plain scheme"
        )
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        try:
            network = RecipeNetwork(scheme, width, shape, classes)
        except ValueError as error:
            raise UnsupportedError(f"{scheme.name} cannot be built for speedrun: {error}") from error
        draw = torch.Generator().manual_seed(seed)
        for layer in [*network.layers, network.head]:
            assert isinstance(layer, (nn.Conv2d, nn.Linear))
            nn.init.kaiming_normal_(layer.weight, nonlinearity="linear", generator=draw)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
            if isinstance(layer, nn.Conv2d):
                nn.init.dirac_(layer.weight[: layer.in_channels])
        if scheme.init is not None:
            scheme.init(network)
        if scheme.weight is not None:
            network.layers = nn.ModuleList(map(scheme.weight, network.layers))
    refuse_unbatched(network)
    return checked(network, scheme)
