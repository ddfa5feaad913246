"""Profiles: all load, every task can be built from every one, budgets as promised."""

import json
from itertools import product

import pytest
import torch
from pydantic import ValidationError

from bnsuite.datasets import DATASETS, DataError, Dataset, Source
from bnsuite.engine.lanes import Lane
from bnsuite.execute import plan as planning
from bnsuite.names import UnknownNameError
from bnsuite.networks import FAMILIES
from bnsuite.profiles import Profile, load_profile, profile_names
from bnsuite.schemes import REFERENCES, SCHEMES
from bnsuite.specs import RANKED
from bnsuite.tasks import TASKS, Subject
from bnsuite.tasks.max_depth import MaxDepth

NAMES = ["smoke", "quick", "standard", "full"]
EVERY = pytest.mark.parametrize("name", NAMES)


def test_all_are_found() -> None:
    assert profile_names() == NAMES


@EVERY
def test_every_task_can_be_built(name: str) -> None:
    profile = load_profile(name)
    assert profile.name == name
    assert set(profile.tasks) >= set(RANKED)
    for task in profile.tasks:
        for family in filter(lambda family: profile.asks(task, family), profile.families):
            built = TASKS[task](**profile.settings(task, family))  # type: ignore[arg-type]
            if task in RANKED:
                assert built.width == profile.families[family].width
                assert built.batch == profile.families[family].batch
            assert built.confirmation == profile.seeds.confirmation
            assert built.tuning == profile.seeds.tuning
            hash(built)


@EVERY
def test_what_is_named_exists(name: str) -> None:
    profile = load_profile(name)
    assert set(profile.schemes) <= set(SCHEMES)
    assert set(REFERENCES) <= set(profile.schemes)
    assert set(profile.families) <= set(FAMILIES)
    assert set(profile.datasets) <= set(DATASETS)


@EVERY
def test_seeds_are_apart(name: str) -> None:
    seeds = load_profile(name).seeds
    assert not set(seeds.tuning) & set(seeds.confirmation)
    assert len(set(seeds.tuning)) == len(seeds.tuning) >= 1
    assert len(set(seeds.confirmation)) == len(seeds.confirmation) >= 2
    assert len(seeds.confirmation) >= 6 or name == "smoke"


def test_smoke_touches_both_families() -> None:
    smoke = load_profile("smoke")
    assert smoke.default_families == ("mlp", "cnn")
    assert "transformer" in smoke.families
    assert all(smoke.asks(task, "mlp") for task in RANKED)
    assert any(smoke.asks(task, "cnn") for task in RANKED)


def test_quick_is_as_the_protocol_has_it() -> None:
    quick = load_profile("quick")
    assert len(quick.seeds.confirmation) >= 6
    assert len(quick.seeds.tuning) == 2
    assert (quick.families["mlp"].width, quick.families["mlp"].batch) == (64, 128)
    tasks = {task: TASKS[task](**quick.settings(task, "mlp")) for task in RANKED}  # type: ignore[arg-type]
    depth, rate, sharp, race = (tasks[task].settings for task in RANKED)
    assert (depth["depths"], depth["steps"], depth["target"], depth["ratio"]) == ([4, 128], 200, 0.8, 1.13)
    assert depth["rates"] == [3.2e-3, 1e-2, 3.2e-2, 0.1, 0.32, 1.0, 3.2]
    assert (rate["depth"], rate["steps"], rate["per_decade"]) == (8, 100, 12)
    assert rate["rates"] == [1e-4, 3.2e-4, 1e-3, 3.2e-3, 1e-2, 3.2e-2, 0.1, 0.32, 1.0, 3.2, 10.0, 32.0, 100.0]
    assert [sharp[name] for name in ("depth", "rate", "steps", "tolerance")] == [8, 0.01, 400, 1e-3]
    assert [race[name] for name in ("depth", "target", "steps", "every")] == [8, 0.95, 400, 2]
    assert (race["momentum"], race["warmup"]) == (0.9, 20)
    assert race["rates"] == [2.0**k for k in range(-8, 1)]


