# Triton reads these functions, not Python: its tuples know no unpacking, and its types are none that pyright knows.
# ruff: noqa: RUF005
# pyright: reportMissingImports=false, reportOptionalMemberAccess=false, reportArgumentType=false
# pyright: reportInvalidTypeForm=false, reportCallIssue=false, reportIndexIssue=false, reportOperatorIssue=false
"""The algorithm of the CUDA kernel: one network a program, its whole fit in registers and shared memory.

Experimental: Triton's interpreter runs it and its compiler compiles it in the tests, but no GPU has run it yet.

A program keeps the parameters of its network and their Adam moments in registers from one step to the next. Each step
runs over tiles of points, ``[point, neuron]``: forward, back, and the tile's share of the gradients. Widths are padded
to powers of two; the padding is read as zero and never changes.

Parameters, gradients and moments are one tuple each, in this order: the weights of the first layer, input by input, and
its bias; weight and bias of each layer between hidden axes, which for ``layer`` are at the positions
``IN + 2 * layer - 1`` and ``IN + 2 * layer``; the weights of the last layer, output by output; its biases, output by
output. Names in capitals are known when the kernel is compiled, see :func:`._cuda.constants`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from weightspace._activation import LEAKY_SLOPE, activation

try:
    import triton
    import triton.language as tl
    from triton.language import constexpr
except ImportError:  # the functions below are then never called, see _cuda.unavailable
    triton = tl = None
    constexpr = Any


def _constant(value: Any) -> Any:
    """Return a number that the kernel may read from the module."""
    return value if triton is None else constexpr(value)


SINE, COSINE, RELU, LEAKY_RELU, TANH, GAUSSIAN, SIGMOID, SILU = (
    _constant(activation(name).kernel)
    for name in ("sine", "cosine", "relu", "leaky_relu", "tanh", "gaussian", "sigmoid", "silu")
)
LEAKY = _constant(LEAKY_SLOPE)


def _jit(function: Callable) -> Any:
    return function if triton is None else triton.jit(function)


def _entry(function: Callable) -> Any:
    """Mark the kernel itself, compiled anew for its constants alone, and not for what its numbers divide by."""
    numbers = ["last", "coords_stride", "total"]
    return function if triton is None else triton.jit(function, do_not_specialize=numbers)


@_jit
def _sine_cosine(z, high: constexpr, low: constexpr):
    """Return sine and cosine of ``pi (high + low) z``: a reduction to the nearest half turn, and two polynomials."""
    whole = (z * high + 12582912.0) - 12582912.0  # 1.5 * 2**23 leaves no room for a fraction
    f = tl.fma(z, high, -whole) + z * low
    u = f * f
    sine = f * (3.14159264 + u * (-5.16771008 + u * (2.55007739 + u * (-0.598290411 + u * 0.0776559122))))
    cosine = 1.0 + u * (-4.93480214 + u * (4.05870915 + u * (-1.33521195 + u * (0.234937068 + u * -0.024395932))))
    odd = (whole.to(tl.int32) & 1) != 0
    return tl.where(odd, -sine, sine), tl.where(odd, -cosine, cosine)


@_jit
def _activate(z, ACTIVATION: constexpr, OMEGA: constexpr, HIGH: constexpr, LOW: constexpr):
    """Return ``f(z)`` and ``f'(z)`` by the number of ``f`` in the activation table."""
    if ACTIVATION == SINE:
        sine, cosine = _sine_cosine(z, HIGH, LOW)
        value, slope = sine, OMEGA * cosine
    elif ACTIVATION == COSINE:
        sine, cosine = _sine_cosine(z, HIGH, LOW)
        value, slope = cosine, -OMEGA * sine
    elif ACTIVATION == RELU:
        value, slope = tl.where(z > 0, z, 0.0), tl.where(z > 0, 1.0, 0.0)
    elif ACTIVATION == LEAKY_RELU:
        value, slope = tl.where(z > 0, z, LEAKY * z), tl.where(z > 0, 1.0, LEAKY)
    elif ACTIVATION == TANH:
        e = tl.exp(-2.0 * tl.abs(z))
        size = (1.0 - e) / (1.0 + e)
        value, slope = tl.where(z > 0, size, -size), 1.0 - size * size
    elif ACTIVATION == GAUSSIAN:
        value = tl.exp(-z * z)
        slope = -2.0 * z * value
    elif ACTIVATION == SIGMOID:
        value = 1.0 / (1.0 + tl.exp(-z))
        slope = value * (1.0 - value)
    elif ACTIVATION == SILU:
        gate = 1.0 / (1.0 + tl.exp(-z))
        value, slope = z * gate, gate * (1.0 + z * (1.0 - gate))
    else:
        value, slope = z, tl.full(z.shape, 1.0, tl.float32)
    return value, slope


