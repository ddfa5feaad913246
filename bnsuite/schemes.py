"""Scheme: a normalizer and the topology around it. `SCHEMES` lists the built-in ones."""

import ast
import hashlib
import inspect
import re
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, Literal

from torch import nn

from bnsuite.norms import NORMS

Skip = Literal["none", "pre", "post"]
Factory = Callable[[int], nn.Module]

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")


@dataclass(frozen=True)
class Scheme:
    """What is compared: how activations are normalized, and what stands around the normalizer.

    With φ the activation, N_l the normalizer and α_l the branch scale, h_1 = W_1 x + b_1 and

    - skip="none": h_{l+1} = W φ(N_l(h_l)) + b
    - skip="pre":  h_{l+1} = h_l + α_l (W φ(N_l(h_l)) + b)
    - skip="post": h_{l+1} = N_{l+1}(h_l + α_l (W φ(h_l) + b))

    Attributes:
        name: lower-case letters, digits and hyphens, at most 40.
        norm: builds the normalizer from `num_features`; any module on (N, C, *S). None: no normalizer.
        skip: topology, as above.
        branch: α_l, a number, or a factory (num_features, depth) → module applied to the branch.
        weight: wraps each hidden weight layer, such as `torch.nn.utils.parametrizations.weight_norm`.
        init: changes the initialized network in place (facet `own-init`).
        activation: builds φ from `num_features` (facet `own-activation`). None: the task's.
        paper: where the scheme is from, for its page.

    Raises:
        ValueError: for a name or topology that cannot be.
        TypeError: for a normalizer that is not a factory.
    """

    name: str
    norm: Factory | None = None
    skip: Skip = "none"
    branch: float | Callable[[int, int], nn.Module] = 1.0
    weight: Callable[[nn.Module], nn.Module] | None = None
    init: Callable[[nn.Module], None] | None = None
    activation: Factory | None = None
    paper: str = ""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(
                f"a scheme's name is 1 to 40 lower-case letters, digits and hyphens: got {self.name!r}"
            )
        if self.skip not in ("none", "pre", "post"):
            raise ValueError(f"skip is 'none', 'pre' or 'post': got {self.skip!r}")
        if isinstance(self.norm, nn.Module) or not (self.norm is None or callable(self.norm)):
            raise TypeError(
                f"norm builds a module from num_features, such as the class itself: got {self.norm!r}. "
                "Try Scheme(name, MyNorm) in place of Scheme(name, MyNorm(64))."
            )
        if self.skip == "none" and self.branch != 1.0:
            raise ValueError("a branch scale needs a branch: give skip='pre' or skip='post'")

    @property
    def facets(self) -> tuple[str, ...]:
        """What sets the scheme apart from a normalizer in a plain network, for filters."""
        found = {
            "residual": self.skip != "none",
            "post-norm": self.skip == "post",
            "own-init": self.init is not None,
            "own-activation": self.activation is not None,
            "weight-parametrization": self.weight is not None,
        }
        return tuple(name for name, present in found.items() if present)

    def source_hash(self) -> str:
        """SHA-256 over everything that defines the scheme but its name and paper.

        Callables enter with their source and that of what they refer to in their own module; those of
        torch and of the standard library with their qualified name.
        """
        digest = hashlib.sha256()
        for field in fields(self):
            if field.name not in ("name", "paper"):
                digest.update(f"{field.name}\n".encode())
                for text in _sources(getattr(self, field.name), set()):
                    digest.update(f"{text}\n".encode())
        return digest.hexdigest()


def _sources(value: Any, seen: set[int]) -> Iterator[str]:
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, partial):
        yield f"partial {value.args!r} {sorted(value.keywords.items())!r}"
        yield from _sources(value.func, seen)
    elif not callable(value):
        yield repr(value)
    elif not hasattr(value, "__qualname__"):
        yield from _sources(type(value), seen)
        yield repr(sorted(vars(value).items()))
    else:
        yield from _callable_sources(value, seen)


def _callable_sources(value: Any, seen: set[int]) -> Iterator[str]:
    module = value.__module__ or ""
    root = module.partition(".")[0]
    if root == "torch" or root in sys.stdlib_module_names - {"__main__"}:
        yield f"{module}.{value.__qualname__}"
        return
    try:
        source = textwrap.dedent(inspect.getsource(value))
    except (OSError, TypeError):  # typed at a prompt, or compiled
        code = getattr(value, "__code__", None)
        yield f"{module}.{value.__qualname__} {code.co_code.hex() if code else ''}"
        return
    yield source
    for base in getattr(value, "__bases__", ()):
        yield from _sources(base, seen)
    namespace = vars(sys.modules.get(module, object)) if module in sys.modules else {}
    for name in _names_in(source):
        found = namespace.get(name)
        if getattr(found, "__module__", None) == module or isinstance(found, (int, float, str, tuple)):
            yield from _sources(found, seen)


def _names_in(source: str) -> list[str]:
    try:
        tree = ast.parse(source)
    except SyntaxError:  # a lambda cut out of its expression
        return sorted(set(re.findall(r"[A-Za-z_]\w*", source)))
    return sorted({node.id for node in ast.walk(tree) if isinstance(node, ast.Name)})


_BUILT_IN = (
    Scheme("none"),
    Scheme("batchnorm", NORMS["batch"], paper="arXiv 1502.03167"),
    Scheme("residual-batchnorm", NORMS["batch"], skip="pre", paper="arXiv 1603.05027"),
    Scheme("layernorm", NORMS["layer"], paper="arXiv 1607.06450"),
)

SCHEMES: dict[str, Scheme] = {scheme.name: scheme for scheme in _BUILT_IN}
"""The registry: every built-in scheme by name. To add one, add a line above."""

REFERENCES = ("none", "batchnorm", "residual-batchnorm", "layernorm")
"""The four schemes that every other one is compared with."""
