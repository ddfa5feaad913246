"""Canaries: cells of a re-run whose right answer this process knows, so that forged numbers stand out.

Code inside the sandbox can patch the suite. Two questions have answers that are known outside:

- **Random labels**: a ranked cell on the same images with labels drawn uniformly, so many that training sees
  no label twice. Whatever is learned, accuracy on unseen labels is chance, and the loss on them is at least
  ln C, up to the bounds of `limits`.
- **Seconds**: `layer_cost` with more and more passes. The time that the process takes by the clock outside
  must grow like the seconds that it reports.

Not caught: code that recognizes a canary by its labels or its task; numbers that labels do not enter, such as
an eigenvalue of a network that was honestly trained; seconds of other tasks that are forged alone.
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
from scipy.optimize import brentq
from scipy.special import rel_entr

from bnsuite.datasets import Dataset, Source
from bnsuite.execute.plan import job_of
from bnsuite.records import Cell, Json, Measurement, Outcome, Record, RecordError
from bnsuite.specs import RANKED
from bnsuite.submission.foreign import Foreign

LEVEL = 1e-6
"""Upper limit of the probability that an honest scheme fails a canary, over all its numbers together."""

GROWN_S = 4.0
"""Growth of the outside time, in seconds, from which on the two clocks are compared."""

FACTOR = 2.0
"""Largest ratio of outside to reported seconds, or its inverse: warm-up and other load are not reported."""

MOST_BYTES = 2**31
"""Largest size of the images that a canary writes, in bytes: its settings come from an untrusted record."""

_MOST_REPEATS = 10**5
_ROUNDS = 60


class CanaryError(RecordError):
    """A canary failed: do not believe the numbers of this scheme."""


def canaries(records: Sequence[tuple[Record, Source]], scheme: Foreign) -> Iterator[str]:
    """Run one canary per ranked task among the records, and the canary of the clock; yields a line for each.

    Args:
        records: records to measure again, with their data sets; the first one of a task gives its settings.
        scheme: the scheme.

    Raises:
        CanaryError: a report is impossible; the message says which.
    """
    firsts: dict[str, tuple[Record, Source]] = {}
    for record, source in records:
        if record.task in RANKED and record.outcome is not Outcome.UNSUPPORTED:
            firsts.setdefault(record.task, (record, source))
    for record, source in firsts.values():
        yield random_labels(record, scheme, source, secrets.randbits(32))
        if record.task == "time_to_accuracy":  # the only ranked task that reports seconds
            yield seconds(record.cell, scheme, source)


def random_labels(record: Record, scheme: Foreign, source: Source, seed: int) -> str:
    """Measure the cell of a record on random labels; returns a line with the result.

    Args:
        record: gives cell and settings.
        scheme: the scheme.
        source: data set of the record.
        seed: seed of the labels.

    Raises:
        CanaryError: a number is better than chance, at `LEVEL`, or there is no answer.
    """
    true = source.load()
    batch = int(str(record.settings["batch"]))
    steps = max([400, *(int(str(v)) for k, v in record.settings.items() if k in ("steps", "tuning_steps"))])
    settings = {**record.settings}
    if record.task == "top_eigenvalue" and not settings.get("minibatches"):
        settings["minibatches"] = len(true.train_x) // batch  # the Hessian costs what it does on real data
    needed = steps * batch * true.train_x[0].numel() * true.train_x.element_size()
    if needed > MOST_BYTES:
        raise CanaryError(
            f"canary of {record.task}: {steps} steps of {batch} examples take {needed / 2**30:.1f} GiB, "
            f"and {MOST_BYTES / 2**30:.0f} GiB are the most. Do not run it: read the settings of its record."
        )
    with tempfile.TemporaryDirectory(prefix="bnsuite-") as folder:
        Path(folder).chmod(0o755)  # the sandbox reads it as another user
        file = Path(folder, "tensors")
        sha256 = write_random(file, true, steps * batch, seed)
        random_source = replace(source, file=file, sha256=sha256)
        answer = scheme.answer(job_of(record.cell, settings, scheme, random_source), lambda _: None)
    measured = answer.measured
    title = f"canary of {record.task} on random labels"
    if measured.outcome in (Outcome.ERROR, Outcome.OOM, Outcome.UNSUPPORTED):
        raise CanaryError(f"{title}: not measured: {_why(measured)}")
    if beyond := impossible(measured, true.classes, min(batch, len(true.test_x))):
        raise CanaryError(
            f"{title}: reports {beyond}. Its numbers are not to be believed: read {scheme.path}."
        )
    return f"{title}: nothing learned, as it must be"


def write_random(file: Path, true: Dataset, count: int, seed: int) -> str:
    """Write a data set with uniformly drawn labels as the cache stores data sets; returns the file's SHA-256.

    The file ends in random bytes, so that its hash does not reveal its content.

    Args:
        file: file to write.
        true: data set that gives the images.
        count: training images at least; images repeat in turn if there are fewer.
        seed: seed of the labels.
    """
    draw = np.random.default_rng(seed)
    count = max(count, len(true.train_x))
    chosen = torch.arange(count) % len(true.train_x)
    with file.open("wb") as held:
        for x in (true.train_x[chosen], true.test_x):
            y = draw.integers(true.classes, size=len(x))
            y[0] = true.classes - 1  # the number of classes is read from the largest label
            np.save(held, x.numpy(), allow_pickle=False)
            np.save(held, y, allow_pickle=False)
        held.write(draw.bytes(16))
    file.chmod(0o644)
    with file.open("rb") as held:
        return hashlib.file_digest(held, "sha256").hexdigest()


def limits(looks: int, n: int, classes: int) -> tuple[float, float]:
    """Highest accuracy and lowest loss (nats) that chance allows at `LEVEL`, for means over n random labels.

    With L = ln(looks / LEVEL): n · KL(accuracy ‖ 1/C) = L (Chernoff), and loss = ln C − L / n. For labels
    that are uniform and independent of all predictions before, E[Π p_i(y_i)] = C^-n, so that by Markov P(mean
    loss <= ln C − t) <= e^{−n t}.

    Args:
        looks: number of means that are looked at.
        n: labels per mean.
        classes: C.
    """
    bound, chance = math.log(looks / LEVEL) / n, 1 / classes

    def beyond(accuracy: float) -> float:
        return float(rel_entr(accuracy, chance) + rel_entr(1 - accuracy, 1 - chance)) - bound

    highest = brentq(beyond, chance, 1.0) if beyond(1.0) > 0 else 1.0
    return highest, math.log(classes) - bound


def impossible(measured: Measurement, classes: int, n: int) -> str | None:
    """Find the first accuracy or loss, in trace and samples, that chance does not allow; None: there is none.

    Args:
        measured: a measurement on random labels.
        classes: number of classes.
        n: labels over which each number is a mean, at least.
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
                for number in value if isinstance(value, list) else [value]:
                    if isinstance(number, int | float):
                        yield name, float(number)


