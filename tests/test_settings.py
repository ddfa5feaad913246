"""Settings: every one has a range, nothing outside it is planned, and nothing published lies outside."""

import json
import math
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from bnsuite.audit import objections_to
from bnsuite.cli import app
from bnsuite.execute.plan import plan
from bnsuite.execute.run import run_jobs
from bnsuite.profiles import load_profile, profile_names
from bnsuite.records import Record, read_records
from bnsuite.schemes import SCHEMES
from bnsuite.settings import Settings, faults, from_text, valid, written
from bnsuite.tasks import TASKS, Task
from bnsuite.tasks.layer_cost import LayerCost
from bnsuite.tasks.top_eigenvalue import TopEigenvalue

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def published() -> list[Record]:
    return [record for record in read_records([ROOT / "leaderboard"]).values() if record.task in TASKS]


def planned(task: str, settings: dict[str, Any], profile: str = "quick") -> list[Any]:
    return plan(profile, [task], [SCHEMES["none"]], ["mlp"], ["digits"], "cpu", settings)


def refused(task: str, settings: dict[str, Any], profile: str = "quick") -> str:
    with pytest.raises(ValueError, match=r"^[^\n]*$") as error:
        planned(task, settings, profile)
    return str(error.value)


def test_every_setting_of_every_task_has_a_range_and_an_example_inside() -> None:
    tasks = {one.name: task.spec.name for task in TASKS.values() for one in fields(task)}
    assert tasks.keys() == Settings.model_fields.keys()
    for name, task in tasks.items():
        with pytest.raises(ValueError, match="Try") as error:
            valid(task, name, object())
        _, _, example = str(error.value).rpartition(f" Try {name}=")
        value = from_text(task, name, example.removesuffix("."))
        assert valid(task, name, list(value) if isinstance(value, tuple) else value) == value


IMPOSSIBLE: list[tuple[str, dict[str, Any]]] = [
    ("time_to_accuracy", {"every": -1}),
    ("time_to_accuracy", {"every": 1000}),
    ("time_to_accuracy", {"momentum": "-1"}),
    ("time_to_accuracy", {"warmup": -1}),
    ("layer_cost", {"repeats": -1}),
    ("layer_cost", {"doublings": -1}),
    ("layer_cost", {"doublings": 20, "batch": 10**6}),
    ("layer_cost", {"confirmation": (101,)}),
    ("stable_lr", {"confirmation": "101,101"}),
    ("stable_lr", {"confirmation": ""}),
    ("stable_lr", {"confirmation": (0, 101)}),
    ("stable_lr", {"confirmation": (-1, 101)}),
    ("stable_lr", {"confirmation": (2**63, 101)}),
    ("stable_lr", {"tuning": ""}),
    ("stable_lr", {"rates": "0"}),
    ("stable_lr", {"rates": "0.1,0.1"}),
    ("stable_lr", {"rates": "nan"}),
    ("stable_lr", {"rates": (math.inf,)}),
    ("stable_lr", {"rates": ()}),
    ("stable_lr", {"per_decade": 0}),
    ("stable_lr", {"per_decade": 10**8}),
    ("stable_lr", {"depth": 10**6}),
    ("stable_lr", {"depth": True}),
    ("stable_lr", {"depth": "true"}),
    ("stable_lr", {"depth": "1e3"}),
    ("stable_lr", {"depth": "٣"}),
    ("stable_lr", {"depth": 10**5000}),
    ("stable_lr", {"depth": 10_000, "width": 8192}),
    ("stable_lr", {"steps": 10**6, "batch": 1000}),
    ("stable_lr", {"loss_ratio": 1}),
    ("max_depth", {"target": -1}),
    ("max_depth", {"target": 0}),
    ("max_depth", {"target": 1.01}),
    ("max_depth", {"depths": "8,2"}),
    ("max_depth", {"depths": "8"}),
    ("max_depth", {"ratio": 1}),
    ("top_eigenvalue", {"steps": 4}),
    ("top_eigenvalue", {"tuning_steps": 10**6}),
    ("top_eigenvalue", {"tolerance": 1}),
    ("top_eigenvalue", {"max_products": 0}),
    ("overflow_depth", {"half": (4, 2)}),
    ("smoothness", {"reach": "1,1"}),
    ("first_step", {"depth": 2}),
    ("spectrum", {"kernel": 0}),
    ("mean_shift", {"minibatches": -1}),
]


@pytest.mark.parametrize(("task", "settings"), IMPOSSIBLE)
def test_what_cannot_be_is_refused_at_planning_in_one_line(task: str, settings: dict[str, Any]) -> None:
    said = refused(task, settings)
    assert len(said) < 400
    assert f" of {task}" in said
    assert "got " in said
    assert "wanted " in said


def test_a_refusal_says_got_wanted_and_what_to_do() -> None:
    assert refused("time_to_accuracy", {"every": "-1"}) == (
        "every of time_to_accuracy: got -1, wanted a whole number, at least 1 and at most 1,000,000. "
        "Try every=2."
    )
    assert refused("stable_lr", {"confirmation": "101,101"}) == (
        "confirmation of stable_lr: got (101, 101), wanted 1 to 1,000 whole numbers with commas between, "
        "no two alike, each at least 1 and at most 1,000,000. Try confirmation=101,102."
    )
    assert refused("max_depth", {"depths": (8, 2)}) == (
        "depths of max_depth: got (8, 2), wanted 2 whole numbers with commas between, the smaller first, "
        "each at least 1 and at most 10,000. Try depths=4,128."
    )
    cost = LayerCost(**load_profile("quick").settings("layer_cost", "mlp"))
    with pytest.raises(ValueError, match=r"2\^doublings of layer_cost: got .*, wanted 100,000,000"):
        replace(cost, doublings=20)
    with pytest.raises(ValueError, match="precision of speedrun: got 'half', wanted one of auto, float32"):
        valid("speedrun", "precision", "half")


