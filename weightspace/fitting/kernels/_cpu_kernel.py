"""The compiled fitting kernel: one network on one core, from its start to its end, with its state in the caches.

A block of points goes forward and back before the next one begins, so that its activations never leave the first cache.
Points are rows and neurons columns: all three matrix products of a layer (forward, back, gradient) are then the same
register tile of :mod:`weightspace.fitting.kernels._cpu_vectors`. Where coordinates are a grid, sine and cosine of the first layer come
from those of its rows and columns by the addition theorem.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from numba import njit

from weightspace.fitting.kernels import _cpu_vectors as _lanes
from weightspace.fitting.kernels._cpu_vectors import (
    LANES,
    activate,
    adam,
    column_sums,
    output_back,
    product,
    product_bias,
    product_sine,
    product_times,
    read_out,
    residual,
    rotate,
    transpose,
    turned_product_add,
)

# Columns of the table of layers and places in the list of sizes; see _plan.Plan, which fills them.
READS, READS_PAD, MAKES, MAKES_PAD, WEIGHT, BIAS, TURNED, VALUE, SLOPE, KIND, FLAT_WEIGHT, FLAT_BIAS = range(12)
POINTS, BLOCK_POINTS, IN, IN_PAD, OUT, X, TARGET, MASK = range(8)
DELTA, SQUARES, OUT_SLOPE, PARAMS, COUNT, UNIQUE, TABLE = range(8, 15)
COLUMN, LINE, RUN = range(3)
SINE = _lanes.KINDS.index("sine")


@njit(nogil=True)
def _load_points(buf: Any, size: Any, coords: Any, targets: Any, first: int, count: int, shift: float) -> None:
    """Points ``first`` to ``first + count`` into the work space; the rest of it is masked."""
    d, wide, points = size[IN], size[IN_PAD], size[POINTS]
    buf[size[X] : size[X] + points * wide] = 0.0
    for p in range(points):
        inside = p < count
        buf[size[MASK] + p] = 1.0 if inside else 0.0
        for c in range(size[OUT]):
            buf[size[TARGET] + c * points + p] = targets[first + p, c] - shift if inside else 0.0
        if inside:
            for i in range(d):
                buf[size[X] + p * wide + i] = coords[first + p, i]
            buf[size[X] + p * wide + d] = 1.0


@njit(nogil=True)
def _draw_points(buf: Any, size: Any, coords: Any, targets: Any, count: int, shift: float, key: int, step: int) -> None:
    """The minibatch of one step into the work space: point ``i`` is number ``splitmix64(key, step, i)``."""
    d, wide, points, total = size[IN], size[IN_PAD], size[POINTS], np.uint64(len(coords))
    for p in range(count):
        z = np.uint64(key) + np.uint64(step * count + p + 1) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
        m = np.int64(((z >> np.uint64(33)) * total) >> np.uint64(31))
        for c in range(size[OUT]):
            buf[size[TARGET] + c * points + p] = targets[m, c] - shift
        for i in range(d):
            buf[size[X] + p * wide + i] = coords[m, i]


@njit(nogil=True)
def _pack(buf: Any, layers: Any, size: Any, flat: Any) -> None:
    """Parameters into padded rows: the first layer input by input, its bias as one more, the others row by row."""
    buf[size[PARAMS] : size[PARAMS] + 4 * size[COUNT]] = 0.0
    for number in range(len(layers)):
        reads = layers[number, READS]
        for j in range(layers[number, MAKES]):
            for i in range(reads):
                here = layers[number, WEIGHT] + (
                    i * layers[number, MAKES_PAD] + j if number == 0 else j * layers[number, READS_PAD] + i
                )
                buf[here] = flat[layers[number, FLAT_WEIGHT] + j * reads + i]
            if layers[number, FLAT_BIAS] >= 0:
                buf[layers[number, BIAS] + j] = flat[layers[number, FLAT_BIAS] + j]


@njit(nogil=True)
def _unpack(buf: Any, layers: Any, flat: Any) -> None:
    for number in range(len(layers)):
        reads = layers[number, READS]
        for j in range(layers[number, MAKES]):
            for i in range(reads):
                here = layers[number, WEIGHT] + (
                    i * layers[number, MAKES_PAD] + j if number == 0 else j * layers[number, READS_PAD] + i
                )
                flat[layers[number, FLAT_WEIGHT] + j * reads + i] = buf[here]
            if layers[number, FLAT_BIAS] >= 0:
                flat[layers[number, FLAT_BIAS] + j] = buf[layers[number, BIAS] + j]


@njit(nogil=True)
def _apply(buf: Any, kind: int, value: int, slope: int, vectors: int, omega: float, frequency: float) -> None:
    """``activate`` in place; its many cases are compiled once, here."""
    activate(buf, kind, value, value, slope, vectors, omega, frequency)


@njit(nogil=True)
def _prepare(buf: Any, layers: Any, gains: Any, size: Any) -> None:
    """What all blocks of a step share: weights turned for the forward products, the tables of a grid."""
    for n in range(1, len(layers) - 1):
        reads, makes, weight, turned = layers[n, READS_PAD], layers[n, MAKES_PAD], layers[n, WEIGHT], layers[n, TURNED]
        transpose(buf, weight, reads, turned, makes, layers[n, MAKES], reads // LANES)
    rows = size[UNIQUE]
    if rows > 0:
        wide, width, table = size[IN_PAD], layers[0, MAKES_PAD], size[TABLE]
        sines = table + rows * wide
        cosines = sines + rows * width
        product(buf, table, wide, layers[0, WEIGHT], width, sines, width, rows, width // LANES, 3, 0)
        _apply(buf, layers[0, KIND], sines, cosines, rows * width // LANES, 1.0, gains[0, 1])


@njit(nogil=True)
def _first_layer(buf: Any, layers: Any, gains: Any, size: Any, p0: int, count: int, grid: Any) -> None:
    """Values and slopes of the first hidden axis for one block."""
    wide, width, value, slope = size[IN_PAD], layers[0, MAKES_PAD], layers[0, VALUE], layers[0, SLOPE]
    vectors = width // LANES
    if size[UNIQUE] == 0:
        depth = size[IN] + 1
        product(buf, size[X] + p0 * wide, wide, layers[0, WEIGHT], width, value, width, count, vectors, depth, 0)
        _apply(buf, layers[0, KIND], value, slope, count * vectors, gains[0, 0], gains[0, 1])
        return
    sines = size[TABLE] + size[UNIQUE] * wide
    cosines = sines + size[UNIQUE] * width
    p = 0
    while p < count:
        a, b, here = grid[p0 + p, COLUMN] * width, grid[p0 + p, LINE] * width, p * width
        run = min(grid[p0 + p, RUN], count - p)
        sa, ca, sb, cb = sines + a, cosines + a, sines + b, cosines + b
        rotate(buf, sa, ca, sb, cb, value + here, slope + here, width, vectors, run, gains[0, 0])
        p += run


@njit(nogil=True)
def _forward(buf: Any, layers: Any, gains: Any, size: Any, p0: int, count: int, grid: Any) -> None:
    """One block up to the residual: values and slopes of every hidden axis."""
    _first_layer(buf, layers, gains, size, p0, count, grid)
    below = layers[0, VALUE]
    for n in range(1, len(layers) - 1):
        reads, makes, value, turned = layers[n, READS_PAD], layers[n, MAKES_PAD], layers[n, VALUE], layers[n, TURNED]
        vectors = makes // LANES
        kind, bias, slope = layers[n, KIND], layers[n, BIAS], layers[n, SLOPE]
        if kind == SINE:
            apart, omega, turn = slope - value, gains[n, 0], gains[n, 1]
            product_sine(
                buf, below, reads, turned, makes, value, makes, count, vectors, reads, bias, apart, omega, turn
            )
        else:
            product_bias(buf, below, reads, turned, makes, value, makes, count, vectors, reads, bias)
            _apply(buf, kind, value, slope, count * vectors, gains[n, 0], gains[n, 1])
        below = value
    top, points = len(layers) - 1, size[POINTS]
    width, squares, factor = layers[top, READS_PAD], size[SQUARES], gains[top, 0]
    for c in range(size[OUT]):
        delta, target, total = (
            size[DELTA] + c * points + p0,
            size[TARGET] + c * points + p0,
            size[OUT_SLOPE] + c * LANES,
        )
        read_out(buf, below, width, layers[top, WEIGHT] + c * width, width // LANES, delta, count)
        residual(buf, delta, target, size[MASK] + p0, layers[top, BIAS] + c, squares, total, count // LANES, factor)


@njit(nogil=True)
def _backward(buf: Any, layers: Any, size: Any, p0: int, count: int) -> None:
    """One block back from the residual: its share of all gradients. Slopes become derivatives of the loss."""
    points, top, gradient, delta = size[POINTS], len(layers) - 1, size[COUNT], size[DELTA] + p0
    width, weight = layers[top, READS_PAD], layers[top, WEIGHT]
    value, slope = layers[top - 1, VALUE], layers[top - 1, SLOPE]
    output_back(buf, delta, points, weight, weight + gradient, value, slope, width, count, width // LANES, size[OUT])
    for n in range(top - 1, 0, -1):
        makes, reads, weight, slope = layers[n, MAKES_PAD], layers[n, READS_PAD], layers[n, WEIGHT], layers[n, SLOPE]
        vectors, value, below = reads // LANES, layers[n - 1, VALUE], layers[n - 1, SLOPE]
        if layers[n, FLAT_BIAS] >= 0:
            column_sums(buf, slope, makes, count, makes // LANES, layers[n, BIAS] + gradient)
        out = weight + gradient
        turned_product_add(buf, slope, makes, value, reads, out, reads, layers[n, MAKES], vectors, count, 0)
        product_times(buf, slope, makes, weight, reads, below, reads, count, vectors, makes, 0)
    wide, width, out = size[IN_PAD], layers[0, MAKES_PAD], layers[0, WEIGHT] + gradient
    x, vectors = size[X] + p0 * wide, width // LANES
    turned_product_add(buf, x, wide, layers[0, SLOPE], width, out, width, wide, vectors, count, 0)
    if layers[0, FLAT_BIAS] < 0:  # the input that is always one stands for the bias
        buf[layers[0, BIAS] + gradient : layers[0, BIAS] + gradient + width] = 0.0


@njit(nogil=True)
def _sum(buf: Any, start: int) -> float:
    total = 0.0
    for i in range(LANES):
        total += buf[start + i]
    return total


@njit(nogil=True)
def _clear_padding(buf: Any, layers: Any, gradient: int) -> None:
    """Neurons that only fill up a vector may not be read: some activations are not zero at zero."""
    for number in range(1, len(layers)):
        reads, wide = layers[number, READS], layers[number, READS_PAD]
        if reads < wide:
            for j in range(layers[number, MAKES]):
                begin = layers[number, WEIGHT] + gradient + j * wide
                buf[begin + reads : begin + wide] = 0.0


@njit(nogil=True)
def _passes(buf: Any, layers: Any, gains: Any, size: Any, grid: Any, backward: bool) -> float:
    """All blocks of the points in the work space; the sum of squared residuals, and the gradients."""
    points, block = size[POINTS], size[BLOCK_POINTS]
    buf[size[SQUARES] : size[SQUARES] + LANES] = 0.0
    buf[size[OUT_SLOPE] : size[OUT_SLOPE] + size[OUT] * LANES] = 0.0
    buf[size[PARAMS] + size[COUNT] : size[PARAMS] + 2 * size[COUNT]] = 0.0
    _prepare(buf, layers, gains, size)
    for p0 in range(0, points, block):
        count = min(block, points - p0)
        _forward(buf, layers, gains, size, p0, count, grid)
        if backward:
            _backward(buf, layers, size, p0, count)
    top = len(layers) - 1
    if layers[top, FLAT_BIAS] >= 0:
        for c in range(size[OUT]):
            buf[layers[top, BIAS] + size[COUNT] + c] = _sum(buf, size[OUT_SLOPE] + c * LANES)
    _clear_padding(buf, layers, size[COUNT])
    return _sum(buf, size[SQUARES])


@njit(nogil=True)
def _fit_one(
    buf: Any, layers: Any, gains: Any, size: Any, flat: Any, coords: Any, targets: Any, grid: Any,
    shift: float, steps: int, batch: int, key: int, lr: float, target: float, check_every: int, beta1: float,
    beta2: float, eps: float, stop: Any,
) -> tuple[float, int]:  # fmt: skip
    """Mean squared error at the end, and steps taken."""
    total = len(coords)
    count = batch if batch > 0 else total
    gains[len(layers) - 1, 0] = 2.0 / (count * size[OUT])
    _pack(buf, layers, size, flat)
    _load_points(buf, size, coords, targets, 0, count, shift)
    start, number = size[PARAMS], size[COUNT]
    power1, power2, taken = 1.0, 1.0, steps
    for step in range(steps):
        if stop[0] != 0:
            return -1.0, step
        if batch > 0:
            _draw_points(buf, size, coords, targets, count, shift, key, step)
        squares = _passes(buf, layers, gains, size, grid, True)
        if target >= 0 and step % check_every == 0 and squares / (count * size[OUT]) <= target:
            taken = step
            break
        power1, power2 = power1 * beta1, power2 * beta2
        adam(
            buf, start, start + number, start + 2 * number, start + 3 * number, number // LANES, lr / (1.0 - power1),
            1.0 / np.sqrt(1.0 - power2), beta1, beta2, eps,
        )  # fmt: skip
    squares = 0.0
    for first in range(0, total, count):
        if batch > 0:
            _load_points(buf, size, coords, targets, first, min(count, total - first), shift)
        squares += _passes(buf, layers, gains, size, grid, False)
    _unpack(buf, layers, flat)
    return squares / (total * size[OUT]), taken


def _entry(stamp: str) -> Any:
    """The kernel. Numba's cache of it belongs to the text of the primitives as well: ``stamp`` is part of its key."""

    @njit(
        "(f4[::1], i8[:,::1], f8[:,::1], i8[::1], f4[:,::1], f4[:,:,::1], f4[:,:,::1], i8[:,::1], f8, i8, i8,"
        "u8[::1], f8, f8, i8, f8, f8, f8, f4[::1], i8[::1], u1[::1])",
        nogil=True,
        cache=True,
    )
    def fit_networks(
        buf, layers, gains, size, flat, coords, targets, grid, shift, steps, batch, keys, lr, target,
        check_every, beta1, beta2, eps, mse, taken, stop,
    ):  # fmt: skip
        """Fit the networks ``flat [network, param]`` in place, one after the other."""
        _ = stamp
        for n in range(len(flat)):
            points = coords[n if len(coords) > 1 else 0]
            mse[n], taken[n] = _fit_one(
                buf, layers, gains, size, flat[n], points, targets[n], grid, shift, steps, batch, keys[n], lr,
                target, check_every, beta1, beta2, eps, stop,
            )  # fmt: skip

    return fit_networks


fit_networks = _entry(hashlib.sha256(Path(_lanes.__file__).read_bytes()).hexdigest())
