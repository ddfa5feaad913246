"""top_eigenvalue: how sharp is the loss?"""

from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar, final

from torch import nn

from bnsuite.engine.curvature import (
    Spectrum,
    eigenthings_lambda_max,
    extreme_eigenvalues,
    mixed_precision_eigenvalues,
)
from bnsuite.protocol.search import Batch, Lane
from bnsuite.protocol.sharpness import SharpnessSearch
from bnsuite.protocol.stable_lr import RateRow
from bnsuite.records import Json, Measurement, Outcome, Sample
from bnsuite.specs import SPECS, TaskSpec
from bnsuite.tasks._checkpoint import Checkpoint, MatchedLoss, Partition, described, too_sharp
from bnsuite.tasks._task import Subject
from bnsuite.tasks.stable_lr import rate_rows


@final
@dataclass(frozen=True, kw_only=True)
class TopEigenvalue(MatchedLoss):
    """Largest algebraic eigenvalue of the Hessian of the mean loss, at matched loss.

    The mean is over the whole training set in a frozen partition into minibatches of training size (a
    remainder shorter than a minibatch is left out), with the batch statistics of each; φ is Softplus(10);
    the checkpoint is that of `MatchedLoss`. λ_max has a residual ‖Hv − λv‖ / |λ|, by a product in float64;
    a seed whose residual is above `tolerance` is `unconverged`. Lanczos runs in float32 if that is enough.

    Attributes:
        rates: learning rates tried for the scheme's own best rate, at which λ_max is derived too.
        tuning_steps: training steps at each of these rates.
        eigenvalues: how many of the largest are listed for the first confirmation seed, with the smallest
            if more than 1; 0: as many as there are classes.
        beside: number of confirmation seeds, from the first, at which λ_max is also measured at
            initialization and at the scheme's own best rate.
    """

    spec: ClassVar[TaskSpec] = SPECS["top_eigenvalue"]

    rates: tuple[float, ...]
    tuning_steps: int = 100
    eigenvalues: int = 0
    beside: int = 3

    def __call__(self, subject: Subject) -> Measurement:
        search = self._search(subject)
        limit, partition = self.limit(subject), self.partition(subject)

        def attempt(batch: Batch) -> list[RateRow]:
            curves = self.sweep(subject, self.depth, batch.lanes, self.tuning_steps, activation=self.phi)
            return rate_rows(curves, batch, limit)

        trace = search.follow(attempt)
        elsewhere = self._elsewhere(subject, partition, search.best(trace))
        measured = self.at_matched_loss(subject, partial(self.sample, subject, partition), "λ")
        samples = [
            sample.model_copy(update={"detail": {**elsewhere.get(sample.seed, {}), **sample.detail}})
            for sample in measured
        ]
        return self.measurement(samples, search.derived(trace, samples), trace)

    def _search(self, subject: Subject) -> SharpnessSearch:
        return SharpnessSearch.model_validate({**self.settings, "classes": subject.data.classes})

    def second_opinion(self, subject: Subject) -> tuple[float, float] | None:
        """Measure λ_max of the first confirmation seed by our Lanczos and by that of hessian-eigenthings.

        Both run in float64 on one Hessian, each from a start of its own, ours to a residual of 1e-6 and
        theirs for as many products. None: the seed has no value.
        """
        partition = self.partition(subject)
        opinions: list[tuple[float, float]] = []

        def ask(lane: Lane, checkpoint: Checkpoint) -> Sample | None:
            operator = self.hessian(subject, checkpoint.network, partition)
            ours = extreme_eigenvalues(
                operator, seed=lane.seed, tolerance=1e-6, max_products=self.max_products
            )
            if too_sharp(lane, ours):
                return None
            theirs = eigenthings_lambda_max(operator, ours.products, seed=lane.seed)
            opinions.append((ours.top[0].value, theirs))
            return Sample(seed=lane.seed, value=theirs)

        replace(self, confirmation=self.confirmation[:1]).at_matched_loss(subject, ask, "λ")
        return opinions[0] if opinions else None

    def _elsewhere(
        self, subject: Subject, partition: Partition, best: float | None
    ) -> dict[int, dict[str, Json]]:
        """Measure λ_max per seed at initialization and after `tuning_steps` at the best rate."""
        seeds = self.confirmation[: self.beside]
        by_seed: dict[int, dict[str, Json]] = {}
        tuned: dict[int, Checkpoint | Outcome] = {}
        if best is not None and seeds:
            lanes = [Lane(seed, best) for seed in seeds]
            tuned = self.train(subject, lanes, self.tuning_steps, None)
        for seed in seeds:
            initial = subject.network(self.depth, self.width, seed, self.phi)
            by_seed[seed] = {
                "at_init": _value_and_residual(self._spectrum(subject, initial, partition, seed))
            }
            if best is not None and isinstance(checkpoint := tuned[seed], Checkpoint):
                spectrum = self._spectrum(subject, checkpoint.network, partition, seed)
                edge = best * spectrum.top[0].value / 2
                by_seed[seed]["at_best_rate"] = {**_value_and_residual(spectrum), "rate": best, "edge": edge}
        return by_seed

    def sample(
        self, subject: Subject, partition: Partition, lane: Lane, checkpoint: Checkpoint
    ) -> Sample | None:
        """Measure λ_max of one seed; None: the rate was too large for its curvature.

        Args:
            subject: whose data has the classes, as many eigenvalues of which are listed.
            partition: minibatches that the Hessian is taken over.
            lane: seed and rate.
            checkpoint: network at matched loss, and its step.
        """
        network = checkpoint.network
        listed = self.eigenvalues or subject.data.classes if lane.seed == self.confirmation[0] else 1
        spectrum = self._spectrum(subject, network, partition, lane.seed, top=listed, bottom=int(listed > 1))
        sharpest = spectrum.top[0]
        if too_sharp(lane, spectrum):
            return None
        detail: dict[str, Json] = {
            **described(lane, checkpoint, partition, spectrum),
            "residual": sharpest.residual,
            "products": spectrum.products,
        }
        if spectrum.bottom:
            detail["lambda_min"] = spectrum.bottom[0].value
            detail["lambda_min_residual"] = spectrum.bottom[0].residual
        return self._search(subject).sample(lane.seed, detail)

    def _spectrum(
        self,
        subject: Subject,
        network: nn.Module,
        partition: Partition,
        seed: int,
        top: int = 1,
        bottom: int = 0,
    ) -> Spectrum:
        return mixed_precision_eigenvalues(
            partial(self.hessian, subject, network, partition),
            top,
            bottom,
            seed=seed,
            tolerance=self.tolerance,
            max_products=self.max_products,
        )


def _value_and_residual(spectrum: Spectrum) -> dict[str, Json]:
    return {"value": spectrum.top[0].value, "residual": spectrum.top[0].residual}
