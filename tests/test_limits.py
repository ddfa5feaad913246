"""Limits of what a record may hold: a published record with one change, sealed again, is objected to."""

from pathlib import Path
from typing import Any

import pytest

from bnsuite.audit import objections_to
from bnsuite.records import Record, read_records

PUBLISHED = Path(__file__).parents[1] / "leaderboard" / "records" / "quick" / "mlp-digits" / "max_depth"


@pytest.fixture(scope="module")
def published() -> Record:
    """A record of the newest schema."""
    return next(record for record in read_records([PUBLISHED]).values() if record.schema_version == 2)


def test_a_published_record_keeps_the_limits(published: Record) -> None:
    assert objections_to(published) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"facets": ("best",)}, "facets: got 'best'"),
        ({"facets": ("batch-1", "batch-1")}, "facets: got one twice"),
        ({"costs": {"parameters per channel": -1e308}}, "costs.parameters per channel"),
        ({"costs": {"dollars": 1.0}}, "costs: got 'dollars'"),
        ({"derived": {"cosine": 5e-324}}, "derived.cosine: got 5e-324"),
        ({"derived": {"cosine": 10**301}}, "derived.cosine"),
        ({"derived": {"a\x00b": 1}}, "must hold no control characters"),
        ({"trace": ({"seed": "a\x00b"},)}, "must hold no control characters"),
        ({"dataset": ""}, "dataset: got ''"),
        ({"error": "x" * 30_000}, "error: got 30000 characters, must be at most 20000"),
        ({"trace": ({"seed": "x" * 300},)}, "got 300 characters, must be at most 200"),
        ({"cpu": "x" * 5_000_000}, "provenance.cpu: got 5000000 characters"),
        ({"cpu": ""}, "provenance.cpu: got '', must be the name of the processor"),
        ({"threads": 10**18}, "provenance: got 1000000000000000000 threads"),
        ({"duration_s": 1e299}, "1e+299 s, must be at most"),
        ({"gpu": "NVIDIA H200"}, "provenance.gpu: got 'NVIDIA H200', must be None on a CPU"),
        ({"device": "cuda"}, "provenance.gpu: got None, must be the name"),
    ],
)
def test_what_breaks_a_limit_is_objected_to(published: Record, change: dict[str, Any], words: str) -> None:
    if change.keys() & type(published.provenance).model_fields.keys():
        change = {"provenance": published.provenance.model_copy(update=change)}
    found = objections_to(published.model_copy(update=change).sealed())
    assert any(words in objection for objection in found), found
