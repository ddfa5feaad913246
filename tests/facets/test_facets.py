"""Facets of every built-in scheme, from theory; costs, counted by hand; traps that fool a naive trial."""

import random
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bnsuite.facets import COSTS, FACETS, facets_of, gradient_gap, stages
from bnsuite.norms import BatchRenorm, LayerNorm
from bnsuite.schemes import SCHEMES, Scheme

EACH_ALONE = "batch-independent batch-1 train-eval-agreement"
ELEMENTWISE = f"{EACH_ALONE} per-position stackable"
INVARIANT = "scale-invariant shift-invariant mean-centering stackable"
LAYER = f"{EACH_ALONE} per-position {INVARIANT}"
EXPECTED = {
    "none": ELEMENTWISE,
    "batchnorm": INVARIANT,
    "residual-batchnorm": f"{INVARIANT} residual",
    "layernorm": LAYER,
    "mean-only": "shift-invariant mean-centering stackable",
    "ghostbatch": INVARIANT,
    "batchrenorm": "stackable own-gradient",  # within limits (x − μ̄) / σ̄, with batch norm's gradient
    "rmsnorm": f"{EACH_ALONE} per-position scale-invariant stackable",
    "groupnorm": f"{EACH_ALONE} {INVARIANT}",
    "instancenorm": f"{EACH_ALONE} {INVARIANT}",
    "frn": f"{EACH_ALONE} scale-invariant stackable own-activation",
    "dyt": ELEMENTWISE,
    "derf": ELEMENTWISE,
    "weightnorm": f"{ELEMENTWISE} weight-parametrization",
    "weight-standardization": f"{ELEMENTWISE} weight-parametrization",
    "scaled-ws": f"{ELEMENTWISE} weight-parametrization",
    "postln": f"{LAYER} residual post-norm",
    "preln": f"{LAYER} residual",
    "residual-none": f"{ELEMENTWISE} residual",
    "residual-1-over-sqrt2": f"{ELEMENTWISE} residual",
    "residual-1-over-l": f"{ELEMENTWISE} residual",
    "layerscale": f"{LAYER} residual",
    "skipinit": f"{ELEMENTWISE} residual",
    "powernorm": f"{ELEMENTWISE} own-gradient",  # divides by ψ of the batches before
    "onlinenorm": "scale-invariant stackable own-gradient",  # each example knows those before it
    "evonorm-s0": f"{EACH_ALONE} stackable own-activation",
    "groupnorm-ws": f"{EACH_ALONE} {INVARIANT} weight-parametrization",
    "deepnorm": f"{LAYER} residual post-norm own-init",
    "residual-rmsnorm": f"{EACH_ALONE} per-position scale-invariant stackable residual",
    "fixup": f"{ELEMENTWISE} residual own-init",
}
NORMALIZED = 7  # mean, difference, square, mean, times 1 / σ, gain, bias
COSTLY = {
    "none": (0, 0, 0, 0),
    "batchnorm": (2, 2, NORMALIZED, 0),
    "residual-batchnorm": (2, 2, NORMALIZED + 1, 0),  # the addition
    "layernorm": (2, 0, NORMALIZED, 0),
    "mean-only": (1, 1, 3, 0),  # mean, difference, bias
    "ghostbatch": (2, 2, NORMALIZED, 0),
    "batchrenorm": (2, 2, 8, 0),  # mean, difference, square, mean, r / σ, d, gain, bias
    "rmsnorm": (1, 0, 4, 0),  # square, mean, quotient, gain
    "groupnorm": (2, 0, NORMALIZED, 0),
    "instancenorm": (2, 0, NORMALIZED, 0),
    "frn": (3, 0, 5, 0),  # square, mean, quotient, gain, bias; its maximum costs what ReLU's does
    "dyt": (2, 0, 4, 0),  # α, tanh, gain, bias
    "derf": (2, 0, 5, 0),  # α, s, erf, gain, bias
    "weightnorm": (1, 0, 0, 3),  # square, sum, product
    "weight-standardization": (0, 0, 0, 5),  # mean, difference, square, sum, product
    "scaled-ws": (0, 0, 0, 5),
    "postln": (2, 0, NORMALIZED + 1, 0),
    "preln": (2, 0, NORMALIZED + 1, 0),
    "residual-none": (0, 0, 1, 0),
    "residual-1-over-sqrt2": (0, 0, 2, 0),
    "residual-1-over-l": (0, 0, 2, 0),
    "layerscale": (3, 0, NORMALIZED + 2, 0),
    "skipinit": (0, 0, 2, 0),
    "powernorm": (2, 1, 8, 0),  # quotient; square, mean, its backward's product; square, mean; gain, bias
    # mean and variance (4) of positions; mean of all, difference; difference, quotient; square, mean, product
    # of the backward; gain, bias; square, mean, quotient of the layer
    "onlinenorm": (2, 2, 17, 0),
    "evonorm-s0": (3, 0, 9, 0),  # v, sigmoid, product; variance (4), quotient, gain, bias: 10, but no ReLU
    "groupnorm-ws": (2, 0, NORMALIZED, 5),
    "deepnorm": (2, 0, NORMALIZED + 2, 0),
    "residual-rmsnorm": (1, 0, 5, 0),
    "fixup": (0, 0, 3, 0),
}


