"""sharpness: the extreme eigenvalues of the Hessian of a person's own model, each with its certificate."""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from bnsuite.engine.curvature import extreme_eigenvalues
from bnsuite.instruments._problem import Data, Loss, Mode, Problem


@dataclass(frozen=True)
class Sharpness:
    """Extreme eigenvalues of a Hessian, and how far they may be off.

    Attributes:
        value: λ_max, in units of 1 / learning rate: gradient descent at a rate above 2 / λ_max is unstable.
        residual: ‖Hv − λv‖ / |λ| of λ_max, computed from its unit vector. Some eigenvalue of H lies within
            residual · |λ| of λ; a residual above the tolerance means that `max_products` were too few.
        top: the largest eigenvalues, from λ_max down.
        bottom: the smallest eigenvalues, from λ_min up.
        residuals: the residual of each, of `top` and then of `bottom`.
        vectors: their eigenvectors (top + bottom, P) in the same order, of unit norm; P are the trainable
            parameters, flattened in the order of `model.named_parameters()`.
        products: how many products with H were taken.
    """

    value: float
    residual: float
    top: tuple[float, ...]
    bottom: tuple[float, ...]
    residuals: tuple[float, ...]
    vectors: Tensor = field(repr=False)
    products: int


def sharpness(
    model: nn.Module,
    loss: Loss,
    data: Data,
    *,
    top: int = 1,
    bottom: int = 0,
    mode: Mode | None = None,
    seed: int = 0,
    tolerance: float = 1e-3,
    max_products: int = 200,
    dtype: torch.dtype = torch.float64,
) -> Sharpness:
    """Measure λ_max of the Hessian of the mean loss in the model's trainable parameters.

    Lanczos with full reorthogonalization; every eigenvalue is certified by a product with its own vector.
    The model is left as it was: everything is computed on a copy, which together with up to
    `max_products` vectors of P numbers has to fit into memory.

    What cannot be differentiated twice raises torch's own error: attention kernels other than torch's
    `scaled_dot_product_attention` (which is computed by its plain formula here), cuDNN's recurrent networks
    (work around by `torch.backends.cudnn.flags(enabled=False)`), compiled models (give the original).

    Args:
        model: any module, on any device; parameters with `requires_grad=False` are held fixed.
        loss: (outputs, targets) → the mean over the minibatch, such as `F.cross_entropy` or `nn.MSELoss()`.
        data: one minibatch (x, y), or several of any sizes, such as a `DataLoader`. x is a tensor, a tuple
            (the model is called as `model(*x)`) or a dict (`model(**x)`); y is a tensor. The loss is the
            mean over all examples: a minibatch counts by its number of rows.
        top: how many of the largest eigenvalues are wanted, at least 1.
        bottom: how many of the smallest eigenvalues are wanted.
        mode: "train": batch statistics of each minibatch, and dropout (masks are fixed by `seed`); "eval":
            running statistics; None: training mode as each submodule has it.
        seed: seed of the start of Lanczos and of the model's random numbers.
        tolerance: largest residual that is aimed at.
        max_products: limit on the steps of Lanczos.
        dtype: precision of the computation. In float32 λ can be off by half in deep networks with batch norm
            while its residual looks fine; use it only where float64 does not exist.

    Raises:
        ValueError: a model in evaluation mode without `mode`; no trainable parameter, or one with a hook; a
            loss that is no scalar; impossible data, device or dtype; more eigenvalues than parameters.
        FloatingPointError: a product with H is not finite.

    >>> import torch
    >>> from torch import nn
    >>> model = nn.Linear(2, 1, bias=False)
    >>> x = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    >>> result = sharpness(model, nn.MSELoss(), (x, torch.zeros(2, 1)))  # H = 2 xᵀx / N = diag(1, 4)
    >>> round(result.value, 6), result.residual < 1e-3
    (4.0, True)
    """
    if top < 1:
        raise ValueError(f"λ_max is among the wanted eigenvalues: got top={top}. Write top=1 or more.")
    operator = Problem(model, loss, data, mode, seed, dtype).hessian()
    spectrum = extreme_eigenvalues(
        operator, top, bottom, seed=seed, tolerance=tolerance, max_products=max_products, vectors=True
    )
    pairs = [*spectrum.top, *spectrum.bottom]
    return Sharpness(
        value=pairs[0].value,
        residual=pairs[0].residual,
        top=tuple(pair.value for pair in spectrum.top),
        bottom=tuple(pair.value for pair in spectrum.bottom),
        residuals=tuple(pair.residual for pair in pairs),
        vectors=torch.stack([pair.vector for pair in pairs if pair.vector is not None]),
        products=spectrum.products,
    )
