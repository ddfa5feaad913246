"""Tests of the contract on values: shapes, numbers, gradients, time."""

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bnsuite.engine.train import mean_cross_entropy, trainable
from bnsuite.facets import gradient_gap
from bnsuite.facets.probe_network import Stage
from bnsuite.networks import FAMILIES, softplus
from bnsuite.schemes import SCHEMES, Scheme
from bnsuite.submission.contract.parts import built_anew, plain_parameters
from bnsuite.submission.contract.trial import accepting, broken, descend, differ, loose, parts, watched

RATIO = 50
"""Largest ratio of a step's time to that of a step with layer norm."""


def builds(scheme: Scheme) -> str:
    """A network of every family is built, or refused with a ValueError; one at least takes the scheme."""
    refused = {name: _refusal(Stage(scheme, family)) for name, family in FAMILIES.items()}
    taken = [name for name, why in refused.items() if why is None]
    families: dict[str, list[str]] = {}
    for name, why in refused.items():
        if why is not None:
            families.setdefault(why, []).append(name)
    reasons = "".join(
        f"; {', '.join(names)} {'refuses' if len(names) == 1 else 'refuse'}: {why}"
        for why, names in families.items()
    )
    for name in taken:
        plain_parameters(Stage(scheme, FAMILIES[name]))
        built_anew(Stage(scheme, FAMILIES[name]))
    if not taken:
        raise broken(f"no family{reasons}", "one at least", "Take (N, C), (N, C, T) or (N, C, H, W), any C")
    alone = "" if "mlp" in taken else f"; run it with --family {taken[0]}"
    return f"for {', '.join(taken)}{reasons}{alone}"


def _refusal(stage: Stage) -> str | None:
    """Refusal of the stage; errors of a call are left to the tests that call."""
    try:
        return stage.refusal()
    except Exception:
        stage.network()
        return None


def shape(scheme: Scheme) -> str:
    """Each part returns the shape that it is given: (N, C), (N, C, T) or (N, C, H, W), channels second."""

    def watch(name: str, x: Tensor, out: Any) -> None:
        if not isinstance(out, Tensor) or out.shape != x.shape:
            got = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
            raise broken(f"{got} from {name}", f"{tuple(x.shape)}, as given", "Return a tensor like x")

    for stage in accepting(scheme):
        for n in (8, 5):
            watched(stage.network(), watch)(stage.data(n)[0])
    return "kept by each part"


def dtype(scheme: Scheme) -> str:
    """Each part keeps float32 and float64, and its tensors follow .to(dtype)."""

    def watch(name: str, x: Tensor, out: Tensor) -> None:
        if out.dtype != x.dtype:
            do = "Make tensors of x's dtype: torch.zeros(…, dtype=x.dtype), or a buffer"
            raise broken(f"{out.dtype} from {name}", f"{x.dtype}, as given", do)

    for stage in accepting(scheme):
        for kind in (torch.float32, torch.float64):
            typed = replace(stage, dtype=kind)
            network = watched(typed.network(), watch)
            for name, tensor in loose(network):
                if tensor.is_floating_point() and tensor.dtype != kind:
                    do = "Make it a Parameter, or register_buffer"
                    raise broken(f"{name}, which stays {tensor.dtype}", f"{kind} after .to({kind})", do)
            network(typed.data()[0])
    return "float32 and float64 kept"


