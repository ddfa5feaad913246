"""What every instrument promises: the model is left as it was; what would be misread is refused."""

import copy
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from own_models import dense, gpt, images, of_tokens, resnet, sentences
from torch import Tensor, nn

import bnsuite

INSTRUMENTS: dict[str, Callable[..., Any]] = {
    "sharpness": bnsuite.sharpness,
    "spectrum": lambda *args, **more: bnsuite.spectrum(*args, order=3, probes=2, **more),
    "gradient_growth": bnsuite.gradient_growth,
}
EACH = pytest.mark.parametrize("instrument", INSTRUMENTS.values(), ids=INSTRUMENTS)
OF_THE_HESSIAN = pytest.mark.parametrize("instrument", [*INSTRUMENTS.values()][:2], ids=[*INSTRUMENTS][:2])


def small(*middle: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), *middle, nn.Tanh(), nn.Linear(5, 3))


def points(n: int = 12) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(2)
    return torch.randn(n, 4, generator=draw), torch.randint(3, (n,), generator=draw)


def state(model: nn.Module) -> dict[str, object]:
    """Everything of a model that an instrument might change."""
    named = [*model.named_parameters(), *model.named_buffers()]
    return {
        "tensors": [(name, id(t), t.detach().clone(), t.dtype, t.requires_grad) for name, t in named],
        "gradients": [(name, None if t.grad is None else t.grad.clone()) for name, t in named],
        "modes": [(name, module.training) for name, module in model.named_modules()],
        "hooks": [len(module._forward_hooks) for module in model.modules()],
        "random": torch.get_rng_state(),
    }


def failing(outputs: Tensor, y: Tensor) -> Tensor:
    raise KeyError("a loss that fails")