@_jit
def _places(IN: constexpr, OUT: constexpr, WIDTHS: constexpr, PADS: constexpr, WEIGHT: constexpr, BIAS: constexpr):
    """Return the places of a network's parameters in its flat vector, and which of their numbers are not padding."""
    n = tl.arange(0, PADS[0])
    real = n < WIDTHS[0]
    places, masks = (), ()
    for d in tl.static_range(IN):
        places, masks = places + (WEIGHT[0] + n * IN + d,), masks + (real,)
    places, masks = places + (BIAS[0] + n,), masks + (real & (BIAS[0] >= 0),)
    for layer in tl.static_range(1, len(WIDTHS)):
        below, real_below = n, real
        n = tl.arange(0, PADS[layer])
        real = n < WIDTHS[layer]
        places = places + (WEIGHT[layer] + n[:, None] * WIDTHS[layer - 1] + below[None, :], BIAS[layer] + n)
        masks = masks + (real[:, None] & real_below[None, :], real & (BIAS[layer] >= 0))
    for c in tl.static_range(OUT):
        places = places + (WEIGHT[len(WIDTHS)] + c * WIDTHS[len(WIDTHS) - 1] + n,)
        masks = masks + (real,)
    for c in tl.static_range(OUT):
        one = tl.arange(0, 1)
        places = places + (BIAS[len(WIDTHS)] + c + one,)
        masks = masks + ((one == 0) & (BIAS[len(WIDTHS)] >= 0),)
    return places, masks


@_jit
def _load(start, places, masks):
    out = ()
    for i in tl.static_range(len(places)):
        out = out + (tl.load(start + places[i], mask=masks[i], other=0.0),)
    return out


@_jit
def _store(start, places, masks, values):
    for i in tl.static_range(len(places)):
        tl.store(start + places[i], values[i], mask=masks[i])


@_jit
def _draw(key, place, total):
    """Return the number of the point at one place of the minibatches, see :func:`._minibatch.draw_points`.

    splitmix64 is written out here, because Triton does not compile the functions of PyTorch.
    """
    z = key + place.to(tl.uint64) * 0x9E3779B97F4A7C15
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB
    z = z ^ (z >> 31)
    return ((z >> 33) * total.to(tl.uint64)) >> 31


@_jit
def _forward(
    p, coords, rows, inside, IN: constexpr, ACTIVATIONS: constexpr, OMEGA: constexpr, HIGH: constexpr, LOW: constexpr
):
    """Return the coordinates of one tile, and values and slopes of every hidden axis there."""
    x = (tl.load(coords + rows * IN, mask=inside, other=0.0),)
    for d in tl.static_range(1, IN):
        x = x + (tl.load(coords + rows * IN + d, mask=inside, other=0.0),)
    z = x[0][:, None] * p[0][None, :] + p[IN][None, :]
    for d in tl.static_range(1, IN):
        z += x[d][:, None] * p[d][None, :]
    h, slope = _activate(z, ACTIVATIONS[0], OMEGA[0], HIGH[0], LOW[0])
    values, slopes = (h,), (slope,)
    for layer in tl.static_range(1, len(ACTIVATIONS)):
        weight, bias = p[IN + 2 * layer - 1], p[IN + 2 * layer]
        z = tl.dot(h, tl.trans(weight), input_precision="ieee") + bias[None, :]
        h, slope = _activate(z, ACTIVATIONS[layer], OMEGA[layer], HIGH[layer], LOW[layer])
        values, slopes = values + (h,), slopes + (slope,)
    return x, values, slopes


@_jit
def _tile(
    p, g, squares, coords, targets, rows, inside, shift, factor,
    IN: constexpr, OUT: constexpr, ACTIVATIONS: constexpr, OMEGA: constexpr, HIGH: constexpr, LOW: constexpr,
):  # fmt: skip
    """Return the gradients ``g`` and the squared residuals with the share of one tile added."""
    x, values, slopes = _forward(p, coords, rows, inside, IN, ACTIVATIONS, OMEGA, HIGH, LOW)
    h = values[len(ACTIVATIONS) - 1]
    top: constexpr = IN + 2 * len(ACTIVATIONS) - 1
    weights, biases = (), ()
    delta = tl.zeros_like(h)
    for c in tl.static_range(OUT):
        w = p[top + c][None, :]
        target = tl.load(targets + rows * OUT + c, mask=inside, other=0.0) - shift
        residual = tl.where(inside, tl.sum(h * w, axis=1) + p[top + OUT + c] - target, 0.0)
        squares += residual * residual
        residual = residual * factor
        weights = weights + (g[top + c] + tl.sum(h * residual[:, None], axis=0),)
        biases = biases + (g[top + OUT + c] + tl.sum(residual, axis=0),)
        delta += residual[:, None] * w
    between = ()
    for layer in tl.static_range(len(ACTIVATIONS) - 1, 0, -1):
        delta = delta * slopes[layer]
        weight, bias = g[IN + 2 * layer - 1], g[IN + 2 * layer]
        weight = tl.dot(tl.trans(delta), values[layer - 1], weight, input_precision="ieee")
        between = (weight, bias + tl.sum(delta, axis=0)) + between
        delta = tl.dot(delta, p[IN + 2 * layer - 1], input_precision="ieee")
    delta = delta * slopes[0]
    first = ()
    for d in tl.static_range(IN):
        first = first + (g[d] + tl.sum(delta * x[d][:, None], axis=0),)
    first = first + (g[IN] + tl.sum(delta, axis=0),)
    return first + between + weights + biases, squares


