"""Race to a target accuracy: the task `time_to_accuracy` against bare training loops.

The task has the settings of `quick` on digits: 8 layers of width 64, evaluation every 2 steps, up to the
first evaluation at the target. `bare` does equal calls, gradients, updates and evaluations in one loop,
without curves and watch; lanes that have arrived or died leave at an evaluation. What the task takes above
`bare` is the cost of the harness. `torch` is a loop over one network with torch.optim.SGD. All sides start
from scratch in each round.
"""

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import NamedTuple

import torch
import torch.nn.functional as F
from as_worker import start_again_as_a_worker
from options import Options, machine, write
from torch import Tensor

from bnsuite.datasets import digits
from bnsuite.engine.clock import race
from bnsuite.engine.lanes import Examples, Lane
from bnsuite.engine.stacked import StackedCall, transposed_in_memory
from bnsuite.engine.train import mean_cross_entropy
from bnsuite.execute.provenance import reproducible
from bnsuite.networks import FAMILIES
from bnsuite.profiles import load_profile
from bnsuite.protocol.search import grid
from bnsuite.schemes import SCHEMES, Scheme
from bnsuite.tasks import Subject
from bnsuite.tasks.time_to_accuracy import TimeToAccuracy

Curves = dict[Lane, list[float]]
"""Accuracy at every evaluation of a lane, up to the first at the target."""


class Problem(NamedTuple):
    """Task with what to train, and what to evaluate on."""

    task: TimeToAccuracy
    subject: Subject
    lanes: Sequence[Lane]
    x: Tensor  # (N, …) to evaluate on
    y: Tensor  # (N,)

    @property
    def examples(self) -> Examples:
        """Training examples."""
        return Examples(self.subject.data.train_x, self.subject.data.train_y, self.task.batch)

    @property
    def build(self) -> Callable[[int], torch.nn.Module]:
        """Function seed → network."""
        return lambda seed: self.subject.network(self.task.depth, self.task.width, seed)


Side = Callable[[Problem], Curves]


def harness(problem: Problem) -> Curves:
    """Train by the task itself."""
    task, *rest = problem
    return task._race_to_target(*rest)


def bare(problem: Problem) -> Curves:
    """Train all lanes stacked, in one bare loop."""
    task, _, lanes, x, y = problem
    examples, momentum = problem.examples, task.momentum
    networks = {seed: problem.build(seed) for seed in {lane.seed for lane in lanes}}
    orders = {seed: examples.order(seed, task.steps) for seed in networks}
    template = networks[lanes[0].seed]
    call, evaluating = StackedCall(template), StackedCall(copy.deepcopy(template).eval())
    lane_networks = [networks[lane.seed] for lane in lanes]
    names, states = ([name for name, _ in t] for t in (template.named_parameters(), template.named_buffers()))
    stacked = [torch.stack(p).detach() for p in zip(*(n.parameters() for n in lane_networks), strict=True)]
    params = [*transposed_in_memory(dict(zip(names, stacked, strict=True))).values()]
    buffers = [torch.stack(b) for b in zip(*(n.buffers() for n in lane_networks), strict=True)]
    velocity = [torch.zeros_like(p) for p in params]
    order = torch.stack([orders[lane.seed] for lane in lanes])  # (R, steps, batch)
    rates = torch.tensor([lane.rate for lane in lanes], device=x.device)
    rows, curves = [*lanes], Curves({lane: [] for lane in lanes})
    for step in range(task.steps):
        chosen = order[:, step]
        for p in params:
            p.requires_grad_()
        logits = call(
            dict(zip(names, params, strict=True)), dict(zip(states, buffers, strict=True)), examples.x[chosen]
        )
        labels = examples.y[chosen]
        gradients = torch.autograd.grad(mean_cross_entropy(logits, labels).sum(), params)
        rate = rates * min(1, (step + 1) / task.warmup)
        with torch.no_grad():
            velocity = torch._foreach_add(gradients, velocity, alpha=momentum)
            etas = [rate.view(-1, *[1] * more) for more in range(3)]
            for p, g in zip(params, torch._foreach_add(gradients, velocity, alpha=momentum), strict=True):
                p.addcmul_(g, etas[p.dim() - 1], value=-1)
            if (step + 1) % task.every:
                continue
            test = evaluating(
                dict(zip(names, params, strict=True)),
                dict(zip(states, buffers, strict=True)),
                x.expand(len(rows), *x.shape),
            )
            right = (test.argmax(-1) == y).double().mean(-1).tolist()
            finite = torch.isfinite(logits.detach().sum((1, 2))).tolist()
            for lane, value in zip(rows, right, strict=True):
                curves[lane].append(value)
            staying = [alive and value < task.target for alive, value in zip(finite, right, strict=True)]
            if all(staying):
                continue
            rows = [*compress(rows, staying)]
            if not rows:
                break
            mask = torch.tensor(staying, device=x.device)
            params, buffers, velocity = (
                [tensor[mask] for tensor in tensors] for tensors in (params, buffers, velocity)
            )
            rates, order = rates[mask], order[mask]
    return curves


def plain(problem: Problem) -> Curves:
    """Train networks one after the other with torch.optim.SGD."""
    task, _, lanes, x, y = problem
    examples, curves = problem.examples, Curves({lane: [] for lane in lanes})
    for lane in lanes:
        network = problem.build(lane.seed)
        optimizer = torch.optim.SGD(
            network.parameters(), lane.rate, momentum=task.momentum, nesterov=True, fused=x.is_cuda
        )
        for step, chosen in enumerate(examples.order(lane.seed, task.steps)):
            optimizer.param_groups[0]["lr"] = lane.rate * min(1, (step + 1) / task.warmup)
            optimizer.zero_grad()
            loss = F.cross_entropy(network(examples.x[chosen]), examples.y[chosen])
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            if (step + 1) % task.every:
                continue
            network.eval()
            with torch.no_grad():
                right = float((network(x).argmax(-1) == y).double().mean())
            network.train()
            curves[lane].append(right)
            if right >= task.target or not torch.isfinite(loss):
                break
    return curves


