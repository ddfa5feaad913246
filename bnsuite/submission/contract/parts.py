"""Checks of a network's parts: each has parameters of its own, from the start."""

from collections.abc import Iterator

from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin

from bnsuite.facets.probe_network import Stage
from bnsuite.submission.contract.trial import broken

OLD_HOOKS = {
    "torch.nn.utils.weight_norm": "torch.nn.utils.parametrizations.weight_norm",
    "torch.nn.utils.spectral_norm": "torch.nn.utils.parametrizations.spectral_norm",
    "torch.nn.utils.prune": "torch.nn.utils.parametrize.register_parametrization with a mask",
}
"""torch module whose hooks replace a parameter by a plain tensor → what to use instead."""


def plain_parameters(stage: Stage) -> None:
    """Check that parameters exist before the first call, and that no hook replaces one by a plain tensor.

    Raises:
        BrokenError: they do not, or a hook does.
    """
    for name, module in stage.network().named_modules():
        kind = type(module).__name__
        if isinstance(module, LazyModuleMixin):
            got = f"a lazy module, {name} ({kind}), whose parameters come with its first call"
            do = f"Build it from num_features: {kind.removeprefix('Lazy')}(num_features)"
            raise broken(got, "parameters from the start", do)
        for hook in module._forward_pre_hooks.values():
            if new := OLD_HOOKS.get(type(hook).__module__):
                got = (
                    f"a hook of {type(hook).__module__} at {name}, which makes a weight that is no parameter"
                )
                raise broken(got, "a parametrization, which can be copied and moved", f"Use {new}")


def built_anew(stage: Stage) -> None:
    """Check that two networks have no parameter or buffer in common.

    Raises:
        BrokenError: they have.
    """
    first, second = stage.network(), stage.network()
    tensors_of_first = {id(tensor) for _, _, tensor in _tensors(first)}
    for name, module, tensor in _tensors(second):
        if id(tensor) in tensors_of_first:
            got = f"the same {type(module).__name__} from the factory each time, such as {name}"
            do = (
                "Build it within the factory, and cache nothing: Scheme(name, MyNorm), or lambda n: MyNorm(n)"
            )
            raise broken(got, "a new module at each call", do)


def _tensors(network: nn.Module) -> Iterator[tuple[str, nn.Module, Tensor]]:
    """All parameters and buffers, each with the name of its module and the module."""
    for name, module in network.named_modules():
        for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
            yield name, module, tensor
