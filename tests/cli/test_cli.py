"""The command line: what it prints, how it refuses, with which exit code."""

import errno
import json
import os
import re
import subprocess
import sys
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner, Result

import bnsuite
from bnsuite.cli import app
from bnsuite.cli.results import results_table
from bnsuite.execute import plan as planning
from bnsuite.profiles import Profile
from bnsuite.records import Outcome, Record, Sample, Store

TINY = Profile.model_validate(
    {
        "name": "quick",  # the default of the command
        "about": "",
        "datasets": ["digits"],
        "schemes": ["none", "batchnorm"],
        "seeds": {"tuning": [1], "confirmation": [101, 102]},
        "families": {"mlp": {"width": 5, "batch": 64}},
        "tasks": {"stable_lr": {"rates": [0.1], "depth": 1, "steps": 10, "per_decade": 1}},
    }
)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "load_profile", lambda name: TINY)


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def complaint(result: Result, code: int = 2) -> str:
    """The one line with which a command was refused."""
    assert result.exit_code == code, result.output
    assert isinstance(result.exception, SystemExit), "no traceback"
    assert result.stdout == ""
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("bnsuite: ")
    return lines[0].removeprefix("bnsuite: ")


def run(folder: Path, *more: object) -> Result:
    return call("run", "--device", "cpu", "--workers", 1, "--records", folder, *more)


def test_version_and_help() -> None:
    assert call("--version").stdout == f"{bnsuite.__version__}\n"
    for arguments in ([], ["run"], ["list"], ["board"], ["schema"]):
        result = call(*arguments, "--help")
        assert result.exit_code == 0
        assert "Usage" in result.stdout


def test_schema_is_the_models() -> None:
    assert json.loads(call("schema").stdout) == Record.model_json_schema()


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("schemes", ["none", "batchnorm", "residual-batchnorm", "layernorm"]),
        ("tasks", ["max_depth", "stable_lr", "top_eigenvalue", "time_to_accuracy"]),
        ("families", ["mlp", "cnn", "transformer"]),
        ("datasets", ["digits"]),
        ("profiles", ["smoke", "quick", "standard", "full"]),
    ],
)
def test_lists(kind: str, names: list[str]) -> None:
    found = json.loads(call("list", kind, "--json").stdout)
    assert list(found)[: len(names)] == names
    text = call("list", kind).stdout
    assert all(name in text for name in found)
    assert call("list", "colours").exit_code == 2


def test_json_is_the_records_and_nothing_else(tmp_path: Path, tiny: None) -> None:
    result = run(tmp_path, "--json")
    assert result.exit_code == 0
    found = [Record.model_validate(data) for data in json.loads(result.stdout)]
    assert sorted(found, key=lambda r: r.id) == sorted(Store(tmp_path), key=lambda r: r.id)
    again = run(tmp_path, "--json")
    assert json.loads(again.stdout) == json.loads(result.stdout)
    assert "2 of 2 cells were there already." in again.stderr


def test_what_a_person_sees(tmp_path: Path, tiny: None) -> None:
    result = run(tmp_path)
    assert result.exit_code == 0
    assert "stable_lr none mlp/digits: " in result.stderr
    for word in ("none", "batchnorm", "stable_lr", "learning rate", f"bnsuite board --records {tmp_path}"):
        assert word in result.stdout.replace("\n", "")


@pytest.mark.parametrize(
    ("option", "given", "nearest", "all_of_them"),
    [
        ("--profile", "quik", "quick", "smoke, quick, standard, full"),
        ("--task", "max-depth", "max_depth", "max_depth, stable_lr, top_eigenvalue, time_to_accuracy"),
        ("--scheme", "batch-norm", "batchnorm", "none, batchnorm, residual-batchnorm, layernorm"),
        ("--family", "mpl", "mlp", "mlp, cnn, transformer"),
        ("--dataset", "digit", "digits", "digits"),
    ],
)
def test_unknown_names(tmp_path: Path, option: str, given: str, nearest: str, all_of_them: str) -> None:
    line = complaint(run(tmp_path / "new", option, given))
    assert f"{given!r}. Did you mean {nearest}? There are: {all_of_them}" in line
    assert not (tmp_path / "new").exists()


def test_a_family_that_the_profile_lacks(tmp_path: Path) -> None:
    line = complaint(run(tmp_path, "--profile", "quick", "--family", "cnn"))
    assert line.startswith("profile quick has no family 'cnn': it has mlp, transformer. ")


def test_a_data_set_that_is_neither_known_nor_here(tmp_path: Path) -> None:
    line = complaint(run(tmp_path, "--dataset", "digit"))
    assert line.startswith("unknown dataset 'digit'. Did you mean digits?")
    assert line.endswith("Nor is a file or folder of that name here.")


def test_a_profile_for_a_gpu_says_so_on_a_cpu(tmp_path: Path) -> None:
    words = "is for a GPU: on this CPU a cell may take hours."
    for profile, said in (("quick", False), ("standard", True)):
        result = run(tmp_path, "--profile", profile, "--dataset", "digits", "--time-limit", 0)
        assert (f"Profile {profile} {words}" in result.stderr) == said


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu(tmp_path: Path) -> None:
    line = complaint(call("run", "--profile", "smoke", "--device", "cuda", "--records", tmp_path))
    assert line.startswith("no GPU: torch sees none here. Use --device cpu")


