"""Task specifications: what ranking, audit, calibration and board need to know about each task. No torch.

A task is one entry here and one file in `bnsuite.tasks`; its budgets are in the profiles, and the ranges of
its settings in `bnsuite.settings`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bnsuite.protocol.arrival import ArrivalSearch
from bnsuite.protocol.max_depth import DepthSearch
from bnsuite.protocol.search import Search
from bnsuite.protocol.sharpness import SharpnessSearch
from bnsuite.protocol.stable_lr import RateSearch
from bnsuite.records import Better


@dataclass(frozen=True, kw_only=True)
class TaskSpec:
    """Description of a task.

    Attributes:
        name: name in records and on the command line.
        version: raised when the meaning of its numbers changes.
        title: name in headings.
        question: question that the task answers, in one sentence.
        unit: unit of the value.
        better: whether higher or lower is better.
        runner: "module:class" below `bnsuite.tasks`.
        companions: derived values that are shown next to the value and never ranked, key → heading; others
            stay in the record. Empty: all are shown, by their keys.
        weight: rough cost relative to other tasks, for the estimate of the time left.
        scale: unit of the composite: root mean square, over the reference schemes other than `batchnorm`, of
            log2 of the ratio to it; frozen with the suite version, and `ranking.composite.derive_scales`
            computes it from records. None: a diagnostic, which ranks nobody.
        search: rules by which its trace is followed and scored again; None: its trace is not audited.
    """

    name: str
    title: str
    question: str
    unit: str
    better: Better
    runner: str
    version: int = 1
    companions: Mapping[str, str] = field(default_factory=dict)
    weight: float = 1.0
    scale: float | None = None
    search: type[Search[Any]] | None = None

    @property
    def ranked(self) -> bool:
        """Whether the task ranks schemes."""
        return self.scale is not None


_TASKS = (
    TaskSpec(
        name="max_depth",
        title="Trainable depth",
        question="How deep can it train?",
        unit="layers",
        better="higher",
        runner="max_depth:MaxDepth",
        weight=5.0,
        scale=1.36,
        search=DepthSearch,
        companions={
            "non_monotone": "non-monotone",
            "accuracy_at_value": "accuracy at the value",
            "accuracy_above": "accuracy above it",
        },
    ),
    TaskSpec(
        name="stable_lr",
        title="Stable rate",
        question="How large a learning rate does it stand, and still learn?",
        unit="learning rate",
        better="higher",
        runner="stable_lr:StableLr",
        scale=2.86,
        search=RateSearch,
        companions={
            "best_rate": "best rate",
            "largest_finite_rate": "largest finite rate tried",
            "largest_not_rising_rate": "largest tried without a rise",
        },
    ),
    TaskSpec(
        name="top_eigenvalue",
        title="Sharpness",
        question="How sharp is the loss, at the same loss for all?",
        unit="1/learning rate",
        better="lower",
        runner="top_eigenvalue:TopEigenvalue",
        scale=4.06,
        search=SharpnessSearch,
        companions={
            "best_rate": "best rate",
            "max_residual": "largest residual",
            "at_init": "λ at initialization",
            "at_best_rate": "λ at the best rate",
            "edge_ratio": "rate·λ/2",
            "lambda_min": "smallest λ",
        },
    ),
    TaskSpec(
        name="time_to_accuracy",
        version=2,
        title="Steps to accuracy",
        question="How many steps does it take to the target accuracy?",
        unit="steps",
        better="lower",
        runner="time_to_accuracy:TimeToAccuracy",
        scale=0.641,
        search=ArrivalSearch,
        companions={
            "rate": "rate",
            "examples": "examples",
            "epochs": "epochs",
            "train_s": "training (s)",
            "eval_s": "evaluation (s)",
            "seconds_per_step": "a step (s)",
            "joules_per_step": "a step (J)",
            "energy_j": "training (J)",
            "ratio_to_batchnorm": "seconds / batchnorm’s",
            "drift": "clock drifted",
            "idle": "device idle",
        },
    ),
    TaskSpec(
        name="gradient_growth",
        title="Gradient growth",
        question="How much do gradients grow a layer, at initialization?",
        unit="ratio per layer",
        better="lower",
        runner="gradient_growth:GradientGrowth",
        weight=0.1,
        companions={
            "theory": "theory’s rate",
            "imbalance": "imbalance λ",
            "weight_growth": "rate of ‖∂L/\u2060∂W‖²",
            "first_to_last": "‖∂L/\u2060∂h‖², first / last layer",
        },
    ),
    TaskSpec(
        name="scale_law",
        title="Scale law",
        question="How does a larger input change the gradient right before the normalizer?",
        unit="exponent",
        better="lower",
        runner="scale_law:ScaleLaw",
        weight=0.1,
        companions={
            "without_norm": "without its normalizer",
            "hidden_exponent": "exponent of ‖∂L/\u2060∂h‖",
            "without_norm_hidden": "‖∂L/\u2060∂h‖, without it",
            "cosine": "|cos(W,\xa0∇W)|",
        },
    ),
    TaskSpec(
        name="first_step",
        title="First step",
        question="After one step, how much slower do the lower layers learn than the last?",
        unit="ratio",
        better="higher",
        runner="first_step:FirstStep",
        weight=0.1,
        companions={
            "before": "the same before the step",
            "gradient_before": "‖∇W_2‖ / ‖∇W_L‖ before",
            "gradient_after": "‖∇W_2‖ / ‖∇W_L‖ after",
            "weight_growth": "‖W_2‖ grows by",
        },
    ),
    TaskSpec(
        name="overflow_depth",
        title="Depth of overflow",
        question="How deep until the first gradients overflow?",
        unit="layers",
        better="higher",
        runner="overflow_depth:OverflowDepth",
        companions={
            "nonfinite": "a gradient itself, float32",
            "half": "their squares’ sum, float16",
            "half_nonfinite": "a gradient itself, float16",
        },
    ),
    TaskSpec(
        name="smoothness",
        title="Smoothness",
        question="How much does the gradient change along itself, in training?",
        unit="1/learning rate",
        better="lower",
        runner="smoothness:Smoothness",
        weight=0.5,
        companions={
            "effective_beta_at_init": "β at initialization",
            "gradient_change": "relative change of the gradient",
            "loss_range": "range of the loss (nats)",
            "lambda_max_at_init": "λ_max at initialization",
            "lambda_max_at_end": "λ_max at the end",
        },
    ),
    TaskSpec(
        name="spectrum",
        title="Hessian spectrum",
        question="Does its Hessian have outliers?",
        unit="ratio",
        better="lower",
        runner="spectrum:HessianSpectrum",
        companions={
            "at_init": "the same at initialization",
            "lambda_1": "λ_1 (1/rate)",
            "gap": "gap above λ_C",
            "outliers": "outliers above 2 λ_C",
            "gradient_share": "gradient in the top C",
            "negative_mass": "share below 0",
        },
    ),
    TaskSpec(
        name="mean_shift",
        title="Mean shift",
        question="Do shifts of the output's means make its outliers?",
        unit="fraction",
        better="lower",
        runner="mean_shift:MeanShift",
        companions={
            "means_random": "random span",
            "means_and_variances_share": "share with variances",
            "means_and_variances_random": "random span of that size",
            "means_ratio": "λ_max left",
            "means_and_variances_ratio": "λ_max left, with variances",
            "lambda_max": "λ_max (1/rate)",
        },
    ),
    TaskSpec(
        name="layer_cost",
        title="Normalizer cost",
        question="What does the normalizer alone cost, forward and backward?",
        unit="µs",
        better="lower",
        runner="layer_cost:LayerCost",
        weight=0.1,
        companions={
            "ratio_to_identity": "times an identity’s",
            "kept_mib": "kept for backward (MiB)",
            "joules_per_pass": "a pass (J)",
            "drift": "clock drifted",
            "idle": "device idle",
        },
    ),
    TaskSpec(
        name="speedrun",
        title="Speedrun",
        question="How accurate does a fast recipe get with it?",
        unit="accuracy",
        better="higher",
        runner="speedrun:Speedrun",
        weight=2.0,
        companions={
            "train_s": "training (s)",
            "eval_s": "test (s)",
            "examples_per_s": "examples a second",
            "precision": "precision",
            "compiled": "compiled",
        },
    ),
)

SPECS: dict[str, TaskSpec] = {spec.name: spec for spec in _TASKS}
"""Task name → specification, in the order in which the board shows them."""

RANKED: tuple[str, ...] = tuple(spec.name for spec in _TASKS if spec.ranked)
"""Names of the tasks that rank schemes."""
