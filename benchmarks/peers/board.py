"""Race over the four ranked tasks of `quick`: this suite against a straightforward script with common tools.

The straightforward side trains one network at a time with torch.optim.SGD. It computes λ_max by
hessian-eigenthings' Lanczos, and doubles the order until the returned vector has a residual of 1e-3.
Both sides use the protocol's definitions, lanes and searches, so that ratios are those of the engine alone;
what the search saves over a grid is counted separately. λ_max is that of the checkpoint alone, without
further eigenvalues. digits, MLP of width 64, one thread.

By default each cell is sampled: the tuning lanes of two depths of `max_depth`, the tuning lanes of
`stable_lr`, two seeds of `top_eigenvalue`, and the confirmation lanes of `time_to_accuracy` at the published
rate. `--whole` runs whole cells.
"""

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import hessian_eigenthings
import torch
import torch.nn.functional as F
from as_worker import start_again_as_a_worker
from hessian_eigenthings import CurvatureOperator
from options import Options, machine, write
from torch import Tensor, nn
from torch.func import replace_all_batch_norm_modules_

from bnsuite.datasets import digits
from bnsuite.engine.clock import race
from bnsuite.engine.curvature import Spectrum, certified
from bnsuite.engine.lanes import Curves, Examples, Lane, Watch, judged_from
from bnsuite.engine.train import PLAIN, Sgd, accuracy
from bnsuite.execute.provenance import reproducible
from bnsuite.networks import FAMILIES
from bnsuite.profiles import load_profile
from bnsuite.protocol.search import Batch, grid
from bnsuite.records import Store
from bnsuite.schemes import REFERENCES, SCHEMES, Scheme
from bnsuite.specs import RANKED
from bnsuite.tasks import TASKS, Subject

CPU = torch.device("cpu")
PROFILE = "quick"
RECORDS = Path(__file__).parents[2] / "leaderboard" / "records" / PROFILE / "mlp-digits"

DEPTHS = (8, 32)
"""A small and a large depth of `max_depth`."""

SEEDS = 2
"""Confirmation seeds of `top_eigenvalue`."""

CLOSE = 0.02
"""Relative difference up to which two numbers agree: float32 training amplifies rounding."""

Answers = list[object]
"""One answer per lane, or per seed: an outcome, or a number."""


class Alone(NamedTuple):
    """Single network with the methods of a `Stack` that a task's watch calls."""

    module: nn.Module

    def evaluate(self, x: Tensor) -> Tensor:
        """Logits (1, N, classes) in evaluation mode."""
        self.module.eval()
        with torch.no_grad():
            logits = self.module(x)
        self.module.train()
        return logits.unsqueeze(0)

    def network(self, _i: int) -> nn.Module:
        """Copy of the network."""
        return copy.deepcopy(self.module)


def one_by_one(
    build: Callable[[int], nn.Module],
    lanes: Sequence[Lane],
    examples: Examples,
    steps: int,
    *,
    stacked: bool,  # noqa: ARG001  # the signature of `engine.lanes.sweep`
    sgd: Sgd = PLAIN,
    watch: Watch | None = None,
) -> Curves:
    """Replacement of `engine.lanes.sweep` that trains networks one after the other by torch.optim.SGD.

    Args:
        build: seed → network.
        lanes: seed and learning rate of each network.
        examples: what they train on.
        steps: steps per network.
        stacked: ignored.
        sgd: momentum and warm-up.
        watch: called after every step.
    """
    losses = torch.full((steps, len(lanes)), math.nan, dtype=torch.float64)
    accuracies = losses.clone()
    for i, lane in enumerate(lanes):
        network = build(lane.seed)
        optimizer = torch.optim.SGD(
            network.parameters(), lane.rate, momentum=sgd.momentum, nesterov=sgd.momentum > 0
        )
        for step, chosen in enumerate(examples.order(lane.seed, steps)):
            x, y = examples.x[chosen], examples.y[chosen]
            optimizer.param_groups[0]["lr"] = lane.rate * sgd.factor(step)
            logits = network(x)
            loss = F.cross_entropy(logits, y)
            losses[step, i] = loss.detach()
            if step >= judged_from(steps):
                accuracies[step, i] = accuracy(logits, y)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            left = watch and watch(step + 1, Alone(network), [lane], losses[: step + 1, i : i + 1])
            if left or not torch.isfinite(loss):
                break
    return Curves(losses, accuracies)


