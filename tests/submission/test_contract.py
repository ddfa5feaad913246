"""The contract: every built-in scheme passes, and each test is failed by a scheme that deserves it."""

import random
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bnsuite.schemes import SCHEMES, Scheme
from bnsuite.submission.contract import CONTRACT, NOT_TRIED, Check, contract
from bnsuite.submission.contract import values as _values
from bnsuite.submission.contract.trial import SETTINGS, settings_now


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES)
def test_a_built_in_scheme_passes(scheme: Scheme) -> None:
    checks = list(contract(scheme))
    assert [check.name for check in checks] == list(CONTRACT)
    assert not [check for check in checks if not check.ok]
    assert all(check.message and "\n" not in check.message for check in checks)


class Good(nn.Module):
    """A gain, and nothing wrong; every other one here is wrong in one way."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        return self.gain * x


class NoBackward(torch.autograd.Function):
    """The identity, with NaN for a gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return gradients[0] * float("nan")


class Uphill(NoBackward):
    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return -3 * gradients[0]


class Once(NoBackward):
    """The right gradient, which itself has none."""

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Any) -> Any:
        return gradients[0].clone()


class Asymmetric(NoBackward):
    """The right gradient of x², its derivative wrong."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.square()

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return 2 * ctx.saved_tensors[0].detach() * gradients[0]


def function(of: Any) -> Callable[[int], nn.Module]:
    """A normalizer of x → of(x)."""

    class Of(Good):
        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = of(x)
            return self.gain * out

    return Of


def leave(setting: str, value: Any) -> Callable[[int], nn.Module]:
    class Leaving(Good):
        def forward(self, x: Tensor) -> Tensor:
            SETTINGS[setting][1](value)
            return super().forward(x)

    return Leaving


class Raising(Good):
    def forward(self, x: Tensor) -> Tensor:
        raise RuntimeError("boom\nand more")


class Unbuildable(Good):
    def __init__(self) -> None:
        super().__init__(1)


class Refusing(Good):
    def forward(self, x: Tensor) -> Tensor:
        raise ValueError("not mine")


class InPlace(Good):
    def forward(self, x: Tensor) -> Tensor:
        return self.gain * x.mul_(2)


class Half(Good):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).half().to(torch.float32)


class Plain(Good):
    """A parameter that is an attribute, so that it stays where it was made."""

    def __init__(self, num_features: int) -> None:
        super().__init__(num_features)
        self.scale = torch.ones(num_features)

    def forward(self, x: Tensor) -> Tensor:
        return self.gain * (self.scale * x.movedim(1, -1)).movedim(-1, 1)


class MakesOnCpu(Good):
    def forward(self, x: Tensor) -> Tensor:
        return self.gain * (x.movedim(1, -1) * torch.ones(x.shape[1], dtype=x.dtype, device="cpu")).movedim(
            -1, 1
        )


class Hoarding(Good):
    """A running mean that is no buffer."""

    mean: Tensor | float = 0.0

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.mean = 0.9 * self.mean + 0.1 * x.detach().mean()
        return self.gain * (x - self.mean)


class Shared(Good):
    """A running mean of all networks together."""

    means: Any = [0.0]  # noqa: RUF012

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.means[0] = 0.9 * self.means[0] + 0.1 * float(x.detach().mean())
        return self.gain * (x - self.means[0])


class EvaluationMoves(Good):
    count: Tensor

    def __init__(self, num_features: int) -> None:
        super().__init__(num_features)
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.count += 1
        return super().forward(x)


class EvaluationOfBatch(Good):
    def forward(self, x: Tensor) -> Tensor:
        return self.gain * (x - x.mean(0, keepdim=True))


class Item(Good):
    def forward(self, x: Tensor) -> Tensor:
        return self.gain * (x / 2 if x.detach().std().item() > 1 else x)


class Locked(Good):
    def __init__(self, num_features: int) -> None:
        super().__init__(num_features)
        self.lock = threading.Lock()


class Drawing(Good):
    """Of torch's numbers, in training: allowed."""

    def forward(self, x: Tensor) -> Tensor:
        return self.gain * (x + 0.1 * torch.randn_like(x) if self.training else x)


class DrawingAlways(Good):
    def forward(self, x: Tensor) -> Tensor:
        return self.gain * (x + 0.1 * torch.randn_like(x))


class Seeding(Good):
    def forward(self, x: Tensor) -> Tensor:
        torch.manual_seed(1234)
        return self.gain * x


class PythonDraw(Good):
    def __init__(self, num_features: int) -> None:
        super().__init__(num_features)
        self.noise = random.random()

    def forward(self, x: Tensor) -> Tensor:
        return self.gain * (x + self.noise)


class NumpyDraw(Good):
    def forward(self, x: Tensor) -> Tensor:
        return self.gain * (x + np.random.random())


