"""layer_cost: what does the normalizer alone cost?"""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar, final

import torch
from torch import Tensor, nn

from bnsuite.engine.clock import race
from bnsuite.protocol.search import rounded
from bnsuite.records import Json, Measurement, Sample
from bnsuite.specs import SPECS, TaskSpec
from bnsuite.tasks._task import Subject, Task

MIB = 2**20


@final
@dataclass(frozen=True, kw_only=True)
class LayerCost(Task):
    """Microseconds per forward and backward pass of the scheme's normalizer alone, in float32.

    Shapes are (N, C, *S): `batch` examples, `width` channels and its doublings, and for the `cnn` the
    positions of the data set's images. The value is that of the largest shape. A sample is a round, one per
    confirmation seed, in which the shapes and an identity take turns, so that a drift of the machine affects
    all. Derived: the ratio to the identity, the MiB that autograd keeps for the backward pass, joules if
    NVML counts them, and whether the clock drifted and the device was idle (None: not known). Time on a busy
    machine is no property of a normalizer, so it is shown and never ranked.

    Attributes:
        doublings: number of shapes larger than the first, each with twice the channels.
        repeats: passes per round, of which the mean is taken.
    """

    spec: ClassVar[TaskSpec] = SPECS["layer_cost"]
    draws: ClassVar[bool] = False

    doublings: int = 3
    repeats: int = 20

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.confirmation) < 2:
            raise ValueError(
                f"confirmation of {self.spec.name}: got 1 seed, wanted at least 2: rounds that show a drift. "
                "Try confirmation=101,102."
            )

    def __call__(self, subject: Subject) -> Measurement:
        norm = subject.scheme.norm or nn.Identity
        positions = subject.data.shape[1:] if subject.family.convolutional else ()
        shapes = [(self.batch, self.width << k, *positions) for k in range(self.doublings + 1)]
        draw = torch.Generator().manual_seed(0)
        inputs = [torch.randn(shape, generator=draw).to(subject.device).requires_grad_() for shape in shapes]
        layers = [norm(shape[1]).to(subject.device) for shape in shapes]
        runs = [partial(self.repeat, layer, x) for layer, x in zip(layers, inputs, strict=True)]
        times = race(
            [*runs, partial(self.repeat, nn.Identity(), inputs[-1])],
            len(self.confirmation),
            subject.device,
            energy=True,
        )
        largest = len(shapes) - 1
        subject.report(f"{1e6 * times.median(largest) / self.repeats:.3g} µs")
        rounds = zip(self.confirmation, times.seconds[largest], strict=True)
        samples = [Sample(seed=seed, value=1e6 * seconds / self.repeats) for seed, seconds in rounds]
        memory = [saved_bytes(layer, x) / MIB for layer, x in zip(layers, inputs, strict=True)]
        trace: list[dict[str, Json]] = [
            {
                "phase": "shape",
                "shape": "×".join(map(str, shape)),
                "us": rounded(1e6 * times.median(k) / self.repeats),
                "kept_mib": memory[k],
            }
            for k, shape in enumerate(shapes)
        ]
        derived: dict[str, Json] = {
            "ratio_to_identity": rounded(times.ratio(largest, largest + 1)),
            "kept_mib": memory[-1],
            "drift": times.drift(largest),
            "idle": times.idle,
        }
        if times.joules:
            derived["joules_per_pass"] = rounded(times.joules[largest] / self.repeats)
        return self.measurement(samples, derived, trace)

    def repeat(self, layer: nn.Module, x: Tensor) -> None:
        """Run forward and backward, to the input and the parameters, `repeats` times."""
        for _ in range(self.repeats):
            torch.autograd.grad(layer(x).sum(), [x, *(p for p in layer.parameters() if p.requires_grad)])


def saved_bytes(layer: nn.Module, x: Tensor) -> int:
    """Count the bytes that autograd keeps for the backward pass, each storage once."""
    sizes: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        layer(x)
    return sum(sizes.values())
