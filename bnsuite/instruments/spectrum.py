"""spectrum: the spectral density of the Hessian of a person's own model."""

import torch
from torch import nn

from bnsuite.engine import curvature
from bnsuite.instruments._problem import Data, Loss, Mode, Problem


class Density(curvature.Density):
    """Spectral density of a model's Hessian; its text has the number of nodes and their ends."""

    __slots__ = ()

    def __repr__(self) -> str:
        probes, order = self.nodes.shape
        low, high = self.nodes.aminmax()
        return f"Density({probes} probes of {order} nodes, from {low:.4g} to {high:.4g})"


def spectrum(
    model: nn.Module,
    loss: Loss,
    data: Data,
    *,
    order: int = 64,
    probes: int = 8,
    mode: Mode | None = None,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
) -> Density:
    """Estimate the spectral density of the Hessian of the mean loss by stochastic Lanczos quadrature.

    Σ_j w_j f(θ_j) of each probe estimates tr f(H) / P: the mean of the nodes is tr H / P, and
    `density.mass(low, high)` the share of eigenvalues in an interval. Takes order · probes products with H.
    The model is left as it was; limits on what it may be are those of `bnsuite.sharpness`.
    Source: B. Ghorbani et al., arXiv 1901.10159.

    Args:
        model: any module; see `bnsuite.sharpness` for its limits.
        loss: (outputs, targets) → the mean over the minibatch.
        data: one minibatch (x, y), or several of any sizes; see `bnsuite.sharpness`.
        order: number of nodes per probe, at most the number P of trainable parameters.
        probes: number of random starts; standard errors need 2 at least.
        mode: "train", "eval", or None: training mode as each submodule has it.
        seed: seed of the first probe and of the model's random numbers; the next probe has the next seed.
        dtype: precision of the computation.

    Returns:
        Nodes θ and weights w, (probes, order) each, with `smoothed(at, width)` and `mass(low, high)`.

    Raises:
        ValueError: as `bnsuite.sharpness`; no probes; an order below 1 or above P.
        FloatingPointError: a product with H is not finite.

    >>> import torch
    >>> from torch import nn
    >>> model = nn.Linear(2, 1, bias=False)
    >>> x = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    >>> density = spectrum(model, nn.MSELoss(), (x, torch.zeros(2, 1)), order=2)  # eigenvalues 1 and 4
    >>> [round(float(node), 6) for node in density.nodes[0]]
    [1.0, 4.0]
    >>> density
    Density(8 probes of 2 nodes, from 1 to 4)
    """
    operator = Problem(model, loss, data, mode, seed, dtype).hessian()
    return Density(*curvature.spectral_density(operator, order, range(seed, seed + probes)))
