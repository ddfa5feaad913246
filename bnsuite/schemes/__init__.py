"""Schemes: the normalizers and topologies that are compared. `SCHEMES` lists the built-in schemes."""

from bnsuite.schemes.catalogue import catalogue
from bnsuite.schemes.registry import GROUP, REFERENCES, SCHEMES, find_scheme, scheme_names
from bnsuite.schemes.scheme import Factory, Scheme, Skip

__all__ = [
    "GROUP",
    "REFERENCES",
    "SCHEMES",
    "Factory",
    "Scheme",
    "Skip",
    "catalogue",
    "find_scheme",
    "scheme_names",
]