def operator(
    network: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    stacked: bool,  # noqa: ARG001  # the signature of our operator
) -> CurvatureOperator:
    """Hessian operator of hessian-eigenthings, on a copy without running statistics, which it cannot update.

    Args:
        network: the network.
        x: minibatches (M, N, …).
        y: labels (M, N).
        stacked: ignored.
    """
    network = replace_all_batch_norm_modules_(copy.deepcopy(network))
    batches = [*zip(x, y, strict=True)]
    loss = hessian_eigenthings.supervised_loss(nn.CrossEntropyLoss())
    return hessian_eigenthings.HessianOperator(network, batches, loss)


def doubled(
    hessian: Callable[[torch.dtype], CurvatureOperator],
    *_ends: int,
    seed: int,
    tolerance: float,
    max_products: int,
) -> Spectrum:
    """λ_max by Lanczos of order 10, 20, 40, … until it is certified, or `max_products` are spent.

    Computes in the precisions of this suite: float32, and float64 for the certificate.

    Args:
        hessian: precision → operator.
        seed: seed of the start vector.
        tolerance: relative residual that certifies λ_max.
        max_products: largest number of Hessian products.
    """
    in_float32, in_float64 = hessian(torch.float32), hessian(torch.float64)
    order, products = 10, 0
    while True:
        result = hessian_eigenthings.lanczos(
            in_float32, k=1, max_iter=order, which="LA", reorthogonalize=True, seed=seed
        )
        entry = certified(in_float64, result.eigenvectors[0].double())
        products += order + 1
        order *= 2
        if entry.residual <= tolerance or products + order > max_products:
            return Spectrum((entry,), (), products)


def straightforward(job: Callable[[], Answers]) -> Answers:
    """Run a job with the straightforward side's sweep, operator and eigensolver."""
    with ExitStack() as stack:
        for place, instead in (
            ("_task.sweep", one_by_one),
            ("_checkpoint.HessianOperator", operator),
            ("top_eigenvalue.mixed_precision_eigenvalues", doubled),
        ):
            stack.enter_context(patch(f"bnsuite.tasks.{place}", instead))
        return job()


class Job(NamedTuple):
    """Whole cell, or part of one."""

    task: str
    part: str
    run: Callable[[], Answers]


def tasks() -> dict[str, Any]:
    """Ranked tasks by name, with `top_eigenvalue` reduced to λ_max at the checkpoint."""
    settings = {name: load_profile(PROFILE).settings(name, "mlp") for name in RANKED}
    settings["top_eigenvalue"] |= {"eigenvalues": 1, "beside": 0}
    return {name: TASKS[name](**settings[name]) for name in RANKED}


def whole(scheme: Scheme) -> Iterator[Job]:
    """Jobs for the four cells of a scheme."""
    subject = Subject(scheme, FAMILIES["mlp"], digits())
    for name, task in tasks().items():

        def run(task: Any = task) -> Answers:
            return [sample.value or sample.outcome for sample in task(subject).samples]

        yield Job(name, "whole", run)


def sampled(scheme: Scheme) -> Iterator[Job]:
    """Jobs for parts of the four cells of a scheme."""
    data = digits()
    subject = Subject(scheme, FAMILIES["mlp"], data)
    deep, stable, sharp, fast = tasks().values()
    tuning = grid(deep.rates, deep.tuning)
    for depth in DEPTHS:

        def rung(depth: int = depth) -> Answers:
            return [row.outcome for row in deep.attempt(subject, Batch("tune", tuning, depth))]

        yield Job(deep.spec.name, f"{len(tuning)} lanes, {depth} layers", rung)

    lanes = grid(stable.rates, stable.tuning)

    def rates() -> Answers:
        return [row.outcome for row in stable.attempt(subject, Batch("tune", lanes))]

    yield Job(stable.spec.name, f"{len(lanes)} lanes", rates)

    few = TASKS[sharp.spec.name](**{**sharp.settings, "confirmation": sharp.confirmation[:SEEDS]})

    def eigenvalue() -> Answers:
        partition = few.partition(subject)
        samples = few.at_matched_loss(
            subject, lambda lane, there: few.sample(subject, partition, lane, there), "λ"
        )
        return [sample.value or sample.outcome for sample in samples]

    yield Job(sharp.spec.name, f"{len(few.confirmation)} seeds", eigenvalue)

    confirm = grid([_published(scheme.name, fast.spec.name).derived["rate"]], fast.confirmation)

    def arrivals() -> Answers:
        curves = fast._race_to_target(subject, confirm, data.test_x, data.test_y)
        return [fast.search.reached(curve) or fast.search.outcome(curve) for curve in curves.values()]

    yield Job(fast.spec.name, f"{len(confirm)} lanes", arrivals)


