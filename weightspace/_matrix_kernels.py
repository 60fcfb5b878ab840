"""The compiled code of :mod:`weightspace._matrix_layer`, for a block of networks."""

from __future__ import annotations

import numpy as np

from weightspace._compile import cached_njit

# The innermost loops go over few short rows, named before them: so they compile to vector instructions.


@cached_njit()
def forward_mean(y, rows, cols, p, q, low):  # type: ignore[no-untyped-def]
    batch, n, m, channels = y.shape
    for s in range(batch):
        q[s] = 0
        for i in range(n):
            row, to_p = rows[s, i], p[s, i]
            to_p[:] = 0
            for j in range(m):
                target, col, to_q = y[s, i, j], cols[s, j], q[s, j]
                for c in range(channels):
                    value = target[c] + row[c] + col[c]
                    value = low if value < low else value
                    target[c] = value
                    to_p[c] += value
                    to_q[c] += value
            for c in range(channels):
                to_p[c] /= m
        q[s] /= n


@cached_njit()
def backward_mean(g, gy, y, gp, gq, ga, gb, given, low, zero):  # type: ignore[no-untyped-def]
    batch, n, m, channels = g.shape
    for s in range(batch):
        gb[s] = 0
        shared_q = gq[s] / n
        for i in range(n):
            to_a, from_p = ga[s, i], gp[s, i] / m
            to_a[:] = 0
            for j in range(m):
                of_y, target, kept, to_b, from_q = gy[s, i, j], g[s, i, j], y[s, i, j], gb[s, j], shared_q[j]
                for c in range(channels):
                    value = from_p[c] + from_q[c]
                    value += of_y[c] if given else zero
                    value = value if kept[c] > low else zero
                    target[c] = value
                    to_a[c] += value
                    to_b[c] += value


@cached_njit()
def forward_max(y, rows, cols, p, q, low, at_p, at_q):  # type: ignore[no-untyped-def]
    batch, n, m, channels = y.shape
    for s in range(batch):
        q[s], at_q[s] = -np.inf, 0
        for i in range(n):
            row, to_p, arg_p = rows[s, i], p[s, i], at_p[s, i]
            to_p[:], arg_p[:] = -np.inf, 0
            for j in range(m):
                target, col = y[s, i, j], cols[s, j]
                to_q, arg_q = q[s, j], at_q[s, j]
                for c in range(channels):
                    value = target[c] + row[c] + col[c]
                    target[c] = low if value < low else value
                for c in range(channels):
                    arg_p[c] = np.int32(j) if target[c] > to_p[c] else arg_p[c]
                    to_p[c] = target[c] if target[c] > to_p[c] else to_p[c]
                for c in range(channels):
                    arg_q[c] = np.int32(i) if target[c] > to_q[c] else arg_q[c]
                    to_q[c] = target[c] if target[c] > to_q[c] else to_q[c]


@cached_njit()
def backward_max(g, gy, y, gp, gq, ga, gb, given, low, zero, at_p, at_q):  # type: ignore[no-untyped-def]
    batch, n, m, channels = g.shape
    for s in range(batch):
        gb[s] = 0
        for i in range(n):
            to_a, from_p, arg_p = ga[s, i], gp[s, i], at_p[s, i]
            to_a[:] = 0
            for j in range(m):
                of_y, target, kept, to_b = gy[s, i, j], g[s, i, j], y[s, i, j], gb[s, j]
                from_q, arg_q = gq[s, j], at_q[s, j]
                for c in range(channels):
                    value = of_y[c] if given else zero
                    value += from_p[c] if arg_p[c] == j else zero
                    value += from_q[c] if arg_q[c] == i else zero
                    value = value if kept[c] > low else zero
                    target[c] = value
                    to_a[c] += value
                    to_b[c] += value
