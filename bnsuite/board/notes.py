"""Texts on the page of each task: above its figures, and below its table."""

from collections.abc import Mapping
from typing import NamedTuple

from bnsuite.board.figures.charts import BINS
from bnsuite.ranking.tracks import REFERENCE


class Note(NamedTuple):
    """Heading, text and key of a page's figures; a mark of the key is a sign or a CSS variable."""

    heading: str
    text: str
    key: tuple[tuple[str, str], ...] = ()


NOTES: Mapping[str, Note] = {
    "max_depth": Note(
        "Trainability maps",
        "Mean training accuracy at the end, by depth and learning rate. The line is the median of the "
        "deepest depth that trains, the band its interval.",
        (
            *((f"--heat-{k}", words) for k, words in enumerate(BINS)),
            ("×", "every seed diverged"),
            ("●", "most confirmation seeds pass"),
            ("○", "most fail"),
        ),
    ),
    "stable_lr": Note(
        "Thresholds",
        "Share of confirmation seeds that still learn, against the rate. Grey: the other entries. The line "
        "is the median seed’s largest stable rate, the band its interval.",
    ),
    "top_eigenvalue": Note(
        "Sharpness at three checkpoints",
        "A dot a seed, a bar the median. Only matched loss is ranked: a network that has learned nothing is "
        "flat, and at its own best rate sharpness restates that rate.",
    ),
    "time_to_accuracy": Note(
        "Learning curves",
        f"Test accuracy of every confirmation seed at its evaluations. Grey: {REFERENCE}.",
    ),
    "gradient_growth": Note(
        "Gradients by layer",
        "Squared norm of the gradient at each hidden layer, over that at the last; layer 1 is next to the "
        "input. A rate above 1 is a line that rises to the left.",
        (("--accent", "a line a seed"), ("--faint", "the other entries"), ("╌", "slope of the theory")),
    ),
    "first_step": Note(
        "Gradients around one step",
        "Above, the norm of each layer’s weight gradient on the first minibatch; below, the same over the "
        "norm of the weights. Layer 1 is next to the input. A line a seed.",
        (("--muted", "before the step"), ("--accent", "after it")),
    ),
    "smoothness": Note(
        "Smoothness in training",
        "Checkpoints of a run at the common rate; 0 is initialization, which the value leaves out. "
        "A line a seed; λ_max of the same minibatch at the first seeds.",
        (("--accent", "effective β"), ("╌", "λ_max"), ("--faint", f"effective β of {REFERENCE}")),
    ),
    "spectrum": Note(
        "Density of the eigenvalues",
        "All eigenvalues of the Hessian, of the first confirmation seed, in units of its λ_C (dotted), where "
        "the bulk begins; log scale, cut off below the lowest outlier. Each bump right of it is an outlier. "
        "The band is one standard error over the quadrature’s probes.",
        (("|", "λ_1 … λ_C, each certified"),),
    ),
    "mean_shift": Note(
        "What moves the outputs’ moments",
        "Of the space of the top C − 1 eigenvectors, the share in the span of the gradients of the "
        "outputs’ means, and of means and variances; and what is left of λ_max with that span projected out.",
        (
            ("●", "a seed"),
            ("|", "median"),
            ("—", "its interval"),
            ("◇", "random span of equal dimension"),
        ),
    ),
    "layer_cost": Note(
        "Cost by shape",
        "Median time of one forward and backward pass of the normalizer alone, by channels, both axes to a "
        "log scale. Grey: the other entries.",
    ),
}

REMARKS: Mapping[str, str] = {
    "time_to_accuracy": "Seconds are of the row’s own device, and are ranked only on an idle accelerator, "
    "among machines of one kind.",
    "gradient_growth": "The theory is of wide plain layers without skips, and of a batch whose examples "
    "have equal norms. Where the imbalance λ is above 1 (GELU from 39 examples on, SiLU from 26) their norms "
    "drift apart with depth, and gradients grow faster than it says.",
    "overflow_depth": "Signs as everywhere: ≥ overflows at no depth tried, < at the smallest.",
    "layer_cost": "Microseconds of the row’s own machine; no more than a hint where its clock drifted "
    "or others used it.",
    "speedrun": "The recipe is made for batch norm: a low accuracy says that a scheme cannot take its place "
    "there, not that it cannot train. Seconds are of the row’s own device.",
}
"""Task → what a reader of its numbers must know."""
