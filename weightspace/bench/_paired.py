"""Compare rows with the row without augmentation, test network by test network and seed by seed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

Scores = Mapping[int, np.ndarray]
"""The score of every test network, ``[network]``, by seed."""
TWO_SIDED_95 = NormalDist().inv_cdf(0.975)


@dataclass(frozen=True)
class Comparison:
    """A row against the row without augmentation.

    Args:
        difference: of the mean test scores, over the seeds that both rows have.
        low: lower end of the interval that holds the difference with 95 % confidence.
        high: upper end.
        p: probability of a difference as large as this, either way, if there is none.
        p_corrected: the same, corrected for the number of rows that are compared (Holm).
        seeds: how many seeds both rows have.
    """

    difference: float
    low: float
    high: float
    p: float
    p_corrected: float
    seeds: int


def compare(rows: Mapping[str, Scores], base: Scores) -> dict[str, Comparison]:
    r"""Compare rows with a base, pairing test networks and seeds.

    With the differences :math:`d_{si}` of seed ``s`` and test network ``i``, the variance of their mean is that of the
    networks' means over seeds, plus that of the seeds' means over networks where there are at least two seeds:

    .. math:: \frac{var_i(\bar d_{\cdot i})}{n} + \frac{var_s(\bar d_{s \cdot})}{S}

    The second term holds a part of the first, so that the interval is rather too wide than too narrow. ``p`` is that of
    a normal variable.

    Args:
        rows: the scores of each row, by its name.
        base: the scores without augmentation.

    Returns:
        A comparison for every row that shares a seed with the base.

    Example:
        >>> base = {0: np.array([1.0, 0.0, 0.0, 0.0] * 50)}
        >>> found = compare({"better": {0: np.array([1.0, 1.0, 0.0, 0.0] * 50)}, "same": base}, base)
        >>> round(found["better"].difference, 2), found["better"].p_corrected < 0.001, found["same"].p
        (0.25, True, 1.0)

    Reference:
        Holm, *A Simple Sequentially Rejective Multiple Test Procedure*, 1979.
    """
    found: dict[str, tuple[float, float, int]] = {}
    for name, scores in rows.items():
        seeds = [seed for seed in scores if seed in base]
        if not seeds:
            continue
        apart = np.stack([scores[seed].astype(np.float64) - base[seed] for seed in seeds])
        variance = apart.mean(0).var(ddof=1) / apart.shape[1] if apart.shape[1] > 1 else 0.0
        if len(seeds) > 1:
            variance += apart.mean(1).var(ddof=1) / len(seeds)
        found[name] = float(apart.mean()), math.sqrt(variance), len(seeds)
    p = {name: _two_sided(mean, error) for name, (mean, error, _) in found.items()}
    corrected = holm(p)
    return {
        name: Comparison(
            mean, mean - TWO_SIDED_95 * error, mean + TWO_SIDED_95 * error, p[name], corrected[name], seeds
        )
        for name, (mean, error, seeds) in found.items()
    }


def _two_sided(mean: float, error: float) -> float:
    if error == 0:
        return 1.0 if mean == 0 else 0.0
    return 2 * NormalDist().cdf(-abs(mean) / error)


def holm(p: Mapping[str, float]) -> dict[str, float]:
    """Correct probabilities for their number, by Holm's procedure.

    Example:
        >>> holm({"a": 0.01, "b": 0.04, "c": 0.03})
        {'a': 0.03, 'c': 0.06, 'b': 0.06}
    """
    out, last = {}, 0.0
    for rank, name in enumerate(sorted(p, key=lambda name: p[name])):
        last = out[name] = min(1.0, max(last, (len(p) - rank) * p[name]))
    return out
