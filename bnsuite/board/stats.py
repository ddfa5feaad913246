"""When two entries are told apart."""

from collections.abc import Sequence

from bnsuite.records.sign_flip import ALPHA, sign_flip_p

__all__ = ["ALPHA", "MIN_SEEDS", "differs_upwards", "sign_flip_p"]

MIN_SEEDS = 6
"""Common seeds below which nothing is told apart: with 5 the smallest possible p is 2/32 > ALPHA."""


def differs_upwards(differences: Sequence[float]) -> bool:
    """Whether the differences are enough in number, upwards on average, and significantly so."""
    return len(differences) >= MIN_SEEDS and sum(differences) > 0 and sign_flip_p(differences) < ALPHA