class Clock:
    """Goes on by a millisecond when it is read, and as `Sleeping` lets it."""

    now = 0.0

    def perf_counter(self) -> float:
        Clock.now += 1e-3
        return Clock.now


class Sleeping(Good):
    def forward(self, x: Tensor) -> Tensor:
        Clock.now += 0.2
        return super().forward(x)


BAD: list[tuple[str, Any, str]] = [
    (
        "builds",
        Unbuildable,
        "got TypeError: Unbuildable.__init__() takes 1 positional argument but 2 were given; wanted: "
        "A network of every family is built",
    ),
    (
        "builds",
        Refusing,
        "got no family; mlp, cnn, transformer refuse: not mine; wanted one at least. Take (N, C)",
    ),
    (
        "shape",
        Raising,
        "got RuntimeError: boom; wanted: Each part returns the shape that it is given: (N, C), (N, C, T) or "
        "(N, C, H, W), channels second. Look at test_contract.py:",
    ),
    (
        "shape",
        function(lambda x: x.mean(1)),
        "got (8,) from norms.0 (Of); wanted (8, 16), as given. Return a tensor like x",
    ),
    (
        "shape",
        function(lambda x: x.mean(1, keepdim=True).expand(-1, *x.shape[1:]).unsqueeze(0)[0][:1]),
        "got (1, 16) from norms.0 (Of); wanted (8, 16), as given. Return a tensor like x",
    ),
    (
        "dtype",
        Half,
        "got torch.float32 from norms.0 (Half); wanted torch.float64, as given. Make tensors of x's",
    ),
    (
        "dtype",
        Plain,
        "got norms.0.scale, which stays torch.float32; wanted torch.float64 after .to(torch.float64"
        "). Make it a Parameter, or register_buffer",
    ),
    (
        "device",
        Plain,
        "got norms.0.scale on cpu after .to('meta'); wanted it there. Make it a Parameter or a",
    ),
    (
        "device",
        MakesOnCpu,
        "got (16,) on the CPU in mul; wanted all on one device. Make tensors with device=x",
    ),
    (
        "finite",
        function(NoBackward.apply),
        "got a gradient that is not finite, first at norms.2 (Of), in mlp; wanted finite",
    ),
    (
        "finite",
        function(lambda x: x / 0),
        "values not finite from norms.0 (Of) for (8, 16); wanted finite ones. Add ε under",
    ),
    (
        "gradient",
        function(Uphill.apply),
        "from the slope of the output, along which the loss does not fall; "
        "wanted the slope, or a way downhill. Look for detach",
    ),
    ("second derivative", function(Once.apply), "; wanted"),
    (
        "second derivative",
        function(Asymmetric.apply),
        "; wanted the same. Write backward from differentiable",
    ),
    (
        "permutation",
        function(lambda x: x.flip(0)),
        "got other outputs for a permuted batch in mlp, in evaluation; wanted the same",
    ),
    ("permutation", function(lambda x: x - x.cumsum(0) / 9), "got other outputs for a permuted batch in mlp"),
    (
        "input untouched",
        InPlace,
        "got an input that norms.0 (InPlace) changed in place; wanted it as it was. Use",
    ),
    (
        "deterministic",
        NumpyDraw,
        "got other outputs of equal networks for one input in mlp; wanted the same, bit",
    ),
    (
        "state dict",
        Hoarding,
        "got other outputs in mlp from a loaded state; wanted the same. Keep what it rememb",
    ),
    (
        "evaluation",
        EvaluationMoves,
        "got norms.0.count changed by evaluation; wanted state as it was. Ask self.",
    ),
    (
        "evaluation",
        NumpyDraw,
        "got another output at the second evaluation; wanted the same. Ask self.training",
    ),
    (
        "evaluation",
        EvaluationOfBatch,
        "got another output for two examples than in a batch of 8, evaluated in mlp",
    ),
    (
        "copies",
        Locked,
        "got TypeError: cannot pickle '_thread.lock' object; wanted: A deep copy of a network is",
    ),
    (
        "copies",
        Shared,
        "got a network that changed as its deep copy trained; wanted no shared state. Keep what",
    ),
    (
        "stacking",
        Locked,
        "got TypeError: cannot pickle '_thread.lock' object; wanted: Networks train stacked",
    ),
    (
        "separate networks",
        Shared,
        "got losses that depend on the other networks trained, in mlp; wanted the same",
    ),
    (
        "random numbers",
        PythonDraw,
        "got Python's stream changed by building; wanted it as it was. Draw from tor",
    ),
    (
        "random numbers",
        NumpyDraw,
        "got numpy's stream changed by training; wanted it as it was. Draw from tor",
    ),
    (
        "random numbers",
        Seeding,
        "got torch's seed changed by training; wanted it as it was. Draw from torch's",
    ),
    (
        "random numbers",
        DrawingAlways,
        "got numbers drawn in evaluation; wanted none. Ask self.training first",
    ),
    (
        "settings",
        leave("the default dtype", torch.float64),
        "got the default dtype set to torch.float64; wanted "
        "torch.float32. Pass dtype=, device= and the like where they are needed",
    ),
    ("settings", leave("the number of threads", 3), "got the number of threads set to 3; wanted"),
    (
        "time",
        Sleeping,
        "times layer norm's; wanted at most 50 times. Replace Python loops by operations on whole",
    ),
]


