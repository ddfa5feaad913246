"""Every task on a scheme with frozen hidden weights: only the other parameters are trained."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from test_speedrun import TASK as SPEEDRUN
from test_speedrun import patches
from test_task import DIAGNOSTICS, TINY
from torch import nn

from bnsuite.networks import FAMILIES, UnsupportedError
from bnsuite.records import Outcome
from bnsuite.schemes import SCHEMES, Scheme
from bnsuite.tasks import Subject, Task, speedrun


def frozen(layer: nn.Module) -> nn.Module:
    layer.weight.requires_grad_(False)  # type: ignore[union-attr, operator]
    return layer


FROZEN = Scheme("frozen", weight=frozen)
TRAINING = ("max_depth", "stable_lr", "time_to_accuracy", "first_step")


@pytest.mark.parametrize("task", [*TINY.values(), *DIAGNOSTICS.values()], ids=[*TINY, *DIAGNOSTICS])
def test_a_task_leaves_frozen_weights_alone(
    task: Task, make_subject: Callable[..., Subject], monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[Any] = []
    whole = Subject.network

    def network(self: Subject, *args: Any, **more: Any) -> Any:
        measured = whole(self, *args, **more)
        weights = [p for layer in measured.weights() for p in layer if not p.requires_grad]
        built.extend((p, p.detach().clone()) for p in weights if self.scheme is FROZEN)
        return measured

    monkeypatch.setattr(Subject, "network", network)
    subject = replace(make_subject(), scheme=FROZEN)
    measured = task(subject)
    assert all(sample.outcome is not Outcome.ERROR for sample in measured.samples)
    if task.spec.name != "layer_cost":
        assert built
    assert not any(p.requires_grad for p, _ in built)
    if task.spec.name not in ("scale_law", "overflow_depth"):  # which scale weights, or lower their precision
        assert all(torch.equal(p.double(), before.double()) for p, before in built)
    if task.spec.name in TRAINING:
        assert measured.trace != task(make_subject()).trace


def test_the_recipe_leaves_frozen_weights_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[Any] = []
    whole = speedrun.build

    def build(*args: Any) -> Any:
        network = whole(*args)
        built.extend((p, p.detach().clone()) for p in network.parameters() if not p.requires_grad)
        return network

    monkeypatch.setattr(speedrun, "build", build)
    subject = Subject(FROZEN, FAMILIES["cnn"], patches())
    measured = replace(SPEEDRUN, confirmation=(101,), epochs=1, rate=0.1)(subject)
    assert measured.outcome is Outcome.OK
    assert len(built) == 6
    assert all(torch.equal(p, before) for p, before in built)


def test_a_hook_is_unsupported(make_subject: Callable[..., Subject]) -> None:
    def hooked(layer: nn.Module) -> nn.Module:
        layer.weight.register_hook(lambda g: 0 * g)  # type: ignore[union-attr, operator]
        return layer

    subject = replace(make_subject(), scheme=replace(SCHEMES["none"], name="hooked", weight=hooked))
    with pytest.raises(
        UnsupportedError, match=r"hooked cannot be trained: parameter stem\.weight has a hook"
    ):
        TINY["stable_lr"](subject)