def test_every_evaluation_lies_within_the_steps() -> None:
    assert planned("time_to_accuracy", {"every": 400})
    assert "every of time_to_accuracy: got 401, wanted at most its steps, 400." in refused(
        "time_to_accuracy", {"every": 401}
    )


def test_values_are_held_as_records_have_them() -> None:
    """Keys are hashes of the settings: 1 and 1.0, 0.0 and -0.0, a list and a tuple are one value."""
    common: dict[str, Any] = {"width": 4, "batch": 8, "tuning": [1], "confirmation": [101]}
    task = TopEigenvalue(**common, rates=[1, 0.1], rate=1)
    assert (task.rates, task.rate, task.tuning) == ((1.0, 0.1), 1.0, (1,))
    assert json.dumps([task.settings[name] for name in ("rates", "rate")]) == "[[1.0, 0.1], 1.0]"
    race = planned("time_to_accuracy", {"momentum": -0.0})[0].task
    assert str(race.momentum) == "0.0"
    hash(task)
    rates = TopEigenvalue(**{**common, "batch": np.int64(8)}, rates=np.logspace(-1, 0, 2), rate=np.float32(1))
    assert rates.settings == TopEigenvalue(**common, rates=[0.1, 1], rate=1).settings
    json.dumps(rates.settings)


def test_settings_whose_names_no_folder_can_have_are_refused_before_hours_of_work() -> None:
    seeds = tuple(range(101, 201))
    assert "settings: got 418 characters, wanted 200 at most" in refused("stable_lr", {"confirmation": seeds})


@pytest.mark.parametrize("name", profile_names())
def test_every_profile_keeps_within_the_ranges(name: str) -> None:
    profile = load_profile(name)
    for task in profile.tasks:
        for family in filter(lambda family: profile.asks(task, family), profile.families):
            built: Task = TASKS[task](**profile.settings(task, family))  # type: ignore[arg-type]
            for setting, value in built.settings.items():
                text = written(setting, value).removeprefix(f"{setting}=")
                assert written(setting, from_text(task, setting, text)) == written(setting, value)


def test_every_published_record_keeps_within_the_ranges_and_keeps_its_key(published: list[Record]) -> None:
    assert len(published) > 100
    for record in published:
        kind = TASKS[record.task]
        task = kind(**{name: kind.parse(name, value) for name, value in record.settings.items()})  # type: ignore
        assert json.dumps(task.settings, sort_keys=True) == json.dumps(record.settings, sort_keys=True)
        assert [*faults(record.task, record.settings)] == []


@pytest.mark.parametrize(
    ("task", "settings"),
    [
        ("max_depth", {"width": [64]}),
        ("max_depth", {"width": "64"}),
        ("stable_lr", {"batch": {}}),
        ("stable_lr", {"steps": 10**12}),
        ("time_to_accuracy", {"every": 1000}),
        ("time_to_accuracy", {"momentum": -1}),
        ("scale_law", {"depth": 10**6}),
        ("layer_cost", {"repeats": -1}),
        ("gradient_growth", {"tuning": [101]}),
    ],
)
def test_a_record_with_settings_that_cannot_be_is_objected_to(
    task: str, settings: dict[str, Any], published: list[Record]
) -> None:
    record = next(one for one in published if one.task == task and one.outcome.has_value)
    assert objections_to(record) == []
    forged = record.model_copy(update={"settings": {**record.settings, **settings}}).sealed()
    (name,) = settings
    assert any(line.startswith("settings: ") and name in line for line in objections_to(forged))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--set", "batch=16", "--set", "batch=32"], "--set batch: got '16' and '32', wanted one"),
        (["--set", "every=-1"], "every of time_to_accuracy: got -1"),
        (["--set", "batch"], "--set takes NAME=VALUE"),
        (["--time-limit", "nan"], "greater than or equal to 0"),
        (["--cell-limit", "nan"], "greater than or equal to 1"),
        (["--workers", "-1"], "greater than or equal to 0"),
        (["--time-limit", "-1"], "greater than or equal to 0"),
    ],
)
def test_numbers_of_the_command_line(arguments: list[str], words: str, tmp_path: Path) -> None:
    folder = tmp_path / "records"
    common = ["run", "-p", "smoke", "-t", "time_to_accuracy", "-s", "none", "--family", "mlp"]
    result = CliRunner().invoke(app, [*common, "--records", str(folder), *arguments])
    assert result.exit_code == 2
    assert words in result.output
    assert not folder.exists()


def test_numbers_of_a_run_from_python(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="workers: got 0, wanted 1 at least"):
        run_jobs([], tmp_path, workers=0)
    for limit in (math.nan, -1):
        with pytest.raises(ValueError, match=r"time limit: got .* wanted 0 or more"):
            run_jobs([], tmp_path, time_limit=limit)
