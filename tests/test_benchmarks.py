"""asv's configuration and benchmarks."""

import importlib
import math
import re
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from asv.config import Config
from asv_runner.discovery import disc_benchmarks

from bnsuite.profiles import load_profile
from bnsuite.records import RANKED, SUITE_VERSION, Outcome, Record, Sample
from bnsuite.schemes import SCHEMES
from bnsuite.tasks import TASKS

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def config() -> Config:
    return Config.load(str(ROOT / "asv.conf.json"))


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """asv's benchmarks by name, as asv finds them."""
    monkeypatch.syspath_prepend(ROOT)
    return {benchmark.name: benchmark for benchmark in disc_benchmarks(str(ROOT / "benchmarks"))}


@pytest.fixture
def ranked(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT)
    return importlib.import_module("benchmarks.ranked")


def test_asv_measures_this_checkout_pinned(config: Config) -> None:
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert (config.repo, config.branches, config.environment_type) == (".", ["HEAD"], "virtualenv")
    assert [f"torch=={version}" for version in config.matrix["req"]["torch"]] == [
        pin for pin in pins if pin.startswith("torch==")
    ]
    assert any("-c {conf_dir}/constraints.txt" in command for command in config.install_command)


def test_what_asv_keeps_lies_in_the_ignored_folder(config: Config) -> None:
    ignored = (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    assert ".asv/" in ignored
    assert all(folder.startswith(".asv/") for folder in (config.env_dir, config.results_dir, config.html_dir))


@pytest.mark.parametrize("name", RANKED)
def test_a_track_follows_each_ranked_task_over_every_scheme(name: str, found: dict[str, Any]) -> None:
    track, task = found[f"ranked.track_{name}"], TASKS[name]
    assert track.type == "track"
    assert track.unit == task.unit
    assert track.version.startswith(f"suite {SUITE_VERSION}, task {task.version}, smoke ")
    smoke = load_profile("smoke")
    families = [family for family in smoke.families if smoke.asks(name, family)]
    assert track.params == [[repr(scheme) for scheme in SCHEMES], [repr(family) for family in families]]
    assert track.setup_cache_timeout > 0


def test_asv_finds_nothing_in_micro_and_peers(found: dict[str, Any]) -> None:
    assert {name.partition(".")[0] for name in found} == {"ranked", "engine"}
    assert not any((ROOT / "benchmarks" / f / "__init__.py").exists() for f in ("micro", "peers"))


def test_regressions_are_off_exactly_where_higher_is_better(config: Config, found: dict[str, Any]) -> None:
    def is_off(entry: str) -> bool:
        """asv matches the name with its parameters from its start."""
        return any(
            commit is None and re.match(regex, entry)
            for regex, commit in config.regressions_first_commits.items()
        )

    higher = {f"ranked.track_{name}" for name in RANKED if TASKS[name].better == "higher"}
    for name, benchmark in found.items():
        entries = [f"{name}({', '.join(values)})" for values in product(*benchmark.params)] or [name]
        assert {is_off(entry) for entry in (*entries, name)} == {name in higher}


class _Record:
    """The fields of a record that a track reads."""

    def __init__(self, value: float | None, outcome: Outcome, *samples: float | None) -> None:
        self.value, self.outcome, self.error = value, outcome, "Traceback"
        self.samples = [
            Sample(seed=i, value=v, outcome=Outcome.STUCK if v is None else Outcome.OK)
            for i, v in enumerate(samples)
        ]


def test_a_track_keeps_samples(ranked: ModuleType) -> None:
    assert ranked.asv_value(_Record(3.0, Outcome.OK, 2.0, 4.0)) == {"samples": [2.0, 4.0], "number": 1}


def test_a_track_without_a_value_is_skipped_and_an_error_fails(ranked: ModuleType) -> None:
    assert math.isnan(ranked.asv_value(_Record(None, Outcome.STUCK, None, None)))
    assert ranked.asv_value(_Record(3.0, Outcome.OK, 3.0, 4.0, None)) == 3.0  # not the median of 3 and 4
    with pytest.raises(RuntimeError, match="Traceback"):
        ranked.asv_value(_Record(None, Outcome.ERROR))


def test_tracks_read_the_records_of_one_run(ranked: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {}

    def run(**options: Any) -> list[Record]:
        asked.update(options)
        return []

    monkeypatch.setattr(ranked.bnsuite, "run", run)
    assert ranked.setup_cache() == {}
    assert (asked["profile"], asked["schemes"]) == ("smoke", list(SCHEMES))
    assert not Path(asked["records"]).is_absolute()  # asv's own folder
