"""Scheme: a normalizer and the topology around it."""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Literal

from torch import nn

from bnsuite.records.manifest import NAME
from bnsuite.schemes.source_hash import sources

Skip = Literal["none", "pre", "post"]
"""Residual path: none, with the normalizer inside the branch (pre), or with the normalizer after the sum."""

Factory = Callable[[int], nn.Module]
"""num_features → module on (N, C, *S), C = num_features."""


@dataclass(frozen=True)
class Scheme:
    """Normalization scheme: a normalizer, and the topology around it.

    With φ the activation, N_l the normalizer and α_l the branch scale, h_1 = W_1 x + b_1 and

    - skip="none": h_{l+1} = W φ(N_l(h_l)) + b
    - skip="pre":  h_{l+1} = h_l + α_l (W φ(N_l(h_l)) + b)
    - skip="post": h_{l+1} = N_{l+1}(h_l + α_l (W φ(h_l) + b))

    The family `transformer` has residual paths of its own: see `networks.transformer`.

    Attributes:
        name: lower-case letters, digits and hyphens, at most 40.
        norm: builds the normalizer from `num_features`; any module on (N, C, *S). None: no normalizer.
        skip: topology, as above.
        branch: α_l, a number, or a factory (num_features, depth) → module applied to the branch.
        weight: hidden weight layer → the layer that replaces it, such as
            `torch.nn.utils.parametrizations.weight_norm`.
        init: changes the initialized network in place (facet `own-init`).
        activation: builds φ from `num_features` (facet `own-activation`). None: the activation of the task.
        paper: source of the scheme, shown on its page.

    Raises:
        ValueError: the name is malformed, the topology unknown, or a branch scale has no branch.
        TypeError: the normalizer is not a factory.
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
        """Facets of what the scheme has besides a normalizer in a plain network, for filters."""
        present = {
            "residual": self.skip != "none",
            "post-norm": self.skip == "post",
            "own-init": self.init is not None,
            "own-activation": self.activation is not None,
            "weight-parametrization": self.weight is not None,
        }
        return tuple(facet for facet, holds in present.items() if holds)

    @property
    def about(self) -> str:
        """Description in one line: topology, normalizer, other parts, paper."""
        paths = {"none": "plain", "pre": "pre-activation residual", "post": "post-norm residual"}
        norm = getattr(self.norm, "__name__", repr(self.norm)) if self.norm else "no normalizer"
        own = [facet for facet in self.facets if facet not in ("residual", "post-norm")]
        return ", ".join(filter(None, (paths[self.skip], norm, *own, self.paper)))

    def source_hash(self) -> str:
        """SHA-256 over everything that defines the scheme, except its name and paper.

        A callable enters with its source, and with the source of what it refers to in its own module.
        Callables of torch and of the standard library enter with their qualified names.
        """
        digest = hashlib.sha256()
        for field in fields(self):
            if field.name not in ("name", "paper"):
                digest.update(f"{field.name}\n".encode())
                for text in sources(getattr(self, field.name), {}):
                    digest.update(f"{text}\n".encode())
        return digest.hexdigest()
