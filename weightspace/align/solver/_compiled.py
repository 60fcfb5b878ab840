"""Coordinate descent of whole pairs in compiled code, without the interpreter lock. Imported on first use.

One pair at a time, so that everything stays in the first cache: similarities by small matrix products, the best sign,
phase or scale for every pair of neurons, the assignment, the move, until no axis gains. The tables are those of
:meth:`weightspace.align.solver._problem.Plan.tables`; :mod:`weightspace.align.solver._tensors` does the same with tensors, anywhere.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from weightspace.align.solver import _problem
from weightspace.align.solver._compiled_scales import best_scale, scale_costs
from weightspace.align.solver._lap import guess_prices, solve

PLAIN, ODD, EVEN, ODD_PHASE, SCALED = _problem.PLAIN, _problem.ODD, _problem.EVEN, _problem.ODD_PHASE, _problem.SCALED
BIAS, OUTWARD = _problem.BIAS, _problem.OUTWARD


@njit(cache=True, nogil=True, error_model="numpy")
def pack(flat, pair, params, first, last, out):  # pragma: no cover - compiled
    """Features of the neurons of one axis as ``[feature, neuron]``: incoming weights, biases, outgoing weights."""
    k = 0
    for e in range(first, last):
        offset, rows, columns, rest = params[e, 0], params[e, 1], params[e, 2], params[e, 3]
        if params[e, 4] == OUTWARD:
            for row in range(rows):
                for r in range(rest):
                    start = offset + row * columns * rest + r
                    for i in range(columns):
                        out[k, i] = flat[pair, start + i * rest]
                    k += 1
        else:
            width = columns * rest
            for i in range(rows):
                for c in range(width):
                    out[k + c, i] = flat[pair, offset + i * width + c]
            k += width


@njit(cache=True, nogil=True, error_model="numpy")
def unpack(flat, pair, params, first, last, moved, x, step):  # pragma: no cover - compiled
    """Write the features back: neuron ``i`` is made from neuron ``x[i]``. ``step`` is (s, added, outward factor)."""
    k = 0
    for e in range(first, last):
        offset, rows, columns, rest = params[e, 0], params[e, 1], params[e, 2], params[e, 3]
        if params[e, 4] == OUTWARD:
            for row in range(rows):
                for r in range(rest):
                    start = offset + row * columns * rest + r
                    for i in range(columns):
                        flat[pair, start + i * rest] = moved[k, x[i]] * step[2, i]
                    k += 1
        else:
            width = columns * rest
            for i in range(rows):
                for c in range(width):
                    flat[pair, offset + i * width + c] = moved[k + c, x[i]] * step[0, i]
            if params[e, 4] == BIAS:
                for i in range(rows):
                    flat[pair, offset + i] += step[1, i]
            k += width


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def products(a, b, n, start, stop, out):  # pragma: no cover - compiled
    """``out[i, j]``: the inner product of neuron ``i`` of ``a`` and ``j`` of ``b`` over features start to stop."""
    out[:n, :n] = 0
    whole = start + (stop - start) // 4 * 4
    for i in range(n):
        for k in range(start, whole, 4):
            a0, a1, a2, a3 = a[k, i], a[k + 1, i], a[k + 2, i], a[k + 3, i]
            for j in range(n):
                out[i, j] += a0 * b[k, j] + a1 * b[k + 1, j] + (a2 * b[k + 2, j] + a3 * b[k + 3, j])
        for k in range(whole, stop):
            for j in range(n):
                out[i, j] += a[k, i] * b[k, j]


@njit(cache=True, nogil=True, error_model="numpy")
def squares(b, n, start, stop, out):  # pragma: no cover - compiled
    out[:n] = 0
    for k in range(start, stop):
        for j in range(n):
            out[j] += b[k, j] * b[k, j]


@njit(cache=True, nogil=True, error_model="numpy")
def choose_phase(inner, outer, odd, a, b, unit, inverse, half):  # pragma: no cover - compiled
    """The best of both signs and both parities of the phase: value, sign, steps.

    ``value = s*inner + sigma*outer - (a - s*b - k*unit)**2 / 2``; for one parity the best ``k`` is a rounding.
    """
    period = unit + unit
    best, sign, count = -half, half, half
    for c in range(4):
        flip, one = c >= 2, c % 2
        t = a + b if flip else a - b
        q = np.floor(t * inverse if one else t * inverse + half)
        r = t - q * period - unit if one else t - q * period
        through = -outer if (flip and odd) != (one == 1) else outer
        value = (-inner if flip else inner) + through - half * r * r
        if c == 0 or value > best:
            best, sign, count = value, (-half if flip else half), q + q + one
    return best, sign + sign, count


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def phase_costs(inner, outer, odd, a, b, n, unit, inverse, half, cost):  # pragma: no cover - compiled
    """:func:`choose_phase` for all pairs of neurons, the values alone."""
    period = unit + unit
    for i in range(n):
        for j in range(n):
            t, u = a[i] - b[j], a[i] + b[j]
            r0 = t - np.floor(t * inverse + half) * period
            r1 = t - np.floor(t * inverse) * period - unit
            r2 = u - np.floor(u * inverse + half) * period
            r3 = u - np.floor(u * inverse) * period - unit
            through = -outer[i, j] if odd else outer[i, j]
            same = max(outer[i, j] - half * r0 * r0, -outer[i, j] - half * r1 * r1) + inner[i, j]
            turned = max(through - half * r2 * r2, -through - half * r3 * r3) - inner[i, j]
            cost[i, j] = -max(same, turned)


@njit(cache=True, nogil=True, error_model="numpy")
def similarities(axis, unit, a, b, inner, outer, norms, cost):  # pragma: no cover - compiled
    """Costs of all pairs of neurons of one axis, and the value of where they are now."""
    n, kind = axis[0], axis[1]
    inward, end = axis[5] + axis[6], axis[5] + axis[6] + axis[7]
    here = 0.0
    if kind <= ODD:
        products(a, b, n, 0, end, inner)
        for i in range(n):
            here += inner[i, i]
            for j in range(n):
                cost[i, j] = -inner[i, j] if kind == PLAIN else -abs(inner[i, j])
        return here
    weights = inward if kind in (EVEN, SCALED) else axis[5]
    products(a, b, n, 0, weights, inner)
    products(a, b, n, inward, end, outer)
    for i in range(n):
        here += inner[i, i] + outer[i, i]
    if kind == EVEN:
        for i in range(n):
            for j in range(n):
                cost[i, j] = -abs(inner[i, j]) - outer[i, j]
    elif kind == SCALED:
        squares(b, n, 0, inward, norms[0])
        squares(b, n, inward, end, norms[1])
        scale_costs(inner, outer, norms, n, cost)
        for i in range(n):
            here -= 0.5 * (norms[0, i] + norms[1, i])
    else:
        phase_costs(inner, outer, kind == ODD_PHASE, a[weights], b[weights], n, unit[0], unit[1], unit[2], cost)
        for i in range(n):
            here -= 0.5 * (a[weights, i] - b[weights, i]) ** 2
    return here


@njit(cache=True, nogil=True, error_model="numpy")
def choose(axis, unit, a, b, inner, outer, norms, x, step):  # pragma: no cover - compiled
    """The best sign, phase or scale of each assigned pair: ``step`` is (s, added, outward factor, k)."""
    kind = axis[1]
    step[0], step[1], step[2], step[3] = 1, 0, 1, 0
    for i in range(axis[0] if kind != PLAIN else 0):
        j = x[i]
        if kind == SCALED:
            s = best_scale(inner[i, j], outer[i, j], norms[0, j], norms[1, j])
            step[0, i], step[2, i] = s, 1 / s
        elif kind <= EVEN:
            step[0, i] = -1 if inner[i, j] < 0 else 1
            step[2, i] = step[0, i] if kind == ODD else 1
        else:
            odd, bias = kind == ODD_PHASE, axis[5]
            _, s, k = choose_phase(inner[i, j], outer[i, j], odd, a[bias, i], b[bias, j], unit[0], unit[1], unit[2])
            parity = 1 - 2 * (k - 2 * np.floor(k / 2))
            step[0, i], step[1, i], step[2, i], step[3, i] = s, k * unit[0], (s if odd else 1) * parity, k


@njit(cache=True, nogil=True, error_model="numpy")
def compose(pair, slot, n, x, step, perm, scale, shift, prices, old):  # pragma: no cover - compiled
    """Put a step after what has been found so far; columns' prices move with their neurons."""
    for i in range(n):
        old[0, i], old[1, i], old[2, i] = perm[pair, slot + i], scale[pair, slot + i], shift[pair, slot + i]
        old[3, i] = prices[i]
    for i in range(n):
        perm[pair, slot + i] = np.int64(old[0, x[i]])
        scale[pair, slot + i] = step[0, i] * old[1, x[i]]
        shift[pair, slot + i] = step[0, i] * old[2, x[i]] + step[3, i]
        prices[i] = old[3, x[i]]


