"""Problem: a copy of a person's model with its loss and minibatches, in one precision and one mode."""

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from bnsuite.engine.curvature import GradientOperator, unflatten
from bnsuite.engine.double_backward import Twice
from bnsuite.engine.shapes import check_examples, check_network
from bnsuite.engine.train import trainable, vector_of

Inputs = Tensor | Sequence[Tensor] | Mapping[str, Tensor]
"""What a model is called with: model(x), model(*x) or model(**x)."""

Minibatch = tuple[Inputs, Tensor]
"""Inputs and targets, one row per example in each."""

Data = Minibatch | Iterable[Minibatch]
"""One minibatch, or several of any sizes."""

Loss = Callable[[Any, Tensor], Tensor]
"""(outputs, targets) → the mean over the minibatch, a scalar."""

Mode = Literal["train", "eval"]

IGNORED = -100
"""Label of an example that torch's losses leave out, unless told otherwise."""


class Problem:
    """L(θ) = Σ n_i L_i(θ) / Σ n_i over minibatches of n_i examples, L_i the loss of minibatch i.

    Everything happens on a deep copy of the model, so the model itself is never touched. Each forward pass
    starts from the buffers and the random numbers of its minibatch, so L is a function of θ alone.

    Raises:
        ValueError: a model in evaluation mode without `mode`; no trainable parameter, or one with a hook;
            minibatches of impossible sizes, or on another device or of another dtype than the model;
            a label that is no class of the model's outputs.
    """

    def __init__(
        self, model: nn.Module, loss: Loss, data: Data, mode: Mode | None, seed: int, dtype: torch.dtype
    ) -> None:
        trainable(model)  # on the model itself: a copy of a parameter has no hooks
        self.batches = _minibatches(data)
        for x, y in self.batches:
            _check_minibatch(model, x, y)
        self.network = copy.deepcopy(model).to(dtype)
        _set_mode(self.network, mode)
        self._loss = copy.deepcopy(loss).to(dtype) if isinstance(loss, nn.Module) else loss
        self._seed, self._dtype = seed, dtype
        self._examples = sum(len(y) for _, y in self.batches)

    def __len__(self) -> int:
        return len(self.batches)

    def hessian(self) -> GradientOperator:
        """Build v ↦ H v in the trainable parameters.

        The graph of one minibatch is kept; those of several are built anew in every product, one at a time.
        """
        gradients = _Gradients(self)
        return GradientOperator(gradients.params, list(gradients) if len(self) == 1 else gradients)

    def loss(self, i: int, params: Mapping[str, Tensor]) -> Tensor:
        """Compute n_i L_i / Σ n_i of minibatch i at these parameters, by name."""
        x, y = map(self._cast, self.batches[i])
        args = (x,) if isinstance(x, Tensor) else () if isinstance(x, Mapping) else x
        kwargs = dict(x) if isinstance(x, Mapping) else {}
        buffers = {name: buffer.clone() for name, buffer in self.network.named_buffers()}
        # fused attention has no second derivative
        with torch.random.fork_rng([*range(torch.cuda.device_count())]), sdpa_kernel(SDPBackend.MATH):
            torch.manual_seed(self._seed * 1_000_003 + i)
            outputs = functional_call(self.network, {**params, **buffers}, args, kwargs)
            try:
                loss = self._loss(outputs, y)
            except IndexError as error:
                if refusal := _stray_label(outputs, y):
                    raise ValueError(refusal) from error
                raise
        if not isinstance(loss, Tensor) or loss.dim():
            got = f"shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
            raise ValueError(f"a loss gives one number, the mean over the minibatch: got {got}. Use .mean().")
        if not loss.requires_grad:
            raise ValueError(
                "a loss depends on the parameters: got one without a gradient. Compute it without no_grad() "
                "and detach()."
            )
        return loss * (len(y) / self._examples)

    def _cast(self, part: Any) -> Any:
        """Convert floating-point tensors, in a tensor, a sequence or a mapping."""
        if isinstance(part, Tensor):
            return part.to(self._dtype) if part.is_floating_point() else part
        if isinstance(part, Mapping):
            return {name: self._cast(tensor) for name, tensor in part.items()}
        return tuple(self._cast(tensor) for tensor in part)


class _Gradients:
    """Gradients of the minibatches' losses in the vector of trainable parameters, built by every walk."""

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self.params = vector_of(problem.network).requires_grad_()

    def __iter__(self) -> Iterator[Tensor]:
        for i in range(len(self._problem)):
            with Twice(), torch.enable_grad():
                loss = self._problem.loss(i, unflatten(self.params, self._problem.network))
                (gradient,) = torch.autograd.grad(loss, self.params, create_graph=True)
            yield gradient


def _stray_label(outputs: Any, y: Tensor) -> str | None:
    """Explain that a label is no class of the outputs (N, C, …); None: all are, or y holds no labels."""
    if not isinstance(outputs, Tensor) or outputs.dim() < 2 or y.is_floating_point():
        return None
    classes = outputs.shape[1]
    stray = y[((y < 0) & (y != IGNORED)) | (y >= classes)].tolist()
    if not stray:
        return None
    return (
        f"y holds labels from 0 to {classes - 1}: got {stray[0]} for outputs of shape "
        f"{tuple(outputs.shape)}. Number the classes from 0, or give the model more outputs."
    )


def _minibatches(data: Any) -> list[Minibatch]:
    """List the minibatches; a pair whose second part is a tensor is a single one."""

    def is_pair(part: Any) -> bool:
        return isinstance(part, (tuple, list)) and len(part) == 2 and isinstance(part[1], Tensor)

    batches = [data] if is_pair(data) else [*data]
    wrong = [type(part).__name__ for part in batches if not is_pair(part)]
    if wrong or not batches:
        raise ValueError(
            f"data is one minibatch (x, y), y a tensor, or several: got {wrong[0] if wrong else 'none'}. "
            "Give a tuple, or a list of tuples."
        )
    return [(x, y) for x, y in batches]


def _check_minibatch(model: nn.Module, x: Inputs, y: Tensor) -> None:
    if isinstance(x, Tensor):
        check_examples(x, y, labels=False)
    for part in [x] if isinstance(x, Tensor) else x.values() if isinstance(x, Mapping) else x:
        check_network(model, part)
    if y.dim() < 1 or not len(y):
        raise ValueError(f"a minibatch has at least 1 example: got y {tuple(y.shape)}. Leave it out.")


def _set_mode(network: nn.Module, mode: Mode | None) -> None:
    if mode not in (None, "train", "eval"):
        raise ValueError(f"mode is 'train', 'eval' or None: got {mode!r}")
    if mode is not None:
        network.train(mode == "train")
    elif not network.training:
        raise ValueError(
            "the model is in evaluation mode, where batch norm uses its running statistics and dropout is "
            "off: another function than the one that training descends, with another curvature. Write "
            "mode='train' for the statistics of each minibatch, or mode='eval' for the running ones."
        )
