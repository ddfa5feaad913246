"""Limits of what a record may hold, whatever its task, so that every page can show it."""

from collections.abc import Iterator

from pydantic import BaseModel

from bnsuite.records import Record
from bnsuite.records.facets import COSTS, FACETS
from bnsuite.text import printable

SMALLEST, LARGEST = 1e-300, 1e300
"""Magnitudes of a number that is not 0: axes divide and square what they show."""

DEEPEST = 32
"""Levels of lists and objects within each other."""

LENGTH = 200
"""Characters of a text; those that may be longer are in `LENGTHS`."""

LENGTHS = {"about": 1000, "question": 1000, "error": 20_000}

LONGEST_S = 1e8
"""Seconds of a measurement: three years."""

MOST_THREADS = 100_000

COSTLIEST = 1e12
"""Upper limit of a cost; every cost is at least 0, that of scheme `none`."""


def beyond(record: Record) -> Iterator[str]:
    """Yield an objection for each limit that a record breaks: where, what was got, what it must be."""
    for place, value, depth in _values(record):
        if depth > DEEPEST:
            yield f"{place:.80}: got more than {DEEPEST} lists and objects within each other"
        elif isinstance(value, str) and printable(value) != value:
            yield f"{place:.80}: got {value!r:.80}, must hold no control characters"
        elif isinstance(value, str) and len(value) > (most := LENGTHS.get(place, LENGTH)):
            yield f"{place:.80}: got {len(value)} characters, must be at most {most}"
        elif isinstance(value, (int, float)) and value and not SMALLEST <= abs(value) <= LARGEST:
            yield f"{place:.80}: got {value!r:.40}, must be 0 or of magnitude {SMALLEST} to {LARGEST}"
    yield from _scheme(record)
    about = record.provenance
    if record.device == "cpu" and (about.gpu, about.driver) != (None, None):
        yield f"provenance.gpu: got {about.gpu or about.driver!r:.80}, must be None on a CPU"
    if record.device == "cuda" and not about.gpu:
        yield f"provenance.gpu: got {about.gpu!r}, must be the name of the GPU"
    if not about.cpu.strip():
        yield f"provenance.cpu: got {about.cpu!r}, must be the name of the processor"
    if about.duration_s > LONGEST_S or about.threads > MOST_THREADS:
        got = f"{about.threads} threads and {about.duration_s} s"
        yield f"provenance: got {got}, must be at most {MOST_THREADS} and {LONGEST_S:g}"


def _scheme(record: Record) -> Iterator[str]:
    """Yield objections to facets and costs, which say what the scheme is."""
    for word in record.facets:
        if word not in FACETS:
            yield f"facets: got {word!r:.80}, must be among {', '.join(FACETS)}"
    if len(set(record.facets)) < len(record.facets):
        yield "facets: got one twice, must be there once"
    for cost, value in record.costs.items():
        if cost not in COSTS:
            yield f"costs: got {cost!r:.80}, must be among {', '.join(COSTS)}"
        elif not 0 <= value <= COSTLIEST:
            yield f"costs.{cost}: got {value}, must be between 0 and {COSTLIEST:g}"


def _values(record: Record) -> Iterator[tuple[str, object, int]]:
    """Every key and every value that holds no other, its place and level; without recursion."""
    waiting: list[tuple[str, object, int]] = [(name, value, 0) for name, value in record]
    while waiting:
        place, value, depth = waiting.pop()
        items: list[tuple[str, object]] = []
        if isinstance(value, (BaseModel, dict)):
            items = [(f"{place}.{name}", each) for name, each in dict(value).items()]
            if isinstance(value, dict):
                yield from ((f"{place}, a key", name, depth) for name in value)
        elif isinstance(value, (list, tuple)):
            items = [(f"{place}[{i}]", each) for i, each in enumerate(value)]
        if not items or depth > DEEPEST:
            yield place, value, depth
        else:
            waiting += [(where, each, depth + 1) for where, each in items]
