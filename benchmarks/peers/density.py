"""Race for the spectral density of the Hessian at equal error: libraries of the field against this suite.

Every side computes with the operator of the tasks, and starts from scratch in each round: building the
operator counts. All sides use stochastic Lanczos quadrature, k probes of m Hessian products.

For a network so small that all eigenvalues of its Hessian are known, a side takes the fewest products on its
ladder of m and k with an error up to the target; finding them does not count. The error is the distance in
total variation, ½ ∫ |p − q|, between the density of its nodes and that of the eigenvalues, both smoothed by
the kernel of the task `spectrum`, a Gaussian of 1 % of the spectrum's width; it is the mean over disjoint
groups of k out of 12 probes. The ladder is tried on the Hessian as a matrix, which gives the same quadrature
at less cost; the race runs on the operators and must give the same density. At the size of the task the
eigenvalues are not known, and all sides take the same m and k.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import NamedTuple

import operators
import torch
from as_worker import start_again_as_a_worker
from operators import Problem, problems
from options import Options, count, machine, write
from quadratures import OURS, SIDES

from bnsuite.engine.clock import race
from bnsuite.engine.curvature import Density
from bnsuite.execute.provenance import reproducible

TARGET = 0.03
"""Largest error: the share of eigenvalues that are misplaced."""

KERNEL = 0.01
"""Standard deviation of the smoothing Gaussian, relative to the spectrum's width."""

SAME = 1e-3
"""Largest distance between a side's densities on its own operator and on the matrix."""

POOL = 12
ORDERS = (8, 12, 16, 24, 32, 48)
PROBES = (1, 2, 3, 4, 6)
SMALL = {"width": 8, "depth": 3, "steps": 8000}


class Setting(NamedTuple):
    """Nodes per probe, number of probes, and their mean error."""

    order: int
    probes: int
    error: float | None = None

    @property
    def products(self) -> int:
        """Number of Hessian products."""
        return self.order * self.probes


class Truth:
    """Hessian as a matrix (P, P) on its device, and the density of its eigenvalues on the CPU."""

    def __init__(self, problem: Problem) -> None:
        operator = operators.ours(problem)
        columns = torch.eye(operator.size, dtype=operator.dtype, device=operator.device)
        self.matrix = torch.stack([operator.matvec(column) for column in columns])
        values = torch.linalg.eigvalsh(self.matrix).cpu()
        low, high = float(values[0]), float(values[-1])
        self.width = KERNEL * (high - low)
        self.at = torch.linspace(low - 4 * self.width, high + 4 * self.width, 1000, dtype=values.dtype)
        self.density = Density(values[None], torch.full_like(values[None], 1 / len(values)))

    def error(self, density: Density, truth: Density | None = None) -> float:
        """Distance in total variation from another density, or from the true one."""
        densities = (
            Density(nodes.cpu(), weights.cpu()) for nodes, weights in (density, truth or self.density)
        )
        p, q = (on_cpu.smoothed(self.at, self.width)[0] for on_cpu in densities)
        return float(torch.trapezoid((p - q).abs(), self.at)) / 2


def cheapest(density: Callable[[int, int], Density], truth: Truth) -> Setting | None:
    """Setting that reaches the target with the fewest products, and among those with the lowest order."""
    best: Setting | None = None
    for order in ORDERS:
        if best and order >= best.products:
            break
        pool = density(order, POOL)
        for probes in PROBES:
            splits = zip(*(tensor.split(probes) for tensor in pool), strict=True)
            groups = (Density(*split) for split in splits)
            setting = Setting(order, probes, mean(map(truth.error, groups)))
            if setting.error <= TARGET and (best is None or setting.products < best.products):
                best = setting
    return best


@dataclass(frozen=True)
class Row:
    """Result of a side on one problem."""

    scheme: str
    width: int
    depth: int
    side: str
    order: int | None = None
    probes: int | None = None
    error: float | None = None
    products: int | None = None
    seconds: float | None = None  # median over rounds
    ratio: float | None = None  # of its seconds over ours, median over rounds
    agrees: bool = True


