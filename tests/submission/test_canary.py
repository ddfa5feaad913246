"""Canaries: bounds that chance keeps, forged numbers that do not, and honest schemes that pass."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bnsuite.datasets import find, tensor_cache
from bnsuite.engine import lanes
from bnsuite.engine.lanes import Examples, Lane, sweep
from bnsuite.execute.measure import answer_here
from bnsuite.execute.plan import Answer, Job
from bnsuite.facets import Facets
from bnsuite.networks import FAMILIES
from bnsuite.records import Measurement, Outcome, Sample
from bnsuite.schemes import REFERENCES, SCHEMES
from bnsuite.submission import canary
from bnsuite.submission.canary import LEVEL, CanaryError, limits, random_labels, seconds, write_random
from bnsuite.tasks import TASKS, Subject, time_to_accuracy

BUDGET: dict[str, Any] = {"width": 16, "batch": 64, "tuning": [1], "confirmation": [101, 102], "depth": 2}
SETTINGS: dict[str, dict[str, Any]] = {
    "time_to_accuracy": {**BUDGET, "rates": [0.1], "target": 0.8, "steps": 40, "every": 10},
    "stable_lr": {**BUDGET, "rates": [0.1], "steps": 30, "per_decade": 1},
    "max_depth": {**BUDGET, "depths": [1, 2], "rates": [0.1], "steps": 30},
}
del SETTINGS["max_depth"]["depth"]


def test_the_bounds_are_those_of_the_exact_tail_and_no_tighter() -> None:
    for n, classes in ((128, 10), (360, 10), (32, 2), (64, 100)):
        highest, lowest = limits(1, n, classes)
        p = 1 / classes
        tail = sum(math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(math.ceil(highest * n), n + 1))
        assert tail <= LEVEL
        assert p < highest < p + 6.5 * math.sqrt(p * (1 - p) / n) + 6 / n
        assert lowest == pytest.approx(math.log(classes) - math.log(1 / LEVEL) / n)
    assert limits(1000, 128, 10)[0] > limits(1, 128, 10)[0]


def test_labels_are_uniform_fresh_and_of_the_right_form(tmp_path: Path) -> None:
    true = find("digits").load()
    file = tmp_path / "tensors"
    sha256 = write_random(file, true, 5000, seed=0)
    made = tensor_cache.load("digits", file, sha256)
    assert (len(made.train_x), len(made.test_x), made.classes) == (5000, 360, 10)
    torch.testing.assert_close(made.test_x, true.test_x, atol=1e-3, rtol=1e-3)
    counts = np.bincount(made.train_y.numpy(), minlength=10)
    assert abs(counts - 500).max() < 6 * math.sqrt(500)
    assert sha256 != write_random(file, true, 5000, seed=1)
    assert (
        tensor_cache.load("digits", file, write_random(file, true, 5, 0)).train_x.shape
    ) == true.train_x.shape


@pytest.mark.parametrize("seed", range(20))
def test_schemes_that_learn_what_they_can_stay_within_the_bounds(seed: int, tmp_path: Path) -> None:
    """Every reference scheme, at rates up to the largest that it stands, on labels that come once."""
    true = find("digits").load()
    sha256 = write_random(tmp_path / "t", true, 40 * 64, seed)
    made = tensor_cache.load("digits", tmp_path / "t", sha256)
    highest, lowest = limits(12 * 40, 64, 10)
    for scheme in REFERENCES:
        subject = Subject(SCHEMES[scheme], FAMILIES["mlp"], made, lambda text: None)
        curves = sweep(
            lambda seed, subject=subject: subject.network(2, 16, seed),  # type: ignore[misc]
            [Lane(seed, rate) for rate in (0.01, 0.1, 1.0)],
            Examples(made.train_x, made.train_y, 64),
            40,
            stacked=True,
        )
        assert float(curves.losses.nan_to_num(9.0).min()) > lowest
        assert float(curves.accuracies.nan_to_num(0.0).max()) < highest


class Patched:
    """A scheme that answers in this process, as a file in the sandbox would, with the suite patched."""

    path = Path("scheme.py")

    def __init__(self, patch: Callable[[pytest.MonkeyPatch], None] = lambda patch: None) -> None:
        self.patch = patch

    def answer(self, job: Job, report: Callable[[str], None]) -> Answer:
        with pytest.MonkeyPatch.context() as patch:
            self.patch(patch)
            return answer_here(replace(job, scheme=SCHEMES["batchnorm"]), report)

    name, about, facets = "patched", "", Facets()

    def source_hash(self) -> str:
        return "a" * 64


def forge_accuracy(patch: pytest.MonkeyPatch) -> None:
    def forged(logits: Tensor, y: Tensor) -> Tensor:
        return torch.full(logits.shape[:-2], 0.9, dtype=torch.float64)

    patch.setattr(lanes, "accuracy", forged)
    patch.setattr(time_to_accuracy, "accuracy", forged)


def forge_losses(patch: pytest.MonkeyPatch) -> None:
    """Networks train as they do; the losses that are written down are half of theirs."""
    step = lanes.training_step

    def forged(*arguments: Any) -> Any:
        stepped = step(*arguments)
        return stepped._replace(losses=stepped.losses / 2)

    patch.setattr(lanes, "training_step", forged)


def forge_trace(patch: pytest.MonkeyPatch) -> None:
    for name in SETTINGS:
        whole = TASKS[name].__call__

        def forged(self: Any, subject: Any, whole: Any = whole) -> Measurement:
            measured: Measurement = whole(self, subject)
            trace = ({**row, "accuracy": 0.95, "loss": 0.1} for row in measured.trace)
            return measured.model_copy(update={"trace": tuple(trace)})

        patch.setattr(TASKS[name], "__call__", forged)


@pytest.mark.parametrize("task", SETTINGS)
@pytest.mark.parametrize(
    ("forge", "words"),
    [
        (lambda patch: None, None),
        (forge_accuracy, "accuracy 0.9, where chance gives at most"),
        (forge_losses, "where chance gives at least"),
        (forge_trace, "0.95, where chance gives at most|loss 0.1, where chance gives at least"),
    ],
)
def test_what_is_forged_is_caught(task: str, forge: Any, words: str | None, make_record: Any) -> None:
    record = make_record(task=task, settings=SETTINGS[task])
    scheme: Any = Patched(forge)
    blind = (forge, task) in [(forge_accuracy, "stable_lr"), (forge_losses, "time_to_accuracy")]
    if words is None or blind:  # no number of such a trace is touched
        assert "nothing learned" in random_labels(record, scheme, find("digits"), seed=0)
        return
    with pytest.raises(CanaryError, match=words):
        random_labels(record, scheme, find("digits"), seed=0)


@pytest.mark.parametrize(("own", "asked"), [({}, 1437 // 64), ({"minibatches": 3}, 3)])
def test_the_hessian_is_over_as_many_minibatches_as_in_the_record(
    own: dict[str, int], asked: int, make_record: Any
) -> None:
    """Over all of the set with random labels, which is larger, memory would run out."""

    class AskedError(Exception): ...

    def answer(job: Job, report: object) -> Answer:
        raise AskedError(job.task.settings["minibatches"])

    record = make_record(task="top_eigenvalue", settings={**BUDGET, "rates": [0.1], "steps": 30, **own})
    scheme: Any = SimpleNamespace(name="mine", source_hash=lambda: "a" * 64, answer=answer)
    with pytest.raises(AskedError, match=f"^{asked}$"):
        random_labels(record, scheme, find("digits"), seed=0)


def test_settings_of_a_record_cannot_fill_the_memory(make_record: Any) -> None:
    record = make_record(task="stable_lr", settings={**SETTINGS["stable_lr"], "steps": 10**6})
    with pytest.raises(CanaryError, match=r"1000000 steps of 64 examples take 15\.3 GiB, and 2 GiB are"):
        random_labels(record, SimpleNamespace(), find("digits"), seed=0)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("slower", "caught"), [(1.0, False), (1.4, False), (10.0, True), (0.1, True), (math.inf, True)]
)
def test_a_clock_that_goes_wrong_is_caught(
    slower: float, caught: bool, monkeypatch: pytest.MonkeyPatch, make_record: Any
) -> None:
    """A made-up machine: 5 s to start, 100 µs a pass of the layer and 50 µs of the identity."""
    now = [0.0]

    def answer(job: Any, report: Any) -> Answer:
        repeats, seeds = job.task.repeats, job.task.confirmation
        now[0] += 5 + 1e5 / repeats  # to start, however long that takes
        report("loaded")
        now[0] += 150e-6 * repeats * (len(seeds) + 2)
        samples = tuple(Sample(seed=seed, value=100 / slower) for seed in seeds)
        value = {"value": 100 / slower, "low": None, "high": None, "outcome": Outcome.OK}
        return Answer(Measurement(**value, samples=samples, derived={"ratio_to_identity": 2.0}))

    monkeypatch.setattr(canary, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    scheme: Any = Patched()
    scheme.answer = answer
    if caught:
        with pytest.raises(CanaryError, match=r"passes took .* s by the clock here"):
            seconds(make_record().cell, scheme, find("digits"))
    else:
        assert "canary of the clock" in seconds(make_record().cell, scheme, find("digits"))
