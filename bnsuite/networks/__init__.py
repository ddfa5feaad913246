"""Networks: how a family builds one from a scheme and a depth, exactly by the protocol's equations."""

from bnsuite.networks.base import Family, Network, UnsupportedError, relu, softplus
from bnsuite.networks.layered import CNN, MLP
from bnsuite.networks.transformer import TRANSFORMER

FAMILIES: dict[str, Family] = {family.name: family for family in (MLP, CNN, TRANSFORMER)}
"""Every family by name; a new one is one file and one entry here."""

__all__ = ["FAMILIES", "Family", "Network", "UnsupportedError", "relu", "softplus"]
