"""Linear assignment in compiled code, without the interpreter lock. Imported on first use: Numba takes a while to load.

Shortest augmenting paths after Jonker and Volgenant: guessed prices, augmenting row reduction, then one path for each
row that is still free. It runs on integers: a cost is one of 2**48 steps (fewer for more than 64 neurons) between the
smallest and the largest, with its column's number in the lowest bits. One pass over a row then finds the smallest
value and its place, ties go to the first column, and nothing is rounded on the way: the answer is the same on every
run, and no two rows can outbid one another for ever. The price of it: costs that differ by less than a step are one,
so that a single outlier of 1e13 among costs near 1 leaves the others steps of 0.04, and one of 1e16 leaves them none.
Forbid a pair by a cost a few hundred times the others' range, not by a huge one.

Reference:
    Jonker and Volgenant, *A shortest augmenting path algorithm for dense and sparse linear assignment problems*, 1987.
"""

from __future__ import annotations

import numpy as np
from numba import njit

FAR = np.int64(2**62)


@njit(cache=True, nogil=True, error_model="numpy")
def index_bits(n):  # pragma: no cover - compiled
    bits = 1
    while (1 << bits) < n:
        bits += 1
    return bits


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract", "reassoc"})
def guess_prices(cost, prices):  # pragma: no cover - compiled
    """Column prices to start from: two thirds of the mean of each column and a third of its smallest relative cost."""
    n = len(cost)
    third = 1 / 3
    least = np.full(n, np.inf)
    prices[:] = 0
    for i in range(n):
        mean = 0.0
        for j in range(n):
            mean += cost[i, j]
        mean /= n
        for j in range(n):
            prices[j] += cost[i, j]
            least[j] = min(least[j], cost[i, j] - mean)
    for j in range(n):
        prices[j] = third * (2 * prices[j] / n + least[j])


@njit(cache=True, nogil=True, error_model="numpy")
def to_integers(cost, work, guess, prices):  # pragma: no cover - compiled
    """Costs as keys in ``work``, and prices on the same scale; returns how many steps one is, and the largest cost."""
    n = len(cost)
    bits = index_bits(n)
    low, high = cost[0].copy(), cost[0].copy()
    for i in range(n):
        for j in range(n):
            low[j] = min(low[j], cost[i, j])
            high[j] = max(high[j], cost[i, j])
    bottom, top = np.float64(low.min()), np.float64(high.max())
    cheapest = guess.min()
    if guess.max() - cheapest > 16 * (top - bottom):  # left from costs of another size
        guess_prices(cost, guess)
        cheapest = guess.min()
    factor = 2.0 ** min(48, 60 - 2 * bits) / (top - bottom) if top > bottom else 0.0
    for i in range(n):
        for j in range(n):
            work[i, j] = (np.int64((cost[i, j] - bottom) * factor) << bits) + j
    for j in range(n):
        prices[j] = np.int64((guess[j] - cheapest) * factor) << bits
    return factor, max(abs(bottom), abs(top))


@njit(cache=True, nogil=True, error_model="numpy")
def two_smallest(work, i, prices):  # pragma: no cover - compiled
    """The two smallest keys of a row."""
    best = second = FAR
    for j in range(len(prices)):
        best = min(best, work[i, j] - prices[j])
    for j in range(len(prices)):
        value = work[i, j] - prices[j]
        second = min(second, value if value > best else FAR)
    return best, second


@njit(cache=True, nogil=True, error_model="numpy")
def reduce_rows(work, mask, prices, x, y, free):  # pragma: no cover - compiled
    """Augmenting row reduction: rows outbid one another, columns grow cheaper. Returns the number of rows left free."""
    n = len(prices)
    budget = 2 * n  # beyond it the shortest paths are quicker
    here, left = 0, 0
    while here < n:
        i = free[here]
        here += 1
        best, second = two_smallest(work, i, prices)
        column, gain = best & mask, (second & ~mask) - (best & ~mask)
        if gain > 0:
            prices[column] -= gain
        elif y[column] >= 0:
            column = second & mask
        owner = y[column]
        x[i], y[column] = column, i
        if owner >= 0:
            x[owner] = -1
            budget -= 1
            if gain > 0 and budget > 0:
                here -= 1
                free[here] = owner
            else:
                free[left] = owner
                left += 1
    return left


@njit(cache=True, nogil=True, error_model="numpy")
def relax(work, prices, row, shift, dist, key, before):  # pragma: no cover - compiled
    """Shorten the paths that end with an edge of ``row``; returns the smallest key of a column not yet reached."""
    least = FAR
    for j in range(len(prices)):
        value = work[row, j] - prices[j] - shift
        lower = value < dist[j]
        dist[j] = value if lower else dist[j]
        key[j] = value if lower else key[j]
        before[j] = row if lower else before[j]
        least = min(least, key[j])
    return least


@njit(cache=True, nogil=True, error_model="numpy")
def augment(work, mask, prices, x, y, start, dist, key, before, reached):  # pragma: no cover - compiled
    """Give a free row a column along the shortest augmenting path."""
    dist[:] = FAR
    key[:] = FAR
    done, least = 0, relax(work, prices, start, 0, dist, key, before)
    column = least & mask
    while y[column] >= 0:
        row = y[column]
        reached[done] = column
        done += 1
        key[column] = FAR
        shift = work[row, column] - prices[column] - least  # a multiple of mask + 1: both hold the same column
        least = relax(work, prices, row, shift, dist, key, before)
        column = least & mask
    for k in range(done):
        prices[reached[k]] += (dist[reached[k]] & ~mask) - (least & ~mask)
    while True:
        row = before[column]
        y[column] = row
        column, x[row] = x[row], column
        if row == start:
            break


@njit(cache=True, nogil=True, error_model="numpy")
def solve(cost, work, numbers, guess):  # pragma: no cover - compiled
    """The assignment of least cost for one matrix: ``numbers[0, row]`` is its column. Returns the largest cost.

    ``guess`` holds prices of the columns to start from, and leaves with the final ones: any start has the same cost in
    the end, a good one is there sooner. ``work`` and ``numbers`` are int64 scratch of ``[n, n]`` and ``[8, n]``.
    """
    n = len(cost)
    x, y, free, prices = numbers[0], numbers[1], numbers[2], numbers[3]
    bits = index_bits(n)
    mask = (np.int64(1) << bits) - 1
    factor, largest = to_integers(cost, work, guess, prices)
    for i in range(n):
        x[i], y[i], free[i] = -1, -1, i
    if n == 1:
        x[0] = 0
        return largest
    left = reduce_rows(work, mask, prices, x, y, free)
    for k in range(left):
        augment(work, mask, prices, x, y, free[k], numbers[4], numbers[5], numbers[6], numbers[7])
    for j in range(n):
        guess[j] = (prices[j] >> bits) / factor if factor > 0 else 0.0
    return largest


@njit(cache=True, nogil=True, error_model="numpy")
def solve_many(cost, out, start, stop):  # pragma: no cover - compiled
    """Each matrix of ``cost[start:stop]``."""
    n = cost.shape[1]
    work, numbers, guess = np.empty((n, n), np.int64), np.empty((8, n), np.int64), np.empty(n, np.float64)
    for pair in range(start, stop):
        guess_prices(cost[pair], guess)
        solve(cost[pair], work, numbers, guess)
        out[pair] = numbers[0]
