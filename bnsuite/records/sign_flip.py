"""The exact paired sign-flip permutation test, by which two sides are told apart."""

from collections.abc import Sequence

import numpy as np

ALPHA = 0.05
"""Two sides differ where p is below this."""

ENUMERATED = 20
"""Largest n whose 2^n sign vectors are all visited."""

DRAWS = 2**16
"""Sign vectors drawn, from a fixed seed, where there are too many to visit."""


def sign_flip_p(differences: Sequence[float]) -> float:
    """Two-sided p-value of the paired sign-flip permutation test of no difference.

    p = #{s in {-1, 1}^n : |Σ s_i d_i| >= |Σ d_i|} / 2^n

    Exact where each d_i is as likely to have had the other sign (Fisher, The Design of Experiments, 1935,
    section 21). Beyond `ENUMERATED` pairs, a fixed sample of sign vectors, the observed one counted in:
    still a valid test. Without pairs, or where all differences are zero, p is 1.

    >>> sign_flip_p([1, 2, 3, 4, 5, 6])
    0.03125
    """
    d = np.asarray(differences, dtype=float)
    if not d.size:
        return 1.0
    observed = abs(d.sum()) - 1e-9 * np.abs(d).sum()  # equal sums stay equal whatever their rounding
    if d.size > ENUMERATED:
        signs = np.random.default_rng(0).integers(0, 2, (DRAWS, d.size), dtype=np.int8) * 2 - 1
        return float((1 + np.count_nonzero(np.abs(signs @ d) >= observed)) / (1 + DRAWS))
    sums = d[:1]  # the first sign is held: s and -s give the same |sum|
    for difference in d[1:]:
        sums = np.concatenate([sums + difference, sums - difference])
    return float(np.count_nonzero(np.abs(sums) >= observed) / sums.size)
