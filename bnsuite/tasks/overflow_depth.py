"""overflow_depth: how deep can a network be before its first gradients overflow?"""

import math
from dataclasses import dataclass
from functools import cache
from typing import ClassVar, final

import torch

from bnsuite.engine.train import mean_cross_entropy, trainable
from bnsuite.protocol.climb import Bracket, Probe, climb
from bnsuite.records import Json, Measurement, Outcome, Sample
from bnsuite.specs import SPECS, TaskSpec
from bnsuite.tasks._initial import AtInitialization, with_medians
from bnsuite.tasks._task import Subject

DTYPES = {"float32": torch.float32, "float16": torch.float16}


@final
@dataclass(frozen=True, kw_only=True)
class OverflowDepth(AtInitialization):
    """Smallest depth at which the sum of the squared gradients overflows at initialization, in float32.

    Σ g² over all parameters is squared and summed in the gradients' own precision, as in a clipped norm or
    a second moment. Derived: the smallest depth at which a gradient itself is not finite, and both depths
    with network and data in float16. Depths double until a majority of seeds overflows, and are then
    bisected to `ratio`; a seed that never overflows is `capped`. Source: Yang et al., arXiv 1902.08129.

    Attributes:
        depths: lowest and highest rung of the ladder in float32.
        half: lowest and highest rung in float16; (1, 1): float16 is left out.
        ratio: bisection ends when the gap's ends differ by at most this factor.
    """

    spec: ClassVar[TaskSpec] = SPECS["overflow_depth"]

    depths: tuple[int, int] = (16, 512)
    half: tuple[int, int] = (8, 64)
    ratio: float = 1.05

    def __call__(self, subject: Subject) -> Measurement:
        @cache
        def overflows(seed: int, depth: int, dtype: str) -> tuple[bool, bool]:
            subject.report(f"{depth} layers, {dtype}")
            return self.overflows(subject, seed, depth, DTYPES[dtype])

        def search(dtype: str, ends: tuple[int, int], which: int) -> list[Sample]:
            def fine(probe: Probe) -> list[bool]:
                return [not overflows(seed, probe.depth, dtype)[which] for seed in self.confirmation]

            brackets = climb(*ends, self.ratio, fine).brackets
            by_seed = zip(self.confirmation, brackets, strict=True)
            return [_sample(seed, bracket, ends) for seed, bracket in by_seed]

        searches = {"nonfinite": ("float32", self.depths, 1)}
        if self.half != (1, 1):
            searches |= {"half": ("float16", self.half, 0), "half_nonfinite": ("float16", self.half, 1)}
        samples = search("float32", self.depths, 0)
        derived: dict[str, Json] = {}
        for name, arguments in searches.items():
            other = self.measurement(search(*arguments))
            derived[name] = other.value
            derived[f"{name}_outcome"] = str(other.outcome)
        return with_medians(self.measurement(samples), **derived)

    def overflows(self, subject: Subject, seed: int, depth: int, dtype: torch.dtype) -> tuple[bool, bool]:
        """Tell whether Σ g² is infinite, and whether a gradient is not finite.

        Args:
            subject: what is measured.
            seed: seed of network and minibatch.
            depth: number of layers.
            dtype: precision of network and data.
        """
        network = self.network(subject, depth, seed).to(dtype)
        x, y = self.minibatch(subject, seed)
        loss = mean_cross_entropy(network(x.to(dtype)), y)
        by_parameter = torch.autograd.grad(loss, list(trainable(network).values()), allow_unused=True)
        gradients = [gradient for gradient in by_parameter if gradient is not None]
        total = torch.stack([gradient.square().sum() for gradient in gradients]).sum()
        broken = not all(bool(torch.isfinite(gradient).all()) for gradient in gradients)
        return not math.isfinite(float(total)), broken


def _sample(seed: int, bracket: Bracket, ends: tuple[int, int]) -> Sample:
    """Build a sample: the first depth that overflows, bounded below by the last that does not."""
    if bracket.failed is None:
        return Sample(seed=seed, value=ends[1], outcome=Outcome.CAPPED, low=ends[1])
    if bracket.passed is None:
        return Sample(seed=seed, value=bracket.failed, outcome=Outcome.FLOOR, high=bracket.failed)
    return Sample(seed=seed, value=bracket.failed, low=bracket.passed, high=bracket.failed)
