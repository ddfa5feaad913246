"""top_eigenvalue: how sharp is the loss?"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import ClassVar, NamedTuple, final

import torch
from torch import Tensor, nn

from bnsuite.engine.curvature import HessianOperator, Spectrum, extreme_eigenvalues
from bnsuite.engine.lanes import Examples, Lane, Stack
from bnsuite.engine.train import accuracy, mean_cross_entropy
from bnsuite.networks import softplus
from bnsuite.records import Better, Json, Measurement, Outcome, Sample
from bnsuite.tasks._task import Subject, Task, best_rate, grid
from bnsuite.tasks.stable_lr import rate_rows

WINDOW = 5
"""Steps over which the loss is averaged to decide that a checkpoint is reached."""

EDGE = 0.5
"""rate · λ/2 above which the rate, not the loss, sets λ (1 is the edge of stability)."""

PARTITION_SEED = 0
"""Of the frozen partition of the training set into minibatches."""


class Checkpoint(NamedTuple):
    """A network and the step at which it stood."""

    network: nn.Module
    step: int


@final
@dataclass(frozen=True, kw_only=True)
class TopEigenvalue(Task):
    """Largest algebraic eigenvalue of the Hessian of the mean loss, at matched loss.

    Over the whole training set in a frozen partition into minibatches of training size (a remainder
    shorter than a minibatch is left out), batch statistics of each; Softplus(10) for φ; in float64. The
    checkpoint is the first step of plain SGD at `rate` at which the loss, mean over 5 steps, is at most
    ½ ln C; where rate · λ/2 > ½ there, training starts again at half the rate, so that λ is the loss's
    own and not 2 / rate. Never reached in `steps` steps: `stuck`. Every eigenvalue carries its residual
    ‖Hv − λv‖ / |λ|, and one above `tolerance` is `unconverged`.

    Attributes:
        rates: tried at `tuning_steps` steps for the scheme's own best rate, at which λ is shown beside.
        eigenvalues: how many of the largest are listed for the first confirmation seed, with the smallest
            if more than 1; 0 for as many as there are classes.
        beside: confirmation seeds, from the first, at which λ_max is also measured at initialization and
            at the scheme's own best rate.
    """

    name: ClassVar[str] = "top_eigenvalue"
    version: ClassVar[int] = 1
    unit: ClassVar[str] = "1/learning rate"
    better: ClassVar[Better] = "lower"
    question: ClassVar[str] = "How sharp is the loss, at the same loss for all?"

    rates: tuple[float, ...]
    depth: int = 8
    rate: float = 0.01
    steps: int = 400
    tuning_steps: int = 100
    tolerance: float = 1e-3
    max_products: int = 200
    eigenvalues: int = 0
    beside: int = 3

    def __call__(self, subject: Subject) -> Measurement:
        limit = math.log(subject.data.classes) / 2
        examples = Examples(subject.data.train_x.double(), subject.data.train_y, self.batch)
        order = examples.order(PARTITION_SEED, len(examples.x) // self.batch)
        partition = examples.x[order], examples.y[order]  # (M, N, …), (M, N)

        lanes = grid(self.rates, self.tuning)
        curves = self.sweep(subject, self.depth, lanes, self.tuning_steps, activation=softplus)
        trace, losses, outcomes = rate_rows(curves, lanes, "tune", lambda loss, _: loss <= limit)
        best = best_rate(lanes, losses, [outcome is not Outcome.NONFINITE for outcome in outcomes])

        beside = self._beside(subject, partition, best)
        samples: dict[int, Sample] = {}
        rate = self.rate
        while len(samples) < len(self.confirmation):
            waiting = [Lane(seed, rate) for seed in self.confirmation if seed not in samples]
            reached = self._train(subject, waiting, self.steps, limit)
            for seed, _ in waiting:
                sample = self._sample(subject, Lane(seed, rate), reached[seed], partition)
                if sample is None:
                    continue
                samples[seed] = sample.model_copy(
                    update={"detail": {**beside.get(seed, {}), **sample.detail}}
                )
                subject.report(str(sample.outcome) if sample.value is None else f"λ = {sample.value:.4g}")
            rate /= 2
        ordered = [samples[seed] for seed in self.confirmation]
        return self.measurement(ordered, _derived(ordered, best), trace)

    def _beside(
        self, subject: Subject, partition: tuple[Tensor, Tensor], best: float | None
    ) -> dict[int, dict[str, Json]]:
        """λ_max by seed at initialization, and at the scheme's own best rate after tuning's steps."""
        seeds = self.confirmation[: self.beside]
        found: dict[int, dict[str, Json]] = {}
        tuned: dict[int, Checkpoint | Outcome] = {}
        if best is not None:
            lanes = [Lane(seed, best) for seed in seeds]
            tuned = self._train(subject, lanes, self.tuning_steps, None)
        for seed in seeds:
            initial = subject.network(self.depth, self.width, seed, softplus)
            found[seed] = {"at_init": _entry(self._spectrum(subject, initial, partition, seed))}
            if best is not None and isinstance(there := tuned[seed], Checkpoint):
                spectrum = self._spectrum(subject, there.network, partition, seed)
                edge = best * spectrum.top[0].value / 2
                found[seed]["at_best_rate"] = {**_entry(spectrum), "rate": best, "edge": edge}
        return found

    def _sample(
        self,
        subject: Subject,
        lane: Lane,
        checkpoint: Checkpoint | Outcome,
        partition: tuple[Tensor, Tensor],
    ) -> Sample | None:
        """The sample of one seed; None where the rate was too large for its curvature."""
        if isinstance(checkpoint, Outcome):
            return Sample(seed=lane.seed, value=None, outcome=checkpoint)
        network = checkpoint.network
        listed = self.eigenvalues or subject.data.classes if lane.seed == self.confirmation[0] else 1
        spectrum = self._spectrum(subject, network, partition, lane.seed, top=listed, bottom=int(listed > 1))
        sharpest = spectrum.top[0]
        if lane.rate * sharpest.value / 2 > EDGE:
            return None
        detail: dict[str, Json] = {
            "step": checkpoint.step,
            "rate": lane.rate,
            **_standing(network, partition),
            "residual": sharpest.residual,
            "products": spectrum.products,
            "eigenvalues": [e.value for e in spectrum.top],
            "residuals": [e.residual for e in spectrum.top],
        }
        if spectrum.bottom:
            detail["lambda_min"] = spectrum.bottom[0].value
            detail["lambda_min_residual"] = spectrum.bottom[0].residual
        if sharpest.residual > self.tolerance:
            return Sample(seed=lane.seed, value=None, outcome=Outcome.UNCONVERGED, detail=detail)
        value, error = sharpest.value, abs(sharpest.value) * sharpest.residual
        return Sample(seed=lane.seed, value=value, low=value - error, high=value + error, detail=detail)

    def _train(
        self, subject: Subject, lanes: Sequence[Lane], steps: int, limit: float | None
    ) -> dict[int, Checkpoint | Outcome]:
        """By seed, the network at the first step whose windowed loss is at most `limit` (None: the last).

        In its place `nonfinite` for a seed that died, `stuck` for one that never came so far.
        """
        reached: dict[int, Checkpoint | Outcome] = {}

        def watch(step: int, stack: Stack, rows: Sequence[Lane], losses: Tensor) -> list[int]:
            if limit is None:
                there = torch.isfinite(losses[-1]) & (step == steps)
            else:
                there = (losses[-WINDOW:].mean(0) <= limit) & (len(losses) >= WINDOW)
            leaving: list[int] = there.nonzero().flatten().tolist()
            for i in leaving:
                network = stack.network(i)
                finite = all(bool(torch.isfinite(p).all()) for p in network.parameters())
                reached[rows[i].seed] = Checkpoint(network, step) if finite else Outcome.NONFINITE
            return leaving

        curves = self.sweep(subject, self.depth, lanes, steps, activation=softplus, watch=watch)
        alive = torch.isfinite(curves.losses).all(0).tolist()
        fates = (Outcome.STUCK if living else Outcome.NONFINITE for living in alive)
        return {lane.seed: fate for lane, fate in zip(lanes, fates, strict=True)} | reached

    def _spectrum(
        self,
        subject: Subject,
        network: nn.Module,
        partition: tuple[Tensor, Tensor],
        seed: int,
        top: int = 1,
        bottom: int = 0,
    ) -> Spectrum:
        operator = HessianOperator(network.double(), *partition, stacked=subject.stacked)
        return extreme_eigenvalues(
            operator,
            top,
            bottom,
            seed=seed,
            tolerance=self.tolerance,
            max_products=self.max_products,
        )


def _entry(spectrum: Spectrum) -> dict[str, Json]:
    return {"value": spectrum.top[0].value, "residual": spectrum.top[0].residual}


@torch.no_grad()
def _standing(network: nn.Module, partition: tuple[Tensor, Tensor]) -> dict[str, Json]:
    """Mean loss and accuracy over the partition, with the batch statistics of each minibatch."""
    x, y = partition
    logits = torch.stack([network(part) for part in x])
    return {
        "loss": float(mean_cross_entropy(logits, y).mean()),
        "accuracy": float(accuracy(logits, y).mean()),
    }


def _derived(samples: Sequence[Sample], best: float | None) -> dict[str, Json]:
    """Medians over seeds of what stands beside the value, and the largest residual of any λ_max."""

    def over_seeds(*path: str) -> list[float]:
        found = []
        for sample in samples:
            value: Json = sample.detail
            for name in path:
                value = value.get(name) if isinstance(value, dict) else None
            if isinstance(value, float):
                found.append(value)
        return found

    def middle(*path: str) -> float | None:
        return median(over_seeds(*path)) if over_seeds(*path) else None

    residuals = (
        over_seeds("residual") + over_seeds("at_init", "residual") + over_seeds("at_best_rate", "residual")
    )
    return {
        "best_rate": best,
        "at_init": middle("at_init", "value"),
        "at_best_rate": middle("at_best_rate", "value"),
        "edge_ratio": middle("at_best_rate", "edge"),
        "lambda_min": middle("lambda_min"),
        "max_residual": max(residuals, default=None),
    }
