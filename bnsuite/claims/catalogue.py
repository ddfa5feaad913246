"""Catalogue of the claims of the two threads, each with the rule by which records decide it."""

from collections.abc import Mapping, Sequence
from typing import Any

from bnsuite import format
from bnsuite.claims.judge import Claim, Evidence, Finding, Need, Reader, Requirement
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


def _quotient(a: Evidence, b: Evidence) -> float:
    """Divide the median of a by that of b; 0 if one is missing."""
    return a.value / b.value if a.value is not None and b.value else 0.0


def _number(value: float | None) -> str:
    return format.number(value)


def _asked(r: Reader, need: Need, name: str) -> str:
    """Read a setting of a record, as text."""
    return format.plain(r.record(need).settings.get(name))


def _with_evidence(parts: Mapping[str, bool], words: str, measured: Sequence[Evidence]) -> Finding:
    return Finding(words, tuple(Requirement(*part) for part in parts.items()), tuple(measured))


def smoother_in_training(r: Reader) -> Finding:
    """Judge whether batch norm lowers effective β and the changes of loss and gradient, in training."""
    bn, none = Need("smoothness", BN, SHALLOW), Need("smoothness", NONE, SHALLOW)
    quantities = {
        "": ("effective β", "1/learning rate"),
        "loss_range": ("range of the loss", "nats"),
        "gradient_change": ("change of the gradient", "of its norm"),
    }
    shown = [
        r.evidence(need, f"{need.scheme}, {name}", key, unit)
        for key, (name, unit) in quantities.items()
        for need in (bn, none)
    ]
    parts = {
        f"{name}: lower with batch norm": r.below(bn, none, key) for key, (name, _) in quantities.items()
    }
    higher = [name for key, (name, _) in quantities.items() if r.below(none, bn, key)]
    words = f"{_asked(r, bn, 'depth')} layers, both at the same rate of {_asked(r, bn, 'rate')}."
    words += f" With batch norm higher: {', '.join(higher)}." if higher else ""
    return _with_evidence(parts, words, shown)


def one_over_scale(r: Reader) -> Finding:
    """Judge whether the gradient right before batch norm goes as one over the scale of its input."""
    need = Need("scale_law")
    weights = r.evidence(need, "‖∂L/∂W‖", "", "exponent")
    hidden = r.evidence(need, "‖∂L/∂h‖", "hidden_exponent", "exponent")
    bare = r.evidence(need, "‖∂L/∂W‖ without batch norm", "without_norm", "exponent")
    parts = {
        "‖∂L/∂W‖ goes as a^p, p = −1 ± .05": weights.value is not None and abs(weights.value + 1) < 0.05,
        "‖∂L/∂h‖ does": hidden.value is not None and abs(hidden.value + 1) < 0.05,
        "without batch norm it does not: p > −.5": bare.low is not None and bare.low > -0.5,
    }
    words = (
        "The weights before the normalizer multiplied by a, the gradient goes as a to the "
        f"{_number(weights.value)}, as it must where the normalizer does not see the scale; without one as a "
        f"to the {_number(bare.value)}."
    )
    return _with_evidence(parts, words, [weights, hidden, bare])


GROWTHS = {
    "ReLU, batch 128": Need("gradient_growth"),
    "ReLU, batch 16": Need("gradient_growth", BN, (("batch", 16),)),
    "tanh, batch 128": Need("gradient_growth", BN, (("activation", "tanh"),)),
    "GELU, batch 128": Need("gradient_growth", BN, (("activation", "gelu"),)),
    "linear, batch 16": Need("gradient_growth", BN, (("activation", "linear"), ("batch", 16))),
}


def explosion(r: Reader) -> Finding:
    """Judge whether gradients grow exponentially with depth, for each activation and batch size."""
    shown = {name: r.evidence(need, name) for name, need in GROWTHS.items()}
    none = r.evidence(Need("gradient_growth", NONE), "none, ReLU, batch 128")
    parts = {f"{name}: a rate above 1": rate.low is not None and rate.low > 1 for name, rate in shown.items()}
    slowest = min(shown.values(), key=lambda rate: rate.value or 0)
    theory = r.record(Need("gradient_growth")).derived.get("theory")
    width, depth = (_asked(r, GROWTHS["ReLU, batch 128"], name) for name in ("width", "depth"))
    words = (
        f"Width {width}, {depth} layers, γ = 1. Slowest: {slowest}, to the power of the depth "
        f"nevertheless. ReLU at batch 128: {_number(shown['ReLU, batch 128'].value)}, {format.plain(theory)} "
        f"in theory; without normalization {_number(none.value)}."
    )
    return _with_evidence(parts, words, [*shown.values(), none])


