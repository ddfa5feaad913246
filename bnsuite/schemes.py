"""Scheme: a normalizer and the topology around it. `SCHEMES` lists the built-in ones."""

import ast
import hashlib
import inspect
import re
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import partial
from importlib.metadata import entry_points
from types import CodeType, FunctionType
from typing import Any, Literal

from torch import nn

from bnsuite.names import lookup
from bnsuite.norms import (
    NORMS,
    TLU,
    LayerScale,
    OverAlpha,
    OverDepth,
    SkipInit,
    deepnorm,
    fixup,
    scaled_weight_standardization,
    weight_norm,
    weight_standardization,
)
from bnsuite.records.manifest import NAME

Skip = Literal["none", "pre", "post"]
Factory = Callable[[int], nn.Module]


@dataclass(frozen=True)
class Scheme:
    """What is compared: how activations are normalized, and what stands around the normalizer.

    With φ the activation, N_l the normalizer and α_l the branch scale, h_1 = W_1 x + b_1 and

    - skip="none": h_{l+1} = W φ(N_l(h_l)) + b
    - skip="pre":  h_{l+1} = h_l + α_l (W φ(N_l(h_l)) + b)
    - skip="post": h_{l+1} = N_{l+1}(h_l + α_l (W φ(h_l) + b))

    The family `transformer` has residual paths of its own: see `networks.Transformer`.

    Attributes:
        name: lower-case letters, digits and hyphens, at most 40.
        norm: builds the normalizer from `num_features`; any module on (N, C, *S). None: no normalizer.
        skip: topology, as above.
        branch: α_l, a number, or a factory (num_features, depth) → module applied to the branch.
        weight: each hidden weight layer → the one in its place, such as
            `torch.nn.utils.parametrizations.weight_norm`.
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
        if not re.fullmatch(NAME, self.name):
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

    @property
    def about(self) -> str:
        """The scheme in one line: topology, normalizer, paper."""
        topology = {"none": "plain", "pre": "pre-activation residual", "post": "post-norm residual"}[
            self.skip
        ]
        norm = getattr(self.norm, "__name__", repr(self.norm)) if self.norm else "no normalizer"
        own = [facet for facet in self.facets if facet not in ("residual", "post-norm")]
        return ", ".join(filter(None, (topology, norm, *own, self.paper)))

    def source_hash(self) -> str:
        """SHA-256 over everything that defines the scheme but its name and paper.

        Callables enter with their source and that of what they refer to in their own module; those of
        torch and of the standard library with their qualified name.
        """
        digest = hashlib.sha256()
        for field in fields(self):
            if field.name not in ("name", "paper"):
                digest.update(f"{field.name}\n".encode())
                for text in _sources(getattr(self, field.name), {}):
                    digest.update(f"{text}\n".encode())
        return digest.hexdigest()


def _sources(value: Any, seen: dict[int, Any]) -> Iterator[str]:
    if not callable(value) and not isinstance(value, (tuple, list, dict)):
        yield re.sub(r" at 0x[0-9a-f]+", "", repr(value))
        return
    if id(value) in seen:
        return
    seen[id(value)] = value  # held, so that its id stays its own
    if isinstance(value, dict):
        yield from _sources(sorted(value.items(), key=repr), seen)
    elif isinstance(value, (tuple, list)):
        yield f"{len(value)}:"
        for part in value:
            yield from _sources(part, dict(seen))  # an equal part counts again
    elif isinstance(value, partial):
        yield "partial"
        yield from _sources((value.args, value.keywords), seen)
        yield from _sources(value.func, seen)
    elif not hasattr(value, "__qualname__"):
        yield from _sources(type(value), seen)
        yield from _sources(vars(value), seen)
    else:
        yield from _callable_sources(value, seen)


def _callable_sources(value: Any, seen: dict[int, Any]) -> Iterator[str]:
    module = value.__module__ or ""
    root = module.partition(".")[0]
    if root == "torch" or root in sys.stdlib_module_names - {"__main__"}:
        yield f"{module}.{value.__qualname__}"
        return
    functions = [f for f in (value, *getattr(value, "__dict__", {}).values()) if inspect.isfunction(f)]
    try:
        source = _source_of(value)
    except (OSError, TypeError):  # typed at a prompt, or compiled
        source = "\n".join(text for f in functions for text in _code(f.__code__))
        yield f"{module}.{value.__qualname__} {source}"
    else:
        yield source
    for base in getattr(value, "__bases__", ()):
        yield from _sources(base, seen)
    for function in functions:
        for held in (function.__defaults__, function.__kwdefaults__):
            if held:
                yield from _sources(held, seen)
        for cell in function.__closure__ or ():
            yield from _sources(cell.cell_contents, seen)
    namespace = next((f.__globals__ for f in functions), vars(sys.modules.get(module, object)))
    for name in _names_in(source, functions):
        found = namespace.get(name)
        if isinstance(found, (int, float, str, tuple, list, dict)):
            yield f"{name} ="
            yield from _sources(found, dict(seen))
        elif getattr(found, "__module__", None) == module:
            yield from _sources(found, seen)


def _source_of(value: Any) -> str:
    """The source of a class or function; of a lambda its own expression, not the statement around it."""
    if getattr(value, "__name__", "") != "<lambda>":
        return textwrap.dedent(inspect.getsource(value))
    *_, (line, _, column, _) = value.__code__.co_positions()  # of what it returns
    tree = ast.parse("".join(inspect.findsource(value)[0]))
    for node in ast.walk(tree):
        if isinstance(node, ast.Lambda) and (node.body.lineno, node.body.col_offset) == (line, column):
            return ast.unparse(node)
    raise OSError("the file is not the one that was compiled")


def _code(code: CodeType) -> Iterator[str]:
    yield f"{code.co_code.hex()} {code.co_names}"
    for constant in code.co_consts:
        yield from _code(constant) if isinstance(constant, CodeType) else [repr(constant)]


def _names_in(source: str, functions: Sequence[FunctionType]) -> list[str]:
    try:
        found = {node.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)}
    except SyntaxError:  # no source
        found = {name for function in functions for name in function.__code__.co_names}
    return sorted(found)


def linear(num_features: int) -> nn.Module:
    """φ(x) = x, behind a normalizer that is an activation too."""
    return nn.Identity()


_BUILT_IN = (
    Scheme("none"),
    Scheme("batchnorm", NORMS["batch"], paper="arXiv 1502.03167"),
    Scheme("residual-batchnorm", NORMS["batch"], skip="pre", paper="arXiv 1603.05027"),
    Scheme("layernorm", NORMS["layer"], paper="arXiv 1607.06450"),
    Scheme("mean-only", NORMS["mean-only"], paper="arXiv 1602.07868"),
    Scheme("ghostbatch", NORMS["ghostbatch"], paper="arXiv 1705.08741"),
    Scheme("batchrenorm", NORMS["batchrenorm"], paper="arXiv 1702.03275"),
    Scheme("powernorm", NORMS["power"], paper="arXiv 2003.07845"),
    Scheme("onlinenorm", NORMS["online"], paper="arXiv 1905.05894"),
    Scheme("rmsnorm", NORMS["rms"], paper="arXiv 1910.07467"),
    Scheme("groupnorm", NORMS["group"], paper="arXiv 1803.08494"),
    Scheme("instancenorm", NORMS["instance"], paper="arXiv 1607.08022"),
    Scheme("frn", NORMS["frn"], activation=TLU, paper="arXiv 1911.09737"),
    Scheme("evonorm-s0", NORMS["evonorm-s0"], activation=linear, paper="arXiv 2004.02967"),
    Scheme("dyt", NORMS["dyt"], paper="arXiv 2503.10622"),
    Scheme("derf", NORMS["derf"], paper="arXiv 2512.10938"),
    Scheme("weightnorm", weight=weight_norm, paper="arXiv 1602.07868"),
    Scheme("weight-standardization", weight=weight_standardization, paper="arXiv 1903.10520"),
    Scheme("groupnorm-ws", NORMS["group"], weight=weight_standardization, paper="arXiv 1903.10520"),
    Scheme("scaled-ws", weight=scaled_weight_standardization, paper="arXiv 2101.08692"),
    Scheme("postln", NORMS["layer"], skip="post", paper="arXiv 1706.03762"),
    Scheme("preln", NORMS["layer"], skip="pre", paper="arXiv 2002.04745"),
    Scheme("deepnorm", NORMS["layer"], "post", OverAlpha, init=deepnorm, paper="arXiv 2203.00555"),
    Scheme("residual-rmsnorm", NORMS["rms"], skip="pre", paper="arXiv 1910.07467"),
    Scheme("residual-none", skip="pre", paper="arXiv 1603.05027"),
    Scheme("residual-1-over-sqrt2", skip="pre", branch=0.5**0.5),
    Scheme("residual-1-over-l", skip="pre", branch=OverDepth),
    Scheme("layerscale", NORMS["layer"], skip="pre", branch=LayerScale, paper="arXiv 2103.17239"),
    Scheme("skipinit", skip="pre", branch=SkipInit, paper="arXiv 2002.10444"),
    Scheme(
        "fixup",
        NORMS["scalar-bias"],
        skip="pre",
        branch=partial(SkipInit, start=1.0),
        init=fixup,
        paper="arXiv 1901.09321",
    ),
)

SCHEMES: dict[str, Scheme] = {scheme.name: scheme for scheme in _BUILT_IN}
"""The registry: every built-in scheme by name. To add one, add a line above."""

REFERENCES = ("none", "batchnorm", "residual-batchnorm", "layernorm")
"""The four schemes that every other one is compared with."""

_ROLES = {
    "norm": "N",
    "activation": "φ",
    "branch": "α_l",
    "weight": "W",
    "init": "Initialization",
}


def catalogue() -> str:
    """Every built-in scheme in Markdown: its topology, and the definition of each part that it brings.

    `leaderboard/SCHEMES.md` is this text, and the board shows it.
    """
    text = inspect.cleandoc(Scheme.__doc__ or "")
    blocks = ["# The schemes", text[text.index("With φ") : text.index("Attributes:")].strip()]
    for scheme in SCHEMES.values():
        blocks += [f"## {scheme.name}", f"{scheme.about}."]
        for role, symbol in _ROLES.items():
            part = getattr(scheme, role)
            if callable(part):
                built = part.func if isinstance(part, partial) else part
                given = ", ".join(f"{k}={v}" for k, v in part.keywords.items()) if built is not part else ""
                words = " ".join((inspect.getdoc(built) or "").split())
                blocks.append(f"- {symbol} is `{built.__name__}{f'({given})' * bool(given)}`: {words}")
    return "\n\n".join(blocks) + "\n"


GROUP = "bnsuite.schemes"
"""Entry points of this group bring the schemes of installed packages, each under its scheme's name."""


def find_scheme(name: str) -> Scheme:
    """The built-in scheme of that name, or the one that an installed package brings.

    Raises:
        UnknownNameError: there is none.
        ValueError: the package's cannot be loaded, or is no scheme of that name.
    """
    brought = {point.name: point for point in entry_points(group=GROUP)}
    if name in SCHEMES or name not in brought:
        return lookup("scheme", name, {**dict.fromkeys(brought), **SCHEMES})  # type: ignore[return-value]
    point = brought[name]
    package = point.dist.name if point.dist else point.module
    try:
        found = point.load()
    except Exception as error:
        raise ValueError(f"scheme {name!r} of {package}: {type(error).__name__}: {error}") from error
    if not isinstance(found, Scheme) or found.name != name:
        raise ValueError(
            f"scheme {name!r} of {package}: wanted a Scheme of that name at {point.value}, got {found!r}"
        )
    return found


def scheme_names() -> list[str]:
    """Of every scheme that `find_scheme` finds: the built-in ones, then those of installed packages."""
    return list(dict.fromkeys([*SCHEMES, *sorted(point.name for point in entry_points(group=GROUP))]))
