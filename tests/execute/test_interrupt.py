"""Runs that are stopped, in processes of their own: nothing half written, nothing measured twice."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from bnsuite import run
from bnsuite.execute import plan as planning
from bnsuite.profiles import Profile

COMMAND = [
    *(sys.executable, "-m", "bnsuite", "run", "--profile", "smoke", "--device", "cpu", "--family", "mlp"),
    *("--task", "time_to_accuracy", "--json"),
]
CELLS = 4
SCRIPT = """
import json, sys
from torch import nn
import bnsuite, bnsuite.execute.plan
from bnsuite.profiles import Profile

class Mine(nn.BatchNorm1d):
    pass

tiny = Profile.model_validate(json.loads(sys.argv[1]))
bnsuite.execute.plan.load_profile = lambda name: tiny
found = bnsuite.run("tiny", schemes=["none", bnsuite.Scheme("mine", Mine)], device="cpu",
                    records=sys.argv[2], workers=2)
print(json.dumps([record.model_dump(mode="json") for record in found]))
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
    timed = ("train_s", "eval_s", "seconds_per_step", "ratio_to_batchnorm", "drift", "idle")
    where = ("started", "duration_s", "commit", "dirty", "threads")
    return {
        **{name: value for name, value in data.items() if name != "id"},
        "derived": {name: value for name, value in data["derived"].items() if name not in timed},
        "provenance": {name: value for name, value in data["provenance"].items() if name not in where},
    }


def records_in(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.json"))


def stop_early(folder: Path, with_signal: signal.Signals, workers: int) -> tuple[int, str, int]:
    """Start the command, signal it after its first record; exit code, what it said, its session.

    With several workers, as soon as these are there: on a busy machine they may finish all at once.
    """
    before = len(records_in(folder))
    process = subprocess.Popen(
        [*COMMAND, "--records", str(folder), "--workers", str(workers)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        end = time.monotonic() + 600
        while process.poll() is None and time.monotonic() < end:
            if len(records_in(folder)) > before or (workers > 1 and workers_of(process.pid) == workers):
                break
            time.sleep(0.01)
        process.send_signal(with_signal)
        _, said = process.communicate(timeout=600)
    finally:
        process.kill()
    assert before + (workers == 1) <= len(records_in(folder)) < CELLS, said
    return process.returncode, said, process.pid


def workers_of(session: int) -> int:
    """Worker processes of the command, by the function that they run."""
    lines = (Path("/proc", one, "cmdline") for one in processes_of(session))
    return sum(b"serve_parent" in line.read_bytes() for line in lines if line.exists())


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
    """What the same command does, from Python."""
    found = run("smoke", device="cpu", families=["mlp"], tasks=["time_to_accuracy"], records=folder)
    return [lasting(record.model_dump(mode="json")) for record in found]


def check_tidy(folder: Path, code: int, said: str, session: int) -> None:
    assert code == 130
    assert "Traceback" not in said
    assert "Finished cells are kept" in said
    assert "the same command" in said
    files = {path for path in folder.rglob("*") if path.is_file()}
    assert files == set(records_in(folder)), "nothing half written"
    end = time.monotonic() + 120
    while processes_of(session) and time.monotonic() < end:
        time.sleep(0.1)
    assert not processes_of(session), "no worker is left behind"


def test_killed_then_interrupted_then_finished(tmp_path: Path) -> None:
    code, _, _ = stop_early(tmp_path, signal.SIGKILL, workers=1)
    assert code == -signal.SIGKILL
    kept = {path: path.read_bytes() for path in records_in(tmp_path)}
    check_tidy(tmp_path, *stop_early(tmp_path, signal.SIGINT, workers=2))
    kept |= {path: path.read_bytes() for path in records_in(tmp_path) if path not in kept}
    assert finish(tmp_path) == finish(tmp_path / "uninterrupted")
    assert {path: path.read_bytes() for path in kept} == kept
    assert len(records_in(tmp_path)) == 2 * CELLS


def test_worker_processes_measure_the_same_even_a_scripts_own_class(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, str(script), json.dumps(TINY), str(tmp_path / "side by side")],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    none, mine = json.loads(done.stdout)
    assert mine["outcome"] != "error", mine["error"]
    assert len(records_in(tmp_path / "side by side")) == 2
    monkeypatch.setattr(planning, "load_profile", lambda name: Profile.model_validate(TINY))
    alone = run("tiny", device="cpu", records=tmp_path / "alone")
    assert [lasting(record.model_dump(mode="json")) for record in alone] == [lasting(none)]
