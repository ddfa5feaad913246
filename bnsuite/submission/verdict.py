"""Verdicts: which checks of the contract a scheme's file fails, kept so that a second run asks nothing."""

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
from bnsuite.submission.contract import CONTRACT, NOT_TRIED
from bnsuite.submission.foreign import Foreign, check

BREAKS = "breaks-contract"
"""The facet of a scheme that is measured though a check fails."""


class Verdict(BaseModel):
    """The checks that a file fails, name → message, and the warnings that its code makes."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    failed: dict[str, str]
    warnings: list[str]


def judged(scheme: Foreign, say: Callable[[str], None] = lambda text: None) -> tuple[Foreign, Verdict]:
    """The scheme, with the facet `breaks-contract` where a check fails, and the verdict on its file.

    A verdict is kept by the hashes of the file and of this package, in the folder `contract` of the cache;
    one on a check that was stopped, for memory or time, is not kept.

    Args:
        say: called with one line before the contract is tried, which takes some ten seconds.
    """
    file = tensor_cache.folder().with_name("contract") / f"{_of(scheme.source)}.json"
    found = _kept(file)
    if found is None:
        say(f"{scheme.name}: trying the contract, some ten seconds …")
        found, whole = _tried(scheme)
        if whole:
            with suppress(OSError):  # tried again the next time
                file.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(file, found.model_dump_json())
    if found.failed:
        words = {*scheme.facets.words, BREAKS}
        facets = Facets(tuple(word for word in FACETS if word in words), scheme.facets.costs)
        scheme = replace(scheme, facets=facets)
    return scheme, found


def _tried(scheme: Foreign) -> tuple[Verdict, bool]:
    """The verdict, and whether every check has ended."""
    warnings: list[str] = []
    checks = check(scheme.path, scheme.sandbox, warn=warnings.append).checks
    failed = {one.name: one.message for one in checks if not one.ok and not one.message.startswith(NOT_TRIED)}
    ended = {*CONTRACT} <= {one.name for one in checks} and not {"time", "facets"} & failed.keys()
    return Verdict(failed=failed, warnings=warnings), ended


def _kept(file: Path) -> Verdict | None:
    try:
        return Verdict.model_validate_json(file.read_bytes())
    except (OSError, ValidationError):
        return None


def _of(source: str) -> str:
    return hashlib.sha256(f"{source} {_suite()} {torch.__version__}".encode()).hexdigest()


@cache
def _suite() -> str:
    """SHA-256 over the sources of this package."""
    digest = hashlib.sha256()
    for path in sorted(Path(bnsuite.__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
