"""What the two threads claim, and the rule by which records decide each claim."""

from collections.abc import Mapping, Sequence
from typing import Any

from bnsuite.board import format
from bnsuite.board.claims import CONDITION, FAILS, HOLDS, Claim, Evidence, Finding, Need, Reader
from bnsuite.records import CALIBRATION

YANG = "https://arxiv.org/abs/1902.08129"
SANTURKAR = "https://arxiv.org/abs/1805.11604"
IOFFE = "https://arxiv.org/abs/1502.03167"
PAGE = "https://github.com/davidcpage/cifar10-fast"


def times(a: Evidence, b: Evidence) -> float:
    """a over b, of the medians; 0 where one is missing."""
    return a.value / b.value if a.value is not None and b.value else 0.0


def text(value: float | None) -> str:
    return format.number(value)


def layers(value: float | None) -> str:
    return f"{format.number(value, 'layers')} layers"


def _yes_or_no(parts: Sequence[bool], condition: str, measured: Sequence[Evidence]) -> Finding:
    """Holds where every part does, with a condition where some do."""
    verdict = HOLDS if all(parts) else CONDITION if any(parts) else FAILS
    return Finding(verdict, condition, tuple(measured))


BN, NONE = "batchnorm", "none"
DEEP, DEEPER = (("depth", 24),), (("depth", 48), ("beside", 0))
PAIRED = "by the paired test over 6 seeds, p < .05"


def smoother_in_training(r: Reader) -> Finding:
    bn, none = Need("smoothness", BN), Need("smoothness", NONE)
    quantities = {
        "": ("effective β", "1/learning rate"),
        "loss_range": ("range of the loss", "nats"),
        "gradient_change": ("change of the gradient", "of its norm"),
    }
    lower = {name: r.below(bn, none, key) for key, (name, _) in quantities.items()}
    shown = [
        r.evidence(need, f"{need.scheme}, {name}", key, unit)
        for key, (name, unit) in quantities.items()
        for need in (bn, none)
    ]
    smoother = [name for name, ok in lower.items() if ok]
    words = f"8 layers, {PAIRED}: with batch norm lower in {', '.join(smoother) or 'none of the three'}."
    return _yes_or_no(list(lower.values()), words, shown)


def one_over_scale(r: Reader) -> Finding:
    need = Need("scale_law", BN)
    weights, hidden = (
        r.evidence(need, "‖∂L/∂W‖", "", "exponent"),
        r.evidence(need, "‖∂L/∂h‖", "hidden_exponent", "exponent"),
    )
    bare = r.evidence(need, "‖∂L/∂W‖ without batch norm", "without_norm", "exponent")
    close = [abs((one.value or 0) + 1) < 0.05 for one in (weights, hidden)]
    words = (
        "With the input of the normalizer scaled by a, gradients go as a to the "
        f"{text(weights.value)}; without it to the {text(bare.value)}."
    )
    return _yes_or_no([*close, (bare.value or 0) > -0.5], words, [weights, hidden, bare])


GROWTHS = {
    "ReLU, batch 128": Need("gradient_growth"),
    "ReLU, batch 16": Need("gradient_growth", BN, (("batch", 16),)),
    "tanh, batch 128": Need("gradient_growth", BN, (("activation", "tanh"),)),
    "linear, batch 16": Need("gradient_growth", BN, (("activation", "linear"), ("batch", 16))),
    "GELU, batch 128": Need("gradient_growth", BN, (("activation", "gelu"),)),
}


def explosion(r: Reader) -> Finding:
    shown = [r.evidence(need, name) for name, need in GROWTHS.items()]
    none = r.evidence(Need("gradient_growth", NONE), "none, ReLU")
    grows = [(one.low or 0) > 1 for one in shown]
    slowest = min(shown, key=lambda one: one.value or 0)
    words = (
        "Width 512, 40 layers, γ = 1: the squared gradient grows in every case tried, slowest with "
        f"{slowest.label}; without normalization by {text(none.value)} a layer."
    )
    if not all(grows):
        words = f"It grows in {sum(grows)} of {len(grows)} cases."
    return _yes_or_no(grows, words, [*shown, none])


