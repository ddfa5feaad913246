"""Registry: built-in schemes by name, and schemes of installed packages."""

from functools import partial
from importlib.metadata import entry_points

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
from bnsuite.schemes.scheme import Scheme


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
"""Built-in schemes by name. To add one, add a line above."""

REFERENCES = ("none", "batchnorm", "residual-batchnorm", "layernorm")
"""Names of the four reference schemes, with which every other scheme is compared."""

GROUP = "bnsuite.schemes"
"""Group of entry points through which installed packages bring schemes, each under its scheme's name."""


def find_scheme(name: str) -> Scheme:
    """Find a built-in scheme by name, or one that an installed package brings.

    Raises:
        UnknownNameError: there is no scheme of that name.
        ValueError: the package's object cannot be loaded, or is not a scheme of that name.
    """
    points = {point.name: point for point in entry_points(group=GROUP)}
    if name in SCHEMES or name not in points:
        return lookup("scheme", name, {**dict.fromkeys(points), **SCHEMES})  # type: ignore[return-value]
    point = points[name]
    package = point.dist.name if point.dist else point.module
    try:
        scheme = point.load()
    except Exception as error:
        raise ValueError(f"scheme {name!r} of {package}: {type(error).__name__}: {error}") from error
    if not isinstance(scheme, Scheme) or scheme.name != name:
        raise ValueError(
            f"scheme {name!r} of {package}: wanted a Scheme of that name at {point.value}, got {scheme!r}"
        )
    return scheme


def scheme_names() -> list[str]:
    """Names of all schemes that `find_scheme` finds: built-in schemes, then those of installed packages."""
    return list(dict.fromkeys([*SCHEMES, *sorted(point.name for point in entry_points(group=GROUP))]))
