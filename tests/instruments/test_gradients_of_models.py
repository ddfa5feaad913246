"""The gradient profile of a person's own model, against torch's own backward and the suite's task."""

import copy
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from own_models import Batches, double, gpt, images, of_tokens, resnet, sentences
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

import bnsuite
from bnsuite.datasets import digits
from bnsuite.instruments.gradient_growth import GradientProfile, Layer
from bnsuite.networks import FAMILIES
from bnsuite.schemes import SCHEMES
from bnsuite.tasks._initial import backward


def by_retaining(
    model: nn.Module, loss: Callable[..., Tensor], batches: Batches, names: list[str]
) -> list[tuple[float, float]]:
    """Squares of ∂L/∂h and ∂L/∂W by `backward()` of one minibatch after the other."""
    model = copy.deepcopy(model).double()
    outputs: dict[str, Tensor] = {}
    for name in names:
        model.get_submodule(name).register_forward_hook(
            lambda module, args, output, name=name: outputs.update({name: output})
        )
    hidden, examples = dict.fromkeys(names, 0.0), sum(len(y) for _, y in batches)
    for x, y in batches:
        value = loss(model(double(x)), y) * len(y) / examples
        for output in outputs.values():
            output.retain_grad()
        value.backward()  # type: ignore[no-untyped-call]
        for name, output in outputs.items():
            assert output.grad is not None
            hidden[name] += float(output.grad.square().sum())
    weights = [model.get_submodule(name).weight.grad for name in names]
    return [
        (hidden[name], float(g.square().sum()))  # type: ignore[union-attr, operator]
        for name, g in zip(names, weights, strict=True)
    ]


RESNET = [
    *("0.0", "2.conv1", "2.conv2", "3.conv1", "3.conv2", "4.conv1", "4.conv2", "4.downsample.0"),
    *("5.conv1", "5.conv2", "6.2"),
]
GPT = [
    "tokens",
    *(f"layers.{i}.{name}" for i in (0, 1) for name in ("attention.qkv", "attention.out", "mlp.0", "mlp.2")),
    "head",
]


@pytest.mark.parametrize(
    ("build", "loss", "batches", "names"),
    [
        (resnet, F.cross_entropy, images(6), RESNET),
        (resnet, F.cross_entropy, images(6, 4), RESNET),
        (gpt, of_tokens, sentences(4), GPT),
    ],
)
def test_every_layer_in_the_order_of_calls(
    build: Callable[[], nn.Module], loss: Callable[..., Tensor], batches: Batches, names: list[str]
) -> None:
    found = bnsuite.gradient_growth(build(), loss, batches)
    assert [layer.name for layer in found.layers] == names
    truth = by_retaining(build(), loss, batches, names)
    for layer, (hidden, weights) in zip(found.layers, truth, strict=True):
        assert layer.hidden == pytest.approx(hidden, rel=1e-9)
        assert layer.weights == pytest.approx(weights, rel=1e-9)


@pytest.mark.parametrize("scheme", ["none", "batchnorm"])
def test_the_suites_own_task(scheme: str) -> None:
    data = digits()
    network = (
        FAMILIES["mlp"].build(SCHEMES[scheme], 6, width=16, shape=data.shape, classes=10, seed=1).double()
    )
    x, y = data.train_x[:32].double(), data.train_y[:32]
    theirs = backward(network, x, y)
    ours = bnsuite.gradient_growth(network, F.cross_entropy, (x, y), layers=[*network.gains])
    for name in ("hidden", "weights"):
        expected = [float(g.square().sum()) for g in getattr(theirs, name)]
        assert [getattr(layer, name) for layer in ours.layers] == pytest.approx(expected, rel=1e-9)
    line = np.polyfit(range(6), np.log([layer.hidden for layer in ours.layers]), 1)
    assert ours.growth == pytest.approx(math.exp(-line[0]))


def test_an_activation_in_place_changes_nothing() -> None:
    def vgg(in_place: bool) -> nn.Module:
        torch.manual_seed(0)
        pairs = [(nn.Conv2d(1, 1, 3, padding=1), nn.ReLU(in_place)) for _ in range(3)]
        return nn.Sequential(*(part for pair in pairs for part in pair), nn.Flatten(), nn.Linear(25, 3))

    found = [bnsuite.gradient_growth(vgg(in_place), F.cross_entropy, images(6)) for in_place in (True, False)]
    assert found[0] == found[1]


def chain(factors: list[float], last: float = 1.0) -> nn.Sequential:
    layers = [nn.Linear(1, 1, bias=False) for _ in [*factors, last]]
    for layer, factor in zip(layers, [*factors, last], strict=True):
        nn.init.constant_(layer.weight, factor)
    return nn.Sequential(*layers)


