"""Fuzzed records, manifests and command lines: each accepted or refused by one line; boards of them build.

`BNSUITE_FUZZ=N` tries N of each in place of the few that every run of the tests tries.
"""

import os
from importlib import util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings

NUMBERS = {"records": 400, "manifests": 400, "command_lines": 40}


def load(name: str) -> ModuleType:
    spec = util.spec_from_file_location(f"fuzz_{name}", Path(__file__).parent / "fuzz" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", NUMBERS)
def test_every_case_is_accepted_or_refused_by_one_line(name: str, tmp_path: Path) -> None:
    module = load(name)
    outcomes: set[str] = set()

    @settings(
        max_examples=int(os.environ.get("BNSUITE_FUZZ", NUMBERS[name])),
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(module.STRATEGY)
    def tried(case: Any) -> None:
        outcomes.add(module.try_one(case, tmp_path))

    tried()
    if name == "records":
        module.build(tmp_path)
    assert outcomes == {"accepted", "refused"}