def nan(outputs: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(outputs, y) * torch.nan


@EACH
@pytest.mark.parametrize("mode", [None, "train", "eval"])
@pytest.mark.parametrize("loss", [F.cross_entropy, failing, nan])
def test_the_model_is_left_as_it_was(
    instrument: Callable[..., Any], mode: str | None, loss: Callable[..., Tensor]
) -> None:
    model = resnet()
    model[2].eval()
    model[3].requires_grad_(False)
    F.cross_entropy(model(images(6)[0][0]), images(6)[0][1]).backward()  # type: ignore[no-untyped-call]
    before = state(model)
    if loss is F.cross_entropy or (loss is nan and instrument is bnsuite.gradient_growth):
        instrument(model, loss, images(6)[0], mode=mode)
    else:
        with pytest.raises((KeyError, FloatingPointError)):
            instrument(model, loss, images(6)[0], mode=mode)
    after = state(model)
    assert before.keys() == after.keys()
    assert repr(before) == repr(after)


@EACH
def test_a_model_in_evaluation_mode_is_asked_about(instrument: Callable[..., Any]) -> None:
    model = small(nn.BatchNorm1d(5)).eval()
    words = "in evaluation mode, where batch norm uses its running statistics"
    with pytest.raises(ValueError, match=words) as refused:
        instrument(model, F.cross_entropy, points())
    assert "mode='train'" in str(refused.value)
    assert "mode='eval'" in str(refused.value)
    assert not model.training


class Counting(nn.Module):
    """Multiplies by the number of its calls, which it keeps in a buffer."""

    calls: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x * self.calls


def test_every_pass_starts_from_the_buffers_of_the_model() -> None:
    x, y = points()
    model, twin = small(Counting()), small(nn.Identity())
    matrix = dense(twin, F.cross_entropy, [(x, y)])
    expected = float(torch.linalg.eigvalsh(matrix)[-1])
    for data in ((x, y), [(x[:5], y[:5]), (x[5:], y[5:])]):
        found = bnsuite.sharpness(model, F.cross_entropy, data, tolerance=1e-8)
        assert found.value == pytest.approx(expected)
    assert float(model[1].calls) == 0


def test_random_numbers_are_the_seeds() -> None:
    model = small(nn.Dropout(0.5))

    def measured(stream: int, seed: int) -> float:
        torch.manual_seed(stream)
        found = bnsuite.sharpness(model, F.cross_entropy, [points(), points(7)], seed=seed)
        assert found.residual <= 1e-3, "every product has the same masks"
        drawn = torch.rand(3)
        torch.manual_seed(stream)
        assert torch.equal(drawn, torch.rand(3)), "the stream is left where it was"
        return found.value

    assert measured(stream=5, seed=1) == measured(stream=6, seed=1)
    assert measured(stream=5, seed=2) != pytest.approx(measured(stream=5, seed=1), rel=1e-2)


@EACH
def test_within_no_grad(instrument: Callable[..., Any]) -> None:
    model = small(nn.BatchNorm1d(5))
    for data in (points(), [points(), points(7)]):
        expected = instrument(model, F.cross_entropy, data)
        with torch.no_grad():
            assert repr(instrument(model, F.cross_entropy, data)) == repr(expected)


def hooked() -> nn.Module:
    model = small()
    model[0].weight.register_hook(lambda g: 2 * g)
    return model


X, Y = points()
REFUSED: dict[str, tuple[tuple[Any, ...], dict[str, Any], str]] = {
    "a flat batch": ((small(), F.cross_entropy, (X[0], Y[0])), {}, "row per example: got x (4,) and y ()"),
    "rows": ((small(), F.cross_entropy, (X, Y[:-1])), {}, "one row per example: got x (12, 4) and y (11,)"),
    "no rows": ((small(), F.cross_entropy, (X[:0], Y[:0])), {}, "1 example: got y (0,). Leave it out"),
    "no minibatch": ((small(), F.cross_entropy, []), {}, "(x, y), y a tensor, or several: got none"),
    "inputs alone": ((small(), F.cross_entropy, X), {}, "or several: got Tensor. Give a tuple"),
    "dtype": ((small(), F.cross_entropy, (X.double(), Y)), {}, "float64, the network torch.float32"),
    "device": ((small(), F.cross_entropy, (X.to("meta"), Y)), {}, "x is on meta, the network on cpu"),
    "frozen": ((small().requires_grad_(False), F.cross_entropy, (X, Y)), {}, "none of 4 parameters"),
    "a hook": ((hooked(), F.cross_entropy, (X, Y)), {}, "parameter 0.weight has a hook"),
    "a loss per example": (
        (small(), nn.CrossEntropyLoss(reduction="none"), (X, Y)), {}, "one number, the mean over the "
        "minibatch: got shape (12,). Use .mean()",
    ),
    "a number": ((small(), lambda f, y: f.sum().item(), (X, Y)), {}, "got float. Use .mean()"),
    "a detached loss": ((small(), lambda f, y: f.detach().sum(), (X, Y)), {}, "got one without a gradient"),
    "a mode": ((small(), F.cross_entropy, (X, Y)), {"mode": "test"}, "'train', 'eval' or None: got 'test'"),
}  # fmt: skip


@EACH
@pytest.mark.parametrize("name", REFUSED)
def test_what_would_be_misread_is_refused(instrument: Callable[..., Any], name: str) -> None:
    args, more, words = REFUSED[name]
    before = repr(state(args[0]))
    with pytest.raises(ValueError, match=re.escape(words)):
        instrument(*args, **more)
    assert repr(state(args[0])) == before


@EACH
def test_wrong_labels_are_refused_by_the_loss(instrument: Callable[..., Any]) -> None:
    model = small(nn.BatchNorm1d(5))
    before = repr(state(model))
    message = r"labels from 0 to 2: got 5 for outputs of shape \(12, 3\)\. Number the classes from 0"
    with pytest.raises(ValueError, match=message):
        instrument(model, F.cross_entropy, (X, Y + 3))
    with pytest.raises(ValueError, match="labels from 0 to 2: got -1 "):
        instrument(model, F.cross_entropy, (X, Y - 1))
    assert repr(state(model)) == before


def test_more_than_there_is_is_refused() -> None:
    with pytest.raises(ValueError, match=r"got top=0\. Write top=1 or more"):
        bnsuite.sharpness(small(), F.cross_entropy, (X, Y), top=0)
    with pytest.raises(ValueError, match=r"size 43 has 1 to 43 eigenvalues: got 50 \+ 1"):
        bnsuite.sharpness(small(), F.cross_entropy, (X, Y), top=50, bottom=1)
    with pytest.raises(ValueError, match="from 1 to the operator's size 43: got 64"):
        bnsuite.spectrum(small(), F.cross_entropy, (X, Y))
    with pytest.raises(ValueError, match="at least 1 probe"):
        bnsuite.spectrum(small(), F.cross_entropy, (X, Y), order=2, probes=0)


@OF_THE_HESSIAN
def test_attention_runs_where_its_fused_kernel_would_not(instrument: Callable[..., Any]) -> None:
    ((x, y),) = sentences(4)
    model = gpt()
    mean = of_tokens(model(x), y)
    (gradient,) = torch.autograd.grad(mean, model.get_parameter("positions"), create_graph=True)
    with pytest.raises(RuntimeError, match="derivative for aten::_scaled_dot_product"):
        gradient.sum().backward()
    instrument(copy.deepcopy(model), of_tokens, (x, y))
