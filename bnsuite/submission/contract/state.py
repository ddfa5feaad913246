"""Tests of the contract on state: what a network stores, shares and leaves behind."""

import copy
import pickle
import random
from collections.abc import Sequence

import numpy as np
import torch
from cloudpickle import dumps
from torch import Tensor, nn

from bnsuite.engine.stack import Stack, can_stack
from bnsuite.engine.train import mean_cross_entropy
from bnsuite.facets.probe_network import Stage
from bnsuite.schemes import Scheme
from bnsuite.submission.contract.trial import accepting, broken, descend, differ, settings_now, take_steps

BUFFER = "Keep what it remembers in register_buffer"


@torch.no_grad()
def _evaluated(network: nn.Module, x: Tensor) -> Tensor:
    torch.default_generator.manual_seed(0)
    out: Tensor = network.eval()(x)
    network.train()
    return out


def state_dict(scheme: Scheme) -> str:
    """A fresh network that loads the state of a trained one gives its outputs, and takes its next step."""
    for stage in accepting(scheme):
        trained, fresh = stage.network(), stage.network(seed=1)
        take_steps(stage, trained)
        fresh.load_state_dict(trained.state_dict())
        x, y = stage.data(seed=5)
        for what in ("outputs", "outputs after one more step"):
            if differ(_evaluated(fresh, x), _evaluated(trained, x)):
                raise broken(f"other {what} in {stage.family.name} from a loaded state", "the same", BUFFER)
            for network in (trained, fresh):
                torch.default_generator.manual_seed(0)
                descend(network, x, y)
    return "holds the whole state"


def evaluation(scheme: Scheme) -> str:
    """Evaluation changes no state, and gives an example what it gives it in any batch."""
    for stage in accepting(scheme):
        network, x = stage.network(), stage.data(seed=5)[0]
        take_steps(stage, network)
        before = {name: value.clone() for name, value in network.state_dict().items()}
        first = _evaluated(network, x)
        changed = [
            name for name, value in network.state_dict().items() if not torch.equal(value, before[name])
        ]
        if changed:
            raise broken(f"{changed[0]} changed by evaluation", "state as it was", "Ask self.training first")
        if differ(_evaluated(network, x), first):
            raise broken("another output at the second evaluation", "the same", "Ask self.training first")
        for n, words in ((2, "two examples"), (1, "an example alone")):
            if differ(_evaluated(network, x[:n]), first[:n], stage.rounding):
                got = f"another output for {words} than in a batch of 8, evaluated in {stage.family.name}"
                raise broken(got, "the same", "Use running statistics in evaluation")
    return "changes no state; an example alone is that example in a batch"


def copies(scheme: Scheme) -> str:
    """A deep copy of a network is independent of it, and the scheme can be sent to another process."""
    for stage in accepting(scheme):
        network, x = stage.network(), stage.data(seed=5)[0]
        take_steps(stage, network, steps=1)
        twin, before = copy.deepcopy(network), _evaluated(network, x)
        if differ(_evaluated(twin, x), before):
            raise broken("other outputs from a deep copy", "the same", BUFFER)
        take_steps(stage, twin)
        if differ(_evaluated(network, x), before):
            raise broken("a network that changed as its deep copy trained", "no shared state", BUFFER)
    sent = pickle.loads(dumps(scheme))
    stage = accepting(scheme)[0]
    x = stage.data()[0]
    if differ(_evaluated(Stage(sent, stage.family).network(), x), _evaluated(stage.network(), x)):
        raise broken("another network from the pickled scheme", "the same", "Build from arguments alone")
    return "independent; the scheme can be pickled"


def stacking(scheme: Scheme) -> str:
    """Networks train stacked with the steps that each takes alone, or it is found that they cannot."""
    unstackable = [stage for stage in accepting(scheme) if not can_stack(stage.network(2), *stage.data(32))]
    return f"lane by lane, slower: {_why(unstackable[0])}" if unstackable else "trains stacked"


def _why(stage: Stage) -> str:
    network, x = stage.network(2), stage.data(32)[0]
    try:
        stack = Stack([network] * 2, [0] * 2, stacked=True)
        stack.forward(stack.params, x.expand(2, *x.shape))
    except Exception as error:
        if ".item()" in str(error):
            return "it reads values, by .item(), float() or a branch on data"
        return f"{type(error).__name__}: {str(error).splitlines()[0][:120]}"
    return "stacked, it takes other steps (state that is no buffer, or random numbers)"


def separate_networks(scheme: Scheme) -> str:
    """Networks share no state: trained in turn or at once, each has the losses that it has alone."""

    def losses(stage: Stage, orders: Sequence[int]) -> list[list[float]]:
        networks, steps = [stage.network(seed=seed) for seed in (0, 1)], [0, 0]
        found: list[list[float]] = [[], []]
        for i in orders:
            torch.default_generator.manual_seed(steps[i])
            found[i].append(descend(networks[i], *stage.data(seed=10 * (i + 1) + steps[i])))
            steps[i] += 1
        return found

    for stage in accepting(scheme):
        first, *others = (
            losses(stage, order) for order in ((0, 0, 0, 1, 1, 1), (1, 1, 1, 0, 0, 0), (0, 1) * 3)
        )
        if any(repr(other) != repr(first) for other in others):
            got = f"losses that depend on the other networks trained, in {stage.family.name}"
            raise broken(got, "the same in any order", "Keep no state in classes, modules or closures")
    return "the same losses in any order"


def random_numbers(scheme: Scheme) -> str:
    """The global streams are left alone, but that a forward pass may draw from torch's."""
    drew = False
    for stage in accepting(scheme):
        torch.default_generator.manual_seed(20_261_122)
        before = random.getstate(), repr(np.random.get_state()), torch.initial_seed()
        network, (x, y) = stage.network(), stage.data()
        _no_other_stream(before, "building")
        state = torch.get_rng_state()
        torch.autograd.backward(mean_cross_entropy(network(x), y))
        drew = drew or not torch.equal(torch.get_rng_state(), state)
        _no_other_stream(before, "training")
        state = torch.get_rng_state()
        with torch.no_grad():
            network.eval()(x)
        _no_other_stream(before, "evaluation")
        if not torch.equal(torch.get_rng_state(), state):
            raise broken("numbers drawn in evaluation", "none", "Ask self.training first")
    return "draws from torch's generator, in training" if drew else "draws none"


def _no_other_stream(before: tuple[object, str, int], when: str) -> None:
    now = random.getstate(), repr(np.random.get_state()), torch.initial_seed()
    for stream, was, is_now in zip(
        ("Python's stream", "numpy's stream", "torch's seed"), before, now, strict=True
    ):
        if was != is_now:
            raise broken(
                f"{stream} changed by {when}", "it as it was", "Draw from torch's generator, unseeded"
            )


def settings(scheme: Scheme) -> str:
    """Torch's global settings are left as they were."""
    before = settings_now()
    for stage in accepting(scheme):
        network, x = stage.network(), stage.data()[0]
        take_steps(stage, network)
        _evaluated(network, x)
        for name, value in settings_now().items():
            if value != before[name]:
                do = "Pass dtype=, device= and the like where they are needed"
                raise broken(f"{name} set to {value}", str(before[name]), do)
    return "left as they were"
