"""Facets: what holds of a scheme, word by word; and what the board shows of a scheme from its records."""

from collections.abc import Iterable, Mapping

from bnsuite.board.format import fine
from bnsuite.board.tracks import Kept, age
from bnsuite.records import Record

FACETS: Mapping[str, str] = {
    "batch-independent": "An example’s output in training does not depend on the others in its minibatch.",
    "batch-1": "Trains on one example at a time.",
    "train-eval-agreement": "Evaluation mode computes what training mode does.",
    "per-position": "The output at a position depends on that position alone.",
    "scale-invariant": "N(a x) = N(x) for every a > 0, up to ε.",
    "shift-invariant": "N(x + c) = N(x).",
    "mean-centering": "At the start the output has mean 0, over a channel of the batch or over an "
    "example’s channels.",
    "residual": "Has a skip connection around every layer.",
    "post-norm": "Normalizes behind the sum with the skip connection.",
    "weight-parametrization": "Parametrizes the weights of the hidden layers anew.",
    "stackable": "Its networks train stacked, all lanes in one.",
    "own-init": "Starts from an initialization of its own.",
    "own-activation": "Has an activation of its own in place of the task’s.",
    "own-gradient": "Its gradient is not that of its output.",
}
"""Word → its definition, in the order in which the board shows them. Other words are no filters."""

CAVEATS = ("own-init", "own-activation", "own-gradient")
"""Allowed, and not like for like with a normalizer alone: said in every row where they hold."""

PARAMETERS, USUAL = "parameters per channel", 2.0
"""A cost, and how much of it is usual: a gain and a shift."""


def known(record: Record) -> list[str]:
    """The facets of a record that have a definition."""
    return [word for word in FACETS if word in record.facets]


def caveats(record: Record) -> dict[str, str]:
    """What a reader of the scheme's numbers must know, with its definition."""
    found = {word: FACETS[word] for word in CAVEATS if word in record.facets}
    more = record.costs.get(PARAMETERS, 0.0)
    if more > USUAL:
        found[f"{fine(more, 3)} parameters a channel"] = "Learns more than a gain and a shift a channel."
    return found


def described(kept: Iterable[Kept]) -> Record:
    """The record that says what a scheme is: the newest of the newest schema."""
    return max((one.record for one in kept), key=lambda record: (record.schema_version, *age(record)))