def nan_at_150(r: Reader) -> Finding:
    """Judge whether 50 layers train, and whether gradients overflow by 150 layers."""
    sizes = {"batch 128": Need("overflow_depth"), "batch 8": Need("overflow_depth", BN, SMALL_BATCH)}
    names = {
        "": "Σg² overflows, float32",
        "nonfinite": "a gradient is not finite, float32",
        "half": "Σg² overflows, float16",
        "half_nonfinite": "a gradient is not finite, float16",
    }
    depths = {
        (size, key): r.derived(need, f"{name}, {size}", key, "layers")
        if key
        else r.evidence(need, f"{name}, {size}")
        for size, need in sizes.items()
        for key, name in names.items()
    }

    def by_150(key: str) -> bool:
        both = [depths[size, key] for size in sizes]
        return any(
            depth.value is not None and depth.value <= 150 and depth.outcome.bound != "lower"
            for depth in both
        )

    trained = r.evidence(Need("max_depth"), "batchnorm trains to")
    control = r.evidence(Need("max_depth", NONE), "none trains to")
    parts = {
        "50 layers train in 200 steps": trained.low is not None and trained.low >= 50,
        "a gradient is not finite by 150 layers, in float32": by_150("nonfinite"),
        "or in float16, at batch 8 or 128": by_150("half_nonfinite"),
    }
    large = {key: depths["batch 128", key].reading for key in names}
    words = (
        f"At batch 128 in float32 the squares of the gradients overflow from {large['']} on and a "
        f"gradient itself from {large['nonfinite']}; in float16 from {large['half']} and "
        f"{large['half_nonfinite']}. "
        f"At batch 8 in float32 from {depths['batch 8', ''].reading} and "
        f"{depths['batch 8', 'nonfinite'].reading}. "
        f"Trainable in 200 steps: {trained.reading} with batch norm, {control.reading} without."
    )
    return _with_evidence(parts, words, [*depths.values(), trained, control])


def _along_depth(r: Reader, key: str) -> tuple[dict[int, str], list[Evidence]]:
    """Compare at each depth: batch norm is smoother, less smooth or not told apart; with the numbers."""
    comparisons, shown = {}, []
    for depth, settings in DEPTHS.items():
        bn, none = (Need("smoothness", scheme, settings) for scheme in (BN, NONE))
        for need in (bn, none):
            shown.append(
                r.evidence(need, f"{need.scheme}, {depth} layers, effective β", key, "1/learning rate")
            )
        comparisons[depth] = (
            "less smooth"
            if r.below(none, bn, key)
            else "smoother"
            if r.below(bn, none, key)
            else "not told apart"
        )
    return comparisons, shown


def _ceiling(r: Reader) -> str:
    """Say how large β can be, √2 over the shortest step, from the settings of the deep networks."""
    settings = r.record(Need("smoothness", BN, DEEP)).settings
    rate, reach = settings.get("rate"), settings.get("reach")
    steps = [step for step in reach if is_positive(step)] if isinstance(reach, list) else []
    if not is_positive(rate) or not steps:
        return ""
    most = _number(2**0.5 / (rate * min(steps)))
    return (
        f" β can be no larger than some √2 over the shortest step, {most}: values near it say that the "
        "gradient is lost altogether within that step."
    )


def sharper_at_init(r: Reader) -> Finding:
    """Judge at each depth whether batch norm is less smooth at initialization."""
    comparisons, shown = _along_depth(r, "effective_beta_at_init")
    parts = {
        f"{depth} layers: less smooth with batch norm": comparison == "less smooth"
        for depth, comparison in comparisons.items()
    }
    words = f"With batch norm, at initialization: {_by_depth(comparisons)}.{_ceiling(r)}"
    return _with_evidence(parts, words, shown)


def _by_depth(comparisons: Mapping[int, str]) -> str:
    return ", ".join(f"{comparison} at {depth} layers" for depth, comparison in comparisons.items())


