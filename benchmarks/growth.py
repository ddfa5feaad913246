"""Growth of cost: seconds of the engine's jobs while one of their sizes doubles.

MLP of width 64 with batch norm, digits, one thread of a CPU, or a GPU; the sizes of a ladder take turns. The
exponent p of t ∝ nᵖ is the slope of log t over log n by least squares; the exponent of the last doubling is
log₂ t(2n)/t(n). 1: cost is proportional to size; below 1: fixed or shared cost still matters.
"""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn

from bnsuite.datasets import digits
from bnsuite.engine.clock import Race, race
from bnsuite.engine.curvature import HessianOperator, extreme_eigenvalues, spectral_density
from bnsuite.engine.stack import Stack
from bnsuite.engine.train import training_step
from bnsuite.execute.provenance import reproducible
from bnsuite.networks import FAMILIES, softplus
from bnsuite.schemes import SCHEMES, Factory

WIDTH, BATCH = 64, 128
Job = Callable[[], object]


class Ladder(NamedTuple):
    """Job at sizes that double."""

    job: str
    size: str
    sizes: Sequence[int]
    at: Callable[[int], Job]


def sweep_step(scheme: str, depth: int, lanes: int, device: torch.device) -> Job:
    """Job: one step of SGD of stacked networks.

    Args:
        scheme: name of the scheme.
        depth: layers of a network.
        lanes: number of networks.
        device: where they train.
    """
    data = digits().to(device)
    stack = Stack([_network(scheme, depth, device)] * lanes, range(lanes), stacked=True)
    x = data.train_x[:BATCH].expand(lanes, BATCH, *data.shape).contiguous()
    y = data.train_y[:BATCH].expand(lanes, BATCH)
    rates = torch.full((lanes,), 0.01, device=device)
    return lambda: training_step(stack.forward, stack.params, None, x, y, rates, 0.0)


def hessian_product(scheme: str, depth: int, minibatches: int, device: torch.device) -> Job:
    """Job: one product with the Hessian, whose graph is built before.

    Args:
        scheme: name of the scheme.
        depth: layers of the network.
        minibatches: minibatches of the loss.
        device: where it is computed.
    """
    operator = _hessian(scheme, depth, minibatches, device)
    generator = torch.Generator().manual_seed(0)
    vector = torch.randn(operator.size, generator=generator, dtype=operator.dtype).to(device)
    return lambda: operator.matvec(vector)


def density(scheme: str, depth: int, probes: int, device: torch.device) -> Job:
    """Job: a spectral density of order 8 from one operator.

    Args:
        scheme: name of the scheme.
        depth: layers of the network.
        probes: random starts.
        device: where it is computed.
    """
    operator = _hessian(scheme, depth, 4, device)
    return lambda: spectral_density(operator, 8, range(probes))


def top_eigenvalues(scheme: str, depth: int, seeds: int, device: torch.device) -> Job:
    """Job: λ_max of several networks to a residual of 1e-3, including their operators.

    Args:
        scheme: name of the scheme.
        depth: layers of a network.
        seeds: number of networks.
        device: where it is computed.
    """
    return lambda: [
        extreme_eigenvalues(_hessian(scheme, depth, 4, device, network), seed=0)
        for network in range(1, seeds + 1)
    ]


def ladders(scheme: str, device: torch.device) -> list[Ladder]:
    """List the ladders of a scheme."""
    return [
        Ladder("step, 8 lanes", "depth", (8, 16, 32, 64), lambda n: sweep_step(scheme, n, 8, device)),
        Ladder("step, 8 layers", "lanes", (4, 8, 16, 32), lambda n: sweep_step(scheme, 8, n, device)),
        Ladder("Hessian product", "depth", (4, 8, 16), lambda n: hessian_product(scheme, n, 4, device)),
        Ladder(
            "Hessian product", "minibatches", (2, 4, 8, 16), lambda n: hessian_product(scheme, 4, n, device)
        ),
        Ladder("density", "probes", (1, 2, 4, 8), lambda n: density(scheme, 4, n, device)),
        Ladder("λ_max", "networks", (1, 2, 4), lambda n: top_eigenvalues(scheme, 4, n, device)),
    ]


def exponent(sizes: Sequence[int], seconds: Sequence[float]) -> float:
    """Exponent p of t ∝ nᵖ, by least squares over logarithms."""
    return statistics.linear_regression([*map(math.log, sizes)], [*map(math.log, seconds)]).slope


@dataclass(frozen=True)
class Growth:
    """Median seconds over rounds of a job at sizes that double; as text a row of Markdown."""

    scheme: str
    job: str
    size: str
    sizes: Sequence[int]
    seconds: Sequence[float]
    exponent: float
    last: float  # log₂ t(2n)/t(n) of the last doubling

    def __str__(self) -> str:
        cells = [
            self.scheme,
            self.job,
            self.size,
            ", ".join(map(str, self.sizes)),
            ", ".join(f"{1e3 * seconds:.3g}" for seconds in self.seconds),
            f"{self.exponent:.2f}",
            f"{self.last:.2f}",
        ]
        return f"| {' | '.join(cells)} |"


def growth(scheme: str, ladder: Ladder, times: Race) -> Growth:
    """Growth of the cost of a job.

    Args:
        scheme: name of the scheme.
        ladder: the job.
        times: race of the sizes of the ladder.
    """
    medians = [times.median(i) for i in range(len(ladder.sizes))]
    last = math.log2(times.ratio(-1, -2))
    return Growth(scheme, *ladder[:3], medians, exponent(ladder.sizes, medians), last)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table, and write it as JSON."""
    from peers.options import Options, machine, write  # here, since asv imports this module without peers/

    options, device = Options(__doc__, rounds=7, schemes=["batchnorm"]).on_device(arguments)
    torch.set_num_threads(1)
    print(f"{machine(device)}, n = {options.rounds} rounds, medians\n")
    print("| scheme | job | size | n | milliseconds | exponent | of the last doubling |")
    print("|---|---|---|---|---|---|---|")
    rows: list[Growth] = []
    for scheme in options.schemes:
        with reproducible(device):
            for ladder in ladders(scheme, device):
                times = race([*map(ladder.at, ladder.sizes)], options.rounds, device)
                rows.append(growth(scheme, ladder, times))
                print(rows[-1], flush=True)
    write(rows, options.json)
    return 0


def _network(
    scheme: str, depth: int, device: torch.device, seed: int = 1, activation: Factory | None = None
) -> nn.Module:
    data = digits()
    built = FAMILIES["mlp"].build(
        SCHEMES[scheme],
        depth,
        width=WIDTH,
        shape=data.shape,
        classes=data.classes,
        seed=seed,
        activation=activation,
    )
    return built.to(device)


def _hessian(
    scheme: str, depth: int, minibatches: int, device: torch.device, seed: int = 1
) -> HessianOperator:
    """Hessian over minibatches of 64, of which digits has 22, in float64."""
    data = digits().to(device)
    x = data.train_x[: minibatches * 64].double().view(minibatches, 64, *data.shape)
    y = data.train_y[: minibatches * 64].view(minibatches, 64)
    return HessianOperator(_network(scheme, depth, device, seed, softplus).double(), x, y, stacked=True)


if __name__ == "__main__":
    from peers.as_worker import start_again_as_a_worker

    start_again_as_a_worker()
    raise SystemExit(main())
