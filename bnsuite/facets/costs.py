"""Costs of one more layer, compared with a layer of scheme `none`; counted, not timed."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from bnsuite.facets.probe_network import Stage
from bnsuite.records.facets import COSTS
from bnsuite.schemes import Scheme

WIDTHS = (16, 32, 48)
"""Widths at which networks are counted."""

MOVES = frozenset(
    "_to_copy _unsafe_view arange cat clone contiguous copy copy_ detach empty empty_like fill fill_ full "  # noqa: SIM905
    "full_like gather index index_select lift_fresh new_empty new_full new_ones new_zeros ones ones_like "
    "repeat scalar_tensor stack zero_ zeros zeros_like".split()
)
"""Operations that move or create numbers without computing any; views count as such, too."""

PER_ELEMENT = {
    "_softmax": 5,  # maximum, difference, exponential, sum, quotient
    "_weight_norm_interface": 3,  # square, sum, product
    "addcdiv": 2,
    "addcmul": 2,
    "lerp": 3,
    "linalg_vector_norm": 2,
    "std": 4,  # mean, difference, square, mean; also the next three
    "std_mean": 4,
    "var": 4,
    "var_mean": 4,
}
"""torch operation → elementary operations per element; all others count 1, elementary functions included."""

FUSED = {
    **dict.fromkeys(("native_batch_norm", "_native_batch_norm_legit", "native_group_norm"), (5, slice(1, 3))),
    "native_layer_norm": (5, slice(2, 4)),  # mean, difference, square, mean, product
    "_fused_rms_norm": (3, slice(2, 3)),  # square, mean, product
}
"""Fused normalizer of torch → elementary operations per element, and the positions of gain and bias among its
arguments."""


class Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counter of elementary operations: elements of an operation's largest tensor times `PER_ELEMENT`.

    Matrix products and convolutions count as in torch's flop counter.
    """

    total: int = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.total += _count(func, args, kwargs or {}, out)
        return out


def _count(func: Any, args: Sequence[Any], kwargs: dict[str, Any], out: Any) -> int:
    name = func.overloadpacket.__name__
    if func.is_view or name in MOVES:
        return 0
    if func.overloadpacket in flop_registry:
        return int(flop_registry[func.overloadpacket](*args, **kwargs, out_val=out))
    tensors = [leaf for leaf in tree_leaves((args, kwargs, out)) if isinstance(leaf, Tensor)]
    per_element = PER_ELEMENT.get(name.rstrip("_"), 1)
    if name in FUSED:
        per_element, affine = FUSED[name]
        per_element += sum(isinstance(arg, Tensor) for arg in args[affine])
    return per_element * max((t.numel() for t in tensors if t.is_floating_point()), default=0)


StageCount = Callable[[Stage, int], float]
"""(stage, depth) → a count for a network of that depth, such as its operations."""


def costs_of(stage: Stage) -> dict[str, float]:
    """Costs of the stage's scheme in its family, `cnn` or `mlp`, by their names in `COSTS`.

    Each cost is a difference of counts between networks of several widths and input sizes. So it is the
    coefficient of channels, elements or weights, and statistics and scalars drop out. The addition of a
    residual path counts as one operation per element.
    """
    narrow, wide, _ = WIDTHS

    def slope(count: Callable[[int], StageCount]) -> float:
        more = [_layer(stage, count(width)) for width in (narrow, wide)]
        return (more[1] - more[0]) / (wide - narrow)

    sizes = [(4, 4), (4, 6)] if stage.family.convolutional else [(4, 4), (8, 4)]
    positions = [n * side**2 if stage.family.convolutional else n for n, side in sizes]
    few, many = (slope(lambda w, size=size: _operations(w, *size)) for size in sizes)  # type: ignore[misc]
    counts = (
        slope(lambda w: lambda stage, depth: _numbers(stage.network(depth, w).parameters())),
        slope(lambda w: lambda stage, depth: _numbers(stage.network(depth, w).buffers())),
        (many - few) / (positions[1] - positions[0]),
        _per_weight(stage) if stage.scheme.weight else 0.0,
    )
    return dict(zip(COSTS, map(float, counts), strict=True))


def _per_weight(stage: Stage) -> float:
    """Operations per weight of the weight parametrization alone, by second differences in the width."""
    alone = replace(stage, scheme=Scheme("alone", weight=stage.scheme.weight))
    plain = replace(stage, scheme=Scheme("none"))

    def second(values: Sequence[float]) -> float:
        return values[2] - 2 * values[1] + values[0]

    weights = [
        _numbers(plain.network(3, w).parameters()) - _numbers(plain.network(2, w).parameters())
        for w in WIDTHS
    ]
    return second([_layer(alone, _operations(w, 4, 4)) for w in WIDTHS]) / second(weights)


def _layer(stage: Stage, count: StageCount) -> float:
    """Count of one more layer, minus the count of one more layer of scheme `none`."""
    plain = replace(stage, scheme=Scheme("none"))
    return count(stage, 3) - count(stage, 2) - (count(plain, 3) - count(plain, 2))


def _operations(width: int, n: int, side: int) -> StageCount:
    def count(stage: Stage, depth: int) -> float:
        network = stage.network(depth, width, side=side)
        operations: Operations = Operations()  # type: ignore[no-untyped-call]
        with operations:
            network(stage.data(n, side=side)[0])
        return float(operations.total)

    return count


def _numbers(tensors: Any) -> int:
    return sum(tensor.numel() for tensor in tensors)
