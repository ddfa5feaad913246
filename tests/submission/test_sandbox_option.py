"""`--sandbox`: what loads foreign code, and what does not, where bubblewrap does not work."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from bnsuite.cli import app
from bnsuite.records import Record, Store
from bnsuite.submission import sandbox

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the sandbox confines on Linux")


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_record: Callable[..., Record]) -> Path:
    """A scheme's file that leaves a trace when it is loaded, and a record of it; bubblewrap does not work."""
    monkeypatch.setattr(sandbox, "working_bwrap", lambda: None)
    monkeypatch.chdir(tmp_path)
    Path("mine").mkdir()
    path = Path("mine/scheme.py")
    path.write_text(
        f"open({str(tmp_path / 'loaded')!r}, 'w').close()\nimport os\n"
        "raise ValueError(f'loaded at {os.path.dirname(__file__)}')"
    )
    Store(Path("results")).add(make_record(scheme="mine"))
    return path


def call(command: str, path: Path, *more: str) -> Result:
    """The command on the scheme, or on its record."""
    (record,) = Store(Path("results"))
    folder = str(path.parent)
    arguments = {
        "check": [folder],
        "run": ["--scheme", folder, "--device", "cpu", "--profile", "smoke"],
        "submit": [folder],
        "verify": [folder],
        "reproduce": [record.id, "--scheme", folder],
    }
    return CliRunner().invoke(app, [command, *arguments[command], *more])


@pytest.mark.parametrize("command", ["check", "run", "submit", "verify", "reproduce"])
def test_require_loads_nothing_without_bubblewrap(mine: Path, command: str) -> None:
    result = call(command, mine, "--sandbox", "require")
    assert result.exit_code == 2
    assert isinstance(result.exception, SystemExit)
    assert result.stdout == ""
    assert result.stderr.startswith("bnsuite: --sandbox require: bubblewrap is not installed")
    assert len(result.stderr.splitlines()) == 1
    assert not Path("loaded").exists()


def test_check_says_so_in_json_too(mine: Path) -> None:
    told = json.loads(call("check", mine, "--sandbox", "require", "--json").stdout)
    assert told["ok"] is False
    assert told["error"].startswith("--sandbox require: bubblewrap is not installed")


@pytest.mark.parametrize("more", [(), ("--sandbox", "prefer"), ("--sandbox", "off")])
def test_otherwise_it_is_loaded_and_what_is_open_is_said(mine: Path, more: tuple[str, ...]) -> None:
    result = call("run", mine, *more)
    assert result.exit_code == 2
    assert "not protected: without a working bubblewrap foreign code can read" in result.stderr
    assert "ValueError: loaded at " in result.stderr


@pytest.mark.skipif(sandbox.working_bwrap() is None, reason="bubblewrap does not work")
@pytest.mark.parametrize(
    ("choice", "place"), [("require", "/submission"), ("prefer", "/submission"), ("off", "mine")]
)
def test_off_does_without_one_that_works(
    mine: Path, monkeypatch: pytest.MonkeyPatch, choice: str, place: str, tmp_path: Path
) -> None:
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    mine.write_text(mine.read_text().partition("\n")[2])
    result = call("run", mine, "--sandbox", choice)
    assert f"loaded at {place if choice != 'off' else tmp_path / place}" in result.stderr
    assert ("without a working bubblewrap" in result.stderr) is (choice == "off")