def compare(
    scheme: str,
    settings: dict[str, int],
    sides: Sequence[str],
    rounds: int,
    device: torch.device,
    same: Setting | None = None,
) -> list[Row]:
    """Run all sides on one network in turn.

    Args:
        scheme: name of the scheme.
        settings: width, depth and other settings of `top_eigenvalue`.
        sides: names of the sides.
        rounds: turns of each side.
        device: where they compute.
        same: setting for all sides; None: each side's cheapest one at equal error.
    """
    chosen = problems(scheme, [101], device, **settings)
    if chosen is None:
        return []
    (problem,) = chosen
    setting_of: dict[str, Setting | None] = dict.fromkeys(sides, same)
    truth = None if same else Truth(problem)

    def on_matrix(name: str, truth: Truth) -> Callable[[int, int], Density]:
        operator = SIDES[name].from_matrix(truth.matrix, problem)
        return lambda order, probes: SIDES[name].density(operator, order, probes)

    if truth:
        setting_of = {name: cheapest(on_matrix(name, truth), truth) for name in sides}
    able = {name: setting for name, setting in setting_of.items() if setting}
    last: dict[str, Density] = {}

    def contestant(name: str, setting: Setting) -> Callable[[], object]:
        def run() -> None:
            operator = SIDES[name].operator(problem)
            last[name] = SIDES[name].density(operator, setting.order, setting.probes)

        return run

    race([contestant(name, Setting(2, 1)) for name in able], 1, device, warmup=0)
    times = race([contestant(*pair) for pair in able.items()], rounds, device, warmup=0)
    rows = []
    for name, setting in setting_of.items():
        head = (scheme, settings["width"], settings["depth"], name)
        if not setting:
            rows.append(Row(*head))
            continue
        place = [*able].index(name)
        agrees = not truth or truth.error(last[name], on_matrix(name, truth)(*setting[:2])) <= SAME
        ratio = times.ratio(place, [*able].index(OURS)) if OURS in able else None
        rows.append(Row(*head, *setting, setting.products, times.median(place), ratio, agrees))
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table and write it as JSON; returns 1 if a side's operator and the matrix disagree."""
    parser = Options(__doc__, rounds=2)
    parser.add_argument(
        "--depths", nargs="*", type=count, default=[8], help="of width 64, where no truth is known"
    )
    parser.add_argument("--order", type=count, default=4, help="there, of all sides")
    parser.add_argument("--probes", type=count, default=4, help="there, of all sides")
    parser.add_argument("--sides", nargs="+", choices=list(SIDES), default=list(SIDES), help="peers")
    options, device = parser.on_device(arguments)
    torch.set_num_threads(1)
    print(f"{machine(device)}, float64")
    print(f"error at most {TARGET:g} where the truth is known; n = {options.rounds} rounds, in turn")
    print(
        f"{'scheme':<20}{'network':>8}  {'side':<12}{'order':>7}{'probes':>8}{'error':>8}{'products':>10}"
        f"{'seconds':>9}{'ours ×':>8}"
    )
    same = Setting(options.order, options.probes)
    sizes: list[tuple[dict[str, int], Setting | None]] = [(SMALL, None)]
    sizes += [({"width": 64, "depth": depth}, same) for depth in options.depths]
    sides = [name for name in SIDES if name in (OURS, *options.sides)]
    rows: list[Row] = []
    for settings, setting in sizes:
        for scheme in options.schemes:
            with reproducible(device):
                new_rows = compare(scheme, settings, sides, options.rounds, device, setting)
            if not new_rows:
                print(f"{scheme:<20}  does not come to the loss of the task")
            for row in new_rows:
                print(_line(row), flush=True)
            rows += new_rows
    write(rows, options.json)
    agree = all(row.agrees for row in rows)
    print(
        "ours ×: seconds over ours, median over rounds. network: width × depth. error: total variation from\n"
        f"the exact density. Operators agree with the full Hessian: {'yes' if agree else 'NO'}."
    )
    return 0 if agree else 1


def _line(row: Row) -> str:
    head = f"{row.scheme:<20}{f'{row.width} × {row.depth}':>8}  {row.side:<12}"
    if row.seconds is None:
        return f"{head}  no setting of its ladder comes to the error"
    error = "–" if row.error is None else f"{row.error:.4f}"
    return (
        f"{head}{row.order:>7}{row.probes:>8}{error:>8}{row.products:>10}{row.seconds:>9.2f}"
        f"{math.nan if row.ratio is None else row.ratio:>8.2f}"
    )


if __name__ == "__main__":
    start_again_as_a_worker()
    raise SystemExit(main())