@njit(cache=True, nogil=True, error_model="numpy")
def total_value(cost, x):  # pragma: no cover - compiled
    total = 0.0
    for i in range(len(cost)):
        total -= cost[i, x[i]]
    return total


@njit(cache=True, nogil=True, error_model="numpy")
def descend(
    target, flat, start, stop, perm, scale, shift, axes, params, near, units, is_open, orders, eps
):  # pragma: no cover - compiled
    """Move ``flat[start:stop]`` onto their targets in place, and write down the elements that do it.

    ``axes``: size, kind, first and last row of ``params``, first place in the elements, features that come in, are
    biases, go out. ``params``: offset, rows, columns, rest, role. ``units``: phase unit, half its inverse, one half.
    """
    width = features = 1
    for h in range(len(axes)):
        width, features = max(width, axes[h, 0]), max(features, axes[h, 5] + axes[h, 6] + axes[h, 7])
    here_a = np.empty((len(axes), features, width), flat.dtype)
    b, norms = np.empty((features, width), flat.dtype), np.empty((2, width), flat.dtype)
    inner, outer = np.empty((width, width), flat.dtype), np.empty((width, width), flat.dtype)
    step, old = np.empty((4, width), np.float64), np.empty((4, width), np.float64)
    prices, priced = np.empty((len(axes), width), np.float64), np.empty(len(axes), np.bool_)
    opened = np.empty(len(axes), np.bool_)
    for pair in range(start, stop):
        if pair == start or len(target) > 1:
            for h in range(len(axes)):
                pack(target, pair if len(target) > 1 else 0, params, axes[h, 2], axes[h, 3], here_a[h])
        opened[:], priced[:] = is_open, False
        for sweep in range(len(orders)):
            if not opened.any():
                break
            for turn in range(len(axes)):
                h = orders[sweep, turn]
                if not opened[h]:
                    continue
                opened[h] = False
                axis, n = axes[h], axes[h, 0]
                cost, work = np.empty((n, n), flat.dtype), np.empty((n, n), np.int64)
                numbers = np.empty((8, n), np.int64)
                pack(flat, pair, params, axis[2], axis[3], b)
                now = similarities(axis, units[h], here_a[h], b, inner, outer, norms, cost)
                if not priced[h]:
                    guess_prices(cost, prices[h, :n])
                    priced[h] = True
                noise = n * 16 * eps * solve(cost, work, numbers, prices[h, :n])
                if total_value(cost, numbers[0]) - now > noise:
                    choose(axis, units[h], here_a[h], b, inner, outer, norms, numbers[0], step)
                    unpack(flat, pair, params, axis[2], axis[3], b, numbers[0], step)
                    compose(pair, axis[4], n, numbers[0], step, perm, scale, shift, prices[h], old)
                    opened |= near[h]
