"""Race for λ_max of the training loss to a certified residual: libraries of the field against this suite.

Every side computes with the operator of the task `top_eigenvalue`: networks at matched loss, digits in
minibatches of 128 with their own batch statistics, float64. All sides start from scratch in each round:
building the operator counts. A side takes the cheapest setting on its ladder that reaches a relative residual
of 1e-3; finding it does not count. The residual is that of the returned vector, by one product of a plain
operator in float64, outside the clock. Our side does what the task does, Lanczos in float32 and one product
in float64. Two further sides are ours with all products in float64, and the fastest peer in float32, whose
certificate stays outside the clock.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from statistics import median

import hessian_eigenthings
import numpy as np
import operators
import torch
from as_worker import start_again_as_a_worker
from operators import Counted, Problem, as_pyhessian_expects, problems
from options import Options, count, machine, write
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor

from bnsuite.engine.clock import race
from bnsuite.engine.curvature import (
    HessianOperator,
    Spectrum,
    certified,
    extreme_eigenvalues,
    mixed_precision_eigenvalues,
)
from bnsuite.execute.provenance import reproducible

RESIDUAL = 1e-3
"""Relative residual that certifies λ_max."""

OURS = "ours"
"""Name of this suite's side."""

MOST = 2000
"""Number of products after which a side gives up."""


@dataclass
class Found:
    """Eigenvector (P,), and the number of products that it took."""

    vector: Tensor
    products: int


def ours(problem: Problem, setting: float) -> Found:
    """λ_max as in the task: Lanczos in float32, certified in float64."""

    def hessian(dtype: torch.dtype) -> HessianOperator:
        return operators.ours(problem.to(dtype))

    return _found(mixed_precision_eigenvalues(hessian, seed=0, tolerance=setting, max_products=MOST))


def ours_in_float64(problem: Problem, setting: float) -> Found:
    """λ_max by this suite's Lanczos in float64."""
    return _found(extreme_eigenvalues(operators.ours(problem), seed=0, tolerance=setting, max_products=MOST))


def _found(spectrum: Spectrum) -> Found:
    vector = spectrum.top[0].vector
    assert vector is not None
    return Found(vector, spectrum.products)


def eigenthings_lanczos(problem: Problem, setting: float) -> Found:
    """λ_max by hessian-eigenthings' Lanczos."""
    operator = operators.eigenthings(problem)
    operator.matvec = counted = Counted(operator.matvec)
    result = hessian_eigenthings.lanczos(
        operator, k=1, max_iter=int(setting), which="LA", reorthogonalize=True, seed=0
    )
    return Found(result.eigenvectors[0], counted.calls)


def eigenthings_in_float32(problem: Problem, setting: float) -> Found:
    """λ_max by hessian-eigenthings' Lanczos in float32."""
    return eigenthings_lanczos(problem.to(torch.float32), setting)


def eigenthings_power(problem: Problem, setting: float) -> Found:
    """λ_max by hessian-eigenthings' power iteration."""
    operator = operators.eigenthings(problem)
    operator.matvec = counted = Counted(operator.matvec)
    result = hessian_eigenthings.power_iteration_one(operator, max_iter=MOST, tol=setting, seed=0)
    return Found(result[1], counted.calls)


def pyhessian_power(problem: Problem, setting: float) -> Found:
    """λ_max by PyHessian's power iteration."""
    operator = operators.pyhessian(problem)
    operator.dataloader_hv_product = counted = Counted(operator.dataloader_hv_product)
    torch.manual_seed(0)
    with as_pyhessian_expects(operator):
        vectors = operator.eigenvalues(maxIter=MOST, tol=setting, top_n=1)[1]
    return Found(torch.cat([part.flatten() for part in vectors[0]]), counted.calls)


def curvlinops_eigsh(problem: Problem, setting: float) -> Found:
    """λ_max by SciPy's eigsh on the operator of curvlinops."""
    operator = operators.curvlinops(problem).to_scipy()
    counted = Counted(operator.matvec)
    start = np.random.default_rng(0).standard_normal(operator.shape[0])
    counting = LinearOperator(operator.shape, counted, dtype=operator.dtype)
    vectors = eigsh(counting, k=1, which="LA", tol=setting, v0=start)[1]
    return Found(torch.from_numpy(vectors[:, 0]), counted.calls)


Side = Callable[[Problem, float], Found]
TOLERANCES = [10.0**-k for k in range(2, 9)]
ORDERS = [10.0 * 2**k for k in range(8)]
SIDES: dict[str, tuple[Side, Sequence[float]]] = {
    OURS: (ours, [RESIDUAL]),
    "ours in float64": (ours_in_float64, [RESIDUAL]),
    "curvlinops + eigsh": (curvlinops_eigsh, TOLERANCES),
    "eigenthings lanczos": (eigenthings_lanczos, ORDERS),
    "eigenthings in float32": (eigenthings_in_float32, ORDERS),
    "eigenthings power": (eigenthings_power, TOLERANCES),
    "pyhessian": (pyhessian_power, TOLERANCES),
}
"""Name of a side → its function and its ladder, cheapest setting first: tolerances, or Lanczos orders."""


@dataclass(frozen=True)
class Row:
    """Result of a side on one problem, or on several problems in turn."""

    scheme: str
    depth: int
    networks: int
    side: str
    settings: list[float] = field(default_factory=list)
    value: float | None = None  # the median over networks
    residual: float | None = None  # the largest
    products: int | None = None  # of all networks together
    seconds: float | None = None  # of all networks together, the median over rounds
    ratio: float | None = None  # of its seconds over ours, the median over rounds