def differ(one: object, other: object) -> bool:
    """Tell whether two answers differ, numbers by more than `CLOSE`."""
    if isinstance(one, float) and isinstance(other, float):
        return not math.isclose(one, other, rel_tol=CLOSE)
    return one != other


@dataclass(frozen=True)
class Row:
    """Result of a job on both sides; seconds and ratio are medians over rounds."""

    scheme: str
    task: str
    part: str
    ours_s: float
    theirs_s: float
    ratio: float
    fastest: float  # the ratio of each side's fastest round
    answers: int
    differing: int


def compare(scheme: str, job: Job, rounds: int) -> Row:
    """Run both sides of a job in turn.

    Args:
        scheme: name of the scheme.
        job: the job.
        rounds: turns of each side.
    """
    last: dict[str, Answers] = {}
    times = race(
        [lambda: last.update(a=job.run()), lambda: last.update(b=straightforward(job.run))], rounds, CPU, 0
    )
    differing = sum(map(differ, last["a"], last["b"]))
    ours, theirs = times.seconds
    ratio, fastest = times.ratio(1, 0), min(theirs) / min(ours)
    return Row(
        scheme,
        job.task,
        job.part,
        times.median(0),
        times.median(1),
        ratio,
        fastest,
        len(last["a"]),
        differing,
    )


def of_the_board(rows: Sequence[Row]) -> float:
    """Ratio of the straightforward side's seconds to ours over all cells.

    A cell is weighted by the seconds of its published record; its ratio is that of its parts' seconds
    together.
    """
    ours = theirs = 0.0
    for cell in {(row.scheme, row.task) for row in rows}:
        parts = [row for row in rows if (row.scheme, row.task) == cell]
        weight = _published(*cell).provenance.duration_s
        ours += weight
        theirs += weight * sum(row.theirs_s for row in parts) / sum(row.ours_s for row in parts)
    return theirs / ours


def search_saves(scheme: str) -> float:
    """Ratio of the cost of a full grid over depth to the cost of the published search of `max_depth`.

    Cost counts lanes times layers. Depths of the grid differ by the final ratio of the search.
    """
    task = tasks()["max_depth"]
    tried = sum(row["depth"] for row in _published(scheme, task.spec.name).trace)
    low, high = task.depths
    count = math.ceil(math.log(high / low, task.ratio))
    depths = {round(low * (high / low) ** (i / count)) for i in range(count + 1)}
    lanes = len(task.rates) * len(task.tuning) + len(task.confirmation)
    return lanes * sum(depths) / tried


def _published(scheme: str, task: str) -> Any:
    records = [record for record in Store(RECORDS / task) if record.scheme == scheme]
    return max(records, key=lambda record: record.provenance.started)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table and write it as JSON; returns 1 if more than one answer in ten differs."""
    parser = Options(__doc__, rounds=1, among=REFERENCES)
    parser.add_argument("--tasks", nargs="+", choices=RANKED, default=list(RANKED), help="by name")
    parser.add_argument("--whole", action="store_true", help="whole cells: a quarter of an hour a scheme")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    print(machine(CPU))
    print(f"profile {PROFILE}, n = {options.rounds} rounds, in turn")
    print(
        f"{'scheme':<20}{'task':<18}{'part':<22}{'ours s':>8}{'theirs s':>9}{'ratio':>7}{'fastest':>8}"
        f"{'differ':>9}"
    )
    rows: list[Row] = []
    for name in options.schemes:
        for job in (whole if options.whole else sampled)(SCHEMES[name]):
            if job.task not in options.tasks:
                continue
            with reproducible(CPU):
                row = compare(name, job, options.rounds)
            rows.append(row)
            print(
                f"{name:<20}{job.task:<18}{job.part:<22}{row.ours_s:>8.2f}{row.theirs_s:>9.2f}"
                f"{row.ratio:>7.2f}{row.fastest:>8.2f}{f'{row.differing}/{row.answers}':>9}",
                flush=True,
            )
    write(rows, options.json)
    answers, differing = sum(row.answers for row in rows), sum(row.differing for row in rows)
    saves = ", ".join(f"{name} {search_saves(name):.1f}" for name in options.schemes)
    print(
        f"ratio: theirs / ours. These cells, weighted by the seconds of their published records: "
        f"{of_the_board(rows):.2f}.\n"
        f"Apart from that, a grid over depth has more lane-layers than what the search tried: × {saves}.\n"
        f"Answers that differ, numbers by more than {CLOSE:.0%}: {differing} of {answers}."
    )
    return int(10 * differing > answers)


if __name__ == "__main__":
    start_again_as_a_worker()
    raise SystemExit(main())
