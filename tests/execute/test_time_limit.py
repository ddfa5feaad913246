"""A time limit: no cell starts after it, in this process or in workers; the same command goes on."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
from torch import nn
from typer.testing import CliRunner, Result

from bnsuite.cli import app
from bnsuite.execute import plan as planning
from bnsuite.execute import run as running
from bnsuite.execute.run import run
from bnsuite.profiles import Profile
from bnsuite.records import Store
from bnsuite.schemes import Scheme

TINY = Profile.model_validate(
    {
        "name": "quick",  # the default of the command
        "about": "",
        "datasets": ["digits"],
        "schemes": ["none", "batchnorm", "layernorm", "residual-batchnorm", "rmsnorm", "groupnorm"],
        "seeds": {"tuning": [1], "confirmation": [101, 102]},
        "families": {"mlp": {"width": 8, "batch": 64}},
        "tasks": {"stable_lr": {"rates": [0.1], "depth": 1, "steps": 10, "per_decade": 1}},
    }
)
CELLS = len(TINY.schemes)


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "load_profile", lambda name: TINY)


class Clock:
    """A clock that moves on by ten seconds with every cell that is measured."""

    now = 0.0

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        whole = running.measure

        def measure(job: Any, report: Any) -> Any:
            self.now += 10
            return whole(job, report)

        monkeypatch.setattr(running, "measure", measure)
        monkeypatch.setattr(running.time, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def command(folder: Path, *more: object) -> Result:
    given = ["run", "--device", "cpu", "--workers", 1, "--records", folder, *more]
    return CliRunner().invoke(app, [str(one) for one in given])


def test_no_cell_is_started_after_it_and_the_next_run_goes_on(tmp_path: Path, clock: Clock) -> None:
    found = run(device="cpu", records=tmp_path, time_limit=25)
    assert [record.scheme for record in found] == list(TINY.schemes[:3]), "the third was under way"
    again = run(device="cpu", records=tmp_path, time_limit=20)
    assert [record.scheme for record in again] == list(TINY.schemes[:5])
    assert again[:3] == found
    assert len(run(device="cpu", records=tmp_path)) == CELLS
    assert len(Store(tmp_path)) == CELLS, "nothing is measured twice"


def test_workers_start_no_cell_after_it(tmp_path: Path) -> None:
    end = time.monotonic() + 5

    class Waiting(nn.BatchNorm1d):
        """Lets no cell end before the limit is over."""

        def __init__(self, num_features: int) -> None:
            super().__init__(num_features)
            time.sleep(max(0.0, end - time.monotonic()))

    schemes = [Scheme(f"waiting-{i}", Waiting) for i in range(CELLS)]
    jobs = planning.plan("quick", None, schemes, None, None, "cpu")
    started: set[str] = set()
    found = running.run_jobs(
        jobs,
        tmp_path,
        workers=2,
        time_limit=end - time.monotonic(),
        observe=lambda e: started.add(str(e.cell)),
    )
    assert len(found) <= 2, "one a worker"
    assert started == {str(record.cell) for record in found}
    assert len(Store(tmp_path)) == len(found)
    assert len(running.run_jobs(jobs, tmp_path, workers=2)) == CELLS


def test_the_command_says_what_is_left(tmp_path: Path, clock: Clock) -> None:
    result = command(tmp_path, "--time-limit", 25)
    assert result.exit_code == 3
    last = result.stderr.strip().splitlines()[-1]
    assert f"3 of {CELLS} cells are not measured yet: the time limit of 25 s is over." in last
    assert "The same command goes on with them." in last
    assert TINY.schemes[2] in result.stdout
    assert TINY.schemes[3] not in result.stdout

    result = command(tmp_path, "--time-limit", 0, "--json")
    assert result.exit_code == 3
    assert [record["scheme"] for record in json.loads(result.stdout)] == list(TINY.schemes[:3])

    result = command(tmp_path, "--time-limit", 3000)
    assert result.exit_code == 0
    assert "not measured yet" not in result.stderr
    assert len(Store(tmp_path)) == CELLS


def test_nothing_measured_is_no_failure(tmp_path: Path) -> None:
    result = command(tmp_path, "--time-limit", 0)
    assert result.exit_code == 3
    assert isinstance(result.exception, SystemExit), "no traceback"
    assert f"{CELLS} of {CELLS} cells are not measured yet" in result.stderr
    assert not result.stdout, "no empty table"
