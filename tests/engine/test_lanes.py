"""Lanes and the single loop give the same curve; lanes do not influence one another."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from calm import assert_calm
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector

from bnsuite.datasets import digits
from bnsuite.engine import memory
from bnsuite.engine.lanes import Curves, Examples, Lane, final_mean, sweep
from bnsuite.engine.stack import Stack
from bnsuite.engine.train import PLAIN, Sgd, train
from bnsuite.networks import FAMILIES, softplus
from bnsuite.schemes import REFERENCES, SCHEMES, Scheme

STEPS = 10
DEPTH = {"mlp": 8, "cnn": 4, "transformer": 3}
CALM = {"mlp": (0.1, 0.01), "cnn": (0.1, 0.01), "transformer": (0.003, 0.001)}
"""Two rates per family at which even `none` is calm (see `assert_calm`)."""
DEADLY = math.inf
NESTEROV = Sgd(momentum=0.9, warmup=5)
SCHEME = pytest.mark.parametrize("scheme", [SCHEMES[name] for name in REFERENCES], ids=REFERENCES)
FAMILY = pytest.mark.parametrize("family", FAMILIES)
STACKED = pytest.mark.parametrize("stacked", [True, False], ids=["stacked", "lane by lane"])


def examples() -> Examples:
    data = digits()
    return Examples(data.train_x[:64].double(), data.train_y[:64], batch=16)


def builder(
    scheme: Scheme, family: str = "mlp", activation: Any = None, depth: int = 0
) -> Callable[[int], nn.Module]:
    def build(seed: int) -> nn.Module:
        network = FAMILIES[family].build(
            scheme,
            depth or DEPTH[family],
            width=6,
            shape=digits().shape,
            classes=10,
            seed=seed,
            activation=activation,
        )
        return network.double()

    return build


def alone(build: Callable[[int], nn.Module], lane: Lane, sgd: Sgd = PLAIN) -> tuple[Tensor, nn.Module]:
    """Losses of the loop over one network, and the network."""
    data, network = examples(), build(lane.seed)
    order = data.order(lane.seed, STEPS)
    return train(network, [(data.x[row], data.y[row]) for row in order], lane.rate, sgd), network


def together(
    build: Callable[[int], nn.Module], lanes: Sequence[Lane], stacked: bool, sgd: Sgd = PLAIN
) -> tuple[Curves, dict[Lane, nn.Module]]:
    """Curves of the lanes, and their networks after the last step."""
    networks: dict[Lane, nn.Module] = {}

    def watch(step: int, stack: Stack, rows: list[Lane], losses: Tensor) -> list[int]:
        if step == STEPS:
            networks.update({lane: stack.network(i) for i, lane in enumerate(rows)})
        return []

    return sweep(build, lanes, examples(), STEPS, stacked=stacked, sgd=sgd, watch=watch), networks


@SCHEME
@FAMILY
@STACKED
@pytest.mark.parametrize("sgd", [PLAIN, NESTEROV], ids=["plain", "nesterov"])
def test_lanes_and_the_single_loop_give_the_same_curve(
    scheme: Scheme, family: str, stacked: bool, sgd: Sgd
) -> None:
    build, (high, low) = builder(scheme, family), CALM[family]
    lanes = [Lane(1, high), Lane(1, low), Lane(2, high)]
    curves, networks = together(build, lanes, stacked, sgd)
    assert_calm(curves.losses)
    for i, lane in enumerate(lanes):
        losses, network = alone(build, lane, sgd)
        assert torch.allclose(curves.losses[:, i], losses, rtol=1e-9, atol=1e-12)
        expected = network.state_dict()
        found = networks[lane].state_dict()
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            assert torch.allclose(found[name], value, rtol=1e-7, atol=1e-9), name
        if "batchnorm" in scheme.name:
            assert any("running_var" in name for name in found)
            assert all(int(value) == STEPS for name, value in found.items() if "tracked" in name)


@SCHEME
@FAMILY
@STACKED
def test_a_lane_that_dies_leaves_the_others_as_they_are(scheme: Scheme, family: str, stacked: bool) -> None:
    build, (high, low) = builder(scheme, family, depth=3), CALM[family]
    lanes = [Lane(1, high), Lane(2, 1e12), Lane(2, high), Lane(1, DEADLY), Lane(3, low), Lane(3, 1e100)]
    curves, networks = together(build, lanes, stacked)
    for i, lane in enumerate(lanes):
        own, own_networks = together(build, [lane], stacked)
        if lane.rate in (high, low):
            assert_calm(curves.losses[:, i])
        if lane.rate in (high, low, DEADLY):  # rounding grows without bound where a curve explodes
            assert torch.allclose(curves.losses[:, i], own.losses[:, 0], rtol=1e-9, equal_nan=True)
            assert torch.equal(curves.accuracies[:, i].isnan(), own.accuracies[:, 0].isnan())
        living = torch.isfinite(curves.losses[:, i])
        assert bool(living[:-1].all()) == (lane in networks)  # `watch` comes before the look at the last loss
        assert bool(torch.isfinite(own.losses[:-1]).all()) == (lane in own_networks)
        assert lane.rate < DEADLY or not living.all()
        assert lane.rate > 1 or living.all()
        if lane.rate < 1:  # and it keeps its own running statistics
            own_state, state = own_networks[lane].state_dict(), networks[lane].state_dict()
            assert all(torch.allclose(state[name], own_state[name], rtol=1e-7) for name in own_state)
        end = int(living.sum())
        assert bool(living[:end].all())
        assert end >= 1
        assert curves.accuracies[end:, i].isnan().all()
        assert curves.losses[end + 1 :, i].isnan().all()


def test_all_dead_is_an_end() -> None:
    seen: list[int] = []

    def watch(step: int, stack: Stack, rows: list[Lane], losses: Tensor) -> list[int]:
        seen.append(len(rows))
        return []

    lanes = [Lane(1, DEADLY), Lane(2, DEADLY)]
    curves = sweep(builder(SCHEMES["none"]), lanes, examples(), STEPS, stacked=True, watch=watch)
    assert len(seen) < STEPS
    assert curves.losses[-1].isnan().all()


@STACKED
def test_a_lane_that_is_let_go_ends_there(stacked: bool) -> None:
    build = builder(SCHEMES["batchnorm"])
    lanes = [Lane(1, 0.1), Lane(2, 0.1), Lane(3, 0.1)]
    watched: list[tuple[int, list[Lane]]] = []

    def watch(step: int, stack: Stack, rows: list[Lane], losses: Tensor) -> list[int]:
        watched.append((step, list(rows)))
        assert losses.shape == (step, len(rows)) == (step, len(stack))
        return [1] if step == 4 else []

    curves = sweep(build, lanes, examples(), STEPS, stacked=stacked, sgd=NESTEROV, watch=watch)
    assert watched[3:5] == [(4, lanes), (5, [lanes[0], lanes[2]])]
    assert len(watched) == STEPS
    everyone, _ = together(build, lanes, stacked, NESTEROV)
    assert_calm(everyone.losses)
    assert torch.allclose(curves.losses[:, [0, 2]], everyone.losses[:, [0, 2]], rtol=1e-9)
    assert torch.allclose(curves.losses[:4, 1], everyone.losses[:4, 1], rtol=1e-9)
    assert curves.losses[4:, 1].isnan().all()
    assert curves.accuracies[4:, 1].isnan().all()


@STACKED
def test_more_lanes_than_fit_run_in_turn(stacked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    build = builder(SCHEMES["batchnorm"])
    lanes = [Lane(seed, rate) for rate in (0.1, DEADLY, 0.01) for seed in (1, 2)]
    whole, _ = together(build, lanes, stacked)
    assert_calm(whole.losses[:, [0, 1, 4, 5]])
    monkeypatch.setattr(memory, "CPU_LANES", 2)
    parts, networks = together(build, lanes, stacked)
    assert torch.allclose(parts.losses, whole.losses, rtol=1e-9, equal_nan=True)
    assert torch.allclose(parts.accuracies, whole.accuracies, equal_nan=True)
    assert set(networks) == {lane for lane in lanes if lane.rate != DEADLY}


def test_accuracy_is_that_of_the_batch_before_the_step_in_the_last_tenth() -> None:
    build, lane, steps = builder(SCHEMES["layernorm"], activation=softplus), Lane(1, 0.1), 20
    curves = sweep(build, [lane], examples(), steps, stacked=True)
    data, network = examples(), build(lane.seed)
    batches = [(data.x[row], data.y[row]) for row in data.order(lane.seed, steps)]
    train(network, batches[:18], lane.rate)
    expected = []
    for x, y in batches[18:]:
        expected.append(float((network(x).argmax(-1) == y).double().mean()))
        train(network, [(x, y)], lane.rate)
    assert curves.accuracies[18:, 0].tolist() == expected
    assert curves.accuracies[:18].isnan().all()
    assert curves.losses.dtype == curves.accuracies.dtype == torch.float64


def test_two_schemes_at_one_seed_see_the_same_batches() -> None:
    seen: dict[str, list[Tensor]] = {}
    for name in ("none", "batchnorm"):
        build = builder(SCHEMES[name])
        seen[name] = []

        def recording(seed: int, build: Any = build, name: str = name) -> nn.Module:
            network = build(seed)
            stem, taken = network.stem, seen[name]
            stem.register_forward_hook(
                lambda module, inputs, output: taken.append(inputs[0].detach().clone())
            )
            return network

        sweep(recording, [Lane(5, 0.01)], examples(), 6, stacked=False)
    assert len(seen["none"]) == 6
    assert all(torch.equal(*pair) for pair in zip(seen["none"], seen["batchnorm"], strict=True))


def test_order_runs_through_epochs_of_permutations() -> None:
    data = Examples(torch.zeros(50, 1), torch.zeros(50), batch=16)
    order = data.order(seed=3, steps=7)
    assert order.shape == (7, 16)
    for epoch in (order[:3], order[3:6]):
        assert len(set(epoch.flatten().tolist())) == 48
    assert not torch.equal(order[:3], order[3:6])
    assert torch.equal(order, data.order(3, 7))
    assert torch.equal(order[:5], data.order(3, 5))
    assert not torch.equal(order, data.order(4, 7))
    state = torch.get_rng_state()
    data.order(3, 7)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_batch_larger_than_the_set_is_refused() -> None:
    with pytest.raises(ValueError, match="a batch of 9 needs as many examples: got 8"):
        Examples(torch.zeros(8, 1), torch.zeros(8), batch=9).order(0, 1)


@STACKED
@SCHEME
def test_evaluation_uses_running_statistics(scheme: Scheme, stacked: bool) -> None:
    build = builder(scheme)
    lanes = [Lane(1, 0.1), Lane(2, 0.05)]
    logits: list[Tensor] = []
    x = digits().test_x[:20].double()

    def watch(step: int, stack: Stack, rows: list[Lane], losses: Tensor) -> list[int]:
        if step == 5:  # must not disturb the training that goes on
            stack.evaluate(x)
        if step == STEPS:
            logits.append(stack.evaluate(x))
        return []

    assert_calm(sweep(build, lanes, examples(), STEPS, stacked=stacked, watch=watch).losses)
    assert logits[0].shape == (2, 20, 10)
    for i, lane in enumerate(lanes):
        _, network = alone(build, lane)
        assert torch.allclose(logits[0][i], network.eval()(x), rtol=1e-7, atol=1e-9)


@STACKED
def test_a_network_taken_from_a_stack_is_its_own(stacked: bool) -> None:
    build = builder(SCHEMES["batchnorm"])
    stack = Stack([build(1), build(2)], [1, 2], stacked=stacked)
    taken, fresh = stack.network(1), parameters_to_vector(build(2).parameters())
    assert torch.equal(parameters_to_vector(taken.parameters()), fresh)
    with torch.no_grad():
        for value in taken.state_dict().values():
            value.fill_(7)
    assert torch.equal(torch.cat([p[1].flatten() for p in stack.params.values()]), fresh)
    assert torch.equal(parameters_to_vector(stack.network(1).parameters()), fresh)
    assert float(stack.network(1).norms[0].running_var[0]) == 1


@pytest.mark.parametrize(("steps", "tail"), [(1, 1), (10, 1), (11, 2), (100, 10), (200, 20)])
def test_final_is_the_mean_of_the_last_tenth(steps: int, tail: int) -> None:
    curve = torch.arange(2 * steps, dtype=torch.float64).view(steps, 2)
    assert final_mean(curve) == pytest.approx(curve[-tail:].mean(0).tolist())
    curve[-1, 0] = math.nan
    assert math.isnan(final_mean(curve)[0])
    assert math.isfinite(final_mean(curve)[1])