def vanishing_after_a_step(r: Reader) -> Finding:
    """Judge whether one step makes weights huge and the relative gradient of layer 2 vanish."""
    need = Need("first_step")
    before = r.evidence(need, "relative gradient, layer 2 over last, before", "before", "ratio")
    after = r.evidence(need, "relative gradient, layer 2 over last, after", "", "ratio")
    weights = r.evidence(need, "growth of ‖W_2‖", "weight_growth", "ratio")
    plain = r.evidence(need, "‖∇W_2‖/‖∇W_L‖ after", "gradient_after", "ratio")
    parts = {
        "before the step the gradient explodes: layer 2 above 100 times the last": (before.low or 0) > 100,
        "the step makes ‖W_2‖ more than 10 times as large": (weights.low or 0) > 10,
        "the relative gradient of layer 2 is then below .01 of the last": (after.high or 1) < 0.01,
        "and so is the gradient itself": (plain.high or 1) < 0.01,
    }
    words = (
        f"{_asked(r, need, 'depth')} layers, one step at rate {_asked(r, need, 'rate')}: ‖W_2‖ grows "
        f"{_number(weights.value)} times, and layer 2 then moves {_number(after.value)} times as fast as the "
        f"last, relative to its weights; its gradient itself is {_number(plain.value)} of the last layer’s."
    )
    return _with_evidence(parts, words, [before, after, weights, plain])


def helpful_below_harmful_above(r: Reader) -> Finding:
    """Judge whether batch norm is smoother in training at small depth and less smooth at large depth."""
    comparisons, shown = _along_depth(r, "")
    depth = r.evidence(Need("max_depth"), "batchnorm trains to")
    control = r.evidence(Need("max_depth", NONE), "none trains to")
    parts = {
        "smoother in training at 8 layers": comparisons[8] == "smoother",
        "smoother at 24 layers": comparisons[24] == "smoother",
        "less smooth at 48 layers": comparisons[48] == "less smooth",
    }
    words = (
        f"With batch norm, in training: {_by_depth(comparisons)}. Trainable in 200 steps: {depth.reading} "
        f"with it, {control.reading} without.{_ceiling(r)}"
    )
    return _with_evidence(parts, words, [*shown, depth, control])


def residual_cure(r: Reader) -> Finding:
    """Judge whether residual connections slow the growth of gradients and let deeper networks train."""
    growth = {scheme: r.evidence(Need("gradient_growth", scheme), scheme) for scheme in (RESIDUAL, BN)}
    ends = {
        scheme: r.evidence(
            Need("gradient_growth", scheme), f"{scheme}, first over last layer", "first_to_last", "ratio"
        )
        for scheme in (RESIDUAL, BN)
    }
    depth = {
        scheme: r.evidence(Need("max_depth", scheme), f"{scheme} trains to") for scheme in (RESIDUAL, BN)
    }
    parts = {
        "the gradient grows less a layer": r.below(
            Need("gradient_growth", RESIDUAL), Need("gradient_growth", BN)
        ),
        "over 40 layers it grows to less than a hundredth": 0 < _quotient(ends[RESIDUAL], ends[BN]) < 0.01,
        "deeper networks train": r.below(Need("max_depth", BN), Need("max_depth", RESIDUAL)),
    }
    words = (
        f"Over 40 layers the squared gradient grows {_number(ends[RESIDUAL].value)} times in place of "
        f"{_number(ends[BN].value)} (a power of the depth, in theory, in place of an exponential), and "
        f"{depth[RESIDUAL].reading} train in place of {depth[BN].reading}."
    )
    return _with_evidence(parts, words, [*growth.values(), *ends.values(), *depth.values()])


def higher_rates(r: Reader) -> Finding:
    """Judge whether batch norm trains at more than twice the stable rate."""
    bn, none = Need("stable_lr"), Need("stable_lr", NONE)
    shown = [r.evidence(bn, BN), r.evidence(none, NONE)]
    factor = _quotient(*shown)
    parts = {"a higher stable rate": r.below(none, bn), "more than twice as high": factor > 2}
    return _with_evidence(
        parts,
        f"{_asked(r, bn, 'depth')} layers: {_number(factor)} times the rate of the network without.",
        shown,
    )


def fourteen_times(r: Reader) -> Finding:
    """Judge whether batch norm needs fewer steps, by more than half of the paper’s factor."""
    bn, none = Need("time_to_accuracy"), Need("time_to_accuracy", NONE)
    shown = [r.evidence(bn, BN), r.evidence(none, NONE)]
    factor = _quotient(shown[1], shown[0])
    parts = {"fewer steps": r.below(bn, none), "more than 7 times fewer, half of the paper’s 14": factor > 7}
    words = (
        f"{_asked(r, bn, 'depth')} layers, each at its best rate: {_number(factor)} times fewer steps; 14 in "
        "the paper, on ImageNet."
    )
    return _with_evidence(parts, words, shown)


CENTERING = "softmax regression, d = 100, inputs of mean {}"
"""Experiment of the calibration that the claim on centering reads, by the mean of its inputs."""


