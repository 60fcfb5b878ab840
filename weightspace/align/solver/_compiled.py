"""Coordinate descent of whole pairs in compiled code, without the interpreter lock. Imported on first use.

Pairs are moved one after another, so that all that is needed for one stays in the first cache. README.md describes the
algorithm, :class:`weightspace.align.solver._problem.Tables` the arrays; :mod:`weightspace.align.solver._tensors` does
the same with tensors, anywhere.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from weightspace._compile import cached_njit, source_stamp
from weightspace.align.solver import _compiled_scales, _lap, _problem
from weightspace.align.solver._compiled_scales import best_scale, scale_costs
from weightspace.align.solver._lap import Assignment, empty_assignment, guess_prices, solve
from weightspace.align.solver._problem import NeuronGroup, Role

compiled = cached_njit(error_model="numpy")
contracted = cached_njit(error_model="numpy", fastmath={"contract"})
inlined = cached_njit(error_model="numpy", inline="always")  # where handing over many arrays would cost a few percent


class Elements(NamedTuple):
    """The elements found so far, ``[pair, neuron]`` with the neurons of all axes side by side."""

    perm: np.ndarray
    scale: np.ndarray
    shift: np.ndarray


class Move(NamedTuple):
    """The effect of one move on each neuron of an axis, float64 ``[neuron]``.

    Fields: the ``scale`` of incoming weights and biases, the ``added`` bias, the ``outgoing`` factor, the ``steps`` of
    phase.
    """

    scale: np.ndarray
    added: np.ndarray
    outgoing: np.ndarray
    steps: np.ndarray


class Workspace(NamedTuple):
    """The arrays that every move writes anew.

    Fields: ``features`` of the network to move, ``[feature, neuron]``; the ``inner`` products of incoming and ``outer``
    products of outgoing weights, ``[neuron of a, neuron of b]``; the squared ``norms`` of both, ``[2, neuron]``; the
    ``move``, and what was there ``before`` it, ``[4, neuron]``; the assignment ``found``.
    """

    features: np.ndarray
    inner: np.ndarray
    outer: np.ndarray
    norms: np.ndarray
    move: Move
    before: np.ndarray
    found: Assignment


@inlined
def workspace(width, features, flat):  # pragma: no cover - compiled
    """Allocate the arrays for axes of at most ``width`` neurons with at most so many features."""
    inner, outer = np.empty((width, width), flat.dtype), np.empty((width, width), flat.dtype)
    steps, before = np.empty((4, width), np.float64), np.empty((4, width), np.float64)
    move, norms = Move(steps[0], steps[1], steps[2], steps[3]), np.empty((2, width), flat.dtype)
    found = empty_assignment(width)
    return Workspace(np.empty((features, width), flat.dtype), inner, outer, norms, move, before, found)


@inlined
def pack(flat, pair, axis, params, out):  # pragma: no cover - compiled
    """Write the features of the neurons of one axis as ``[feature, neuron]``."""
    k = 0
    for e in range(axis.first_param, axis.last_param):
        offset, rows, columns, rest = params[e].offset, params[e].rows, params[e].columns, params[e].rest
        if params[e].role == Role.OUTGOING:
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


@inlined
def unpack(flat, pair, axis, params, features, columns_of, move):  # pragma: no cover - compiled
    """Write the features back, moved: the new neuron ``i`` is made from neuron ``columns_of[i]``."""
    k = 0
    for e in range(axis.first_param, axis.last_param):
        offset, rows, columns, rest = params[e].offset, params[e].rows, params[e].columns, params[e].rest
        if params[e].role == Role.OUTGOING:
            for row in range(rows):
                for r in range(rest):
                    start = offset + row * columns * rest + r
                    for i in range(columns):
                        flat[pair, start + i * rest] = features[k, columns_of[i]] * move.outgoing[i]
                    k += 1
        else:
            width = columns * rest
            for i in range(rows):
                for c in range(width):
                    flat[pair, offset + i * width + c] = features[k + c, columns_of[i]] * move.scale[i]
            if params[e].role == Role.BIAS:
                for i in range(rows):
                    flat[pair, offset + i] += move.added[i]
            k += width


@contracted
def products(a, b, n, start, stop, out):  # pragma: no cover - compiled
    """Write the inner products of neurons ``i`` of ``a`` and ``j`` of ``b`` over the features from start to stop."""
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


@compiled
def squared_norms(b, n, start, stop, out):  # pragma: no cover - compiled
    """Write the squared norm of each neuron over the features from start to stop."""
    out[:n] = 0
    for k in range(start, stop):
        for j in range(n):
            out[j] += b[k, j] * b[k, j]


@compiled
def best_phase(axis, inner, outer, a, b):  # pragma: no cover - compiled
    """Find the best sign and steps of phase between two neurons with the biases ``a`` and ``b``.

    ``value = s*inner + sigma*outer - (a - s*b - k*phase_step)**2 / 2``; for either parity the best ``k`` is a rounding.
    """
    step, per_period, half, odd = axis.phase_step, axis.per_period, axis.half, axis.group == NeuronGroup.ODD_PHASE
    period = step + step
    best, sign, count = -half, half, half
    for c in range(4):
        flip, parity = c >= 2, c % 2
        t = a + b if flip else a - b
        q = np.floor(t * per_period if parity else t * per_period + half)
        r = t - q * period - step if parity else t - q * period
        through = -outer if (flip and odd) != (parity == 1) else outer
        value = (-inner if flip else inner) + through - half * r * r
        if c == 0 or value > best:
            best, sign, count = value, (-half if flip else half), q + q + parity
    return sign + sign, count


@contracted
def phase_costs(axis, inner, outer, a, b, cost):  # pragma: no cover - compiled
    """Write the costs of all pairs of neurons, each at its best sign and phase: see :func:`best_phase`."""
    n, odd = axis.size, axis.group == NeuronGroup.ODD_PHASE
    step, per_period, half = axis.phase_step, axis.per_period, axis.half
    period = step + step
    for i in range(n):
        for j in range(n):
            t, u = a[i] - b[j], a[i] + b[j]
            r0 = t - np.floor(t * per_period + half) * period
            r1 = t - np.floor(t * per_period) * period - step
            r2 = u - np.floor(u * per_period + half) * period
            r3 = u - np.floor(u * per_period) * period - step
            through = -outer[i, j] if odd else outer[i, j]
            same = max(outer[i, j] - half * r0 * r0, -outer[i, j] - half * r1 * r1) + inner[i, j]
            turned = max(through - half * r2 * r2, -through - half * r3 * r3) - inner[i, j]
            cost[i, j] = -max(same, turned)


@compiled
def linear_costs(inner, signed, n, cost):  # pragma: no cover - compiled
    """Write the costs of all pairs of neurons, with a sign for each or without."""
    for i in range(n):
        for j in range(n):
            cost[i, j] = -abs(inner[i, j]) if signed else -inner[i, j]


@inlined
def pair_costs(axis, a, space, cost):  # pragma: no cover - compiled
    """Write the costs of all pairs of neurons of one axis, and return the value of where they are now.

    A cost is half of the squared distance between two neurons, but for a constant, at the best element between them.
    """
    n, group, b, inner, outer = axis.size, axis.group, space.features, space.inner, space.outer
    here = 0.0
    if group == NeuronGroup.TRIVIAL or group == NeuronGroup.ODD_SIGN:
        products(a, b, n, 0, axis.features, inner)
        linear_costs(inner, group == NeuronGroup.ODD_SIGN, n, cost)
        for i in range(n):
            here += inner[i, i]
        return here
    phases = group == NeuronGroup.ODD_PHASE or group == NeuronGroup.EVEN_PHASE
    bias = axis.bias_start
    products(a, b, n, 0, bias if phases else axis.outgoing_start, inner)
    products(a, b, n, axis.outgoing_start, axis.features, outer)
    for i in range(n):
        here += inner[i, i] + outer[i, i]
    if phases:
        phase_costs(axis, inner, outer, a[bias], b[bias], cost)
        for i in range(n):
            here -= 0.5 * (a[bias, i] - b[bias, i]) ** 2
    elif group == NeuronGroup.SCALE:
        squared_norms(b, n, 0, axis.outgoing_start, space.norms[0])
        squared_norms(b, n, axis.outgoing_start, axis.features, space.norms[1])
        scale_costs(inner, outer, space.norms, n, cost)
        for i in range(n):
            here -= 0.5 * (space.norms[0, i] + space.norms[1, i])
    else:  # the activation swallows the sign of its input
        for i in range(n):
            for j in range(n):
                cost[i, j] = -abs(inner[i, j]) - outer[i, j]
    return here


@inlined
def choose(axis, a, space, columns_of):  # pragma: no cover - compiled
    """Write the best sign, phase or scale of each assigned pair of neurons."""
    group, move, inner, outer, norms = axis.group, space.move, space.inner, space.outer, space.norms
    move.scale[:], move.added[:], move.outgoing[:], move.steps[:] = 1, 0, 1, 0
    for i in range(axis.size if group != NeuronGroup.TRIVIAL else 0):
        j = columns_of[i]
        if group == NeuronGroup.SCALE:
            s = best_scale(inner[i, j], outer[i, j], norms[0, j], norms[1, j])
            move.scale[i], move.outgoing[i] = s, 1 / s
        elif group == NeuronGroup.ODD_SIGN or group == NeuronGroup.EVEN_SIGN:
            move.scale[i] = -1 if inner[i, j] < 0 else 1
            move.outgoing[i] = move.scale[i] if group == NeuronGroup.ODD_SIGN else 1
        else:
            bias = axis.bias_start
            s, k = best_phase(axis, inner[i, j], outer[i, j], a[bias, i], space.features[bias, j])
            parity = 1 - 2 * (k - 2 * np.floor(k / 2))
            move.scale[i], move.added[i], move.steps[i] = s, k * axis.phase_step, k
            move.outgoing[i] = (s if group == NeuronGroup.ODD_PHASE else 1) * parity


@inlined
def compose(axis, pair, columns_of, move, elements, prices, before):  # pragma: no cover - compiled
    """Apply a move after the elements found so far; the columns' prices go with their neurons."""
    n, place = axis.size, axis.place
    for i in range(n):
        before[0, i], before[1, i] = elements.perm[pair, place + i], elements.scale[pair, place + i]
        before[2, i], before[3, i] = elements.shift[pair, place + i], prices[i]
    for i in range(n):
        j = columns_of[i]
        elements.perm[pair, place + i] = np.int64(before[0, j])
        elements.scale[pair, place + i] = move.scale[i] * before[1, j]
        elements.shift[pair, place + i] = move.scale[i] * before[2, j] + move.steps[i]
        prices[i] = before[3, j]


