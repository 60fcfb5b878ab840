"""Split by source: every view of one image lies on the same side, whatever else is in the data."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from weightspace._random import splitmix64

_WORD = 2**64 - 1


def hashed(numbers: NDArray[Any], seed: int) -> NDArray[np.float64]:
    """Return a uniform number in [0, 1) for each of ``numbers``, from it and the seed alone."""
    key = splitmix64(np.array([seed & _WORD], dtype=np.uint64))
    words = splitmix64(splitmix64(numbers.astype(np.int64).view(np.uint64)) ^ key)
    return (words >> np.uint64(11)).astype(np.float64) * 2.0**-53


def split_by_source(sources: Any, fraction: float, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    r"""Hold out a fraction of the sources, each decided by a hash of the seed and the source alone.

    .. math:: \text{held out}(s) \iff \text{hash}(seed, s) / 2^{53} < fraction

    Adding, removing or reordering data therefore moves no other source from one side to the other. The number held
    out is binomial: near ``fraction * len(set(sources))``, and maybe none of a handful.

    Args:
        sources: integers ``[batch]``, one for each row; rows with one source (several views of an image) stay together.
        fraction: the share of the sources to hold out, in [0, 1].
        seed: the seed of the hash; another one holds out other sources.

    Returns:
        ``(rest, held_out)``: row indices, int64, ascending; together every row once.

    Raises:
        TypeError: if ``sources`` or ``seed`` are not integers.
        ValueError: if ``sources`` has other than one axis or ``fraction`` lies outside [0, 1].

    Example:
        >>> rest, held_out = split_by_source(range(1000), 0.1, seed=0)
        >>> len(rest) + len(held_out), 70 < len(held_out) < 130
        (1000, True)

    Reference:
        The hash is SplitMix64: Steele, Lea and Flood, "Fast splittable pseudorandom number generators" (2014), Fig. 17.
    """
    array = np.asarray(sources)
    if array.ndim != 1:
        raise ValueError(f"sources: expected one axis [batch], got shape {list(array.shape)}")
    if array.size and array.dtype.kind not in "iu":
        raise TypeError(f"sources: expected integers, got {array.dtype}")
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer):
        raise TypeError(f"seed: expected an integer, got {type(seed).__name__}")
    if not 0.0 <= fraction <= 1.0:
        raise ValueError(f"fraction: expected a number in [0, 1], got {fraction}")
    held = hashed(array, int(seed)) < fraction
    return np.flatnonzero(~held), np.flatnonzero(held)