SMALL_BATCH = (("batch", 8),)


def nan_at_150(r: Reader) -> Finding:
    found = [(Need("overflow_depth"), "batch 128"), (Need("overflow_depth", BN, SMALL_BATCH), "batch 8")]
    names = {
        "": "Σg² overflows, float32",
        "nonfinite": "a gradient is not finite, float32",
        "half": "Σg² overflows, float16",
        "half_nonfinite": "a gradient is not finite, float16",
    }
    shown = [
        r.derived(need, f"{name}, {size}", key, "layers") if key else r.evidence(need, f"{name}, {size}")
        for need, size in found
        for key, name in names.items()
    ]
    trained = r.evidence(Need("max_depth"), "trains in 200 steps")
    values = {one.label: one.value for one in shown}
    single = values["a gradient is not finite, float32, batch 128"]
    by_150 = {label: value for label, value in values.items() if value is not None and value <= 200}
    words = (
        f"At batch 128 a gradient is not finite from {layers(single)} on in float32, and its squares "
        f"overflow from {layers(shown[0].value)}; in float16 from {layers(shown[3].value)} and "
        f"{layers(shown[2].value)}. At batch 8 the squares overflow from {layers(shown[4].value)} on in "
        f"float32. Training fails long before: {layers(trained.value)} still train."
    )
    plain = [single is not None and single <= 200, (trained.value or 0) >= 50]
    verdict = HOLDS if all(plain) else CONDITION if by_150 else FAILS
    return Finding(verdict, words, (*shown, trained))


def sharper_at_init(r: Reader) -> Finding:
    return _by_depth(r, "effective_beta_at_init", "at initialization", {8: (), 24: DEEP, 48: DEEPER})


def _by_depth(r: Reader, key: str, when: str, depths: Mapping[int, tuple[tuple[str, Any], ...]]) -> Finding:
    shown, sharper, smoother = [], [], []
    for depth, settings in depths.items():
        bn, none = (Need("smoothness", scheme, settings) for scheme in (BN, NONE))
        shown += [
            r.evidence(need, f"{need.scheme}, {depth} layers, effective β", key, "1/learning rate")
            for need in (bn, none)
        ]
        sharper += [depth] if r.below(none, bn, key) else []
        smoother += [depth] if r.below(bn, none, key) else []
    words = (
        f"{when.capitalize()}, {PAIRED}: with batch norm less smooth at {_depths(sharper)}, "
        f"smoother at {_depths(smoother)}."
    )
    return _yes_or_no([depth in sharper for depth in depths], words, shown)


def _depths(depths: Sequence[int]) -> str:
    return f"{', '.join(map(str, depths))} layers" if depths else "no depth tried"


def vanishing_after_a_step(r: Reader) -> Finding:
    need = Need("first_step")
    after, before = (
        r.evidence(need, "relative gradient, layer 2 over last, after", "", "ratio"),
        r.evidence(need, "the same before", "before", "ratio"),
    )
    weights, plain = (
        r.evidence(need, "growth of ‖W_2‖", "weight_growth", "ratio"),
        r.evidence(need, "‖∇W_2‖/‖∇W_L‖ after", "gradient_after", "ratio"),
    )
    happens = (after.high or 1) < 0.01 and (before.low or 0) > 100 and (weights.low or 0) > 10
    words = (
        f"100 layers, one step at rate .1: ‖W_2‖ grows {text(weights.value)} times, and layer 2 then "
        f"moves {text(after.value)} times as fast as the last, relative to its weights."
    )
    vanished = (plain.high or 1) < 0.1
    if happens and not vanished:
        words += (
            " What vanishes is the gradient relative to the weights; by itself it is "
            f"{text(plain.value)} of the last layer’s."
        )
    return Finding(
        (HOLDS if vanished else CONDITION) if happens else FAILS, words, (before, after, weights, plain)
    )


