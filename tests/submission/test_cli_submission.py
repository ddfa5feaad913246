"""Commands on a scheme by its path: JSON whatever happens, hints that a shell takes, marks that are said."""

import json
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from bnsuite.cli import app
from bnsuite.records import Store

SCHEME = """
from torch import nn
from bnsuite import Scheme

class AnyShape(nn.modules.batchnorm._BatchNorm):
    def _check_input_dim(self, x):
        pass

scheme = Scheme("mine", lambda n: AnyShape(n, track_running_stats=False))
"""


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder whose name a shell would take apart, and a cache of its own."""
    monkeypatch.setenv("BNSUITE_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "My Data (v2) ü"
    folder.mkdir()
    return folder


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("scheme = ", "line 1: invalid syntax"),
        ("import norms_of_mine", "A scheme is one file"),
        ("raise SystemExit", "SystemExit"),
        (None, "no such file"),
    ],
)
def test_check_prints_json_where_nothing_can_be_loaded(folder: Path, text: str | None, words: str) -> None:
    path = folder / "scheme.py"
    if text is not None:
        path.write_text(text)
    done = call("check", path, "--json")
    told = json.loads(done.stdout)
    assert (done.exit_code, told["ok"], told["checks"]) == (2, False, [])
    assert words in told["error"]
    assert {*told} == {"ok", "checks", "facets", "costs", "warnings", "error"}


def test_run_says_what_check_refuses_and_marks_the_row(folder: Path) -> None:
    path, records = folder / "scheme.py", folder / "records"
    path.write_text(SCHEME)
    asked = ["--task", "stable_lr", "--family", "mlp", "--set", "steps=10", "--set", "rates=0.1"]
    done = call(
        *("run", "--profile", "smoke", "--device", "cpu", "--workers", 1, "--records", records),
        *("--scheme", path, *asked),
    )
    assert done.exit_code == 0, done.stderr
    said = [line for line in done.stderr.splitlines() if line.startswith("not sound: ")]
    assert len(said) == 1
    assert "fails the check evaluation: got another output for two examples" in said[0]
    assert said[0].endswith(f"bnsuite check {shlex.quote(str(path))}")
    assert done.stdout.rstrip().endswith(f"Next: bnsuite board --records {shlex.quote(str(records))}")
    assert [("breaks-contract" in record.facets) for record in Store(records)] == [True]


def test_submit_quotes_its_hint(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    Path("leaderboard").mkdir()
    assert call("new", "mine").exit_code == 0
    manifest = Path("mine", "submission.toml")
    manifest.write_text(manifest.read_text().replace("Your Name", "A. Author"))
    Path("a b").mkdir()
    Path("mine").rename("a b/mine")
    done = call("submit", "a b/mine")
    assert done.exit_code == 2
    assert "Measure it: bnsuite run --scheme 'a b/mine'; or say" in done.stderr
