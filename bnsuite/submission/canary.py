"""Canaries of a re-run: cells whose result is known to be impossible, and seconds counted from outside.

What runs inside the sandbox can patch the suite. Two questions have answers that this process knows:

- **Random labels**: a ranked cell on the same images with labels drawn uniformly, so many that no label is
  seen twice in training. Whatever learns, its accuracy on labels it has not seen is chance, and its loss on
  them at least ln C, up to the bounds of `limits`.
- **Seconds**: `layer_cost` with more and more passes. The time that the process takes by this process's
  clock must grow as the seconds that it reports.

Not caught: code that tells a canary from a real cell, by its labels or its task; what labels do not enter,
such as an eigenvalue of a network that was honestly trained; seconds of other tasks that are forged alone.
"""

import hashlib
import math
import secrets
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from bnsuite.datasets import Dataset, Source
from bnsuite.execute.plan import job_of
from bnsuite.records import Cell, Json, Measurement, Outcome, Record, RecordError
from bnsuite.specs import RANKED
from bnsuite.submission.foreign import Foreign

LEVEL = 1e-6
"""Probability at most, of all numbers of one canary together, that an honest scheme fails it."""

GROWN_S = 4.0
"""Growth of the outside time at which seconds are compared."""

FACTOR = 2.0
"""By how much outside and reported seconds may differ: warm-up rounds and other load are not reported."""

LARGEST = 2**31
"""Bytes of images that a canary writes at most: settings come from a record that nobody vouches for."""

_MOST_REPEATS = 10**5
_ROUNDS = 60


class CanaryError(RecordError):
    """A canary failed: numbers of this scheme are not to be believed."""


def canaries(records: Sequence[tuple[Record, Source]], scheme: Foreign) -> Iterator[str]:
    """Ask one canary for each ranked task among the records, then the one of the clock; a line for each.

    Args:
        records: those that are measured again, with their data sets; the first of a task gives its settings.

    Raises:
        CanaryError: what was reported that cannot be.
    """
    firsts: dict[str, tuple[Record, Source]] = {}
    for record, source in records:
        if record.task in RANKED and record.outcome is not Outcome.UNSUPPORTED:
            firsts.setdefault(record.task, (record, source))
    for record, source in firsts.values():
        yield random_labels(record, scheme, source, secrets.randbits(32))
        if record.task == "time_to_accuracy":  # the one that reports seconds
            yield seconds(record.cell, scheme, source)


def random_labels(record: Record, scheme: Foreign, source: Source, seed: int) -> str:
    """Ask the cell of a record on random labels; a line that says what was read.

    Raises:
        CanaryError: a number beyond what chance gives, at `LEVEL`, or no answer.
    """
    true = source.load()
    batch = int(str(record.settings["batch"]))
    steps = max([400, *(int(str(v)) for k, v in record.settings.items() if k in ("steps", "tuning_steps"))])
    settings = {**record.settings}
    if record.task == "top_eigenvalue" and not settings.get("minibatches"):
        settings["minibatches"] = len(true.train_x) // batch  # the Hessian's cost is that of the real set
    needed = steps * batch * true.train_x[0].numel() * true.train_x.element_size()
    if needed > LARGEST:
        raise CanaryError(
            f"canary of {record.task}: {steps} steps of {batch} examples take {needed / 2**30:.1f} GiB, "
            f"and {LARGEST / 2**30:.0f} GiB are the most. Do not run it: read the settings of its record."
        )
    with tempfile.TemporaryDirectory(prefix="bnsuite-") as folder:
        Path(folder).chmod(0o755)  # the sandbox reads it as another user
        file = Path(folder, "tensors")
        sha256 = write_random(file, true, steps * batch, seed)
        asked = replace(source, file=file, sha256=sha256)
        answer = scheme.answer(job_of(record.cell, settings, scheme, asked), lambda text: None)
    measured = answer.measured
    what = f"canary of {record.task} on random labels"
    if measured.outcome in (Outcome.ERROR, Outcome.OOM, Outcome.UNSUPPORTED):
        raise CanaryError(f"{what}: not measured: {_why(measured)}")
    if beyond := impossible(measured, true.classes, min(batch, len(true.test_x))):
        raise CanaryError(
            f"{what}: reports {beyond}. Its numbers are not to be believed: read {scheme.path}."
        )
    return f"{what}: nothing learned, as it must be"


