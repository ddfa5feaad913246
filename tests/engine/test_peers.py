"""The top of the spectrum beside libraries with Hessians of their own: curvlinops, hessian-eigenthings."""

import warnings

import hessian_eigenthings
import pytest
from scipy.sparse.linalg import eigsh
from torch import Tensor, nn

from bnsuite.datasets import digits
from bnsuite.engine.curvature import HessianOperator, extreme_eigenvalues
from bnsuite.networks import FAMILIES, Network, softplus
from bnsuite.norms import BatchNorm
from bnsuite.schemes import SCHEMES

JIT = "`torch.jit.script` is deprecated"  # which a dependency of curvlinops compiles with
with warnings.catch_warnings():
    warnings.filterwarnings("ignore", JIT, DeprecationWarning)
    curvlinops = pytest.importorskip("curvlinops")

TOP = 10
SHARPEST = pytest.mark.parametrize(
    ("family", "scheme"), [(family, scheme) for family in FAMILIES for scheme in ("none", "batchnorm")]
)


class ByFormula(nn.Module):
    """γ (x − μ) / √(σ² + ε) + β from elementary operations, with a batch norm's own γ and β.

    curvlinops takes forward- over reverse-mode derivatives under vmap, where torch 2.13's fused batch norm
    has a wrong one in γ (jvp of jacrev: 8 % off finite differences; grad of grad is right. Akin to
    pytorch#196699).
    """

    def __init__(self, norm: BatchNorm) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = norm.weight, norm.bias, norm.eps

    def forward(self, x: Tensor) -> Tensor:
        axes, shape = [0, *range(2, x.dim())], (1, -1, *[1] * (x.dim() - 2))
        centred = x - x.mean(axes, keepdim=True)
        scaled = centred / (centred.square().mean(axes, keepdim=True) + self.eps).sqrt()
        return self.weight.view(shape) * scaled + self.bias.view(shape)


def problem(family: str, scheme: str) -> tuple[Network, Tensor, Tensor]:
    """A small network on minibatches (2, 24, …) of digits, in float64."""
    data = digits()
    network = FAMILIES[family].build(
        SCHEMES[scheme], 2, width=4, shape=data.shape, classes=10, seed=1, activation=softplus
    )
    for module in network.modules():
        if isinstance(module, BatchNorm):  # no running statistics, which a product would change
            module.track_running_stats = False
            module.running_mean = module.running_var = module.num_batches_tracked = None
    return (
        network.double(),
        data.train_x[:48].double().view(2, 24, *data.shape),
        data.train_y[:48].view(2, 24),
    )


def ours(network: nn.Module, x: Tensor, y: Tensor) -> list[float]:
    operator = HessianOperator(network, x, y, stacked=False)
    return [e.value for e in extreme_eigenvalues(operator, TOP, seed=0, max_products=operator.size).top]


@SHARPEST
@pytest.mark.filterwarnings(f"ignore:{JIT}:DeprecationWarning")
def test_curvlinops_with_scipy(family: str, scheme: str) -> None:
    network, x, y = problem(family, scheme)
    values = ours(network, x, y)
    for i, norm in enumerate(network.norms):
        network.norms[i] = ByFormula(norm) if isinstance(norm, BatchNorm) else norm
    rival = curvlinops.HessianLinearOperator(
        network, nn.CrossEntropyLoss(), list(network.parameters()), list(zip(x, y, strict=True))
    )
    theirs = eigsh(rival.to_scipy(), k=TOP, which="LA", tol=1e-6, return_eigenvectors=False)
    assert values == pytest.approx(sorted(theirs.tolist(), reverse=True), rel=1e-3)


@SHARPEST
def test_hessian_eigenthings(family: str, scheme: str) -> None:
    network, x, y = problem(family, scheme)
    rival = hessian_eigenthings.HessianOperator(
        network, list(zip(x, y, strict=True)), hessian_eigenthings.supervised_loss(nn.CrossEntropyLoss())
    )
    found = hessian_eigenthings.lanczos(
        rival, k=TOP, max_iter=100, tol=1e-6, reorthogonalize=True, which="LA", seed=3
    )
    assert ours(network, x, y) == pytest.approx(sorted(found.eigenvalues.tolist(), reverse=True), rel=1e-3)
