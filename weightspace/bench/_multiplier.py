"""The data multiplier: how many times more data an augmentation is worth, with an interval."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from weightspace.bench._paired import Scores
from weightspace.bench._suite import Entry

RowName = tuple[str, str]
"""Entry and augmentation."""

DRAWS, SEED = 1000, 0


@dataclass(frozen=True)
class Multiplier:
    """How many times the data one would need without augmentation to score as well as with it.

    Args:
        times: the amount of data at which the curve without augmentation reaches the score, over the amount that was
            trained on.
        low: lower end of the interval that holds it with 95 % confidence.
        high: upper end.
        least: the smallest multiplier that the measured curve can tell; a figure as small is an upper bound.
        most: the largest; a figure as large is a lower bound.
    """

    times: float
    low: float
    high: float
    least: float
    most: float


def data_multiplier(curve: Mapping[float, Scores], amount: float, scores: Scores) -> Multiplier:
    r"""Read off a curve without augmentation how much data a row with augmentation is worth.

    The curve of the mean score over the logarithm of the amount of data is made to rise (by its running maximum) and
    is linear between the amounts measured. With ``n`` the amount at which it reaches the row's score, the multiplier is
    :math:`n / amount`. The interval comes from drawing test networks (the same for all rows) and seeds (for each row)
    with replacement, 1,000 times.

    Args:
        curve: the scores without augmentation, by the amount of data.
        amount: the row's own.
        scores: of the row, ``[network]`` by seed.

    Raises:
        ValueError: for a curve of fewer than two amounts.

    Example:
        >>> def rate(p):
        ...     return {0: (np.arange(1000) % 100 < 100 * p).astype(float)}
        >>> found = data_multiplier({0.1: rate(0.4), 1.0: rate(0.6)}, 0.1, rate(0.5))
        >>> round(found.times, 2), round(found.most, 1)
        (3.16, 10.0)
    """
    if len(curve) < 2:
        raise ValueError(f"curve: expected at least two amounts of data, got {sorted(curve)}")
    amounts = np.array(sorted(curve))
    rows = [np.stack(list(own.values())) for own in (*(curve[key] for key in amounts), scores)]
    rng, items = np.random.default_rng(SEED), rows[0].shape[1]
    drawn = [_times(rows, amounts, amount)]
    for _ in range(DRAWS):
        networks = rng.integers(items, size=items)
        drawn.append(_times([row[rng.integers(len(row), size=len(row))] for row in rows], amounts, amount, networks))
    low, high = np.quantile(drawn[1:], [0.025, 0.975])
    return Multiplier(drawn[0], float(low), float(high), float(amounts[0] / amount), float(amounts[-1] / amount))


def multipliers(entries: Mapping[str, Entry], rows: Mapping[RowName, Scores]) -> dict[RowName, Multiplier]:
    """Return the multiplier of every augmented row whose model was trained on several amounts of data.

    Entries that differ in ``share`` or ``views`` alone make a curve.

    Args:
        entries: by name.
        rows: the scores of each row, by entry and augmentation.
    """
    found: dict[RowName, Multiplier] = {}
    for kind in ("share", "views"):
        amounts = {name: entry.train[kind] for name, entry in entries.items() if kind in entry.train}
        for (name, augmentation), scores in rows.items():
            if augmentation == "none" or name not in amounts:
                continue
            alike = [other for other in amounts if _rest(entries[other], kind) == _rest(entries[name], kind)]
            curve = {amounts[other]: rows[other, "none"] for other in alike if (other, "none") in rows}
            if len(curve) > 1:
                found[name, augmentation] = data_multiplier(curve, amounts[name], scores)
    return found


def _rest(entry: Entry, kind: str) -> Entry:
    """Return an entry without its amount of data, and without evaluations, which change no training."""
    train = {name: value for name, value in entry.train.items() if name != kind}
    return replace(entry, train=train, evaluations={})


def _times(
    rows: list[np.ndarray], amounts: np.ndarray, amount: float, networks: np.ndarray | slice = slice(None)
) -> float:
    *base, own = (row[:, networks].mean() for row in rows)
    risen = np.maximum.accumulate(base)
    if own <= risen[0] or own > risen[-1]:
        return float((amounts[0] if own <= risen[0] else amounts[-1]) / amount)
    # where the curve is flat, the smallest amount that reaches the score counts
    kept = np.r_[True, np.diff(risen) > 0]
    return float(np.exp(np.interp(own, risen[kept], np.log(amounts[kept]))) / amount)