def helpful_below_harmful_above(r: Reader) -> Finding:
    found = _by_depth(r, "", "in training", {8: (), 24: DEEP, 48: DEEPER})
    depth = r.evidence(Need("max_depth"), "batchnorm trains to")
    helpful = r.below(Need("smoothness", BN), Need("smoothness", NONE))
    harmful = {
        d: r.below(Need("smoothness", NONE, s), Need("smoothness", BN, s))
        for d, s in ((24, DEEP), (48, DEEPER))
    }
    words = f"{found.condition} With batch norm {layers(depth.value)} still train."
    verdict = FAILS if not helpful or not any(harmful.values()) else HOLDS if not harmful[24] else CONDITION
    return Finding(verdict, words, (*found.measured, depth))


def residual_cure(r: Reader) -> Finding:
    needs = {"residual-batchnorm": "residual-batchnorm", BN: BN}
    growth = [r.evidence(Need("gradient_growth", scheme), label) for scheme, label in needs.items()]
    depth = [r.evidence(Need("max_depth", scheme), f"{label} trains to") for scheme, label in needs.items()]
    slower = r.below(Need("gradient_growth", "residual-batchnorm"), Need("gradient_growth", BN))
    deeper = r.below(Need("max_depth", BN), Need("max_depth", "residual-batchnorm"))
    words = (
        f"The squared gradient grows by {text(growth[0].value)} a layer in place of "
        f"{text(growth[1].value)}, and {format.number(depth[0].value, 'layers')} layers train (the "
        f"most tried) in place of {format.number(depth[1].value, 'layers')}."
    )
    return _yes_or_no([slower, deeper], words, [*growth, *depth])


def higher_rates(r: Reader) -> Finding:
    bn, none = Need("stable_lr"), Need("stable_lr", NONE)
    shown = [r.evidence(bn, BN), r.evidence(none, NONE)]
    factor = times(*shown)
    return _yes_or_no(
        [r.below(none, bn), factor >= 2],
        f"8 layers: {text(factor)} times the rate of the network without.",
        shown,
    )


def fourteen_times(r: Reader) -> Finding:
    bn, none = Need("time_to_accuracy"), Need("time_to_accuracy", NONE)
    shown = [r.evidence(bn, BN), r.evidence(none, NONE)]
    factor = times(shown[1], shown[0])
    words = f"8 layers on digits: {text(factor)} times fewer steps, where the paper has 14 (ImageNet)."
    return _yes_or_no([r.below(bn, none), factor >= 7], words, shown)


def centering(r: Reader) -> Finding:
    rows = {str(row.get("experiment")): row for row in r.record(Need(CALIBRATION, NONE)).trace}
    shown = []
    for mean in ("0", ".5"):
        row = rows.get(f"softmax regression, d = 100, inputs of mean {mean}", {})
        value = row.get("measured")
        shown.append(
            Evidence(
                f"λ_max, inputs of mean {mean}",
                float(value) if isinstance(value, (int, float)) else None,
                unit="1/learning rate",
            )
        )
    factor = times(shown[1], shown[0])
    words = (
        "Softmax regression at zero, 100 inputs of deviation 1: centering them divides λ_max, and "
        f"multiplies the largest stable rate 2/λ_max, by {text(factor)}."
    )
    return _yes_or_no([factor > 2], words, shown)


def no_outliers(r: Reader) -> Finding:
    bn, none = Need("spectrum"), Need("spectrum", NONE)
    ratios = [r.evidence(bn, f"{BN}, λ_1/λ_C"), r.evidence(none, f"{NONE}, λ_1/λ_C")]
    counts = [
        r.evidence(need, f"{need.scheme}, outliers", "outliers", "eigenvalues above 2 λ_C")
        for need in (bn, none)
    ]
    words = (
        f"At matched loss, 8 layers: {text(counts[1].value)} outliers without, "
        f"{text(counts[0].value)} with batch norm; λ_1/λ_C {text(ratios[1].value)} and "
        f"{text(ratios[0].value)}."
    )
    gone = counts[0].value is not None and counts[0].value < 1 <= (counts[1].value or 0)
    return _yes_or_no([r.below(bn, none), gone], words, [*ratios, *counts])


