"""Verdicts: checks of the contract that a scheme's file fails, cached so that a second run need not check."""

import hashlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, ValidationError

import bnsuite
from bnsuite.datasets import tensor_cache
from bnsuite.facets import Facets
from bnsuite.records.facets import FACETS
from bnsuite.records.store import write_atomically
from bnsuite.submission.foreign import Foreign, check_contract

BREAKS = "breaks-contract"
"""Facet of a scheme that fails a check and is measured all the same."""


class Verdict(BaseModel):
    """Failed checks of a file, and warnings of its code."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    failed: dict[str, str]  # name of the check → message
    warnings: list[str]


def judged(scheme: Foreign, say: Callable[[str], None] = lambda _: None) -> tuple[Foreign, Verdict]:
    """Hold a scheme to the contract; returns it, marked `breaks-contract` if a check fails, and the verdict.

    Verdicts are cached in the folder `contract` of the cache, by the hashes of the file and of this package.
    A verdict is not cached if a check was stopped for memory or time.

    Args:
        scheme: the scheme.
        say: called with one line before the contract is tried, which takes some ten seconds.
    """
    file = tensor_cache.folder().with_name("contract") / f"{_cache_key(scheme.source)}.json"
    verdict = _cached(file)
    if verdict is None:
        say(f"{scheme.name}: trying the contract, some ten seconds …")
        warnings: list[str] = []
        report = check_contract(scheme.path, scheme.sandbox, warn=warnings.append)
        verdict = Verdict(failed={check.name: check.message for check in report.failed}, warnings=warnings)
        if report.complete and not {"time", "facets"} & verdict.failed.keys():
            with suppress(OSError):  # a verdict that is not cached is found again
                file.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(file, verdict.model_dump_json())
    if verdict.failed:
        words = {*scheme.facets.words, BREAKS}
        facets = Facets(tuple(word for word in FACETS if word in words), scheme.facets.costs)
        scheme = replace(scheme, facets=facets)
    return scheme, verdict


def _cached(file: Path) -> Verdict | None:
    try:
        return Verdict.model_validate_json(file.read_bytes())
    except (OSError, ValidationError):
        return None


def _cache_key(source: str) -> str:
    return hashlib.sha256(f"{source} {_suite()} {torch.__version__}".encode()).hexdigest()


@cache
def _suite() -> str:
    """SHA-256 over the sources of this package."""
    digest = hashlib.sha256()
    for path in sorted(Path(bnsuite.__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