def centered_inputs(r: Reader) -> Finding:
    """Judge whether centered inputs lower λ_max of softmax regression to less than half."""
    rows = {str(row.get("experiment")): row for row in r.record(Need(CALIBRATION, NONE)).trace}
    shown = []
    for mean in ("0", ".5"):
        value = rows.get(CENTERING.format(mean), {}).get("measured")
        known = float(value) if is_number(value) else None
        shown.append(Evidence(f"λ_max, inputs of mean {mean}", known, unit="1/learning rate"))
    if any(sharpness.value is None for sharpness in shown):
        return Finding("The calibration has no reading of softmax regression.")
    factor = _quotient(shown[1], shown[0])
    words = (
        "Softmax regression at zero on 100 inputs of deviation 1, one draw, from the calibration: "
        "centering them divides λ_max, and with it multiplies the largest stable rate 2/λ_max, by "
        f"{_number(factor)}."
    )
    return _with_evidence({"λ_max falls to less than half": factor > 2}, words, shown)


def no_outliers(r: Reader) -> Finding:
    """Judge whether batch norm lowers λ_1/λ_C and leaves no outliers."""
    bn, none = Need("spectrum"), Need("spectrum", NONE)
    ratios = [r.evidence(need, f"{need.scheme}, λ_1/λ_C") for need in (bn, none)]
    counts = [
        r.evidence(need, f"{need.scheme}, outliers", "outliers", "eigenvalues above 2 λ_C")
        for need in (bn, none)
    ]
    parts = {
        "λ_1/λ_C is lower with batch norm": r.below(bn, none),
        "outliers without it, none with it": (counts[1].low or 0) >= 1 > (counts[0].high or 0),
    }
    words = (
        f"At matched loss, {_asked(r, bn, 'depth')} layers: {_number(counts[1].value)} outliers without, "
        f"{_number(counts[0].value)} with batch norm; λ_1/λ_C {_number(ratios[1].value)} and "
        f"{_number(ratios[0].value)}."
    )
    return _with_evidence(parts, words, [*ratios, *counts])


def mean_shifts(r: Reader) -> Finding:
    """Judge whether the top eigenspace lies in the span of the gradients of the outputs’ means."""
    bn, none = Need("mean_shift"), Need("mean_shift", NONE)
    share = r.evidence(none, f"{NONE}, share in the means’ span")
    chance = r.evidence(none, f"{NONE}, in a random span of that size", "means.random", "fraction")
    more = r.evidence(none, f"{NONE}, with the variances", "means_and_variances.share", "fraction")
    with_norm = r.evidence(bn, f"{BN}, share in the means’ span")
    left = r.evidence(none, f"{NONE}, λ_max left without the means’ span", "means.ratio", "fraction")
    parts = {
        "more than half of the top C − 1 eigenvectors lies in the means’ span": (share.low or 0) > 0.5,
        "without that span less than half of λ_max is left": left.high is not None and left.high < 0.5,
        "with batch norm less of it lies there": r.below(bn, none),
    }
    words = (
        f"{_asked(r, bn, 'depth')} layers at matched loss. Without normalization {_number(share.value)} of "
        "the top eigenspace lies in the span of the gradients of the outputs’ means, "
        f"{_number(chance.value)} in a random one; with that span projected out {_number(left.value)} of "
        f"λ_max is left. With batch norm the share is {_number(with_norm.value)}."
    )
    return _with_evidence(parts, words, [share, chance, more, with_norm, left])


def not_at_init(r: Reader) -> Finding:
    """Judge whether the comparison at initialization differs from that in training."""
    before, first = _along_depth(r, "effective_beta_at_init")
    after, later = _along_depth(r, "")
    shown = [
        evidence._replace(label=f"{evidence.label} {when}")
        for measured, when in ((first, "at initialization"), (later, "in training"))
        for evidence in measured
    ]
    turned = [depth for depth in DEPTHS if {before[depth], after[depth]} == {"smoother", "less smooth"}]
    needs = [Need("spectrum", NONE), Need("spectrum")]
    ratios = [
        r.evidence(need, f"{need.scheme}, λ_1/λ_C {when}", key, "ratio")
        for need in needs
        for key, when in (("at_init.ratio", "at initialization"), ("", "at matched loss"))
    ]
    grows = r.below(needs[0], needs[0], "at_init.ratio", "")
    parts = {
        "which of the two is smoother along its gradient turns at some depth": bool(turned),
        "the outliers without normalization grow in training": grows,
    }
    words = (
        f"Along the gradient batch norm is {_by_depth(before)} at initialization, and {_by_depth(after)} "
        f"in training. λ_1/λ_C goes from {_number(ratios[0].value)} to {_number(ratios[1].value)} without "
        f"normalization and from {_number(ratios[2].value)} to {_number(ratios[3].value)} with batch norm."
    )
    return _with_evidence(parts, words, [*shown, *ratios])