@inlined
def total_value(cost, columns_of):  # pragma: no cover - compiled
    """Return the value of an assignment."""
    total = 0.0
    for i in range(len(cost)):
        total -= cost[i, columns_of[i]]
    return total


@inlined
def improve(axis, params, a, flat, pair, elements, prices, guessed, space, eps):  # pragma: no cover - compiled
    """Move one axis of one network by its best element, and return whether that was worth more than rounding."""
    n, columns_of = axis.size, space.found.column
    cost, keys = np.empty((n, n), flat.dtype), np.empty((n, n), np.int64)
    pack(flat, pair, axis, params, space.features)
    now = pair_costs(axis, a, space, cost)
    if not guessed:
        guess_prices(cost, prices)
    noise = n * 16 * eps * solve(cost, keys, space.found, prices)
    if not total_value(cost, columns_of) - now > noise:
        return False
    choose(axis, a, space, columns_of)
    unpack(flat, pair, axis, params, space.features, columns_of, space.move)
    compose(axis, pair, columns_of, space.move, elements, prices, space.before)
    return True


def _entry(stamp):
    """Return the loop, whose place in numba's cache depends on ``stamp``, see :func:`._compile.source_stamp`."""

    @compiled
    def descend(target, flat, start, stop, elements, tables, orders, eps):  # pragma: no cover - compiled
        """Move ``flat[start:stop]`` onto their targets in place, and write down the elements that do it.

        ``target`` holds as many networks as ``flat``, or one for all. ``orders`` is int64 ``[sweep, axis]``.
        """
        _ = stamp
        count, width, features = len(tables.axes), 1, 1
        for h in range(count):
            width, features = max(width, tables.axes[h].size), max(features, tables.axes[h].features)
        space, goals = workspace(width, features, flat), np.empty((count, features, width), flat.dtype)
        prices, guessed = np.empty((count, width), np.float64), np.empty(count, np.bool_)
        pending = np.empty(count, np.bool_)
        for pair in range(start, stop):
            if pair == start or len(target) > 1:
                for h in range(count):
                    pack(target, pair if len(target) > 1 else 0, tables.axes[h], tables.params, goals[h])
            pending[:], guessed[:] = tables.searchable, False
            for sweep in range(len(orders)):
                if not pending.any():
                    break
                for h in orders[sweep]:
                    if not pending[h]:
                        continue
                    axis, n = tables.axes[h], tables.axes[h].size
                    gained = improve(
                        axis, tables.params, goals[h], flat, pair, elements, prices[h, :n], guessed[h], space, eps
                    )
                    pending[h], guessed[h] = False, True
                    if gained:
                        pending |= tables.neighbours[h]

    return descend


descend = _entry(source_stamp(_problem, _lap, _compiled_scales))
