"""The best positive scale between two neurons, in compiled code. Imported on first use.

With inner products ``p`` (incoming) and ``q`` (outgoing) and squared norms ``u``, ``v`` of the neuron to move,

    value(s) = p*s + q/s - (u*s**2 + v/s**2) / 2

is largest where ``u*s**4 - p*s**3 + q*s - v = 0``. With ``s = x * (v/u)**(1/4)`` this is ``x**4 - f*x**3 + g*x - 1``,
which has one positive root unless ``f`` and ``g`` are both large; then it may have three, of which two are maxima.
"""

from __future__ import annotations

import numpy as np

from weightspace._compile import cached_njit
from weightspace.align.solver._problem import NEGLIGIBLE, SCALE_LIMIT

compiled = cached_njit(error_model="numpy")


@compiled
def quartic(x, f, g):  # pragma: no cover - compiled
    """Evaluate ``x**4 - f*x**3 + g*x - 1``."""
    return ((x - f) * x * x + g) * x - 1


@compiled
def root(f, g, low, high):  # pragma: no cover - compiled
    """Find the root between a point below zero and one above: Newton's steps, halving where they leave the interval."""
    x = min(max(1.0, low), high)
    for _ in range(200):
        value = quartic(x, f, g)
        if value < 0:
            low = x
        else:
            high = x
        slope = (4 * x - 3 * f) * x * x + g
        move = x - value / slope if slope != 0 else low
        if not low < move < high:
            move = 0.5 * (low + high)
        if abs(move - x) <= 1e-15 * x:
            break
        x = move
    return x


@compiled
def turning_point(f, g, low, high):  # pragma: no cover - compiled
    """Find where the quartic's slope changes sign between two points."""
    sign = (4 * low - 3 * f) * low * low + g > 0
    for _ in range(200):
        x = 0.5 * (low + high)
        if not low < x < high:
            break
        if ((4 * x - 3 * f) * x * x + g > 0) == sign:
            low = x
        else:
            high = x
    return 0.5 * (low + high)


@compiled
def best_root(f, g):  # pragma: no cover - compiled
    """Find the positive root of the quartic that has the largest value."""
    reach = 1 + max(abs(f), abs(g), 1.0)
    low, high = 1 / reach, reach
    if f <= 0 or g >= 0.25 * f**3 or f >= 0.25 * g**3:  # as g <= 0 makes the last true
        return root(f, g, low, high)
    first, second = turning_point(f, g, 0.0, f / 2), turning_point(f, g, f / 2, 2 * reach)
    if quartic(first, f, g) <= 0:
        return root(f, g, second, high)
    if quartic(second, f, g) >= 0:
        return root(f, g, low, first)
    x, z = root(f, g, low, first), root(f, g, second, high)
    value_x, value_z = 2 * (f * x + g / x) - x * x - 1 / (x * x), 2 * (f * z + g / z) - z * z - 1 / (z * z)
    return x if value_x >= value_z else z


@compiled
def best_scale(p, q, u, v):  # pragma: no cover - compiled
    """Return the scale with the largest value."""
    p, q, u, v = np.float64(p), np.float64(q), np.float64(u), np.float64(v)
    if u <= NEGLIGIBLE and v <= NEGLIGIBLE:
        return 1.0
    if u <= NEGLIGIBLE:
        s = v / q if q > 0 else SCALE_LIMIT
    elif v <= NEGLIGIBLE:
        s = p / u if p > 0 else 0.0
    else:
        c = (v / u) ** 0.25
        s = c * best_root(p * c**3 / v, q * c / v)
    return min(max(s, 1 / SCALE_LIMIT), SCALE_LIMIT)


@compiled
def best_scales(inner, outer, u, v, out, start, stop):  # pragma: no cover - compiled
    """Write the best scales of rows ``[start, stop)``, where the rows of all pairs ``[pair, n, n]`` are numbered on."""
    n = inner.shape[1]
    for row in range(start, stop):
        pair, i = row // n, row % n
        for j in range(n):
            out[pair, i, j] = best_scale(inner[pair, i, j], outer[pair, i, j], u[pair, j], v[pair, j])


@compiled
def scale_costs(inner, outer, norms, n, cost):  # pragma: no cover - compiled
    """Write the costs of all pairs of neurons, each at its best scale."""
    for i in range(n):
        for j in range(n):
            s = best_scale(inner[i, j], outer[i, j], norms[0, j], norms[1, j])
            value = inner[i, j] * s + outer[i, j] / s
            cost[i, j] = 0.5 * (norms[0, j] * s * s + norms[1, j] / (s * s)) - value
