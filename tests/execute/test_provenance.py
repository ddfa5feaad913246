"""Where a number comes from: flags set and restored, nothing of the machine's names."""

import contextlib
import getpass
import json
import platform
import sys
from pathlib import Path

import pytest
import torch

import bnsuite
from bnsuite.execute import provenance
from bnsuite.execute.provenance import environment, reproducible, subnormals_are_flushed
from bnsuite.records import Provenance

CPU = torch.device("cpu")


def test_flags_are_set_within_and_restored_after() -> None:
    torch.set_flush_denormal(False)
    assert not torch.are_deterministic_algorithms_enabled()
    with contextlib.suppress(RuntimeError), reproducible(CPU):
        assert torch.are_deterministic_algorithms_enabled()
        assert subnormals_are_flushed()
        raise RuntimeError
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    assert sys.float_info.min / 2 > 0


def test_the_environment_is_part_of_a_record() -> None:
    found = environment(CPU)
    assert set(found) < set(Provenance.model_fields)
    assert found["package_version"] == bnsuite.__version__
    assert (found["torch"], found["python"]) == (torch.__version__, platform.python_version())
    assert (found["gpu"], found["driver"], found["tf32"]) == (None, None, False)
    assert found["cpu"]


def test_no_host_no_user_no_path() -> None:
    said = json.dumps(environment(CPU))
    assert str(Path.cwd()) not in said
    assert str(Path.home()) not in said
    for name in (platform.node(), getpass.getuser()):
        assert f'"{name}"' not in said


def test_outside_a_checkout_there_is_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "_PACKAGE", tmp_path / "bnsuite")
    assert provenance.checkout.__wrapped__() == (None, None)
