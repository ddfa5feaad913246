"""speedrun: it learns, is reproducible, uses the scheme, whitens, and refuses what it cannot train."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bnsuite.datasets import Dataset, standardize
from bnsuite.engine.lanes import Examples
from bnsuite.networks import FAMILIES, UnsupportedError
from bnsuite.networks.recipe import RecipeNetwork, build
from bnsuite.norms import LayerNorm
from bnsuite.profiles import load_profile
from bnsuite.records import Measurement, Outcome
from bnsuite.schemes import SCHEMES, Scheme
from bnsuite.specs import RANKED
from bnsuite.tasks import Subject, speedrun
from bnsuite.tasks.speedrun import Speedrun, look_back, triangle

TASK = Speedrun(width=8, batch=16, tuning=(), confirmation=(101, 102), epochs=6, rate=0.5, shift_rate=4)
SHAPE = torch.Size((3, 16, 16))


def patches(seed: int = 1, side: int = 16) -> Dataset:
    """Draw four classes, each with a colour; 64 images to train and 32 to test."""
    draw = torch.Generator().manual_seed(seed)
    colours = 2 * torch.randn(4, 3, 1, 1, generator=torch.Generator().manual_seed(3))

    def part(n: int) -> tuple[Tensor, Tensor]:
        y = torch.arange(n) % 4
        return colours[y] + torch.randn(n, 3, side, side, generator=draw), y

    return standardize("patches", part(64), part(32))


def subject(scheme: str | Scheme = "batchnorm", family: str = "cnn", **data: int) -> Subject:
    found = SCHEMES[scheme] if isinstance(scheme, str) else scheme
    return Subject(found, FAMILIES[family], patches(**data))


@pytest.fixture(scope="module")
def found() -> Measurement:
    return TASK(subject())


@pytest.mark.parametrize(
    "change", [{"smoothing": 0.0}, {"translation": 0}, {"momentum": 0.0}, {"decay": 0.1}, {"shift_rate": 1.0}]
)
def test_every_part_of_the_recipe_counts(change: dict[str, Any]) -> None:
    short = replace(TASK, confirmation=(101,), epochs=1)
    assert losses(replace(short, **change)(subject())) != losses(short(subject()))


def losses(measured: Measurement, seed: int = 0) -> list[float]:
    return measured.trace[seed]["loss"]  # type: ignore[return-value]


def test_the_recipe_learns(found: Measurement) -> None:
    assert "speedrun" not in RANKED
    assert found.outcome is Outcome.OK
    assert [sample.seed for sample in found.samples] == [101, 102]
    assert all(sample.value is not None and sample.value > 0.8 for sample in found.samples)
    assert all(losses(found, i)[-1] < 0.8 * losses(found, i)[0] for i in range(2))
    assert (found.derived["precision"], found.derived["compiled"]) == ("float32", False)
    assert all(found.derived[key] > 0 for key in ("train_s", "eval_s", "examples_per_s"))  # type: ignore[operator]


def test_a_seed_repeats_itself_alone_and_in_company(found: Measurement) -> None:
    alone = replace(TASK, confirmation=(102,))(subject())
    assert losses(alone) == losses(found, 1)
    assert losses(alone) != losses(found, 0)
    assert alone.samples[0] == found.samples[1]


def test_the_warm_up_leaves_the_network_as_it_was() -> None:
    network, data = build(SCHEMES["batchnorm"], 4, SHAPE, 4, seed=1), patches()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    TASK._warm_up(subject(), network, Examples(data.train_x, data.train_y, 16))
    after = network.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_what_a_module_draws_is_drawn_from_the_seed() -> None:
    def drop(num_features: int) -> nn.Module:
        return nn.Dropout(0.5)

    task, found = replace(TASK, confirmation=(101,), epochs=1), []
    for state in (1, 2):
        with torch.random.fork_rng():
            torch.manual_seed(state)
            found.append(losses(task(subject(Scheme("drop", drop)))))
            assert torch.random.initial_seed() == state
    assert found[0] == found[1]


@pytest.mark.parametrize("scheme", ["none", "frn", "weightnorm", "groupnorm-ws", "layernorm"])
def test_a_scheme_fills_the_slots(scheme: str, found: Measurement) -> None:
    other = replace(TASK, confirmation=(101,), epochs=1, rate=0.1)(subject(scheme))
    assert other.outcome is Outcome.OK
    assert losses(other)[0] != losses(found)[0]


def test_the_slots_of_a_scheme() -> None:
    def mark(layer: nn.Module) -> nn.Module:
        return nn.Sequential(layer)

    def quiet(network: nn.Module) -> None:
        nn.init.zeros_(network.head.weight)  # type: ignore[union-attr, arg-type]

    scheme = Scheme("own", LayerNorm, weight=mark, init=quiet, activation=lambda num_features: nn.Tanh())
    network = build(scheme, 4, SHAPE, 10, seed=1)
    assert [norm.weight.shape[0] for norm in network.norms] == [4, 4, 16, 16, 16, 16]  # type: ignore
    assert all(isinstance(norm, LayerNorm) for norm in network.norms)
    assert [type(phi) for phi in network.activations] == [nn.Tanh] * 7
    assert [type(layer) for layer in network.layers] == [nn.Sequential] * 6
    assert not network.head.weight.any()
    plain = build(SCHEMES["none"], 4, SHAPE, 10, seed=1)
    assert all(layer.bias is not None for layer in plain.layers)
    normed = build(SCHEMES["batchnorm"], 4, SHAPE, 10, seed=1)
    assert all(layer.bias is None for layer in normed.layers)
    for plain_layer, normed_layer in zip(plain.layers, normed.layers, strict=True):
        assert torch.equal(plain_layer.weight, normed_layer.weight)  # type: ignore[arg-type]


def test_the_first_filters_pass_an_input_on() -> None:
    network = build(SCHEMES["none"], 4, SHAPE, 10, seed=1)
    x = torch.randn(2, 4, 6, 6)
    wide = network.layers[2](x)
    assert torch.allclose(wide[:, :4], x)
    assert torch.isclose(network.layers[3].weight.flatten(1).norm(dim=1).mean(), torch.tensor(1.0), atol=0.1)  # type: ignore


def whitened(network: RecipeNetwork, images: Tensor) -> Tensor:
    outputs = network.whiten(images)
    return torch.cov(outputs.movedim(1, -1).flatten(0, 2).mT)


def test_whitened_patches_have_identity_covariance() -> None:
    network = build(SCHEMES["batchnorm"], 4, SHAPE, 10, seed=1)
    mix = torch.tensor([[1.0, 0.5, 0.2], [0.0, 1.0, 0.7], [0.0, 0.0, 1.0]])
    images = 10 * torch.einsum("dc,nchw->ndhw", mix, torch.randn(40, 3, 16, 16).cumsum(-1) / 4)
    assert not torch.allclose(whitened(network, images)[:12, :12], torch.eye(12), atol=1)
    network.whiten.fit(images)
    patches = whitened(network, images)
    assert torch.allclose(patches[:12, :12], torch.eye(12), atol=1e-3)
    assert torch.allclose(patches[:12, 12:], -patches[:12, :12])
    assert not [name for name, _ in network.named_parameters() if "whiten" in name]


def test_the_rate_rises_to_its_peak_and_falls_to_zero() -> None:
    factors = [triangle(step, 10, 0.3) for step in range(10)]
    assert factors == pytest.approx([1 / 6, 3 / 6, 5 / 6, *(k / 14 for k in (13, 11, 9, 7, 5, 3, 1))])


def test_shifts_take_the_larger_rate_and_weights_alone_decay() -> None:
    network = build(SCHEMES["frn"], 4, SHAPE, 10, seed=1)
    weights, shifts, gains = TASK._optimizer(network).param_groups
    assert (weights["lr"], shifts["lr"], gains["lr"]) == (0.5, 2.0, 0.5)
    assert (weights["weight_decay"], shifts["weight_decay"], gains["weight_decay"]) == (1.3e-3, 0, 0)
    assert len(weights["params"]) == 7
    assert len(shifts["params"]) == 6
    held = sum(len(group["params"]) for group in (weights, shifts, gains))
    assert held == len(list(network.parameters()))


def test_lookahead_moves_both_to_the_average() -> None:
    network = nn.Linear(1, 1, bias=False)
    nn.init.constant_(network.weight, 3.0)
    slow = {"weight": torch.tensor([[1.0]])}
    look_back(network, slow, 0.75)
    assert network.weight.item() == slow["weight"].item() == 1.5


def test_the_test_goes_in_parts_and_knows_no_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    network, x = build(SCHEMES["batchnorm"], 4, SHAPE, 4, seed=1), patches().test_x
    whole = TASK.evaluate(network, x)
    assert torch.allclose(TASK.evaluate(network, x.flip(-1)), whole, atol=1e-6)
    assert not torch.allclose(network(x), whole, atol=1e-3)
    monkeypatch.setattr(speedrun, "AT_ONCE", 10)
    assert torch.allclose(TASK.evaluate(network, x), whole, atol=1e-6)


def test_half_precision_is_that_of_activations() -> None:
    half = replace(TASK, confirmation=(101,), precision="bfloat16", epochs=3)
    measured = half(subject())
    assert measured.derived["precision"] == "bfloat16"
    assert measured.outcome is Outcome.OK
    assert losses(measured) != losses(replace(half, precision="float32")(subject()))
    assert losses(measured)[-1] < losses(measured)[0]


def test_a_loss_that_leaves_the_finite_numbers_is_nonfinite() -> None:
    measured = replace(TASK, rate=1e30, epochs=1)(subject("none"))
    assert (measured.value, measured.outcome) == (None, Outcome.NONFINITE)


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (lambda: subject("residual-batchnorm"), "residual-batchnorm has residual paths"),
        (lambda: subject(family="mlp"), "of its own, family cnn: got mlp"),
        (lambda: subject(side=8), "images of 16×16 at least: got 8×8"),
        (lambda: subject("instancenorm"), "instancenorm cannot be used in speedrun: .*"),
        (lambda: subject(Scheme("odd", lambda n: nn.GroupNorm(3, n))), "odd cannot be built for speedrun"),
    ],
)
def test_what_it_cannot_take_is_unsupported(made: Callable[[], Subject], reason: str) -> None:
    with pytest.raises(UnsupportedError, match=reason):
        TASK(made())


@pytest.mark.parametrize("wrong", [{"precision": "half"}, {"peak": 1.0}, {"epochs": 0.0}, {"width": 0}])
def test_settings_that_cannot_be(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"(precision|peak|epochs|width) of speedrun: got .*, wanted"):
        replace(TASK, **wrong)


def test_the_profile_asks_for_it_where_there_are_photographs() -> None:
    standard = load_profile("standard")
    assert [family for family in standard.families if standard.asks("speedrun", family)] == ["cnn"]
    task = Speedrun(**standard.settings("speedrun", "cnn"))
    assert (task.width, task.batch) == (64, 1024)
    assert json.loads(json.dumps(task.settings)) == task.settings
    assert all("speedrun" not in load_profile(name).tasks for name in ("smoke", "quick"))


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU: compiling and half precision need one")
def test_compiled_on_a_gpu() -> None:
    on = replace(subject(), data=patches().to("cuda"))
    measured = replace(TASK, confirmation=(101,))(on)
    assert (measured.derived["precision"], measured.derived["compiled"]) == ("bfloat16", True)
    assert measured.value is not None
    assert measured.value > 0.8
