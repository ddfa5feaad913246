"""asv's configuration and benchmarks."""

import importlib
import math
import re
import sys
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from asv.config import Config
from asv_runner.discovery import disc_benchmarks

from bnsuite.execute.plan import plan
from bnsuite.records import SUITE_VERSION, Cell, Outcome, Sample
from bnsuite.records.record import digest
from bnsuite.schemes import SCHEMES
from bnsuite.specs import RANKED, SPECS
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
    assert config.launch_method == "forkserver"  # spawn imports torch for every row
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
    assert track.unit == task.spec.unit
    assert track.version.startswith(f"suite {SUITE_VERSION}, task {task.spec.version}, smoke ")
    assert track.params == [[repr(scheme) for scheme in SCHEMES]]
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

    higher = {f"ranked.track_{name}" for name in RANKED if SPECS[name].better == "higher"}
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


def _number(task: str, scheme: str, family: str = "mlp") -> float:
    return float(int(digest([task, scheme, family])[:8], 16))


class _Faked(_Record):
    """A record of a planned cell, whose value tells them apart."""

    def __init__(self, cell: Cell) -> None:
        self.task, self.scheme, self.family = cell.task, cell.scheme, cell.family
        super().__init__(1.0, Outcome.OK, _number(cell.task, cell.scheme, cell.family))


@pytest.fixture
def asked(ranked: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The calls of `bnsuite.run`, which plans its cells and measures none of them."""
    calls: list[dict[str, Any]] = []

    def run(profile: str, schemes: list[Any], device: str, **options: Any) -> list[_Faked]:
        calls.append({"profile": profile, "schemes": schemes, **options})
        jobs = plan(profile, options.get("tasks"), schemes, options.get("families"), None, device)
        return [_Faked(job.cell) for job in jobs]

    monkeypatch.setattr(ranked.bnsuite, "run", run)
    return calls


def _rows(track: Any) -> list[tuple[tuple[Any, ...], Any]]:
    """What a benchmark process of asv does, for every row: parameters and value."""
    cache = track.do_setup_cache()
    rows = []
    for index, values in enumerate(product(*track._params)):
        track.set_param_idx(index)
        track.set_cache(cache)
        rows.append((values, track.do_run()))
    return rows


@pytest.mark.parametrize("name", RANKED)
def test_every_row_has_a_record_of_its_setup_cache(
    name: str, found: dict[str, Any], asked: list[dict[str, Any]]
) -> None:
    rows = _rows(found[f"ranked.track_{name}"])
    assert [values for values, _ in rows] == [(scheme,) for scheme in SCHEMES]
    assert [value["samples"] for _, value in rows] == [[_number(name, scheme)] for scheme in SCHEMES]
    assert [(call["profile"], call["tasks"]) for call in asked] == [("smoke", [name])]
    assert not Path(asked[0]["records"]).is_absolute()  # asv's own folder


def test_a_track_has_a_cache_of_its_own_and_the_engine_none(found: dict[str, Any]) -> None:
    keys = [found[f"ranked.track_{name}"].setup_cache_key for name in RANKED]
    assert None not in keys
    assert len({*keys}) == len(RANKED)  # asv names a cache by its line
    assert all(one.setup_cache_key is None for name, one in found.items() if name.startswith("engine."))


def test_rows_may_be_of_a_few_schemes_and_of_a_path(
    ranked: ModuleType, asked: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = tmp_path / "row-of-mine"
    folder.mkdir()
    code = 'from torch import nn\nfrom bnsuite import Scheme\nscheme = Scheme("mine", nn.Identity)\n'
    (folder / "scheme.py").write_text(code, encoding="utf-8")
    for path in (folder, folder / "scheme.py"):
        assert ranked.chosen(f"batchnorm, {path}") == {"batchnorm": "batchnorm", "row-of-mine": path}
    monkeypatch.setenv("BNSUITE_ASV_SCHEMES", f"batchnorm,{folder}")
    monkeypatch.delitem(sys.modules, "benchmarks.ranked")
    few = importlib.import_module("benchmarks.ranked")
    benchmarks = {one.name: one for one in disc_benchmarks(str(ROOT / "benchmarks"))}
    assert few is not ranked
    rows = _rows(benchmarks["ranked.track_max_depth"])
    assert [values for values, _ in rows] == [("batchnorm",), ("row-of-mine",)]
    assert [getattr(scheme, "name", scheme) for scheme in asked[0]["schemes"]] == ["batchnorm", "mine"]


@pytest.mark.parametrize(
    ("asked_for", "message"),
    [
        ("batchnrm", "Did you mean batchnorm"),
        ("no/such/folder", "unknown scheme"),
        ("none,none", "'none' twice"),
        ("{}/none", "'none' twice"),
    ],
)
def test_rows_that_cannot_be_are_refused(
    ranked: ModuleType, tmp_path: Path, asked_for: str, message: str
) -> None:
    (tmp_path / "none").mkdir()
    with pytest.raises(ValueError, match=message):
        ranked.chosen(asked_for.format(tmp_path))