SIDES: dict[str, Side] = {"harness": harness, "bare": bare, "torch": plain}
"""Name of a side → its function. harness / bare is the overhead; harness / torch that of a lone network."""


@dataclass(frozen=True)
class Row:
    """Result of a side for the lanes of one phase."""

    scheme: str
    phase: str
    lanes: int
    side: str
    steps: int  # of all lanes together, up to their ends
    seconds: float  # the median over rounds
    ratio: float  # harness / side, median over rounds
    fastest: float  # ratio of the fastest rounds


def problems(
    scheme: Scheme, task: TimeToAccuracy, device: torch.device
) -> Iterator[tuple[str, Problem, Sequence[str]]]:
    """The phases of the task at the rate that its tuning gives; and its first lane alone."""
    data = digits().to(device)
    subject = Subject(scheme, FAMILIES["mlp"], data)
    n = len(data.test_x)
    tuning = Problem(task, subject, grid(task.rates, task.tuning), data.train_x[:n], data.train_y[:n])
    best = task._fastest(harness(tuning))
    confirm = tuning._replace(lanes=grid([best], task.confirmation), x=data.test_x, y=data.test_y)
    yield "tune", tuning, ("harness", "bare")
    yield "confirm", confirm, ("harness", "bare")
    yield "alone", confirm._replace(lanes=confirm.lanes[:1]), ("harness", "bare", "torch")


def compare(
    scheme: Scheme, task: TimeToAccuracy, phases: Sequence[str], rounds: int, device: torch.device
) -> Iterator[tuple[bool, list[Row]]]:
    """Run all sides in turn; yields, for each phase, whether they agree, and their rows.

    Args:
        scheme: the scheme.
        task: the task.
        phases: names of phases.
        rounds: turns of each side.
        device: where they train.
    """
    for phase, problem, names in problems(scheme, task, device):
        if phase not in phases:
            continue
        last: dict[str, Curves] = {}

        def contestant(
            name: str, problem: Problem = problem, last: dict[str, Curves] = last
        ) -> Callable[[], object]:
            return lambda: last.update({name: SIDES[name](problem)})

        times = race([contestant(name) for name in names], rounds, device)
        agree = all(same(problem, last["harness"], last[name], exact=name == "bare") for name in names[1:])
        yield (
            agree,
            [
                Row(
                    scheme.name,
                    phase,
                    len(problem.lanes),
                    name,
                    task.every * sum(map(len, last[name].values())),
                    times.median(i),
                    times.ratio(0, i),
                    min(times.seconds[0]) / min(times.seconds[i]),
                )
                for i, name in enumerate(names)
            ],
        )


def same(problem: Problem, one: Curves, other: Curves, exact: bool) -> bool:
    """Tell whether each lane arrives on both sides, at most one evaluation apart, or on neither.

    Training in float32 amplifies rounding, which may shift an arrival.

    Args:
        problem: what was trained.
        one: curves of a side.
        other: curves of the other side.
        exact: ask for arrival at equal steps, with equal accuracies up to there.
    """
    reached = problem.task.search.reached
    for lane in problem.lanes:
        steps = reached(one[lane]), reached(other[lane])
        if None in steps and steps != (None, None):
            return False
        if abs((steps[0] or 0) - (steps[1] or 0)) > (0 if exact else problem.task.every):
            return False
    finite = {lane: [value for value in one[lane] if math.isfinite(value)] for lane in problem.lanes}
    return not exact or all(other[lane][: len(finite[lane])] == finite[lane] for lane in problem.lanes)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table and write it as JSON; returns 1 if the sides disagree."""
    parser = Options(__doc__, rounds=5)
    parser.add_argument(
        "--phases",
        nargs="+",
        choices=["tune", "confirm", "alone"],
        default=["confirm", "alone"],
        help="the lanes that choose the rate, those that count, or one lane",
    )
    options, device = parser.on_device(arguments)
    torch.set_num_threads(1)
    task = TimeToAccuracy(**load_profile("quick").settings("time_to_accuracy", "mlp"))
    print(machine(device))
    print(f"to {task.target:.0%} within {task.steps} steps; n = {options.rounds} rounds, in turn")
    print(
        f"{'scheme':<20}{'phase':>9}{'lanes':>7}{'side':>9}{'steps':>7}{'seconds':>9}{'ratio':>7}{'fastest':>9}"
    )
    rows: list[Row] = []
    agree = True
    for name in options.schemes:
        with reproducible(device):
            for alike, new_rows in compare(SCHEMES[name], task, options.phases, options.rounds, device):
                agree &= alike
                rows += new_rows
                for row in new_rows:
                    print(
                        f"{row.scheme:<20}{row.phase:>9}{row.lanes:>7}{row.side:>9}{row.steps:>7}"
                        f"{row.seconds:>9.2f}{row.ratio:>7.3f}{row.fastest:>9.3f}",
                        flush=True,
                    )
    write(rows, options.json)
    print(
        "ratio: harness / side, median over rounds. fastest: the same of the fastest rounds, which a busy\n"
        "machine disturbs least. Every lane arrives at the same step with equal accuracies on the bare\n"
        f"side, within one evaluation on torch's: {'yes' if agree else 'NO'}."
    )
    return 0 if agree else 1


if __name__ == "__main__":
    start_again_as_a_worker()
    raise SystemExit(main())