def write_random(file: Path, true: Dataset, count: int, seed: int) -> str:
    """Write tensors as the cache holds them: at least `count` training images, every label drawn uniformly.

    Images are repeated in turn where there are fewer. Returns the SHA-256 of the file, whose random tail
    keeps it from telling what the file holds.
    """
    draw = np.random.default_rng(seed)
    count = max(count, len(true.train_x))
    chosen = torch.arange(count) % len(true.train_x)
    with file.open("wb") as held:
        for x in (true.train_x[chosen], true.test_x):
            y = draw.integers(true.classes, size=len(x))
            y[0] = true.classes - 1  # a set has as many classes as its largest label says
            np.save(held, x.numpy(), allow_pickle=False)
            np.save(held, y, allow_pickle=False)
        held.write(draw.bytes(16))
    file.chmod(0o644)
    with file.open("rb") as held:
        return hashlib.file_digest(held, "sha256").hexdigest()


def limits(looks: int, n: int, classes: int) -> tuple[float, float]:
    """Highest accuracy and lowest loss (nats) among `looks` means over n fresh random labels, at `LEVEL`.

    With L = ln(looks / LEVEL): n · KL(accuracy ‖ 1/C) = L (Chernoff), and loss = ln C − L / n. For labels
    uniform and independent of all predictions before, E[Π p_i(y_i)] = C^-n, so that by Markov
    P(mean loss <= ln C − t) <= e^{−n t}.
    """
    bound, chance = math.log(looks / LEVEL) / n, 1 / classes
    low, high = chance, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        if middle >= 1 or _divergence(middle, chance) >= bound:
            high = middle
        else:
            low = middle
    return high, math.log(classes) - bound


def _divergence(a: float, p: float) -> float:
    """KL(a ‖ p) of two coins, in nats, for a > p."""
    return a * math.log(a / p) + (1 - a) * math.log((1 - a) / (1 - p))


def impossible(measured: Measurement, classes: int, n: int) -> str | None:
    """The first number of a measurement on random labels that chance does not give; None: there is none.

    Read are accuracies and losses of the trace and of the samples, each a mean over n labels or more.
    """
    numbers = [*_numbers([*measured.trace, *(dict(sample.detail) for sample in measured.samples)])]
    highest, lowest = limits(max(1, len(numbers)), n, classes)
    for name, value in numbers:
        if "accuracy" in name and value > highest:
            return f"{name} {value:.3g}, where chance gives at most {highest:.3g}"
        if "loss" in name and value < lowest:
            return f"{name} {value:.3g}, where chance gives at least {lowest:.3g}"
    return None


def _numbers(rows: Sequence[Mapping[str, Json]]) -> Iterator[tuple[str, float]]:
    for row in rows:
        for name, value in row.items():
            if "accuracy" in name or "loss" in name:
                for one in value if isinstance(value, list) else [value]:
                    if isinstance(one, int | float):
                        yield name, float(one)


def seconds(cell: Cell, scheme: Foreign, source: Source) -> str:
    """Ask `layer_cost` with more and more passes, and compare the clock inside with this process's.

    Raises:
        CanaryError: they differ by more than `FACTOR`, or there was no answer.
    """
    base = cell.model_copy(update={"task": "layer_cost", "family": "mlp"})
    (least, first), repeats, grown, told = _timed(base, scheme, source, 1), 100, 0.0, 0.0
    while grown < GROWN_S and repeats <= _MOST_REPEATS:
        outside, inside = _timed(base, scheme, source, repeats)
        grown, told, asked = outside - least, inside - first, repeats
        repeats *= min(32, max(2, math.ceil(1.5 * GROWN_S / max(grown, 1e-3))))
    ratio = grown / told if told > 0 else math.inf
    if not 1 / FACTOR <= ratio <= FACTOR:
        raise CanaryError(
            f"canary of the clock: {asked} passes took {grown:.3g} s by the clock here, and {told:.3g} s "
            f"by what it reports. Its seconds are not to be believed: read {scheme.path}."
        )
    return f"canary of the clock: {grown:.3g} s here, {told:.3g} s by what it reports"


def _timed(cell: Cell, scheme: Foreign, source: Source, repeats: int) -> tuple[float, float]:
    """Seconds of one question by this clock, and those of its race by its own answer."""
    settings: dict[str, Json] = {
        "width": 64,
        "batch": 128,
        "tuning": [1],
        "confirmation": [*range(101, 101 + _ROUNDS)],
        "doublings": 0,
        "repeats": repeats,
    }
    job = job_of(cell, settings, scheme, source)
    heard: list[float] = []  # the start of a process is not counted, only what follows its first words
    measured = scheme.answer(job, lambda text: heard.append(time.perf_counter())).measured
    outside = time.perf_counter() - heard[0] if heard else math.inf
    ratio = measured.derived.get("ratio_to_identity")
    if measured.value is None or not isinstance(ratio, int | float) or ratio <= 0:
        raise CanaryError(f"canary of the clock: not measured: {_why(measured)}")
    own = sum(sample.value or 0.0 for sample in measured.samples) * repeats / 1e6
    return outside, own * (1 + 1 / ratio)


def _why(measured: Measurement) -> str:
    return (measured.error or str(measured.outcome)).strip().splitlines()[-1]