def words(norm: Any, **more: Any) -> set[str]:
    return set(facets_of(Scheme("odd", norm, **more)).words)


@pytest.mark.parametrize("name", SCHEMES)
def test_a_built_in_scheme_has_the_facets_and_costs_that_theory_says(name: str) -> None:
    found = facets_of(SCHEMES[name])
    assert set(found.words) == set(EXPECTED[name].split())
    assert list(found.words) == [word for word in FACETS if word in found.words]
    assert found.costs == pytest.approx(dict(zip(COSTS, COSTLY[name], strict=True)), abs=1e-9)


class Norm(nn.Module):
    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.zeros(num_features))


class Rezero(Norm):
    """At the start the identity: the batch shows only once its gain has left 0."""

    def forward(self, x: Tensor) -> Tensor:
        return x + (self.gain * x.movedim(1, -1).mean(0, keepdim=True)).movedim(-1, 1)


class Beyond(Norm):
    """Elementwise up to |x| = 10, and there a thing of the batch."""

    def forward(self, x: Tensor) -> Tensor:
        return x + self.gain.sum() + (x.mean() if bool(x.detach().abs().max() > 40) else 0)


class Zero(Norm):
    def forward(self, x: Tensor) -> Tensor:
        return x * 0


class Noisy(Norm):
    def forward(self, x: Tensor) -> Tensor:
        drawn = torch.randn_like(x) + random.random() + np.random.random()
        return x + 0.1 * drawn if self.training else x + self.gain.sum()


class Positional(Norm):
    """Takes images alone."""

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() < 4:
            raise ValueError("images, please")
        return x - x.mean((2, 3), keepdim=True)


class Broken(Norm):
    def forward(self, x: Tensor) -> Tensor:
        raise RuntimeError("no")


def test_what_a_start_hides_is_found() -> None:
    assert not words(Rezero) & {"batch-independent"}
    assert "per-position" in words(Rezero)


def test_what_small_inputs_hide_is_found() -> None:
    assert not words(Beyond) & {"batch-independent", "per-position", "stackable"}
    assert "train-eval-agreement" in words(Beyond)
    wide = partial(BatchRenorm, r_max=1e9, d_max=1e9)  # without limits it is its evaluation mode
    assert {"train-eval-agreement", "own-gradient"} <= words(wide)


def test_from_zeros_nothing_is_known() -> None:
    assert not words(Zero) & {"scale-invariant", "shift-invariant", "mean-centering", "batch-1"}


def test_positions_where_a_normalizer_needs_them() -> None:
    assert {"batch-independent", "batch-1", "shift-invariant", "mean-centering", "stackable"} <= words(
        Positional
    )
    assert [stage.family.name for stage in stages(Scheme("odd", Positional))] == ["cnn"]


def test_a_scheme_that_cannot_be_tried_has_what_it_holds() -> None:
    found = facets_of(Scheme("odd", Broken, skip="pre"))
    assert found.words == ("residual",)
    assert found.costs == {}
    assert facets_of(Scheme("odd", Broken)).words == ()