class _Devices(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Recorder of the first operation that mixes CPU tensors with tensors on `meta`; numbers do not count."""

    mixed: str = ""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        left = [t for t in tensors if t.device.type == "cpu" and t.dim()]
        if left and any(t.is_meta for t in tensors):
            self.mixed = self.mixed or f"{tuple(left[0].shape)} on the CPU in {func.overloadpacket.__name__}"
        return func(*args, **(kwargs or {}))


def device(scheme: Scheme) -> str:
    """All tensors follow .to(device), and none is made elsewhere: tried on `meta`, which has no data."""
    message = "follows .to(device)"
    for stage in accepting(scheme):
        network = stage.network().to("meta")
        for name, tensor in loose(network):
            if not tensor.is_meta:
                raise broken(
                    f"{name} on {tensor.device} after .to('meta')",
                    "it there",
                    "Make it a Parameter or a buffer",
                )
        devices: _Devices = _Devices()  # type: ignore[no-untyped-call]
        with devices:
            try:
                network(stage.data()[0].to("meta"))
            except Exception as error:  # the scheme reads values, and `meta` has none
                message = f"follows .to(device); not called there: {str(error).splitlines()[0][:120]}"
        if devices.mixed:
            raise broken(devices.mixed, "all on one device", "Make tensors with device=x.device")
    return message


def finite(scheme: Scheme) -> str:
    """Values and gradients are finite on ordinary inputs at the start."""

    def watch(name: str, x: Tensor, out: Tensor) -> None:
        if bool(x.isfinite().all()) and not bool(out.isfinite().all()):
            count = int((~out.isfinite()).sum())
            got = f"{count} of {out.numel()} values not finite from {name} for {tuple(x.shape)}"
            raise broken(got, "finite ones", _NAN)
        for tensor in (out, x):  # the gradient reaches `out` first
            if tensor.requires_grad:
                tensor.register_hook(  # type: ignore[no-untyped-call]
                    lambda g: None if bool(g.isfinite().all()) else wrong.append(name)
                )

    for stage in accepting(scheme):
        wrong: list[str] = []
        network, (x, y) = watched(stage.network(), watch), stage.data()
        torch.autograd.backward(mean_cross_entropy(network(x), y))
        named = [(name, p.grad) for name, p in network.named_parameters() if p.grad is not None]
        wrong += [name for name, g in named if not bool(g.isfinite().all())]
        if wrong:
            got = f"a gradient that is not finite, first at {wrong[0]}, in {stage.family.name}"
            raise broken(got, "finite ones", _NAN)
        with torch.no_grad():
            network.eval()(x)
    return "values and gradients finite"


_NAN = "Add ε under roots and to divisors; torch.autograd.set_detect_anomaly names the operation"


def gradient(scheme: Scheme) -> str:
    """The gradient is the slope of the output; or, an own one, at least leads downhill."""
    stage = accepting(scheme)[0]
    gap = gradient_gap(stage)
    if gap <= stage.tolerance:
        return f"that of the output, to {gap:.0e}"
    x, y = stage.data()

    def loss(rate: float) -> float:
        network = stage.network(activation=softplus)
        torch.default_generator.manual_seed(0)
        descend(network, x, y, rate)
        moved = stage.network(activation=softplus)  # at the same buffers as before the step
        with torch.no_grad():
            for p, q in zip(moved.parameters(), network.parameters(), strict=True):
                p.copy_(q)
        torch.default_generator.manual_seed(0)
        return float(mean_cross_entropy(moved(x), y).detach())

    fall = loss(-1e-5) - loss(1e-5)
    if not fall > 0:
        got = f"a gradient {gap:.0e} away from the slope of the output, along which the loss does not fall"
        raise broken(got, "the slope, or a way downhill", "Look for detach, in-place changes, own backwards")
    return f"own-gradient: {gap:.0e} away from the slope of the output, and leads downhill"


def second_derivative(scheme: Scheme) -> str:
    """Hessian-vector products are finite, and how the gradient changes where that is the output's own."""
    stage = accepting(scheme)[0]
    x, y = stage.data()

    def gradient(move: Sequence[Tensor], h: float) -> tuple[Sequence[Tensor], list[Tensor]]:
        torch.default_generator.manual_seed(0)
        network = stage.network(activation=softplus, moved=True)
        ps: list[Tensor] = [*trainable(network).values()]
        with torch.no_grad():
            for p, v in zip(ps, move, strict=True):
                p.add_(h * v)
        loss = mean_cross_entropy(network(x), y)
        return torch.autograd.grad(loss, ps, create_graph=True, materialize_grads=True), ps

    draw = torch.Generator().manual_seed(0)
    like = [p.detach() for p in trainable(stage.network()).values()]
    u, v = ([torch.randn(p.shape, generator=draw, dtype=p.dtype) for p in like] for _ in range(2))
    first, ps = gradient(v, 0.0)
    if not _dot(first, v).requires_grad:
        do = "Write backward from differentiable operations"
        raise broken("a gradient that is a constant to torch", "one with a derivative", do)
    claimed = float(_dot(torch.autograd.grad(_dot(first, v), ps, materialize_grads=True), u).detach())
    if not math.isfinite(claimed):
        raise broken("a Hessian-vector product that is not finite", "finite ones", _NAN)

    def slope(h: float) -> float:
        return float((_dot(gradient(v, h)[0], u) - _dot(gradient(v, -h)[0], u)).detach()) / (2 * h)

    steps = (1e-7, *stage.steps)  # the sharper the loss, the shorter the step must be
    measured = min(map(slope, steps), key=lambda change: abs(change - claimed))
    if abs(claimed - measured) <= stage.tolerance * max(abs(claimed), abs(measured), 1e-9):
        return "Hessian-vector products finite, and the gradient changes so"
    if gradient_gap(stage) > stage.tolerance:
        return "Hessian-vector products finite, of an own-gradient"
    got = f"u·Hv = {claimed:.6g}, where the gradient changes by {measured:.6g}"
    raise broken(got, "the same", "Write backward from differentiable operations, and detach nothing in it")


def _dot(first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
    return torch.stack([(a * b).sum() for a, b in zip(first, second, strict=True)]).sum()


def permutation(scheme: Scheme) -> str:
    """A permuted batch of 8 gives the permuted output in evaluation; in training it is told if it does."""
    for stage in accepting(scheme):
        x = stage.data()[0]
        order = torch.tensor([3, 0, 7, 5, 1, 2, 6, 4])
        state = torch.get_rng_state()
        for training in (False, True):
            with torch.set_grad_enabled(training):
                expected = stage.network(moved=True).train(training)(x)[order]
                if not torch.equal(torch.get_rng_state(), state):
                    return "not tried, since it draws random numbers"
                same = not differ(
                    stage.network(moved=True).train(training)(x[order]), expected, stage.rounding
                )
            if not same and not training:
                got = f"other outputs for a permuted batch in {stage.family.name}, in evaluation"
                raise broken(got, "the same ones, permuted", "Use no order of the examples there")
    return (
        "permutes the output" if same else "permutes the output in evaluation; in training the order matters"
    )


def input_untouched(scheme: Scheme) -> str:
    """No part changes its input in place."""

    def watch(name: str, x: Tensor, _out: Tensor) -> None:
        if x._version != versions.get(name.partition(" ")[0]):
            raise broken(
                f"an input that {name} changed in place", "it as it was", "Use x = x + …, not x += …"
            )

    versions: dict[str, int] = {}
    for stage in accepting(scheme):
        network = stage.network()
        for name, module in parts(network).items():
            module.register_forward_pre_hook(
                lambda _, inputs, name=name: versions.update({name: inputs[0]._version})
            )
        watched(network, watch)(stage.data()[0])
    return "left as it was"


def deterministic(scheme: Scheme) -> str:
    """Equal inputs give equal outputs, under one torch.manual_seed where random numbers are drawn."""
    for stage in accepting(scheme):
        x, outputs, drew = stage.data()[0], [], False
        for _ in range(3):
            network = stage.network()
            state = torch.default_generator.manual_seed(7).get_state()
            outputs.append(network(x).detach())
            drew = drew or not torch.equal(torch.get_rng_state(), state)
        if any(not torch.equal(out, outputs[0]) for out in outputs):
            got = f"other outputs of equal networks for one input in {stage.family.name}"
            do = "Draw from torch's generator alone, and keep state in buffers alone"
            raise broken(got, "the same, bit for bit", do)
    return "reproducible under torch.manual_seed, from which it draws" if drew else "the same output again"


def time_budget(scheme: Scheme) -> str:
    """A step of an 8-layer network of width 64 takes at most 50 times one of layer norm."""
    stage = replace(accepting(scheme)[0], dtype=torch.float32)
    plain = replace(stage, scheme=SCHEMES["layernorm"])
    x, y = stage.data(32)
    networks = [trained.network(8, 64) for trained in (stage, plain)]
    spent: list[list[float]] = [[], []]
    clock = time.perf_counter()
    for i in range(8):
        for times, network in zip(spent, networks, strict=True):
            start = time.perf_counter()
            torch.autograd.backward(mean_cross_entropy(network(x), y))
            times.append(time.perf_counter() - start)
        if i and time.perf_counter() - clock > 3:
            break
    own, layer = (min(times) for times in spent)  # the minimum, since other load only adds time
    if own > RATIO * layer:
        got = f"{1e3 * own:.1f} ms per step, {own / layer:.0f} times layer norm's"
        raise broken(got, f"at most {RATIO} times", "Replace Python loops by operations on whole tensors")
    return f"{own / layer:.1f} times layer norm's step"
