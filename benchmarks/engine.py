"""Speed and memory of the engine, on the networks of the `quick` profile: MLP, width 64, digits."""

import torch

from bnsuite.datasets import digits
from bnsuite.engine.curvature import HessianOperator, extreme_eigenvalues
from bnsuite.engine.lanes import Examples, Lane, sweep
from bnsuite.networks import FAMILIES, softplus
from bnsuite.protocol.search import log_grid
from bnsuite.schemes import REFERENCES, SCHEMES, Factory

WIDTH, BATCH = 64, 128


def _network(scheme: str, depth: int, seed: int, activation: Factory | None = None) -> torch.nn.Module:
    data = digits()
    return FAMILIES["mlp"].build(
        SCHEMES[scheme],
        depth,
        width=WIDTH,
        shape=data.shape,
        classes=data.classes,
        seed=seed,
        activation=activation,
    )


class _Few:
    """Settings for few long calls, one per sample; `setup` makes the first call, which loads code."""

    number = 1
    rounds = 1
    repeat = (3, 3, 4.0)
    warmup_time = 0.0
    version = "1"


class Sweep(_Few):
    """Training of 18 stacked lanes, 32 layers deep, for 10 steps."""

    params = (REFERENCES,)
    param_names = ("scheme",)

    def setup(self, scheme: str) -> None:
        torch.set_flush_denormal(True)
        data = digits()
        self.examples = Examples(data.train_x, data.train_y, BATCH)
        self.lanes = [Lane(seed, rate) for rate in log_grid(1e-3, 2, 9) for seed in (1, 2)]
        self._sweep(scheme, 1)

    def _sweep(self, scheme: str, steps: int) -> None:
        sweep(lambda seed: _network(scheme, 32, seed), self.lanes, self.examples, steps, stacked=True)

    def time_sweep(self, scheme: str) -> None:
        self._sweep(scheme, 10)

    def peakmem_sweep(self, scheme: str) -> None:
        self._sweep(scheme, 10)


class Curvature(_Few):
    """Hessian of the loss over the whole training set, 8 layers deep, float64."""

    params = (("batchnorm", "layernorm"),)
    param_names = ("scheme",)

    def setup(self, scheme: str) -> None:
        torch.set_flush_denormal(True)
        data = digits()
        minibatches = len(data.train_x) // BATCH
        x = data.train_x[: minibatches * BATCH].double().view(minibatches, BATCH, *data.shape)
        y = data.train_y[: minibatches * BATCH].view(minibatches, BATCH)
        self.operator = HessianOperator(_network(scheme, 8, 1, softplus).double(), x, y, stacked=True)
        generator = torch.Generator().manual_seed(0)
        self.vector = torch.randn(self.operator.size, generator=generator, dtype=torch.float64)
        self.operator.matvec(self.vector)

    def time_hessian_product(self, _scheme: str) -> None:
        self.operator.matvec(self.vector)

    def time_top_eigenvalue(self, _scheme: str) -> None:
        extreme_eigenvalues(self.operator, seed=0)

    def peakmem_top_eigenvalue(self, _scheme: str) -> None:
        extreme_eigenvalues(self.operator, seed=0)


class Import:
    """Import in a fresh interpreter."""

    number = 1
    repeat = (2, 3, 5.0)
    version = "1"

    def timeraw_import_bnsuite(self) -> str:
        return "import bnsuite"

    def timeraw_import_all_beyond_torch(self) -> tuple[str, str]:
        return "from bnsuite import run", "import torch"