def seconds(cell: Cell, scheme: Foreign, source: Source) -> str:
    """Measure `layer_cost` with more and more passes, and compare the clock inside with the clock outside.

    Args:
        cell: gives profile, data set and device.
        scheme: the scheme.
        source: data set of the cell.

    Raises:
        CanaryError: the clocks differ by more than `FACTOR`, or there is no answer.
    """
    base = cell.model_copy(update={"task": "layer_cost", "family": "mlp"})
    (outside_1, inside_1), repeats, grown, reported = _timed(base, scheme, source, 1), 100, 0.0, 0.0
    while grown < GROWN_S and repeats <= _MOST_REPEATS:
        outside, inside = _timed(base, scheme, source, repeats)
        grown, reported, passes = outside - outside_1, inside - inside_1, repeats
        repeats *= min(32, max(2, math.ceil(1.5 * GROWN_S / max(grown, 1e-3))))
    ratio = grown / reported if reported > 0 else math.inf
    if not 1 / FACTOR <= ratio <= FACTOR:
        raise CanaryError(
            f"canary of the clock: {passes} passes took {grown:.3g} s by the clock here, and "
            f"{reported:.3g} s by what it reports. Its seconds are not to be believed: read {scheme.path}."
        )
    return f"canary of the clock: {grown:.3g} s here, {reported:.3g} s by what it reports"


def _timed(cell: Cell, scheme: Foreign, source: Source, repeats: int) -> tuple[float, float]:
    """Seconds of one cell by the clock here, and seconds of its race by its own report."""
    settings: dict[str, Json] = {
        "width": 64,
        "batch": 128,
        "tuning": [1],
        "confirmation": [*range(101, 101 + _ROUNDS)],
        "doublings": 0,
        "repeats": repeats,
    }
    job = job_of(cell, settings, scheme, source)
    reported_at: list[float] = []  # seconds count from the first report on, without the start of the process
    measured = scheme.answer(job, lambda _: reported_at.append(time.perf_counter())).measured
    outside = time.perf_counter() - reported_at[0] if reported_at else math.inf
    ratio = measured.derived.get("ratio_to_identity")
    if measured.value is None or not isinstance(ratio, int | float) or ratio <= 0:
        raise CanaryError(f"canary of the clock: not measured: {_why(measured)}")
    own = sum(sample.value or 0.0 for sample in measured.samples) * repeats / 1e6
    return outside, own * (1 + 1 / ratio)


def _why(measured: Measurement) -> str:
    return (measured.error or str(measured.outcome)).strip().splitlines()[-1]
