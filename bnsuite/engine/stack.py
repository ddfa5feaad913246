"""Stack: networks of one shape behind one call, and whether theirs can be."""

import copy
from collections.abc import Sequence
from functools import cached_property
from itertools import compress

import torch
from torch import Tensor, nn
from torch.func import functional_call

from bnsuite.engine.shapes import check_examples, check_network
from bnsuite.engine.stacked import StackedCall, laid
from bnsuite.engine.train import Loss, Parameters, parameters_of, training_step

EVALUATED = 512
"""Examples that `Stack.evaluate` takes at a time: activations of a whole test set would not fit."""


class Stack:
    """R networks of one architecture behind one call, their trainable parameters (R, *shape) by name.

    Stacked, they share one call (`engine.stacked`); otherwise each network is called in turn with its own
    Python state and random numbers of its own (seed, call), so that dropping lanes shifts nobody's stream.
    """

    def __init__(self, networks: Sequence[nn.Module], seeds: Sequence[int], *, stacked: bool) -> None:
        if not networks or len(networks) != len(seeds):
            raise ValueError(
                f"a stack has at least 1 network and a seed of each: got {len(networks)} networks and "
                f"{len(seeds)} seeds"
            )
        self.params = _stack([parameters_of(network) for network in networks])
        self.stacked = stacked
        if stacked:
            self.params = laid(self.params)
            self._frozen = laid(_stack([_frozen(network) for network in networks]))
            self._template = networks[0]
            self._buffers = _stack([dict(network.named_buffers()) for network in networks])
            self._call = StackedCall(self._template)
        else:
            self._networks = [copy.deepcopy(network) for network in networks]
            self._seeds, self._calls = list(seeds), 0

    def __len__(self) -> int:
        return len(next(iter(self.params.values())))

    def forward(self, params: Parameters, x: Tensor) -> Tensor:
        """params (R, *shape) each, x (R, N, …) → logits (R, N, classes)."""
        if self.stacked:
            return self._call({**self._frozen, **params}, self._buffers, x)
        self._calls += 1
        return torch.stack([self._call_one(i, _row(params, i), x[i]) for i in range(len(x))])

    def _call_one(self, i: int, params: Parameters, x: Tensor) -> Tensor:
        with torch.random.fork_rng():
            torch.manual_seed(self._seeds[i] * 1_000_003 + self._calls)
            logits: Tensor = functional_call(self._networks[i], params, (x,))
            return logits

    def keep(self, staying: Tensor) -> None:
        """Drop every lane but those that the mask (R,) names."""
        self.params = _row(self.params, staying)
        if self.stacked:
            self._frozen, self._buffers = (_row(each, staying) for each in (self._frozen, self._buffers))
        else:
            self._networks = list(compress(self._networks, staying.tolist()))
            self._seeds = list(compress(self._seeds, staying.tolist()))

    def network(self, i: int) -> nn.Module:
        """A network of its own with the parameters and buffers of lane i."""
        network = copy.deepcopy(self._template if self.stacked else self._networks[i])
        state = _row({**self.params, **self._frozen, **self._buffers} if self.stacked else self.params, i)
        with torch.no_grad():
            for name, tensor in [*network.named_parameters(), *network.named_buffers()]:
                tensor.copy_(state.get(name, tensor))
        return network

    @cached_property
    def _evaluating(self) -> StackedCall:
        """Of a template that stays in evaluation mode: to switch one to and fro takes longer than a layer."""
        return StackedCall(copy.deepcopy(self._template).eval())

    @torch.no_grad()
    def evaluate(self, x: Tensor) -> Tensor:
        """Logits (R, N, classes) of every lane on the same x (N, …), in evaluation mode."""
        parts = (part.expand(len(self), *part.shape) for part in torch.split(x, EVALUATED))
        if self.stacked:
            params = {**self._frozen, **self.params}
            return torch.cat([self._evaluating(params, self._buffers, part) for part in parts], 1)
        for network in self._networks:
            network.eval()
        logits = torch.cat([self.forward(self.params, part) for part in parts], 1)
        for network in self._networks:
            network.train()
        return logits


def _frozen(network: nn.Module) -> Parameters:
    return {name: p.detach() for name, p in network.named_parameters() if not p.requires_grad}


def _stack(named: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.stack([each[name] for each in named]) for name in named[0]}


def _row(named: dict[str, Tensor], rows: int | Tensor) -> dict[str, Tensor]:
    """Of every tensor the row, or the rows that a mask names."""
    return {name: tensor[rows] for name, tensor in named.items()}


def can_stack(network: nn.Module, x: Tensor, y: Tensor, loss: Loss | None = None) -> bool:
    """Whether copies, stacked, take the same two steps as the loop over each; x (N, …), y (N,).

    Modules that branch on their data, keep Python state or draw random numbers do not. One of three
    copies is dropped between the steps: state that is no buffer would not be dropped with it.

    Args:
        network: in training mode, with the device and dtype of x; left as it was.
        x, y: examples to try it on.
        loss: as that of `sweep`.

    Raises:
        ValueError: sizes, labels, device or dtype that cannot be.
    """
    check_examples(x, y, labels=loss is None)
    check_network(network, x)

    def two_steps(stacked: bool) -> Tensor:
        stack = Stack([network] * 3, [0] * 3, stacked=stacked)
        rates = torch.tensor([1e-3, 3e-3, 1e-2], device=x.device, dtype=x.dtype)
        for staying in ([True, False, True], [True, True]):
            xs, ys = (tensor.expand(len(stack), *tensor.shape) for tensor in (x, y))
            training_step(stack.forward, stack.params, None, xs, ys, rates, 0.0, loss)
            mask = torch.tensor(staying, device=x.device)
            stack.keep(mask)
            rates = rates[mask]
        tensors = [*stack.params.values(), stack.evaluate(x)]
        return torch.cat([tensor.reshape(len(stack), -1) for tensor in tensors], 1)

    alone = two_steps(False)
    try:
        return torch.allclose(two_steps(True), alone, rtol=1e-3, atol=1e-4, equal_nan=True)
    except Exception:  # whatever foreign code raises under vmap, the answer is the same
        return False