CLAIMS: tuple[Claim, ...] = (
    Claim(
        "Y1",
        "In training at small depth, batch norm makes the loss smoother along its gradient.",
        SANTURKAR,
        "smoothness, 8 layers",
        (Need("smoothness", BN, SHALLOW), Need("smoothness", NONE, SHALLOW)),
        smoother_in_training,
    ),
    Claim(
        "Y2",
        "The gradient right before batch norm goes as one over the scale of its input.",
        SANTURKAR,
        "scale_law",
        (Need("scale_law", BN),),
        one_over_scale,
    ),
    Claim(
        "Y3",
        "In a random deep network with batch norm gradients explode exponentially with depth, "
        "for any nonlinearity.",
        YANG,
        "gradient_growth, four activations, two batch sizes",
        (*GROWTHS.values(), Need("gradient_growth", NONE)),
        explosion,
    ),
    Claim(
        "Y4",
        "With batch norm 1 to 50 layers are no problem, 50 to 150 hard to train, and beyond 150 "
        "backpropagation gives NaN.",
        YANG,
        "overflow_depth and max_depth",
        (
            *(Need("overflow_depth", BN, s) for s in ((), SMALL_BATCH)),
            *(Need("max_depth", s) for s in (BN, NONE)),
        ),
        nan_at_150,
    ),
    Claim(
        "Y5",
        "At initialization a network with batch norm is less smooth than one without.",
        YANG,
        "smoothness at initialization, 8, 24 and 48 layers",
        tuple(Need("smoothness", s, d) for d in DEPTHS.values() for s in (BN, NONE)),
        sharper_at_init,
    ),
    Claim(
        "Y6",
        "After one step of SGD the exploding gradients have made the weights huge, and gradients vanish.",
        YANG,
        "first_step, 100 layers",
        (Need("first_step"),),
        vanishing_after_a_step,
    ),
    Claim(
        "Y7",
        "Batch norm’s smoothing helps below some 50 layers and harms beyond.",
        YANG,
        "smoothness in training and max_depth",
        (
            *(Need("smoothness", s, d) for d in DEPTHS.values() for s in (BN, NONE)),
            *(Need("max_depth", s) for s in (BN, NONE)),
        ),
        helpful_below_harmful_above,
    ),
    Claim(
        "Y8",
        "Residual connections undo the explosion.",
        YANG,
        "gradient_growth and max_depth",
        tuple(Need(t, s) for t in ("gradient_growth", "max_depth") for s in (RESIDUAL, BN)),
        residual_cure,
    ),
    Claim(
        "P1",
        "Batch norm trains at much higher learning rates.",
        PAGE,
        "stable_lr",
        (Need("stable_lr"), Need("stable_lr", NONE)),
        higher_rates,
    ),
    Claim(
        "P2",
        "Batch norm reaches a given accuracy in a fraction of the steps.",
        IOFFE,
        "time_to_accuracy",
        (Need("time_to_accuracy"), Need("time_to_accuracy", NONE)),
        fourteen_times,
    ),
    Claim(
        "P3",
        "Centering the input of a layer improves the conditioning of its Hessian, and so the usable rate.",
        PAGE,
        "top_eigenvalue of softmax regression, from the calibration",
        (Need(CALIBRATION, NONE),),
        centered_inputs,
    ),
    Claim(
        "P4",
        "Batch norm removes the outlying eigenvalues of the Hessian.",
        PAGE,
        "spectrum",
        (Need("spectrum"), Need("spectrum", NONE)),
        no_outliers,
    ),
    Claim(
        "P5",
        "The outlying eigenspace is that of the directions which move the output’s means together.",
        PAGE,
        "mean_shift",
        (Need("mean_shift"), Need("mean_shift", NONE)),
        mean_shifts,
    ),
    Claim(
        "P6",
        "What is measured at initialization cannot explain batch norm: it must be followed through training.",
        PAGE,
        "smoothness at initialization and in training, 8, 24 and 48 layers; spectrum",
        (
            *(Need("smoothness", s, d) for d in DEPTHS.values() for s in (BN, NONE)),
            *(Need("spectrum", s) for s in (BN, NONE)),
        ),
        not_at_init,
    ),
)
"""All claims of the two threads, Yang’s (Y) and Page’s (P)."""
