"""A cache of its own for every test."""

from pathlib import Path

import pytest

from bnsuite import datasets


@pytest.fixture(autouse=True)
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the cache."""
    monkeypatch.setenv("BNSUITE_CACHE", str(tmp_path / "cache"))
    datasets._loaded.cache_clear()
    return tmp_path / "cache" / "datasets"
