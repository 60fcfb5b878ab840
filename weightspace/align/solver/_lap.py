"""Linear assignment in compiled code, without the interpreter lock. Imported on first use: Numba takes a while to load.

Shortest augmenting paths after Jonker and Volgenant: guessed prices, augmenting row reduction, then one path for each
row that is still free. It runs on integers: a cost is one of 2**48 steps (fewer for more than 64 neurons) between the
smallest and the largest, with its column's number in the lowest bits. One pass over a row then finds the smallest
value and its place, ties go to the first column, and nothing is rounded on the way: the answer is the same on every
run, and no two rows can outbid one another for ever. In return, costs that differ by less than a step count as equal,
so that a single outlier of 1e13 among costs near 1 leaves the others steps of 0.04, and one of 1e16 leaves them none.
Forbid a pair by a cost a few hundred times the others' range, not by a huge one.

Reference:
    Jonker and Volgenant, *A shortest augmenting path algorithm for dense and sparse linear assignment problems*, 1987.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from weightspace._compile import cached_njit

compiled = cached_njit(error_model="numpy")
FAR = np.int64(2**62)


class Assignment(NamedTuple):
    """An assignment and the arrays in which it is found, int64 each, with room for as many rows as there may be.

    Fields: ``column`` of each row and ``row`` of each column, -1 for none; ``free`` rows; the columns' ``price``. Along
    the path that is being searched, for each column: ``distance`` from the start; ``key``, the same until the column is
    reached; ``before``, the row that the path comes from; and the columns ``reached`` so far.
    """

    column: np.ndarray
    row: np.ndarray
    free: np.ndarray
    price: np.ndarray
    distance: np.ndarray
    key: np.ndarray
    before: np.ndarray
    reached: np.ndarray


@compiled
def empty_assignment(n):  # pragma: no cover - compiled
    """Allocate the arrays of an assignment of at most ``n`` rows."""
    a = np.empty((8, n), np.int64)
    return Assignment(a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7])


@compiled
def index_bits(n):  # pragma: no cover - compiled
    """Return how many bits the number of a column takes."""
    bits = 1
    while (1 << bits) < n:
        bits += 1
    return bits


@cached_njit(error_model="numpy", fastmath={"contract", "reassoc"})
def guess_prices(cost, prices):  # pragma: no cover - compiled
    """Write column prices to start from: two thirds of a column's mean and a third of its smallest relative cost."""
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


@compiled
def to_integers(cost, keys, guess, price):  # pragma: no cover - compiled
    """Write costs as keys, and prices on the same scale; return the steps in a cost of one, and the largest cost."""
    n = len(cost)
    bits = index_bits(n)
    low, high = cost[0].copy(), cost[0].copy()
    for i in range(n):
        for j in range(n):
            low[j] = min(low[j], cost[i, j])
            high[j] = max(high[j], cost[i, j])
    bottom, top = np.float64(low.min()), np.float64(high.max())
    cheapest = guess.min()
    if guess.max() - cheapest > 16 * (top - bottom):  # the guess is left from costs of another size
        guess_prices(cost, guess)
        cheapest = guess.min()
    factor = 2.0 ** min(48, 60 - 2 * bits) / (top - bottom) if top > bottom else 0.0
    for i in range(n):
        for j in range(n):
            keys[i, j] = (np.int64((cost[i, j] - bottom) * factor) << bits) + j
    for j in range(n):
        price[j] = np.int64((guess[j] - cheapest) * factor) << bits
    return factor, max(abs(bottom), abs(top))


@compiled
def two_smallest(keys, i, price):  # pragma: no cover - compiled
    """Return the two smallest keys of a row."""
    best = second = FAR
    for j in range(len(keys)):
        best = min(best, keys[i, j] - price[j])
    for j in range(len(keys)):
        value = keys[i, j] - price[j]
        second = min(second, value if value > best else FAR)
    return best, second


@compiled
def reduce_rows(keys, mask, found):  # pragma: no cover - compiled
    """Let rows outbid one another, so that columns grow cheaper; return the number of rows left free."""
    column, row, free, price = found.column, found.row, found.free, found.price
    n = len(keys)
    budget = 2 * n  # beyond it the shortest paths are quicker
    here, left = 0, 0
    while here < n:
        i = free[here]
        here += 1
        best, second = two_smallest(keys, i, price)
        j, gain = best & mask, (second & ~mask) - (best & ~mask)
        if gain > 0:
            price[j] -= gain
        elif row[j] >= 0:
            j = second & mask
        owner = row[j]
        column[i], row[j] = j, i
        if owner >= 0:
            column[owner] = -1
            budget -= 1
            if gain > 0 and budget > 0:
                here -= 1
                free[here] = owner
            else:
                free[left] = owner
                left += 1
    return left


@compiled
def relax(keys, price, row, shift, distance, key, before):  # pragma: no cover - compiled
    """Shorten the paths that end with an edge of ``row``; return the smallest key of a column not yet reached."""
    least = FAR
    for j in range(len(keys)):
        value = keys[row, j] - price[j] - shift
        lower = value < distance[j]
        distance[j] = value if lower else distance[j]
        key[j] = value if lower else key[j]
        before[j] = row if lower else before[j]
        least = min(least, key[j])
    return least


@compiled
def augment(keys, mask, found, left):  # pragma: no cover - compiled
    """Assign the free rows, each along the shortest augmenting path, which reassigns the rows that it passes."""
    column, row, price, reached = found.column, found.row, found.price, found.reached
    distance, key, before = found.distance, found.key, found.before
    for start in found.free[:left]:
        distance[:] = FAR
        key[:] = FAR
        done, least = 0, relax(keys, price, start, 0, distance, key, before)
        j = least & mask
        while row[j] >= 0:
            i = row[j]
            reached[done] = j
            done += 1
            key[j] = FAR
            shift = keys[i, j] - price[j] - least  # a multiple of mask + 1, as both hold the same column
            least = relax(keys, price, i, shift, distance, key, before)
            j = least & mask
        for k in range(done):
            price[reached[k]] += (distance[reached[k]] & ~mask) - (least & ~mask)
        i = -1
        while i != start:
            i = before[j]
            row[j] = i
            j, column[i] = column[i], j


@compiled
def solve(cost, keys, found, guess):  # pragma: no cover - compiled
    """Find the assignment of least cost for one matrix, and return the largest cost in it.

    ``guess`` holds prices of the columns to start from, and leaves with the final ones: any start has the same cost in
    the end, a good one is there sooner. ``keys`` is scratch, int64 ``[n, n]``; ``found`` is an :class:`Assignment`.
    """
    n, column, row, free, price = len(cost), found.column, found.row, found.free, found.price
    bits = index_bits(n)
    mask = (np.int64(1) << bits) - 1
    factor, largest = to_integers(cost, keys, guess, price)
    for i in range(n):
        column[i], row[i], free[i] = -1, -1, i
    if n == 1:
        column[0] = 0
        return largest
    augment(keys, mask, found, reduce_rows(keys, mask, found))
    for j in range(n):
        guess[j] = (price[j] >> bits) / factor if factor > 0 else 0.0
    return largest


@compiled
def solve_many(cost, out, prices, known, start, stop):  # pragma: no cover - compiled
    """Write the columns of each row for the matrices ``cost[start:stop]``, from ``prices`` where they are known."""
    n = cost.shape[1]
    keys, found = np.empty((n, n), np.int64), empty_assignment(n)
    for pair in range(start, stop):
        if not known[pair]:
            guess_prices(cost[pair], prices[pair])
        solve(cost[pair], keys, found, prices[pair])
        out[pair] = found.column
