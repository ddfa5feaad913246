"""Initializations: each changes an initialized network in place, by what all families have.

That is M residual branches, `layers`, of one weight layer each, or two in the transformer; their scales,
`branches`; the readout, `head`.
"""

from typing import Any

import torch
from torch import nn


@torch.no_grad()
def fixup(network: Any) -> None:
    """W ← 0 in the readout and the last layer of each branch, W ← M^{−1/(2m−2)} W in its other m − 1.

    With one layer a branch (mlp, cnn) no other is left, and each block starts as the identity; with two
    (transformer) Q, K, V and the perceptron's first start at M^{−1/2} W. The rest of Fixup: a multiplier each
    branch (`SkipInit` from 1) and a bias ahead of each activation, or branch (`ScalarBias`). A scalar bias
    ahead of a weight layer would only move that layer's own bias. Source: Zhang et al., arXiv 1901.09321.
    """
    nn.init.zeros_(network.head.weight)
    for layer in network.layers:
        *inner, last = (p for p in layer.parameters() if p.dim() > 1)
        nn.init.zeros_(last)
        for weight in inner:
            weight.mul_(len(network.layers) ** (-1 / (2 * len(inner))))


@torch.no_grad()
def deepnorm(network: Any) -> None:
    """α ← M^{1/4}, W ← (4 M)^{−1/4} W in each branch, but for Q and K: h ← LN(h + G(h) / α).

    The paper's M is 2 N, two branches in each of N layers of an encoder, and its LN(α h + G(h)) is the same
    but for layer norm's ε, here worth α² ε. Where h has unit variance that is (α² − 1) ε / 2 of the output:
    5e-5 in an mlp of 128 layers. Source: Wang et al., arXiv 2203.00555.
    """
    branches = len(network.layers)
    for layer, branch in zip(network.layers, network.branches, strict=True):
        branch.alpha.fill_(branches**0.25)
        for name, p in layer.named_parameters():
            if p.dim() > 1:
                scaled = p[2 * len(p) // 3 :] if name == "read.weight" else p  # V alone
                scaled.mul_((4 * branches) ** -0.25)
