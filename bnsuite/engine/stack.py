"""Stack: R networks of one architecture behind one call, and the test of whether they can share it."""

import copy
from collections.abc import Sequence
from functools import cached_property
from itertools import compress

import torch
from torch import Tensor, nn
from torch.func import functional_call

from bnsuite.engine.shapes import check_examples, check_network
from bnsuite.engine.stacked import StackedCall, transposed_in_memory
from bnsuite.engine.train import Loss, Parameters, parameters_of, training_step

EVALUATED = 512
"""Examples per call in `Stack.evaluate`: activations of a whole test set would not fit into memory."""


class Stack:
    """R networks of one architecture behind one call.

    Stacked networks share one call (`engine.stacked`). Otherwise each network is called in turn, with its own
    Python state and with random numbers seeded by (its seed, number of the call), so that dropping a lane
    changes no other lane's random numbers.

    Args:
        networks: at least one, all of one architecture; they are copied.
        seeds: seed of each network.
        stacked: whether the networks share one call (see `can_stack`).

    Attributes:
        params: trainable parameters by name, each (R, *shape).

    Raises:
        ValueError: no network, or not one seed per network.
    """

    def __init__(self, networks: Sequence[nn.Module], seeds: Sequence[int], *, stacked: bool) -> None:
        if not networks or len(networks) != len(seeds):
            raise ValueError(
                "a stack needs at least 1 network and one seed per network: "
                f"got {len(networks)} networks and {len(seeds)} seeds"
            )
        self.params = _stack([parameters_of(network) for network in networks])
        self.stacked = stacked
        if stacked:
            self.params = transposed_in_memory(self.params)
            self._frozen = transposed_in_memory(_stack([_frozen(network) for network in networks]))
            self._template = networks[0]
            self._buffers = _stack([dict(network.named_buffers()) for network in networks])
            self._call = StackedCall(self._template)
        else:
            self._networks = [copy.deepcopy(network) for network in networks]
            self._seeds, self._calls = list(seeds), 0

    def __len__(self) -> int:
        return len(next(iter(self.params.values())))

    def forward(self, params: Parameters, x: Tensor) -> Tensor:
        """Logits (R, N, classes) at `params`, each (R, *shape), for inputs x (R, N, …)."""
        if self.stacked:
            return self._call({**self._frozen, **params}, self._buffers, x)
        self._calls += 1
        return torch.stack([self._call_one(i, _at(params, i), x[i]) for i in range(len(x))])

    def _call_one(self, i: int, params: Parameters, x: Tensor) -> Tensor:
        # without a GPU, torch.manual_seed takes as long as a small network: it formats a traceback for CUDA
        start = torch.manual_seed if x.is_cuda else torch.default_generator.manual_seed
        with torch.random.fork_rng():
            start(self._seeds[i] * 1_000_003 + self._calls)
            logits: Tensor = functional_call(self._networks[i], params, (x,))
            return logits

    def keep(self, staying: Tensor) -> None:
        """Drop every lane that is False in the mask `staying` (R,)."""
        self.params = _at(self.params, staying)
        if self.stacked:
            self._frozen, self._buffers = _at(self._frozen, staying), _at(self._buffers, staying)
        else:
            self._networks = list(compress(self._networks, staying.tolist()))
            self._seeds = list(compress(self._seeds, staying.tolist()))

    def network(self, i: int) -> nn.Module:
        """Copy of the network of lane i, with its parameters and buffers."""
        network = copy.deepcopy(self._template if self.stacked else self._networks[i])
        state = _at({**self.params, **self._frozen, **self._buffers} if self.stacked else self.params, i)
        with torch.no_grad():
            for name, tensor in [*network.named_parameters(), *network.named_buffers()]:
                tensor.copy_(state.get(name, tensor))
        return network

    @cached_property
    def _evaluating(self) -> StackedCall:
        """Copy kept in evaluation mode; toggling modes costs more than a layer."""
        return StackedCall(copy.deepcopy(self._template).eval())

    @torch.no_grad()
    def evaluate(self, x: Tensor) -> Tensor:
        """Logits (R, N, classes) of every lane for one x (N, …), in evaluation mode."""
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


def _stack(tensors_of_networks: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {
        name: torch.stack([tensors[name] for tensors in tensors_of_networks])
        for name in tensors_of_networks[0]
    }


def _at(tensors: dict[str, Tensor], lanes: int | Tensor) -> dict[str, Tensor]:
    """Index every tensor by a lane's number, or by a mask of lanes."""
    return {name: tensor[lanes] for name, tensor in tensors.items()}


def can_stack(network: nn.Module, x: Tensor, y: Tensor, loss: Loss | None = None) -> bool:
    """Test whether stacked copies of a network take the same two training steps as copies called one by one.

    Modules that branch on their data, keep Python state or draw random numbers do not. One of three copies is
    dropped between the steps, which shows state that is not in a buffer.

    Args:
        network: in training mode, with the device and dtype of x; left as it was.
        x: inputs (N, …) to try it on.
        y: their class indices (N,), or targets (N, …) for a loss of your own.
        loss: loss function, as for `lanes.sweep`; None: mean cross-entropy.

    Raises:
        ValueError: sizes, labels, device or dtype do not match.
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
    except Exception:  # foreign code may raise anything under vmap; every error means no
        return False
