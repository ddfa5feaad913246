"""The tasks beside hand-written loops, and where the time of `quick` goes."""

import importlib
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from bnsuite.schemes import SCHEMES
from bnsuite.tasks.max_depth import MaxDepth
from bnsuite.tasks.stable_lr import StableLr
from bnsuite.tasks.time_to_accuracy import TimeToAccuracy
from bnsuite.tasks.top_eigenvalue import TopEigenvalue

ROOT = Path(__file__).parents[1]
SMALL: dict[str, Any] = {"width": 8, "batch": 64, "tuning": (1,), "confirmation": (101, 102)}
FAST = TimeToAccuracy(**SMALL, rates=(0.1, 1e30), target=0.3, steps=40, every=4, depth=2, warmup=5)
"""With a rate at which a lane dies; the other arrives."""


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """A script of `benchmarks` or `benchmarks/peers` by its name."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    monkeypatch.syspath_prepend(ROOT / "benchmarks" / "peers")
    return importlib.import_module


@pytest.mark.parametrize("scheme", ["none", "residual-batchnorm"])
def test_the_harness_and_the_loops_with_nothing_in_them_arrive_together(
    script: Callable[[str], ModuleType], scheme: str
) -> None:
    module = script("time_to_accuracy")
    for _, problem, names in module.problems(SCHEMES[scheme], FAST, torch.device("cpu")):
        curves = {name: module.SIDES[name](problem) for name in names}
        assert any(FAST.search.reached(curve) for curve in curves["harness"].values())
        assert module.same(problem, curves["harness"], curves["bare"], exact=True)
        assert "torch" not in names or module.same(problem, curves["harness"], curves["torch"], exact=False)
        late = [{lane: [0.0] * by + curve for lane, curve in curves["bare"].items()} for by in (1, 2)]
        assert not module.same(problem, curves["harness"], late[0], exact=True)
        assert module.same(problem, curves["harness"], late[0], exact=False)  # as rounding may have it
        assert not module.same(problem, curves["harness"], late[1], exact=False)
        never = {lane: [0.0] for lane in curves["bare"]}
        assert not module.same(problem, curves["harness"], never, exact=False)


def test_the_race_to_the_target_prints_its_table(
    script: Callable[[str], ModuleType],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    device: str,
) -> None:
    module = script("time_to_accuracy")
    monkeypatch.setattr(module, "TimeToAccuracy", lambda **settings: FAST)
    table = tmp_path / "rows.json"
    options = ["--schemes", "none", "--rounds", "1", "--device", device]
    assert module.main([*options, "--json", str(table)]) == 0
    rows = json.loads(table.read_text(encoding="utf-8"))
    assert [row["side"] for row in rows] == ["harness", "bare", "harness", "bare", "torch"]
    assert [row["ratio"] for row in rows if row["side"] == "harness"] == [1.0, 1.0]
    monkeypatch.setattr(module, "same", lambda *_, **__: False)
    assert module.main(options) == 1
    assert "NO" in capsys.readouterr().out


@pytest.fixture
def board(script: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = script("board")
    found = {
        "max_depth": MaxDepth(**SMALL, depths=(1, 2), rates=(0.1,), steps=40, target=0.5),
        "stable_lr": StableLr(**SMALL, rates=(0.03, 0.3), depth=2, steps=40, per_decade=1),
        "top_eigenvalue": TopEigenvalue(**SMALL, rates=(0.1,), rate=0.1, depth=1, eigenvalues=1, beside=0),
        "time_to_accuracy": replace(FAST, rates=(0.1,)),
    }
    monkeypatch.setattr(module, "tasks", lambda: found)
    monkeypatch.setattr(module, "DEPTHS", (1, 2))
    return module


def test_the_straightforward_script_gives_the_same_answers(board: ModuleType) -> None:
    search = next(board.whole(SCHEMES["batchnorm"]))
    for job in (search, *board.sampled(SCHEMES["batchnorm"])):
        ours, theirs = job.run(), board.straightforward(job.run)
        assert len(ours) == len(theirs) > 0
        assert not any(map(board.differ, ours, theirs)), (job, ours, theirs)
    assert board.differ(1.0, 1.1)
    assert board.differ("ok", "stuck")


def test_the_board_is_weighted_by_what_its_cells_took(
    board: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Published:
        def __init__(self, seconds: float) -> None:
            self.provenance = self
            self.duration_s = seconds

    monkeypatch.setattr(board, "_published", lambda scheme, task: Published({"a": 30.0, "b": 10.0}[task]))
    parts = [("a", 1.0, 2.0), ("a", 1.0, 6.0), ("b", 1.0, 8.0)]
    rows = [board.Row("s", task, "", ours, theirs, 0, 0, 1, 0) for task, ours, theirs in parts]
    assert board.of_the_board(rows) == pytest.approx((30 * 4 + 10 * 8) / 40)


def test_the_search_saves_lane_layers(script: Callable[[str], ModuleType]) -> None:
    assert script("board").search_saves("batchnorm") > 1


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("aten::baddbmm", "matrix products"),
        ("aten::native_layer_norm_backward", "normalization"),
        ("aten::_log_softmax_backward_data", "reductions"),
        ("aten::sum", "reductions"),
        ("aten::copy_", "copies"),
        ("aten::_index_put_impl_", "copies"),
        ("aten::threshold_backward", "elementwise"),
        ("aten::normal_", "elementwise"),
        ("aten::addcmul", "elementwise"),
        ("aten::view", "Python, launch"),
        ("aten::_to_copy", "Python, launch"),
        ("BaddbmmBackward0", "Python, launch"),
        ("autograd::engine::evaluate_function: ViewBackward0", "Python, launch"),
    ],
)
def test_operations_are_of_a_kind(script: Callable[[str], ModuleType], name: str, column: str) -> None:
    assert script("quick_profile").kind(name) == column


def test_shares_are_of_the_whole(script: Callable[[str], ModuleType]) -> None:
    module = script("quick_profile")
    x = module.torch.rand(300, 300)
    found = module.shares(lambda: [x @ x for _ in range(20)])
    assert tuple(found) == module.COLUMNS
    assert sum(found.values()) == pytest.approx(1)
    assert max(found, key=found.__getitem__) == "matrix products"


def test_published_seconds_have_every_cell(script: Callable[[str], ModuleType]) -> None:
    module = script("quick_profile")
    printed = module.by_cell(module.seconds_in())
    assert len(re.findall(r"^\| \w+ ", printed, re.MULTILINE)) == 6  # head, four tasks, their sum
    assert "100%" in printed