def small_cifar() -> Dataset:
    draw = torch.Generator().manual_seed(0)
    images = torch.randn(48, 3, 32, 32, generator=draw)
    return Dataset(
        "cifar10", images[:32], torch.arange(32) % 10, images[32:], torch.arange(16) % 10, classes=10
    )


def test_standard_is_planned_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "find", lambda name: Source(name, "0" * 64))
    jobs = planning.plan("standard", None, None, None, None, "cuda")
    cells = {(job.cell.task, job.cell.scheme, job.cell.family, job.cell.dataset) for job in jobs}
    assert cells == set(product(RANKED, REFERENCES, ["mlp", "cnn"], ["cifar10"]))
    for job in jobs:
        again = planning.job_of(job.cell, json.loads(json.dumps(job.task.settings)), job.scheme, job.data)
        assert (again.task, again.key) == (job.task, job.key)
        for name, value in job.task.settings.items():
            written = ",".join(map(str, value)) if isinstance(value, list) else str(value)
            parsed = job.task.parse(name, written)
            assert (list(parsed) if isinstance(parsed, tuple) else parsed) == value


@pytest.mark.parametrize("family", ["mlp", "cnn"])
@pytest.mark.parametrize("scheme", REFERENCES)
def test_networks_of_standard_train(family: str, scheme: str) -> None:
    settings = load_profile("standard").settings("max_depth", family)
    task = MaxDepth(**{**settings, "batch": 4})
    subject = Subject(SCHEMES[scheme], FAMILIES[family], small_cifar())
    for depth in (task.depths[0], 32):
        curves = task.sweep(subject, depth, [Lane(1, task.rates[0])], 1)
        assert curves.losses.shape == (1, 1)
        assert bool(torch.isfinite(curves.losses).all())
    network = subject.network(task.depths[0], task.width, 1)
    assert {p.shape[0] for layer in network.weights() for p in layer} == {task.width}


def test_a_family_overrides_what_is_common() -> None:
    profile = load_profile("smoke").model_copy(
        update={"tasks": {"stable_lr": {"rates": [0.1, 1.0], "depth": 4, "cnn": {"depth": 2}}}}
    )
    assert profile.settings("stable_lr", "mlp")["depth"] == 4
    own = profile.settings("stable_lr", "cnn")
    assert (own["depth"], own["rates"]) == (2, (0.1, 1.0))
    assert "cnn" not in own


def test_unknown_names_and_settings() -> None:
    with pytest.raises(UnknownNameError, match=r"'quik'. Did you mean quick\? There are: smoke, quick"):
        load_profile("quik")
    with pytest.raises(TypeError, match="surprise"):
        TASKS["stable_lr"](**load_profile("smoke").settings("stable_lr", "mlp"), surprise=1)  # type: ignore


def test_a_task_of_another_profile_is_told_with_that_profile() -> None:
    with pytest.raises(ValueError, match="profile smoke has no task 'speedrun': --profile standard has it"):
        planning.plan("smoke", ["speedrun"], None, None, None, "cpu")


def test_a_data_set_smaller_than_a_batch_is_refused_before_anything_is_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        planning, "find", lambda name: Source(name, "0" * 64, train_counts=(60, 60), test_counts=(30, 30))
    )
    with pytest.raises(DataError, match=r"digits: has 120 images .* batch of 128 of .* at most 120"):
        planning.plan("smoke", None, None, None, None, "cpu")
    assert planning.plan("smoke", None, None, None, None, "cpu", {"batch": "120"})
    assert planning.plan("quick", ["layer_cost"], None, None, None, "cpu", {"batch": "4096"}), "draws none"


def test_shared_seeds_are_refused() -> None:
    data = load_profile("quick").model_dump()
    data["seeds"]["tuning"] = [1, 101]
    with pytest.raises(ValidationError, match="tuning and confirmation seeds are disjoint"):
        Profile(**data)
    task = load_profile("quick").settings("stable_lr", "mlp") | {"tuning": (1, 101)}
    with pytest.raises(ValueError, match=r"disjoint: both hold \[101\]"):
        TASKS["stable_lr"](**task)  # type: ignore[arg-type]
