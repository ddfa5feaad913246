"""Networks: families that build a network from a scheme and a depth, by the equations of the protocol."""

from bnsuite.networks.base import Family, Network, UnsupportedError, relu, softplus
from bnsuite.networks.layered import CNN, MLP
from bnsuite.networks.transformer import TRANSFORMER

FAMILIES: dict[str, Family] = {family.name: family for family in (MLP, CNN, TRANSFORMER)}
"""Every family by name. A new family is one file, and one entry here."""

__all__ = ["FAMILIES", "Family", "Network", "UnsupportedError", "relu", "softplus"]
