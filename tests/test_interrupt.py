"""Runs that are stopped, in processes of their own: nothing half written, nothing measured twice."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from bnsuite.records import Record, Store

COMMAND = [
    *(sys.executable, "-m", "bnsuite", "run", "--profile", "smoke", "--device", "cpu", "--family", "mlp"),
    *("--task", "time_to_accuracy", "--json"),
]
CELLS = 4
SCRIPT = """
import json, sys
from torch import nn
import bnsuite, bnsuite.execute
from bnsuite.profiles import Profile

class Mine(nn.BatchNorm1d):
    pass

tiny = Profile.model_validate(json.loads(sys.argv[1]))
bnsuite.execute.load_profile = lambda name: tiny
both = []
for workers in (1, 2):
    found = bnsuite.run("tiny", schemes=["none", bnsuite.Scheme("mine", Mine)], device="cpu",
                        records=f"{sys.argv[2]}/{workers}", workers=workers)
    both.append([record.model_dump(mode="json") for record in found])
print(json.dumps(both))
"""
TINY = {
    "name": "tiny",
    "about": "",
    "datasets": ["digits"],
    "schemes": ["none"],
    "seeds": {"tuning": [1], "confirmation": [101, 102]},
    "families": {"mlp": {"width": 5, "batch": 64}},
    "tasks": {"stable_lr": {"rates": [0.1], "depth": 1, "steps": 10, "per_decade": 1}},
}


def lasting(data: dict[str, Any]) -> dict[str, Any]:
    """A record without its times, its id, and the commit of a tree that others work in."""
    timed = ("train_s", "eval_s", "seconds_per_step", "ratio_to_batchnorm", "drift")
    where = ("started", "duration_s", "commit", "dirty", "threads")
    return {
        **{name: value for name, value in data.items() if name != "id"},
        "derived": {name: value for name, value in data["derived"].items() if name not in timed},
        "provenance": {name: value for name, value in data["provenance"].items() if name not in where},
    }


def records_in(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.json"))


def stop_early(folder: Path, with_signal: signal.Signals, workers: int) -> tuple[int, str, int]:
    """Start the command, signal it after its first record; exit code, what it said, its session."""
    process = subprocess.Popen(
        [*COMMAND, "--records", str(folder), "--workers", str(workers)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        end = time.monotonic() + 60
        while not records_in(folder) and process.poll() is None and time.monotonic() < end:
            time.sleep(0.01)
        process.send_signal(with_signal)
        _, said = process.communicate(timeout=30)
    finally:
        process.kill()
    assert 0 < len(records_in(folder)) < CELLS, said
    return process.returncode, said, process.pid


def processes_of(session: int) -> list[str]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[3] == str(session) and fields[0] != "Z":
            found.append(stat.parent.name)
    return found


def finish(folder: Path) -> list[dict[str, Any]]:
    done = subprocess.run(
        [*COMMAND, "--records", str(folder), "--workers", "1"],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return finish(tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize(("how", "workers"), [(signal.SIGKILL, 1), (signal.SIGINT, 1), (signal.SIGINT, 2)])
def test_a_stopped_run_goes_on_where_it_was(
    tmp_path: Path, uninterrupted: list[dict[str, Any]], how: signal.Signals, workers: int
) -> None:
    code, said, session = stop_early(tmp_path, how, workers)
    kept = {path: path.read_bytes() for path in records_in(tmp_path)}
    if how is signal.SIGINT:
        assert code == 130
        assert "Traceback" not in said
        assert "Finished cells are kept" in said
        assert "the same command" in said
        files = {path for path in tmp_path.rglob("*") if path.is_file()}
        assert files == set(kept), "nothing half written"
        end = time.monotonic() + 10
        while processes_of(session) and time.monotonic() < end:
            time.sleep(0.1)
        assert not processes_of(session), "no worker is left behind"
    else:
        assert code == -signal.SIGKILL
    Store(tmp_path)  # whole records all

    found = finish(tmp_path)
    assert {path: path.read_bytes() for path in kept} == kept
    assert len(records_in(tmp_path)) == CELLS == len(found)
    assert [lasting(record) for record in found] == [lasting(record) for record in uninterrupted]


def test_worker_processes_measure_the_same_even_a_scripts_own_class(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, str(script), json.dumps(TINY), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    alone, side_by_side = json.loads(done.stdout)
    assert [lasting(record) for record in alone] == [lasting(record) for record in side_by_side]
    assert [Record.model_validate(record).outcome for record in alone] != ["error", "error"]
    assert {path.name.rpartition("-")[0] for path in records_in(tmp_path / "2")} == {"mine-cpu", "none-cpu"}