def check(name: str, scheme: Scheme) -> Check:
    (found,) = contract(scheme, {name: CONTRACT[name]})
    return found


@pytest.mark.parametrize(("name", "norm", "message"), BAD, ids=lambda value: getattr(value, "__name__", None))
def test_a_bad_normalizer_is_found(
    name: str, norm: Any, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_values, "time", Clock())
    found = check(name, Scheme("bad", norm))
    assert (found.name, found.ok) == (name, False)
    assert message in found.message


def test_each_test_of_the_contract_has_been_failed() -> None:
    assert {name for name, *_ in BAD} == set(CONTRACT)
    assert all((test.__doc__ or "").strip() for test in CONTRACT.values())


@pytest.mark.parametrize("name", CONTRACT)
def test_the_normalizer_that_bad_ones_are_made_of_is_good(name: str) -> None:
    assert check(name, Scheme("good", Good)).ok


@pytest.mark.parametrize(
    ("name", "norm", "message"),
    [
        ("stacking", Item, "lane by lane, slower: it reads values, by .item(), float() or a branch on data"),
        (
            "stacking",
            Hoarding,
            "lane by lane, slower: stacked, it takes other steps (state that is no buffer",
        ),
        ("device", Item, "follows .to(device); not called there: Tensor.item() cannot be called on meta"),
        ("permutation", Drawing, "not tried, since it draws random numbers"),
        ("deterministic", Drawing, "reproducible under torch.manual_seed, from which it draws"),
        ("random numbers", Drawing, "draws from torch's generator, in training"),
        (
            "gradient",
            function(lambda x: x * x.detach().abs()),
            "away from the slope of the output, and leads",
        ),
    ],
)
def test_what_is_odd_and_allowed_is_said(name: str, norm: Any, message: str) -> None:
    found = check(name, Scheme("odd", norm))
    assert found.ok, found.message
    assert message in found.message


@pytest.mark.parametrize("norm", [Item, Drawing])
def test_what_is_odd_and_allowed_passes(norm: Any) -> None:
    assert not [check for check in contract(Scheme("odd", norm)) if not check.ok]


def test_other_parts_than_the_normalizer_are_held_to_it() -> None:
    parts: list[dict[str, Any]] = [
        {"activation": InPlace},
        {"skip": "pre", "branch": lambda c, depth: InPlace(c)},
        {"skip": "post", "norm": InPlace},
    ]
    for part in parts:
        assert "changed in place" in check("input untouched", Scheme("bad", **part)).message


@pytest.mark.parametrize("norm", [Raising, Refusing, Locked])
def test_whatever_a_scheme_does_every_check_comes(norm: Any) -> None:
    checks = list(contract(Scheme("bad", norm)))
    assert [found.name for found in checks] == list(CONTRACT)
    assert any(not found.ok for found in checks)


def test_a_scheme_leaves_nothing_behind() -> None:
    before = settings_now(), torch.get_rng_state().tolist(), random.getstate(), repr(np.random.get_state())
    for norm in (
        leave("the default dtype", torch.float64),
        leave("gradient mode", False),
        NumpyDraw,
        Seeding,
    ):
        for name in ("shape", "settings", "random numbers"):
            check(name, Scheme("bad", norm))
    assert before == (
        settings_now(),
        torch.get_rng_state().tolist(),
        random.getstate(),
        repr(np.random.get_state()),
    )


def test_an_exception_says_where() -> None:
    line = Raising.forward.__code__.co_firstlineno + 1
    assert check("shape", Scheme("bad", Raising)).message.endswith(f"Look at test_contract.py:{line}")


def test_one_fault_is_told_once() -> None:
    found = list(contract(Scheme("bad", Raising)))
    assert [one.name for one in found if not one.message.startswith(NOT_TRIED)] == ["builds", "shape"]
    assert found[-1].message == "not tried: mend shape first"
    found = list(contract(Scheme("bad", InPlace)))
    assert [one.name for one in found if not one.ok and not one.message.startswith(NOT_TRIED)] == [
        "input untouched"
    ]


def test_order_in_training_alone_is_told_and_allowed() -> None:
    found = {one.name: one for one in contract(SCHEMES["onlinenorm"])}
    assert found["permutation"].ok
    assert found["permutation"].message == "permutes the output in evaluation; in training the order matters"