def test_a_folder_that_cannot_be_written(tmp_path: Path, tiny: None) -> None:
    (tmp_path / "file").write_text("kept")
    line = complaint(run(tmp_path / "file"))
    assert str(tmp_path / "file") in line
    assert "--records" in line
    assert (tmp_path / "file").read_text() == "kept"


def test_a_broken_record_in_the_folder(tmp_path: Path, tiny: None, make_record: Any) -> None:
    """A run reads the records of its own cells alone, a board all."""
    folder = tmp_path / "records"
    assert run(folder).exit_code == 0
    others = sorted(folder.rglob("*.json"))
    elsewhere = Store(folder).add(make_record())
    for path, stops_a_run in ((others[0], True), (elsewhere, False)):
        whole = path.read_text()
        for broken in (
            whole[:100],
            re.sub(r'"duration_s": [\d.]+', '"duration_s": NaN', whole),
            re.sub(r'"duration_s": [\d.]+', '"duration_s": 123456.0', whole),
        ):
            path.write_text(broken)
            assert str(path) in complaint(call("board", "--records", folder, "--out", tmp_path / "site"))
            if stops_a_run:
                assert str(path) in complaint(run(folder))
            else:
                assert run(folder).exit_code == 0
            assert path.read_text() == broken
        path.write_text(whole)
    assert sorted(tmp_path.rglob("*.json")) == sorted([*others, elsewhere])


def test_the_board_of_a_folder_that_is_not_there(tmp_path: Path) -> None:
    assert "no such folder" in complaint(call("board", "--records", tmp_path / "none", "--out", tmp_path))


def test_the_board_leaves_out_what_is_unsound_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "leaderboard" / "submissions" / "half" / "records").mkdir(parents=True)
    (tmp_path / "leaderboard" / "submissions" / "link").symlink_to("/etc")
    monkeypatch.chdir(tmp_path)
    result = call("board", "--json")
    assert result.exit_code == 0
    left_out = json.loads(result.stdout)["left_out"]
    assert [line.partition(":")[0] for line in left_out] == ["half/submission.toml", "link"]
    assert all(f"left out: {line}" in result.stderr for line in left_out)


def test_a_full_disk(tmp_path: Path, tiny: None, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, calls = os.fsync, []

    def full(handle: int) -> None:
        calls.append(handle)
        if len(calls) > 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        whole(handle)

    monkeypatch.setattr(os, "fsync", full)
    result = run(tmp_path)
    assert result.exit_code == 2
    last = result.stderr.strip().splitlines()[-1]
    assert "No space left on device" in last
    assert "the same command goes on" in last
    monkeypatch.undo()
    assert len(Store(tmp_path)) == 1
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 1


def test_exit_code_1_where_a_cell_failed(tmp_path: Path, tiny: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: object, subject: Any) -> None:
        raise RuntimeError("[a bracket] and no more")

    with monkeypatch.context() as patch:
        patch.setattr(planning.TASKS["stable_lr"], "__call__", broken)
        result = run(tmp_path)
    assert result.exit_code == 1
    assert "error in stable_lr none mlp/digits: RuntimeError: [a bracket] and no more" in result.stderr
    assert "2 of 2 cells failed" in result.stderr
    assert "The same command runs these again." in result.stderr
    assert {record.outcome for record in Store(tmp_path)} == {Outcome.ERROR}
    assert run(tmp_path).exit_code == 0
    assert len(Store(tmp_path)) == 4


def test_ctrl_c(tmp_path: Path, tiny: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(self: object, subject: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(planning.TASKS["stable_lr"], "__call__", interrupted)
    result = run(tmp_path)
    assert result.exit_code == 130
    assert "Finished cells are kept; the same command goes on with the rest." in result.stderr
    assert list(Store(tmp_path)) == []


def test_the_table_says_what_was_measured_and_how_surely(make_record: Any) -> None:
    samples = (Sample(seed=1, value=24), Sample(seed=2, value=None, outcome=Outcome.STUCK))
    record = make_record(outcome=Outcome.OK, low=None, high=24, coverage=0.5, samples=samples)
    console = Console(width=100, file=StringIO())
    console.print(results_table([record]))
    text = " ".join(console.file.getvalue().split())  # type: ignore[attr-defined]
    for part in (f"{record.profile} on cpu", "24", "[…, 24", "n 2, 1 stuck", "[its exact interval (50.0 %)]"):
        assert part in text


def test_as_a_program(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bnsuite", "--version"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=600,
        check=True,
    )
    assert done.stdout == f"{bnsuite.__version__}\n"
    assert list(tmp_path.iterdir()) == []


def test_a_cell_that_is_unsupported_says_why(tmp_path: Path) -> None:
    asked = ["--profile", "smoke", "--scheme", "instancenorm", "--family", "mlp", "--task", "stable_lr"]
    done = call("run", *asked, "--records", str(tmp_path), "--workers", "1")
    assert done.exit_code == 0
    assert "unsupported stable_lr instancenorm mlp/digits: instancenorm cannot be used in mlp" in done.stderr


def test_what_is_not_there_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "no records here: bnsuite run --profile smoke makes some" in call("board").stderr
    assert "batchnorm is a built-in scheme" in call("check", "batchnorm").stderr
