"""Network of the task `speedrun`: whitened patches, then six convolutions, each followed by a normalizer."""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnsuite.networks.base import UnsupportedError, checked, refuse_unbatched
from bnsuite.schemes import Scheme

SMALLEST_SIDE = 16
"""Smallest side of an image, in pixels: 16 → 15 → 7 → 3 → 1."""

PATCH, EPS = 2, 5e-4
"""Side of the whitened patches in pixels, and the ε that is added to their variances."""

LOGIT_SCALE = 1 / 8
"""Factor of the readout's output."""


class RecipeNetwork(nn.Module):
    """Network x (N, c, H, W) → logits (N, classes) of six 3×3 convolutions W_l.

    Convolutions have C, C, 4C, 4C, 4C and 4C output channels.
    h_0 = φ(whitened 2×2 patches of x); h_l = φ(N_l(pool W_l h_{l−1})) with a 2×2 max-pool at odd l and none
    at even l; logits = V max(h_6) / 8 with the maximum over all positions. Source: Jordan, arXiv 2404.00498.

    Args:
        scheme: its normalizer, and its activation where it has one; GELU by default.
        width: C.
        shape: (channels, height, width) of one image.
        classes: number of classes.

    Attributes:
        layers: convolutions, where the `init` of a scheme looks for weights.
        branches: identities, where the `init` of a scheme looks for branch scales.
        head: readout V.
    """

    def __init__(self, scheme: Scheme, width: int, shape: torch.Size, classes: int) -> None:
        super().__init__()
        norm, phi = scheme.norm or nn.Identity, scheme.activation or gelu
        self.whiten = Whitening(shape[0])
        widths = (2 * shape[0] * PATCH**2, width, width, *[4 * width] * 4)
        bare = scheme.norm is None  # with a normalizer, the shift is the normalizer's
        self.layers = nn.ModuleList(nn.Conv2d(i, o, 3, padding=1, bias=bare) for i, o in pairwise(widths))
        self.norms = nn.ModuleList(norm(out) for out in widths[1:])
        self.activations = nn.ModuleList(phi(out) for out in widths)
        self.branches = nn.ModuleList(nn.Identity() for _ in self.layers)
        self.head = nn.Linear(4 * width, classes, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        first, *activations = self.activations
        h = first(self.whiten(x))
        for i, (layer, norm, phi) in enumerate(zip(self.layers, self.norms, activations, strict=True)):
            h = layer(h)
            h = phi(norm(F.max_pool2d(h, 2) if i % 2 == 0 else h))
        return self.head(h.amax((-2, -1))) * LOGIT_SCALE  # type: ignore[no-any-return]


class Whitening(nn.Module):
    """Whitening x → [F x, −F x]: decorrelated 2×2 patches at stride 1, with both signs, so that φ keeps both.

    F is set from training images and not trained. It is applied in float32, since it takes differences of
    neighbouring pixels.
    """

    filters: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        k = channels * PATCH**2
        self.register_buffer("filters", torch.eye(k).view(k, channels, PATCH, PATCH))

    def fit(self, images: Tensor) -> None:
        """Set F = (Λ + ε)^{−1/2} Qᵀ with Cov(patches) = Q Λ Qᵀ; a patch p then has Cov(F p) = Λ / (Λ + ε).

        Source: Page, "How to train your ResNet" 8, 2019.

        Args:
            images: training images (N, c, H, W).
        """
        patches = images.unfold(2, PATCH, 1).unfold(3, PATCH, 1).movedim(1, 3)  # (N, H', W', c, 2, 2)
        values, vectors = torch.linalg.eigh(torch.cov(patches.flatten(3).flatten(0, 2).mT))
        self.filters.copy_((vectors * (values + EPS).rsqrt()).mT.view_as(self.filters))

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return F.conv2d(x, torch.cat([self.filters, -self.filters]))


def gelu(_num_features: int) -> nn.Module:
    """Build GELU, the φ of the recipe."""
    return nn.GELU()


def build(scheme: Scheme, width: int, shape: torch.Size, classes: int, seed: int) -> RecipeNetwork:
    """Build the network with the scheme's normalizers, and initialize it from `seed` alone.

    Weights are LeCun normal. Then the first filters of each W_l, as many as it has input channels, are set to
    pass one channel on each; either kind of filter has a norm of about 1. The scheme's own initialization and
    weight parametrization come last.

    Args:
        scheme: a scheme without residual paths.
        width: channels C of the first two convolutions.
        shape: (channels, height, width) of one image.
        classes: number of classes.
        seed: seed of the initialization.

    Raises:
        UnsupportedError: the images are too small, or the scheme has residual paths or refuses a size.
    """
    if min(shape[1:]) < SMALLEST_SIDE:
        raise UnsupportedError(
            f"speedrun needs images of {SMALLEST_SIDE}×{SMALLEST_SIDE} at least: got {shape[1]}×{shape[2]}"
        )
    if scheme.skip != "none":
        raise UnsupportedError(
            f"{scheme.name} has residual paths, and the network of speedrun has none to scale or normalize: "
            "measure its normalizer in a plain scheme"
        )
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.default_generator.manual_seed(seed)
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
