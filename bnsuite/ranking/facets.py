"""What the board shows of a scheme from its records: facets, and what a reader must know."""

from collections.abc import Iterable

from bnsuite.format import fine
from bnsuite.ranking.tracks import Kept, age
from bnsuite.records import Record
from bnsuite.records.facets import FACETS

CAVEATS = ("breaks-contract", "unchecked", "own-init", "own-activation", "own-gradient")
"""Said in every row where they hold: not held to the contract, or not like for like with a normalizer."""

PARAMETERS, STATE = "parameters per channel", "state per channel"
USUAL = 2.0
"""Parameters of a channel as usual: a gain and a shift."""


def known(record: Record) -> list[str]:
    """The facets of a record that have a definition."""
    return [word for word in FACETS if word in record.facets]


def caveats(record: Record) -> dict[str, str]:
    """What a reader of the scheme's numbers must know, with its definition."""
    found = {word: FACETS[word] for word in CAVEATS if word in record.facets}
    if "train-eval-agreement" in record.facets and record.costs.get(STATE):
        found["earlier statistics"] = "training normalizes by statistics of batches before, or by frozen ones"
    more = record.costs.get(PARAMETERS, 0.0)
    if more > USUAL:
        found[f"{fine(more, 3)} parameters a channel"] = "it learns more than a gain and a shift a channel"
    return found


def described(kept: Iterable[Kept]) -> Record:
    """The record that says what a scheme is: the newest of the newest schema."""
    return max((one.record for one in kept), key=lambda record: (record.schema_version, *age(record)))
