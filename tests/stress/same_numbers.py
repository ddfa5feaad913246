"""Measure the same cells with two commits and compare: a change of structure changes no number.

`python tests/stress/same_numbers.py BASE [OPTION …]` runs `bnsuite run --profile smoke` with the code of BASE
and with the working tree, on the CPU in one process, and compares record by record all but times, ids, the
commit, and values of a clock. Options are those of `bnsuite run`, such as `--task spectrum`.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
CLOCKED = {"train_s", "eval_s", "seconds_per_step", "ratio_to_batchnorm", "drift", "idle"}
"""Derived values of a clock."""

TIMED = {"started", "duration_s", "commit", "dirty", "package_version"}


def lasting(record: dict[str, Any]) -> dict[str, Any]:
    """A record without what differs between two runs of the same code."""
    kept = {name: value for name, value in record.items() if name != "id"}
    if record["task"] == "layer_cost":  # microseconds alone
        for name in ("value", "low", "high", "samples", "derived", "trace"):
            del kept[name]
        return kept | {"provenance": record["provenance"].keys()}
    return kept | {
        "derived": {name: value for name, value in record["derived"].items() if name not in CLOCKED},
        "provenance": {name: value for name, value in record["provenance"].items() if name not in TIMED},
    }


def measured(code: Path, folder: Path, options: list[str]) -> dict[str, dict[str, Any]]:
    """Records by key that the package in `code` makes."""
    command = [sys.executable, "-P", "-m", "bnsuite", "run", "--profile", "smoke", "--device", "cpu"]
    command += ["--workers", "1", "--records", str(folder), *options]
    subprocess.run(command, cwd=code, env={**os.environ, "PYTHONPATH": str(code)}, check=True)
    records = (json.loads(path.read_text(encoding="utf-8")) for path in folder.rglob("*.json"))
    return {record["key"]: lasting(record) for record in records}


def main() -> None:
    base, *options = sys.argv[1:] or sys.exit(__doc__)
    with tempfile.TemporaryDirectory() as folder:
        before, place = Path(folder, "code"), Path(folder)
        subprocess.run(["git", "worktree", "add", "--detach", str(before), base], cwd=ROOT, check=True)
        try:
            old, new = measured(before, place / "old", options), measured(ROOT, place / "new", options)
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", str(before)], cwd=ROOT, check=True)
    differing = {
        f"{record['task']} {record['scheme']} {record['family']}: {name}"
        for key, record in old.items()
        for name in record
        if record[name] != new.get(key, {}).get(name)
    }
    print(f"{len(old)} records of {base}, {len(new)} now, {len(old.keys() & new.keys())} of the same key")
    print("\n".join(["differ in:", *sorted(differing)]) if differing else "equal but for times and ids")
    sys.exit(bool(differing) or old.keys() != new.keys())


if __name__ == "__main__":
    main()