def test_the_same_at_every_call_and_the_global_streams_stay() -> None:
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # type: ignore[union-attr]
    for scheme in (SCHEMES["batchnorm"], Scheme("odd", Noisy)):
        assert facets_of(scheme) == facets_of(scheme)
    after = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # type: ignore[union-attr]
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]
    assert not words(Noisy) & {"stackable", "train-eval-agreement"}


def test_a_gradient_of_its_own_is_found_in_every_part() -> None:
    class Detached(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * x.detach()

    parts: list[dict[str, Any]] = [
        {"norm": lambda c: Detached()},
        {"activation": lambda c: Detached()},
        {"skip": "pre", "branch": lambda c, depth: Detached()},
    ]
    for part in parts:
        assert "own-gradient" in facets_of(Scheme("odd", **part)).words
    assert gradient_gap(stages(Scheme("plain", LayerNorm))[0]) < 1e-6


def test_costs_of_parts_by_hand() -> None:
    class Handwritten(nn.Module):
        """Layer norm in parts: what a position costs is no cost of an element."""

        def forward(self, x: Tensor) -> Tensor:
            centered = x - x.mean(1, keepdim=True)
            return centered * (centered.square().mean(1, keepdim=True) + 1e-5).rsqrt()

    class Mixing(nn.Module):
        def __init__(self, num_features: int) -> None:
            super().__init__()
            self.register_buffer("mean", torch.zeros(num_features))
            self.register_buffer("count", torch.tensor(0))

        def forward(self, x: Tensor) -> Tensor:
            return torch.addcmul(x, x, x)

    class Doubled(nn.Module):
        def __init__(self, layer: nn.Module) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, x: Tensor) -> Tensor:
            return 2 * self.layer(x)  # type: ignore[no-any-return]

    def costs(**parts: Any) -> list[float]:
        return [round(cost, 9) for cost in facets_of(Scheme("odd", **parts)).costs.values()]

    assert costs(norm=lambda c: Handwritten()) == [0, 0, 5, 0]
    assert costs(norm=Mixing) == [0, 1, 2, 0]
    assert costs(weight=Doubled) == [0, 0, 1, 0]
    assert costs(weight=nn.utils.parametrizations.weight_norm) == [1, 0, 0, 3]
    assert costs(norm=nn.BatchNorm1d) == [2, 2, 7, 0]  # which refuses images


def in_precision(norm: Any, kind: torch.dtype) -> Any:
    """A normalizer that computes in `kind`, whatever it is given."""

    class Coarse(nn.Module):
        def __init__(self, num_features: int) -> None:
            super().__init__()
            self.inner = norm(num_features)

        def forward(self, x: Tensor) -> Tensor:
            tensors = {name: p.to(kind) for name, p in self.inner.named_parameters()}
            out: Tensor = torch.func.functional_call(self.inner, tensors, (x.to(kind),))
            return out.to(x.dtype)

    return Coarse


class Squared(nn.Module):
    def __init__(self, num_features: int) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return x * x.detach()


@pytest.mark.parametrize("kind", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["layernorm", "groupnorm"])
def test_rounding_is_no_gradient_of_its_own(name: str, kind: torch.dtype) -> None:
    norm = SCHEMES[name].norm
    assert "own-gradient" not in words(in_precision(norm, kind))
    assert words(in_precision(norm, torch.float32)) == set(EXPECTED[name].split())


def test_a_gradient_of_its_own_is_found_in_float32() -> None:
    assert "own-gradient" in words(in_precision(Squared, torch.float32))


def test_facets_are_tried_in_the_gradient_mode_of_the_tasks() -> None:
    class Modal(nn.Module):
        """Halves where gradients are on; the tasks train so, and evaluate otherwise."""

        def forward(self, x: Tensor) -> Tensor:
            return x / 2 + x.mean(0) if torch.is_grad_enabled() else x

    found = words(lambda c: Modal())
    assert not found & {"batch-independent", "train-eval-agreement"}
    assert facets_of(Scheme("odd", lambda c: Modal())).costs["operations per element"] == 3