def cheapest(side: Side, ladder: Sequence[float], problem: Problem) -> float | None:
    """First setting that reaches the residual at the upper end of the spectrum; None: none does.

    Power iteration finds the end of larger magnitude, which may be the lower one early in training.

    Args:
        side: function of the side.
        ladder: its settings, the cheapest first.
        problem: network and data.
    """
    for setting in ladder:
        found = side(problem, setting)
        value, residual = _residual(problem, found)
        if residual <= RESIDUAL:
            return setting if value > 0 else None
        if found.products >= MOST:
            return None
    return None


def _residual(problem: Problem, found: Found) -> tuple[float, float]:
    plain = HessianOperator(problem.network, *problem.data, stacked=False)
    entry = certified(plain, found.vector.detach().to(plain.device, torch.float64))
    return entry.value, entry.residual


def compare(
    scheme: str, depth: int, seeds: Sequence[int], sides: Sequence[str], rounds: int, device: torch.device
) -> list[Row]:
    """Run all sides in turn on the networks of a scheme; each side has a setting per network.

    Args:
        scheme: name of the scheme.
        depth: layers of a network.
        seeds: seed of each network.
        sides: names of the sides.
        rounds: turns of each side.
        device: where they compute.
    """
    chosen = problems(scheme, seeds, device, depth=depth)
    if chosen is None:
        return []
    settings: dict[str, list[float]] = {}
    for name in sides:
        cheapest_settings = [cheapest(*SIDES[name], problem) for problem in chosen]
        settings[name] = [setting for setting in cheapest_settings if setting is not None]
    able = [name for name in sides if len(settings[name]) == len(chosen)]
    last: dict[str, list[Found]] = {}

    def contestant(name: str) -> Callable[[], object]:
        def run() -> None:
            last[name] = [SIDES[name][0](*pair) for pair in zip(chosen, settings[name], strict=True)]

        return run

    times = race([contestant(name) for name in able], rounds, device, warmup=1)
    rows = []
    for name in sides:
        row = Row(scheme, depth, len(seeds), name)
        if name in able:
            place = able.index(name)
            certificates = [_residual(*pair) for pair in zip(chosen, last[name], strict=True)]
            row = replace(
                row,
                settings=sorted(set(settings[name])),
                value=median(value for value, _ in certificates),
                residual=max(residual for _, residual in certificates),
                products=sum(found.products for found in last[name]),
                seconds=times.median(place),
                ratio=times.ratio(place, able.index(OURS)) if OURS in able else None,
            )
        rows.append(row)
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table and write it as JSON; returns 1 if sides with a certified λ_max disagree."""
    parser = Options(__doc__, rounds=3)
    parser.add_argument("--depths", nargs="+", type=count, default=[2, 8], help="one network each")
    parser.add_argument(
        "--networks", type=count, default=1, help="at depth 8, one after the other, too; 1: no such race"
    )
    parser.add_argument("--sides", nargs="+", choices=list(SIDES), default=list(SIDES), help="peers")
    options, device = parser.on_device(arguments)
    torch.set_num_threads(1)
    print(f"{machine(device)}, float64 but where a side says float32, and in the search of ours")
    print(f"relative residual at most {RESIDUAL:g}; n = {options.rounds} rounds, in turn")
    print(
        f"{'scheme':<20}{'depth':>6}{'networks':>9}  {'side':<23}{'setting':>8}{'λ_max':>9}{'residual':>10}"
        f"{'products':>9}{'seconds':>9}{'ours ×':>8}"
    )
    jobs = [(scheme, depth, 1) for scheme in options.schemes for depth in options.depths]
    jobs += [(scheme, 8, options.networks) for scheme in options.schemes if options.networks > 1]
    rows: list[Row] = []
    agree = True
    for scheme, depth, networks in jobs:
        with reproducible(device):
            sides = [name for name in SIDES if name in (OURS, *options.sides)]
            new_rows = compare(scheme, depth, range(101, 101 + networks), sides, options.rounds, device)
        if not new_rows:
            print(f"{scheme:<20}{depth:>6}{networks:>9}  does not come to the loss of the task")
        values = [row.value for row in new_rows if row.value is not None]
        agree &= not values or max(values) - min(values) <= 2 * RESIDUAL * abs(values[0])
        for row in new_rows:
            print(_line(row), flush=True)
        rows += new_rows
    write(rows, options.json)
    print(
        "ours ×: seconds over ours, median over rounds. setting: a tolerance, or an order where there is\n"
        f"none, the cheapest that comes to the residual. Sides agree about λ_max: {'yes' if agree else 'NO'}."
    )
    return 0 if agree else 1


def _line(row: Row) -> str:
    head = f"{row.scheme:<20}{row.depth:>6}{row.networks:>9}  {row.side:<23}"
    if row.seconds is None:
        return f"{head}  no λ_max certified within {MOST} products"
    return (
        f"{head}{max(row.settings):>8.0e}{row.value:>9.4g}{row.residual:>10.1e}{row.products:>9}"
        f"{row.seconds:>9.2f}{math.nan if row.ratio is None else row.ratio:>8.2f}"
    )


if __name__ == "__main__":
    start_again_as_a_worker()
    raise SystemExit(main())