ONE = (torch.ones(1, 1), torch.zeros(1, 1))


def test_the_rate_and_its_residual() -> None:
    """∂L/∂h_l = 2 h_L Π_{k > l} w_k: logarithms off a line by ± c have a residual that is known."""
    found = bnsuite.gradient_growth(chain([1.0, 3.0, 3.0]), nn.MSELoss(), ONE, layers=["0", "1", "2"])
    assert found.growth == pytest.approx(9)
    assert found.residual == pytest.approx(0, abs=1e-9)
    bent = bnsuite.gradient_growth(chain([1.0, 1.0, math.e]), nn.MSELoss(), ONE, layers=["0", "1", "2"])
    assert bent.growth == pytest.approx(math.e)
    assert bent.residual == pytest.approx(math.sqrt(2) / 3)  # left over: 1/3, −2/3, 1/3 of ln e²


def test_a_gradient_of_zero_has_no_rate() -> None:
    found = bnsuite.gradient_growth(chain([2.0, 2.0], last=0.0), nn.MSELoss(), (ONE[0], ONE[0]))
    assert (found.growth, found.residual) == (None, None)
    assert "3 layers, no rate: a gradient is 0 or not finite" in str(found)


def test_blocks_frozen_layers_and_shared_ones() -> None:
    model = resnet()
    model[2].requires_grad_(False)
    free = bnsuite.gradient_growth(resnet(), F.cross_entropy, images(6), layers=["2", "3", "4", "5"])
    found = bnsuite.gradient_growth(model, F.cross_entropy, images(6), layers=["2", "3", "4", "5"])
    assert found == free
    shared = nn.Linear(1, 1, bias=False)
    nn.init.constant_(shared.weight, 2.0)
    twice = bnsuite.gradient_growth(
        nn.Sequential(shared, nn.Identity(), shared, chain([1.0])), nn.MSELoss(), ONE, layers=["0", "1"]
    )
    # h = 2, 2, 4, …: ∂L/∂h = 16, 16, 8; the two calls together; ∂L/∂w = 16 + 8 · 2
    assert twice.layers == (Layer("0", 16.0**2 + 8.0**2, 32.0**2), Layer("1", 16.0**2, None))


def test_parametrized_weights_and_tuples() -> None:
    torch.manual_seed(0)
    attention = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True)
    model = nn.Sequential(weight_norm(nn.Linear(4, 4)), attention, nn.Flatten(), nn.Linear(12, 3))
    x = torch.randn(5, 3, 4)
    found = bnsuite.gradient_growth(model, F.cross_entropy, (x, torch.arange(5) % 3))
    names = ["0", "1.self_attn", "1.linear1", "1.linear2", "3"]
    assert [layer.name for layer in found.layers] == names
    assert all(layer.hidden > 0 and layer.weights for layer in found.layers)


def test_text() -> None:
    layers = tuple(Layer(f"block.{i}", 2.0**-i, None if i == 11 else 1.0) for i in range(12))
    lines = str(GradientProfile(layers, 2.0, 0.125)).splitlines()
    assert lines[0] == "12 layers, ‖∂L/∂h‖² grows 2 times per layer towards the input, residual 0.12"
    assert lines[1] == "  block.0   ‖∂L/∂h‖² 1.000e+00  ‖∂L/∂W‖² 1.000e+00"
    assert lines[5] == "  … 4 more"
    assert lines[-1] == "  block.11  ‖∂L/∂h‖² 4.883e-04"
    assert len(lines) == 10


def test_layers_that_cannot_be() -> None:
    def named(*layers: str) -> GradientProfile:
        return bnsuite.gradient_growth(chain([1.0, 1.0]), nn.MSELoss(), ONE, layers=layers)

    with pytest.raises(ValueError, match="unknown layer '7'"):
        named("0", "7")
    with pytest.raises(ValueError, match=r"2 layers at least: got 0\. Name more modules"):
        named("0")
    with pytest.raises(ValueError, match="2 layers at least: got none"):
        bnsuite.gradient_growth(nn.BatchNorm1d(1), nn.MSELoss(), (torch.ones(2, 1), torch.ones(2, 1)))
    attention = nn.TransformerEncoderLayer(4, 2, 8)
    with pytest.raises(ValueError, match=r"layer 'self_attn\.out_proj' is not called"):
        bnsuite.gradient_growth(
            attention, nn.MSELoss(), (torch.ones(2, 4), torch.ones(2, 4)), layers=["self_attn.out_proj"]
        )
