"""Where the time of `quick` goes: by task and scheme in records, by kind of operation now.

The second table has torch's profiler over a slice of each kind of work that the ranked tasks do: 10 steps
of a rung of `max_depth`, the gradient's graph and λ_max, 20 steps of `time_to_accuracy`. digits, MLP
of width 64, one thread. A share is the self time of operations of that kind; what is left of the wall
time is Python and the launching of operations. The profiler itself slows every operation by a
microsecond or so, which counts there too.
"""

import argparse
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import product
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from bnsuite.datasets import digits
from bnsuite.engine.curvature import mixed_precision_eigenvalues
from bnsuite.engine.lanes import Lane
from bnsuite.execute.provenance import reproducible
from bnsuite.networks import FAMILIES, softplus
from bnsuite.profiles import load_profile
from bnsuite.protocol.search import grid
from bnsuite.records import Record, Store
from bnsuite.schemes import REFERENCES, SCHEMES
from bnsuite.specs import RANKED
from bnsuite.tasks import Subject
from bnsuite.tasks.max_depth import MaxDepth
from bnsuite.tasks.time_to_accuracy import TimeToAccuracy
from bnsuite.tasks.top_eigenvalue import TopEigenvalue

CPU = torch.device("cpu")
RECORDS = Path(__file__).parents[1] / "leaderboard" / "records"

OVERHEAD = "Python, launch"

KINDS = {
    "matrix products": r"(|add|b|baddb)mm|(add)?mv|dot|matmul|linear",
    "normalization": r".*(batch|layer|group)_norm.*",
    "reductions": r"(log_)?softmax.*|nll_loss.*|cross_entropy_loss|linalg_vector_norm|norm|(nan)?sum|mean|"
    r"(arg|a)?(max|min)|var.*|std|all|any|cumsum|prod|item|local_scalar_dense|equal|sort",
    "copies": r"copy|clone|cat|stack|index.*|gather|scatter.*|(select|slice)_backward|fill|zero|nonzero|"
    r"split|repeat|arange|eye|.*pad.*",
    OVERHEAD: r"as_strided|(unsafe_)?view.*|reshape.*|transpose|permute|expand.*|select|slice|"
    r"(un)?squeeze|(un)?flatten|unbind|narrow|diagonal|alias|t|detach|empty.*|new_.*|resize|set|to|to_copy|"
    r"contiguous|result_type|is_nonzero|lift_fresh|resolve_(conj|neg)|requires_grad",
}
"""Columns by torch's names of operations, without `aten::` and underscores around; the rest is elementwise.

Operations that touch no data count with Python, as do the parts of autograd and of the profiler itself.
"""

COLUMNS = ("matrix products", "normalization", "elementwise", "reductions", "copies", OVERHEAD)


def kind(name: str) -> str:
    """The column of what the profiler names, such as `aten::native_batch_norm_backward`."""
    namespace, _, operation = name.rpartition("::")
    if namespace != "aten":
        return OVERHEAD
    plain = operation.strip("_")
    return next((column for column, names in KINDS.items() if re.fullmatch(names, plain)), "elementwise")


def slices(scheme: str) -> Iterator[tuple[str, Callable[[], object]]]:
    """What is profiled of a scheme, by its task."""
    subject = Subject(SCHEMES[scheme], FAMILIES["mlp"], digits())
    quick = load_profile("quick")
    deep = MaxDepth(**quick.settings("max_depth", "mlp"))
    yield deep.name, lambda: deep.sweep(subject, 32, grid(deep.rates, deep.tuning), 10)

    sharp = TopEigenvalue(**quick.settings("top_eigenvalue", "mlp"))
    network, partition = subject.network(sharp.depth, sharp.width, 101, softplus), sharp.partition(subject)
    yield (
        sharp.name,
        lambda: mixed_precision_eigenvalues(
            partial(sharp.hessian, subject, network, partition), seed=101, max_products=10
        ),
    )

    fast = TimeToAccuracy(**{**quick.settings("time_to_accuracy", "mlp"), "steps": 20})
    lanes = [Lane(seed, 0.0625) for seed in fast.confirmation]
    yield (
        fast.name,
        lambda: fast._race_to_target(subject, lanes, subject.data.test_x, subject.data.test_y),
    )


def shares(run: Callable[[], object]) -> dict[str, float]:
    """Of the wall time of a run, by column."""
    run()
    with profile(activities=[ProfilerActivity.CPU]) as recorded:
        start = time.perf_counter()
        run()
        wall = time.perf_counter() - start
    spent: Counter[str] = Counter()
    for event in recorded.key_averages():
        spent[kind(event.key)] += event.self_cpu_time_total / 1e6
    found = {column: spent[column] / wall for column in COLUMNS if column != OVERHEAD}
    return found | {OVERHEAD: 1 - sum(found.values())}


def seconds_in(records: Path = RECORDS) -> dict[tuple[str, str], float]:
    """Seconds of the newest record by (task, scheme)."""
    newest: dict[tuple[str, str], Record] = {}
    for task in RANKED:
        cell = records / "quick" / "mlp-digits" / task
        for record in sorted(Store(cell), key=lambda record: record.provenance.started):
            newest[record.task, record.scheme] = record
    return {cell: record.provenance.duration_s for cell, record in newest.items() if cell[1] in REFERENCES}


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """In markdown."""
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))


def by_cell(seconds: dict[tuple[str, str], float]) -> str:
    """Seconds by scheme and task, with their sums and each task's share."""
    rows = []
    for task in RANKED:
        own = [seconds[task, scheme] for scheme in REFERENCES]
        rows.append(
            [task, *(f"{s:.0f}" for s in own), f"{sum(own):.0f}", f"{sum(own) / sum(seconds.values()):.0%}"]
        )
    sums = [sum(seconds[task, scheme] for task in RANKED) for scheme in REFERENCES]
    rows.append(["all", *(f"{s:.0f}" for s in sums), f"{sum(sums):.0f}", "100%"])
    return table(["seconds", *REFERENCES, "all", "share"], rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print both tables."""
    from peers.options import add_schemes  # a folder beside this script, which asv imports

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add_schemes(parser)
    parser.add_argument(
        "--records", type=Path, default=RECORDS, help="of the first table; by default the published ones"
    )
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    seconds = seconds_in(options.records)
    if missing := sorted({*product(RANKED, REFERENCES)} - {*seconds}):
        task, scheme = missing[0]
        parser.exit(2, f"{options.records}: has no record of {task} with {scheme}. bnsuite run makes it.\n")
    print(by_cell(seconds))
    found: dict[str, list[list[str]]] = {}
    with reproducible(CPU):
        for scheme in options.schemes:
            for task, run in slices(scheme):
                share = shares(run)
                found.setdefault(task, []).append([scheme, *(f"{share[c]:.0%}" for c in COLUMNS)])
    for task, rows in found.items():
        print(f"\n{table([task, *COLUMNS], rows)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
