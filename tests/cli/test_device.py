"""A device that is not there: every command that measures says so in one line."""

from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from bnsuite.cli import app


@pytest.mark.parametrize("command", ["run", "claims"])
def test_a_gpu_that_is_not_there_is_refused_in_one_line(
    command: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    result = CliRunner().invoke(app, [command, "--device", "cuda", "--records", str(tmp_path)])
    assert result.exit_code == 2
    assert result.stderr.startswith("bnsuite: no GPU: torch sees none here. Use --device cpu")
    assert len(result.stderr.splitlines()) == 1