@_jit
def _adam(p, g, m, v, masks, keep, rate, scale, BETA1: constexpr, BETA2: constexpr, EPS: constexpr):
    """Return parameters and moments after one step of Adam, or as they are where ``keep``."""
    new_p, new_m, new_v = (), (), ()
    for i in tl.static_range(len(p)):
        gradient = tl.where(masks[i], g[i], 0.0)
        first = m[i] + (1.0 - BETA1) * (gradient - m[i])
        second = BETA2 * v[i] + (1.0 - BETA2) * gradient * gradient
        moved = p[i] - rate * first / (tl.sqrt(second) * scale + EPS)
        new_p = new_p + (tl.where(keep, p[i], moved),)
        new_m, new_v = new_m + (tl.where(keep, m[i], first),), new_v + (tl.where(keep, v[i], second),)
    return new_p, new_m, new_v


@_entry
def fit_networks(
    flat, moment1, moment2, taken, keys, coords, targets, rates, scales, last, coords_stride, total, shift, factor,
    target,
    SIZE: constexpr, POINTS: constexpr, IN: constexpr, OUT: constexpr, WIDTHS: constexpr, PADS: constexpr,
    WEIGHT: constexpr, BIAS: constexpr, ACTIVATIONS: constexpr, OMEGA: constexpr, HIGH: constexpr, LOW: constexpr,
    TILE: constexpr, STOPS: constexpr, DRAWS: constexpr, CHECK_EVERY: constexpr, BETA1: constexpr, BETA2: constexpr,
    EPS: constexpr,
):  # fmt: skip
    """Take the Adam steps of one network from the number it has ``taken`` up to ``last``, in place.

    Args:
        flat: float32 ``[network, SIZE]``, and so are both moments.
        moment1: Adam's mean of the gradients.
        moment2: Adam's mean of their squares.
        taken: int32 ``[network]``, the steps taken so far.
        keys: int64 ``[network]``, from which points are drawn.
        coords: float32 ``[total, IN]`` for each network, ``coords_stride`` apart (0 where networks share them).
        targets: float32 ``[network, total, OUT]``.
        rates: ``lr / (1 - beta1^t)`` of every step.
        scales: ``1 / sqrt(1 - beta2^t)`` of every step.
        last: the number of the last step.
        coords_stride: floats from one network's coordinates to the next.
        total: points of a signal.
        shift: what the networks' outputs lie below the targets.
        factor: ``2 / (POINTS * OUT)``.
        target: the mean squared error at which a network stops, where ``STOPS``.
    """
    network = tl.program_id(0).to(tl.int64)
    coords, targets = coords + network * coords_stride, targets + network * total * OUT
    flat, moment1, moment2 = flat + network * SIZE, moment1 + network * SIZE, moment2 + network * SIZE
    key = tl.load(keys + network).to(tl.uint64, bitcast=True)
    places, masks = _places(IN, OUT, WIDTHS, PADS, WEIGHT, BIAS)
    p, m, v = _load(flat, places, masks), _load(moment1, places, masks), _load(moment2, places, masks)
    step = tl.load(taken + network)
    while step < last:
        g = ()
        for i in tl.static_range(len(p)):
            g = g + (tl.zeros_like(p[i]),)
        squares = tl.zeros((TILE,), tl.float32)
        for start in range(0, POINTS, TILE):
            rows = start + tl.arange(0, TILE)
            inside = rows < POINTS
            if DRAWS:
                rows = _draw(key, step.to(tl.int64) * POINTS + rows + 1, total)
            g, squares = _tile(
                p, g, squares, coords, targets, rows, inside, shift, factor, IN, OUT, ACTIVATIONS, OMEGA, HIGH, LOW
            )
        done = step >= last
        if STOPS:
            done = (step % CHECK_EVERY == 0) & (tl.sum(squares, axis=0) / (POINTS * OUT) <= target)
            last = tl.where(done, step, last)
        p, m, v = _adam(p, g, m, v, masks, done, tl.load(rates + step), tl.load(scales + step), BETA1, BETA2, EPS)
        step = tl.where(done, step, step + 1)
    _store(flat, places, masks, p)
    _store(moment1, places, masks, m)
    _store(moment2, places, masks, v)
    tl.store(taken + network, step)
