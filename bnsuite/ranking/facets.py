"""Facets and caveats of a scheme, from its records, for the board."""

from collections.abc import Iterable

from bnsuite.format import fine
from bnsuite.ranking.tracks import Kept, age
from bnsuite.records import Record
from bnsuite.records.facets import FACETS

CAVEATS = ("breaks-contract", "unchecked", "own-init", "own-activation", "own-gradient")
"""Facets shown in every row: not checked against the contract, or not comparable with a normalizer alone."""

PARAMETERS, STATE = "parameters per channel", "state per channel"
USUAL = 2.0
"""Usual number of parameters per channel: a gain and a shift."""


def known(record: Record) -> list[str]:
    """Select the facets of a record that have a definition."""
    return [word for word in FACETS if word in record.facets]


def caveats(record: Record) -> dict[str, str]:
    """Collect what a reader of the scheme's numbers must know: caveat → definition."""
    notes = {word: FACETS[word] for word in CAVEATS if word in record.facets}
    if "train-eval-agreement" in record.facets and record.costs.get(STATE):
        notes["earlier statistics"] = "training normalizes by statistics of batches before, or by frozen ones"
    more = record.costs.get(PARAMETERS, 0.0)
    if more > USUAL:
        notes[f"{fine(more, 3)} parameters a channel"] = "it learns more than a gain and a shift a channel"
    return notes


def described(kept: Iterable[Kept]) -> Record:
    """Choose the record that describes a scheme: the newest one of the newest schema."""
    return max((record for record, _ in kept), key=lambda record: (record.schema_version, *age(record)))
