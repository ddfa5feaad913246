"""Catalogue of the claims of the two threads, each with the rule by which records decide it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bnsuite.claims.judge import Claim, Evidence, Finding, Need, Reader, Requirement, Rule
from bnsuite.format import number, plain
from bnsuite.records import CALIBRATION, is_number, is_positive

YANG = "https://arxiv.org/abs/1902.08129"
SANTURKAR = "https://arxiv.org/abs/1805.11604"
IOFFE = "https://arxiv.org/abs/1502.03167"
PAGE = "https://github.com/davidcpage/cifar10-fast"

BN, NONE, RESIDUAL = "batchnorm", "none", "residual-batchnorm"
Settings = tuple[tuple[str, Any], ...]
SHALLOW: Settings = (("depth", 8),)
DEEP: Settings = (("depth", 24),)
DEEPER: Settings = (("depth", 48), ("beside", 0))
DEPTHS: Mapping[int, Settings] = {8: SHALLOW, 24: DEEP, 48: DEEPER}
SMALL_BATCH: Settings = (("batch", 8),)


def claim(id: str, sentence: str, source: str, experiment: str, *needs: Need) -> Callable[[Rule], Claim]:
    """Turn a rule into its claim.

    Args:
        id: letter of its thread and number.
        sentence: the claim, which can be true or false.
        source: its address.
        experiment: text that describes what is measured.
        needs: records that decide it; the rule is called with a reader of each, in this order.
    """
    return lambda rule: Claim(id, sentence, source, experiment, needs, rule)


def both(task: str, settings: Settings = ()) -> tuple[Need, Need]:
    """Name the records of a task with batch norm and without normalization."""
    return Need(task, BN, settings), Need(task, NONE, settings)


ALONG_DEPTH = tuple(need for settings in DEPTHS.values() for need in both("smoothness", settings))


def _quotient(a: Evidence, b: Evidence) -> float:
    """Divide the median of a by that of b; 0 if one is missing."""
    return a.value / b.value if a.value is not None and b.value else 0.0


def _with_evidence(parts: Mapping[str, bool], words: str, measured: Sequence[Evidence]) -> Finding:
    return Finding(words, tuple(Requirement(*part) for part in parts.items()), tuple(measured))


@claim(
    "Y1",
    "In training at small depth, batch norm makes the loss smoother along its gradient.",
    SANTURKAR,
    "smoothness, 8 layers",
    *both("smoothness", SHALLOW),
)
def smoother_in_training(bn: Reader, none: Reader) -> Finding:
    """Judge whether batch norm lowers effective β and the changes of loss and gradient, in training."""
    quantities = {
        "": ("effective β", "1/learning rate"),
        "loss_range": ("range of the loss", "nats"),
        "gradient_change": ("change of the gradient", "of its norm"),
    }
    shown = [
        r.evidence(f"{r.record.scheme}, {name}", key, unit)
        for key, (name, unit) in quantities.items()
        for r in (bn, none)
    ]
    parts = {f"{name}: lower with batch norm": bn.below(none, key) for key, (name, _) in quantities.items()}
    higher = [name for key, (name, _) in quantities.items() if none.below(bn, key)]
    words = f"{bn.setting('depth')} layers, both at the same rate of {bn.setting('rate')}."
    words += f" With batch norm higher: {', '.join(higher)}." if higher else ""
    return _with_evidence(parts, words, shown)


@claim(
    "Y2",
    "The gradient right before batch norm goes as one over the scale of its input.",
    SANTURKAR,
    "scale_law",
    Need("scale_law"),
)
def one_over_scale(law: Reader) -> Finding:
    """Judge whether the gradient right before batch norm goes as one over the scale of its input."""
    weights = law.evidence("‖∂L/∂W‖", "", "exponent")
    hidden = law.evidence("‖∂L/∂h‖", "hidden_exponent", "exponent")
    bare = law.evidence("‖∂L/∂W‖ without batch norm", "without_norm", "exponent")
    parts = {
        "‖∂L/∂W‖ goes as a^p, p = −1 ± .05": weights.value is not None and abs(weights.value + 1) < 0.05,
        "‖∂L/∂h‖ does": hidden.value is not None and abs(hidden.value + 1) < 0.05,
        "without batch norm it does not: p > −.5": bare.low is not None and bare.low > -0.5,
    }
    words = (
        "The weights before the normalizer multiplied by a, the gradient goes as a to the "
        f"{number(weights.value)}, as it must where the normalizer does not see the scale; without one as a "
        f"to the {number(bare.value)}."
    )
    return _with_evidence(parts, words, [weights, hidden, bare])


GROWTHS = {
    "ReLU, batch 128": Need("gradient_growth"),
    "ReLU, batch 16": Need("gradient_growth", BN, (("batch", 16),)),
    "tanh, batch 128": Need("gradient_growth", BN, (("activation", "tanh"),)),
    "GELU, batch 128": Need("gradient_growth", BN, (("activation", "gelu"),)),
    "linear, batch 16": Need("gradient_growth", BN, (("activation", "linear"), ("batch", 16))),
}


@claim(
    "Y3",
    "In a random deep network with batch norm gradients explode exponentially with depth, "
    "for any nonlinearity.",
    YANG,
    "gradient_growth, four activations, two batch sizes",
    *GROWTHS.values(),
    Need("gradient_growth", NONE),
)
def explosion(relu: Reader, *others: Reader) -> Finding:
    """Judge whether gradients grow exponentially with depth, for each activation and batch size."""
    *shown, none = (
        r.evidence(name) for r, name in zip((relu, *others), (*GROWTHS, "none, ReLU, batch 128"), strict=True)
    )
    parts = {f"{rate.label}: a rate above 1": rate.low is not None and rate.low > 1 for rate in shown}
    slowest = min(shown, key=lambda rate: rate.value or 0)
    words = (
        f"Width {relu.setting('width')}, {relu.setting('depth')} layers, γ = 1. Slowest: {slowest}, to the "
        f"power of the depth nevertheless. ReLU at batch 128: {number(shown[0].value)}, "
        f"{plain(relu.record.derived.get('theory'))} in theory; without normalization {number(none.value)}."
    )
    return _with_evidence(parts, words, [*shown, none])


@claim(
    "Y4",
    "With batch norm 1 to 50 layers are no problem, 50 to 150 hard to train, and beyond 150 "
    "backpropagation gives NaN.",
    YANG,
    "overflow_depth and max_depth",
    *(Need("overflow_depth", BN, settings) for settings in ((), SMALL_BATCH)),
    *both("max_depth"),
)
def nan_at_150(large: Reader, small: Reader, bn: Reader, none: Reader) -> Finding:
    """Judge whether 50 layers train, and whether gradients overflow by 150 layers."""
    sizes = {"batch 128": large, "batch 8": small}
    names = {
        "": "Σg² overflows, float32",
        "nonfinite": "a gradient is not finite, float32",
        "half": "Σg² overflows, float16",
        "half_nonfinite": "a gradient is not finite, float16",
    }
    depths = {
        (size, key): r.derived(f"{name}, {size}", key, "layers") if key else r.evidence(f"{name}, {size}")
        for size, r in sizes.items()
        for key, name in names.items()
    }

    def by_150(key: str) -> bool:
        found = [depths[size, key] for size in sizes if depths[size, key].outcome.bound != "lower"]
        return any(depth.value is not None and depth.value <= 150 for depth in found)

    trained, control = bn.evidence("batchnorm trains to"), none.evidence("none trains to")
    parts = {
        "50 layers train in 200 steps": trained.low is not None and trained.low >= 50,
        "a gradient is not finite by 150 layers, in float32": by_150("nonfinite"),
        "or in float16, at batch 8 or 128": by_150("half_nonfinite"),
    }
    at_128 = {key: depths["batch 128", key].reading for key in names}
    words = (
        f"At batch 128 in float32 the squares of the gradients overflow from {at_128['']} on and a "
        f"gradient itself from {at_128['nonfinite']}; in float16 from {at_128['half']} and "
        f"{at_128['half_nonfinite']}. "
        f"At batch 8 in float32 from {depths['batch 8', ''].reading} and "
        f"{depths['batch 8', 'nonfinite'].reading}. "
        f"Trainable in 200 steps: {trained.reading} with batch norm, {control.reading} without."
    )
    return _with_evidence(parts, words, [*depths.values(), trained, control])


def _along_depth(readers: Sequence[Reader], key: str) -> tuple[dict[int, str], list[Evidence]]:
    """Compare at each depth: batch norm is smoother, less smooth or not told apart; with the numbers."""
    comparisons = {}
    for depth, bn, none in zip(DEPTHS, readers[::2], readers[1::2], strict=True):
        higher, lower = none.below(bn, key), bn.below(none, key)
        comparisons[depth] = "less smooth" if higher else "smoother" if lower else "not told apart"
    shown = [
        r.evidence(f"{r.record.scheme}, {r.setting('depth')} layers, effective β", key, "1/learning rate")
        for r in readers
    ]
    return comparisons, shown


def _ceiling(deep: Reader) -> str:
    """Say how large β can be, √2 over the shortest step, from the settings of the deep networks."""
    rate, reach = (deep.record.settings.get(name) for name in ("rate", "reach"))
    steps = [step for step in reach if is_positive(step)] if isinstance(reach, list) else []
    if not is_positive(rate) or not steps:
        return ""
    return (
        f" β can be no larger than some √2 over the shortest step, {number(2**0.5 / (rate * min(steps)))}: "
        "values near it say that the gradient is lost altogether within that step."
    )


@claim(
    "Y5",
    "At initialization a network with batch norm is less smooth than one without.",
    YANG,
    "smoothness at initialization, 8, 24 and 48 layers",
    *ALONG_DEPTH,
)
def sharper_at_init(*along: Reader) -> Finding:
    """Judge at each depth whether batch norm is less smooth at initialization."""
    comparisons, shown = _along_depth(along, "effective_beta_at_init")
    parts = {
        f"{depth} layers: less smooth with batch norm": comparison == "less smooth"
        for depth, comparison in comparisons.items()
    }
    words = f"With batch norm, at initialization: {_by_depth(comparisons)}.{_ceiling(along[2])}"
    return _with_evidence(parts, words, shown)


def _by_depth(comparisons: Mapping[int, str]) -> str:
    return ", ".join(f"{comparison} at {depth} layers" for depth, comparison in comparisons.items())


@claim(
    "Y6",
    "After one step of SGD the exploding gradients have made the weights huge, and gradients vanish.",
    YANG,
    "first_step, 100 layers",
    Need("first_step"),
)
def vanishing_after_a_step(step: Reader) -> Finding:
    """Judge whether one step makes weights huge and the relative gradient of layer 2 vanish."""
    before = step.evidence("relative gradient, layer 2 over last, before", "before", "ratio")
    after = step.evidence("relative gradient, layer 2 over last, after", "", "ratio")
    weights = step.evidence("growth of ‖W_2‖", "weight_growth", "ratio")
    gradient = step.evidence("‖∇W_2‖/‖∇W_L‖ after", "gradient_after", "ratio")
    parts = {
        "before the step the gradient explodes: layer 2 above 100 times the last": (before.low or 0) > 100,
        "the step makes ‖W_2‖ more than 10 times as large": (weights.low or 0) > 10,
        "the relative gradient of layer 2 is then below .01 of the last": (after.high or 1) < 0.01,
        "and so is the gradient itself": (gradient.high or 1) < 0.01,
    }
    words = (
        f"{step.setting('depth')} layers, one step at rate {step.setting('rate')}: ‖W_2‖ grows "
        f"{number(weights.value)} times, and layer 2 then moves {number(after.value)} times as fast as the "
        f"last, relative to its weights; its gradient itself is {number(gradient.value)} of the last layer’s."
    )
    return _with_evidence(parts, words, [before, after, weights, gradient])


@claim(
    "Y7",
    "Batch norm’s smoothing helps below some 50 layers and harms beyond.",
    YANG,
    "smoothness in training and max_depth",
    *ALONG_DEPTH,
    *both("max_depth"),
)
def helpful_below_harmful_above(*readers: Reader) -> Finding:
    """Judge whether batch norm is smoother in training at small depth and less smooth at large depth."""
    *along, bn, none = readers
    comparisons, shown = _along_depth(along, "")
    depth, control = bn.evidence("batchnorm trains to"), none.evidence("none trains to")
    parts = {
        "smoother in training at 8 layers": comparisons[8] == "smoother",
        "smoother at 24 layers": comparisons[24] == "smoother",
        "less smooth at 48 layers": comparisons[48] == "less smooth",
    }
    words = (
        f"With batch norm, in training: {_by_depth(comparisons)}. Trainable in 200 steps: {depth.reading} "
        f"with it, {control.reading} without.{_ceiling(along[2])}"
    )
    return _with_evidence(parts, words, [*shown, depth, control])


@claim(
    "Y8",
    "Residual connections undo the explosion.",
    YANG,
    "gradient_growth and max_depth",
    *(Need(task, scheme) for task in ("gradient_growth", "max_depth") for scheme in (RESIDUAL, BN)),
)
def residual_cure(growth: Reader, bn_growth: Reader, depth: Reader, bn_depth: Reader) -> Finding:
    """Judge whether residual connections slow the growth of gradients and let deeper networks train."""
    growths, depths = (growth, bn_growth), (depth, bn_depth)
    ends = [
        r.evidence(f"{r.record.scheme}, first over last layer", "first_to_last", "ratio") for r in growths
    ]
    trained = [r.evidence(f"{r.record.scheme} trains to") for r in depths]
    parts = {
        "the gradient grows less a layer": growth.below(bn_growth),
        "over 40 layers it grows to less than a hundredth": 0 < _quotient(*ends) < 0.01,
        "deeper networks train": bn_depth.below(depth),
    }
    words = (
        f"Over 40 layers the squared gradient grows {number(ends[0].value)} times in place of "
        f"{number(ends[1].value)} (a power of the depth, in theory, in place of an exponential), and "
        f"{trained[0].reading} train in place of {trained[1].reading}."
    )
    return _with_evidence(parts, words, [*(r.evidence(r.record.scheme) for r in growths), *ends, *trained])


@claim("P1", "Batch norm trains at much higher learning rates.", PAGE, "stable_lr", *both("stable_lr"))
def higher_rates(bn: Reader, none: Reader) -> Finding:
    """Judge whether batch norm trains at more than twice the stable rate."""
    shown = [bn.evidence(BN), none.evidence(NONE)]
    factor = _quotient(*shown)
    parts = {"a higher stable rate": none.below(bn), "more than twice as high": factor > 2}
    words = f"{bn.setting('depth')} layers: {number(factor)} times the rate of the network without."
    return _with_evidence(parts, words, shown)


@claim(
    "P2",
    "Batch norm reaches a given accuracy in a fraction of the steps.",
    IOFFE,
    "time_to_accuracy",
    *both("time_to_accuracy"),
)
def fourteen_times(bn: Reader, none: Reader) -> Finding:
    """Judge whether batch norm needs fewer steps, by more than half of the paper’s factor."""
    shown = [bn.evidence(BN), none.evidence(NONE)]
    factor = _quotient(shown[1], shown[0])
    parts = {"fewer steps": bn.below(none), "more than 7 times fewer, half of the paper’s 14": factor > 7}
    words = (
        f"{bn.setting('depth')} layers, each at its best rate: {number(factor)} times fewer steps; 14 in "
        "the paper, on ImageNet."
    )
    return _with_evidence(parts, words, shown)


CENTERING = "softmax regression, d = 100, inputs of mean {}"
"""Experiment of the calibration that the claim on centering reads, by the mean of its inputs."""


@claim(
    "P3",
    "Centering the input of a layer improves the conditioning of its Hessian, and so the usable rate.",
    PAGE,
    "top_eigenvalue of softmax regression, from the calibration",
    Need(CALIBRATION, NONE),
)
def centered_inputs(calibration: Reader) -> Finding:
    """Judge whether centered inputs lower λ_max of softmax regression to less than half."""
    measured = {str(row.get("experiment")): row.get("measured") for row in calibration.record.trace}
    shown = []
    for mean in ("0", ".5"):
        value = measured.get(CENTERING.format(mean))
        if not is_number(value):
            return Finding("The calibration has no reading of softmax regression.")
        shown.append(Evidence(f"λ_max, inputs of mean {mean}", float(value), unit="1/learning rate"))
    factor = _quotient(shown[1], shown[0])
    words = (
        "Softmax regression at zero on 100 inputs of deviation 1, one draw, from the calibration: "
        "centering them divides λ_max, and with it multiplies the largest stable rate 2/λ_max, by "
        f"{number(factor)}."
    )
    return _with_evidence({"λ_max falls to less than half": factor > 2}, words, shown)


@claim(
    "P4",
    "Batch norm removes the outlying eigenvalues of the Hessian.",
    PAGE,
    "spectrum",
    *both("spectrum"),
)
def no_outliers(bn: Reader, none: Reader) -> Finding:
    """Judge whether batch norm lowers λ_1/λ_C and leaves no outliers."""
    ratios = [r.evidence(f"{r.record.scheme}, λ_1/λ_C") for r in (bn, none)]
    counts = [
        r.evidence(f"{r.record.scheme}, outliers", "outliers", "eigenvalues above 2 λ_C") for r in (bn, none)
    ]
    parts = {
        "λ_1/λ_C is lower with batch norm": bn.below(none),
        "outliers without it, none with it": (counts[1].low or 0) >= 1 > (counts[0].high or 0),
    }
    words = (
        f"At matched loss, {bn.setting('depth')} layers: {number(counts[1].value)} outliers without, "
        f"{number(counts[0].value)} with batch norm; λ_1/λ_C {number(ratios[1].value)} and "
        f"{number(ratios[0].value)}."
    )
    return _with_evidence(parts, words, [*ratios, *counts])


@claim(
    "P5",
    "The outlying eigenspace is that of the directions which move the output’s means together.",
    PAGE,
    "mean_shift",
    *both("mean_shift"),
)
def mean_shifts(bn: Reader, none: Reader) -> Finding:
    """Judge whether the top eigenspace lies in the span of the gradients of the outputs’ means."""
    share = none.evidence(f"{NONE}, share in the means’ span")
    chance = none.evidence(f"{NONE}, in a random span of that size", "means.random", "fraction")
    more = none.evidence(f"{NONE}, with the variances", "means_and_variances.share", "fraction")
    with_norm = bn.evidence(f"{BN}, share in the means’ span")
    left = none.evidence(f"{NONE}, λ_max left without the means’ span", "means.ratio", "fraction")
    parts = {
        "more than half of the top C − 1 eigenvectors lies in the means’ span": (share.low or 0) > 0.5,
        "without that span less than half of λ_max is left": left.high is not None and left.high < 0.5,
        "with batch norm less of it lies there": bn.below(none),
    }
    words = (
        f"{bn.setting('depth')} layers at matched loss. Without normalization {number(share.value)} of "
        "the top eigenspace lies in the span of the gradients of the outputs’ means, "
        f"{number(chance.value)} in a random one; with that span projected out {number(left.value)} of "
        f"λ_max is left. With batch norm the share is {number(with_norm.value)}."
    )
    return _with_evidence(parts, words, [share, chance, more, with_norm, left])


@claim(
    "P6",
    "What is measured at initialization cannot explain batch norm: it must be followed through training.",
    PAGE,
    "smoothness at initialization and in training, 8, 24 and 48 layers; spectrum",
    *ALONG_DEPTH,
    *both("spectrum"),
)
def not_at_init(*readers: Reader) -> Finding:
    """Judge whether the comparison at initialization differs from that in training."""
    *along, bn, none = readers
    before, first = _along_depth(along, "effective_beta_at_init")
    after, later = _along_depth(along, "")
    shown = [
        evidence._replace(label=f"{evidence.label} {when}")
        for measured, when in ((first, "at initialization"), (later, "in training"))
        for evidence in measured
    ]
    turned = [depth for depth in DEPTHS if {before[depth], after[depth]} == {"smoother", "less smooth"}]
    ratios = [
        r.evidence(f"{r.record.scheme}, λ_1/λ_C {when}", key, "ratio")
        for r in (none, bn)
        for key, when in (("at_init.ratio", "at initialization"), ("", "at matched loss"))
    ]
    parts = {
        "which of the two is smoother along its gradient turns at some depth": bool(turned),
        "the outliers without normalization grow in training": none.below(none, "at_init.ratio", ""),
    }
    words = (
        f"Along the gradient batch norm is {_by_depth(before)} at initialization, and {_by_depth(after)} "
        f"in training. λ_1/λ_C goes from {number(ratios[0].value)} to {number(ratios[1].value)} without "
        f"normalization and from {number(ratios[2].value)} to {number(ratios[3].value)} with batch norm."
    )
    return _with_evidence(parts, words, [*shown, *ratios])


CLAIMS: tuple[Claim, ...] = (
    smoother_in_training,
    one_over_scale,
    explosion,
    nan_at_150,
    sharper_at_init,
    vanishing_after_a_step,
    helpful_below_harmful_above,
    residual_cure,
    higher_rates,
    fourteen_times,
    centered_inputs,
    no_outliers,
    mean_shifts,
    not_at_init,
)
"""All claims of the two threads, Yang’s (Y) and Page’s (P)."""