def mean_shifts(r: Reader) -> Finding:
    bn, none = Need("mean_shift"), Need("mean_shift", NONE)
    shares = [
        r.evidence(none, f"{NONE}, share in the means’ span"),
        r.evidence(none, f"{NONE}, with the variances", "means_and_variances.share", "fraction"),
        r.evidence(bn, f"{BN}, share in the means’ span"),
    ]
    left = r.evidence(none, f"{NONE}, λ_max without the means’ span", "means.ratio", "fraction")
    words = (
        f"Without normalization {text(shares[0].value)} of the top eigenspace lies in the span of the "
        f"output means’ gradients; with that span projected out {text(left.value)} of λ_max is left. "
        f"With batch norm the share is {text(shares[2].value)}."
    )
    return _yes_or_no(
        [(shares[0].low or 0) > 0.5, left.value is not None and left.value < 0.5], words, [*shares, left]
    )


def not_at_init(r: Reader) -> Finding:
    turned, shown = [], []
    for depth, settings in {8: (), 24: DEEP}.items():
        bn, none = (Need("smoothness", scheme, settings) for scheme in (BN, NONE))
        found = [
            r.evidence(need, f"{need.scheme}, {depth} layers, β {when}", key, "1/learning rate")
            for key, when in (("effective_beta_at_init", "at initialization"), ("", "in training"))
            for need in (bn, none)
        ]
        shown += found
        turned += [depth] if (times(*found[:2]) > 1) != (times(*found[2:]) > 1) else []
    outliers = Need("spectrum", NONE)
    later = r.evidence(outliers, f"{NONE}, λ_1/λ_C at matched loss")
    early = r.evidence(outliers, f"{NONE}, λ_1/λ_C at initialization", "at_init.ratio", "ratio")
    arise = r.below(outliers, outliers, "at_init.ratio", "")
    words = (
        f"Whether batch norm is the smoother one turns between initialization and training at "
        f"{_depths(turned)}. Without normalization λ_1/λ_C goes from {text(early.value)} to "
        f"{text(later.value)}: the outliers that batch norm removes "
        f"{'arise' if arise else 'do not arise'} in training."
    )
    return _yes_or_no([bool(turned), arise], words, [*shown, early, later])


CLAIMS: tuple[Claim, ...] = (
    Claim(
        "Y1",
        "In training at small depth, batch norm makes the loss smoother along its gradient.",
        SANTURKAR,
        "smoothness, 8 layers",
        (Need("smoothness", BN), Need("smoothness", NONE)),
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
        "gradient_growth, five activations and batch sizes",
        (*GROWTHS.values(), Need("gradient_growth", NONE)),
        explosion,
    ),
    Claim(
        "Y4",
        "With batch norm 1 to 50 layers are no problem, 50 to 150 hard to train, and beyond 150 "
        "backpropagation gives NaN.",
        YANG,
        "overflow_depth and max_depth",
        (Need("overflow_depth"), Need("overflow_depth", BN, SMALL_BATCH), Need("max_depth")),
        nan_at_150,
    ),
    Claim(
        "Y5",
        "At initialization a network with batch norm is less smooth than one without.",
        YANG,
        "smoothness at initialization, 8, 24 and 48 layers",
        tuple(Need("smoothness", s, d) for d in ((), DEEP, DEEPER) for s in (BN, NONE)),
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
        (*(Need("smoothness", s, d) for d in ((), DEEP, DEEPER) for s in (BN, NONE)), Need("max_depth")),
        helpful_below_harmful_above,
    ),
    Claim(
        "Y8",
        "Residual connections undo the explosion.",
        YANG,
        "gradient_growth and max_depth",
        tuple(Need(t, s) for t in ("gradient_growth", "max_depth") for s in ("residual-batchnorm", BN)),
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
        centering,
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
        "smoothness at initialization and in training, 8 and 24 layers; spectrum",
        (*(Need("smoothness", s, d) for d in ((), DEEP) for s in (BN, NONE)), Need("spectrum", NONE)),
        not_at_init,
    ),
)
"""Every claim of the two threads, Yang’s (Y) and Page’s (P)."""
