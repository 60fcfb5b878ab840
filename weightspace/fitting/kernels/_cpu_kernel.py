"""The algorithm of the CPU kernel: one network on one core, from its start to its end, with its state in the caches.

A block of points goes forward and back before the next one begins, so that its activations never leave the first cache.
Points are rows and neurons are columns. Where the coordinates are a grid, sine and cosine of the first layer come from
those of its rows and columns by the addition theorem.

Everything lies in one float32 array, ``work``. The records ``layers`` and ``layout`` of :mod:`._cpu_layout` say where.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from weightspace import _activation
from weightspace._activation import activation
from weightspace._compile import cached_njit, source_stamp
from weightspace.fitting.kernels import _cpu_activations, _cpu_layout, _cpu_llvm, _cpu_vectors, _problem
from weightspace.fitting.kernels._cpu_layout import draw_points, load_params, load_points, store_params
from weightspace.fitting.kernels._cpu_llvm import SIMD_WIDTH, Matrix
from weightspace.fitting.kernels._cpu_vectors import (
    activate,
    adam,
    add_column_sums,
    add_transposed_product,
    dot_rows,
    loss_gradient,
    multiply_by_product,
    output_layer_backward,
    product,
    product_plus_bias,
    sine_of_product_plus_bias,
    sine_of_sums,
    transpose,
)
from weightspace.fitting.kernels._problem import BETA1, BETA2, CHECK_EVERY

SINE = activation("sine").kernel

_compiled = njit(nogil=True)
_inlined = njit(nogil=True, inline="always")  # numba puts the body in the place of each call


class Schedule(NamedTuple):
    """The course of a fit.

    Args:
        steps: Adam steps.
        lr: step size.
        target_mse: mean squared error at which a network stops; negative for never.
        points: points of each step.
        draws: whether each step draws its points anew.
        output_shift: what the networks' outputs lie below the targets.
    """

    steps: int
    lr: float
    target_mse: float
    points: int
    draws: bool
    output_shift: float


class Chunk(NamedTuple):
    """The networks of a chunk and their signals.

    Args:
        flat: float32 ``[network, param]``, fitted in place.
        coords: float32 ``[network or 1, point, in]``.
        targets: float32 ``[network, point, out]``.
        keys: uint64 ``[network]``, from which points are drawn.
        mse: float32 ``[network]``, filled in.
        steps: int64 ``[network]``, filled in.
        stop: uint8 ``[1]``, not 0 to give up.
    """

    flat: np.ndarray
    coords: np.ndarray
    targets: np.ndarray
    keys: np.ndarray
    mse: np.ndarray
    steps: np.ndarray
    stop: np.ndarray


# Forward: z = W h + b, h = f(z), and f'(z) for the way back.


@_compiled
def _activate(work: Any, layer: Any, z: int, slopes: int, vectors: int, omega: float) -> None:
    """Compute ``f(z)`` in place, and ``f'(z)``; a function of its own, so that its many cases are compiled once."""
    activate(work, layer.activation, z=z, values=z, slopes=slopes, vectors=vectors, omega=omega, turns=layer.turns)


@_compiled
def _prepare_step(work: Any, layers: Any, layout: Any) -> None:
    """Compute what all blocks of a step share: transposed weights, and the table of a grid."""
    for n in range(1, len(layers) - 1):
        layer = layers[n]
        transpose(
            work,
            source=Matrix(layer.weight, layer.fan_in_pad),
            target=Matrix(layer.transposed_weight, layer.fan_out_pad),
            rows=layer.fan_out_pad,
            vectors=layer.fan_in_pad // SIMD_WIDTH,
        )
    if layout.table_rows > 0:
        first, vectors = layers[0], layers[0].fan_out_pad // SIMD_WIDTH
        product(
            work,
            left=Matrix(layout.table, layout.inputs_pad),
            right=Matrix(first.weight, first.fan_out_pad),
            out=Matrix(layout.table_sines, first.fan_out_pad),
            rows=layout.table_rows,
            vectors=vectors,
            depth=3,
        )
        _activate(work, first, layout.table_sines, layout.table_cosines, layout.table_rows * vectors, 1.0)


@_compiled
def _first_layer(work: Any, layers: Any, layout: Any, start: int, count: int) -> None:
    """Compute the first hidden layer from the coordinates."""
    layer = layers[0]
    vectors = layer.fan_out_pad // SIMD_WIDTH
    product(
        work,
        left=Matrix(layout.x + start * layout.inputs_pad, layout.inputs_pad),
        right=Matrix(layer.weight, layer.fan_out_pad),
        out=Matrix(layer.values, layer.fan_out_pad),
        rows=count,
        vectors=vectors,
        depth=layout.inputs + 1,
    )
    _activate(work, layer, layer.values, layer.slopes, count * vectors, layer.omega)


@_compiled
def _first_layer_on_grid(work: Any, layers: Any, layout: Any, grid: Any, start: int, count: int) -> None:
    """Compute the first hidden layer, of sines, from the table: line by line, as far as the block goes."""
    layer = layers[0]
    width, p = layer.fan_out_pad, 0
    while p < count:
        point = grid[start + p]
        run = min(point.run, count - p)
        sine_of_sums(
            work,
            sin_a=layout.table_sines + point.column * width,
            cos_a=layout.table_cosines + point.column * width,
            sin_b=layout.table_sines + point.line * width,
            cos_b=layout.table_cosines + point.line * width,
            values=layer.values + p * width,
            slopes=layer.slopes + p * width,
            stride=width,
            rows=run,
            vectors=width // SIMD_WIDTH,
            omega=layer.omega,
        )
        p += run


@_inlined
def _hidden_layer(work: Any, below: Any, layer: Any, count: int) -> None:
    """Compute a hidden layer from the one below it."""
    h, weight = Matrix(below.values, below.fan_out_pad), Matrix(layer.transposed_weight, layer.fan_out_pad)
    out, vectors = Matrix(layer.values, layer.fan_out_pad), layer.fan_out_pad // SIMD_WIDTH
    if layer.activation == SINE:
        sine_of_product_plus_bias(
            work, left=h, right=weight, bias=layer.bias, values=out, slopes=layer.slopes, rows=count, vectors=vectors,
            depth=layer.fan_in_pad, omega=layer.omega, turns=layer.turns,
        )  # fmt: skip
    else:
        product_plus_bias(
            work, left=h, right=weight, bias=layer.bias, out=out, rows=count, vectors=vectors, depth=layer.fan_in_pad
        )
        _activate(work, layer, layer.values, layer.slopes, count * vectors, layer.omega)


@_inlined
def _output_layer(work: Any, layers: Any, layout: Any, start: int, count: int) -> None:
    """Compute the outputs, and from them the derivative of the loss."""
    below, layer = layers[-2], layers[-1]
    for c in range(layout.outputs):
        out = layout.delta + c * layout.points + start
        dot_rows(
            work,
            rows=Matrix(below.values, below.fan_out_pad),
            weights=layer.weight + c * layer.fan_in_pad,
            out=out,
            points=count,
            vectors=layer.fan_in_pad // SIMD_WIDTH,
        )
        loss_gradient(
            work,
            out=out,
            target=layout.targets + c * layout.points + start,
            mask=layout.mask + start,
            bias=layer.bias + c,
            squares=layout.squares,
            gradient=layout.delta_sums + c * SIMD_WIDTH,
            vectors=count // SIMD_WIDTH,
            factor=layout.loss_factor,
        )


@_compiled
def _forward(work: Any, layers: Any, layout: Any, grid: Any, start: int, count: int) -> None:
    """Take ``count`` points from ``start`` on through the network, up to the derivative of the loss by its outputs."""
    if layout.table_rows > 0:
        _first_layer_on_grid(work, layers, layout, grid, start, count)
    else:
        _first_layer(work, layers, layout, start, count)
    for n in range(1, len(layers) - 1):
        _hidden_layer(work, layers[n - 1], layers[n], count)
    _output_layer(work, layers, layout, start, count)


# Backward: dL/dz = (W^T dL/dz above) f'(z), dL/dW += dL/dz h^T below, dL/db += dL/dz.


@_inlined
def _output_layer_backward(work: Any, layers: Any, layout: Any, start: int, count: int) -> None:
    below, layer = layers[-2], layers[-1]
    output_layer_backward(
        work,
        delta=Matrix(layout.delta + start, layout.points),
        weights=layer.weight,
        gradient=layer.weight + layout.params_size,
        values=Matrix(below.values, below.fan_out_pad),
        slopes=below.slopes,
        rows=count,
        vectors=layer.fan_in_pad // SIMD_WIDTH,
        outputs=layout.outputs,
    )


@_inlined
def _hidden_layer_backward(work: Any, below: Any, layer: Any, to_gradient: int, count: int) -> None:
    delta, vectors = Matrix(layer.slopes, layer.fan_out_pad), layer.fan_in_pad // SIMD_WIDTH
    if layer.has_bias:
        out_vectors = layer.fan_out_pad // SIMD_WIDTH
        add_column_sums(work, matrix=delta, out=layer.bias + to_gradient, rows=count, vectors=out_vectors)
    add_transposed_product(
        work,
        left=delta,
        right=Matrix(below.values, layer.fan_in_pad),
        out=Matrix(layer.weight + to_gradient, layer.fan_in_pad),
        rows=layer.fan_out,
        vectors=vectors,
        depth=count,
    )
    multiply_by_product(
        work,
        left=delta,
        right=Matrix(layer.weight, layer.fan_in_pad),
        out=Matrix(below.slopes, layer.fan_in_pad),
        rows=count,
        vectors=vectors,
        depth=layer.fan_out_pad,
    )


@_inlined
def _first_layer_backward(work: Any, layers: Any, layout: Any, start: int, count: int) -> None:
    layer = layers[0]
    add_transposed_product(
        work,
        left=Matrix(layout.x + start * layout.inputs_pad, layout.inputs_pad),
        right=Matrix(layer.slopes, layer.fan_out_pad),
        out=Matrix(layer.weight + layout.params_size, layer.fan_out_pad),
        rows=layout.inputs_pad,
        vectors=layer.fan_out_pad // SIMD_WIDTH,
        depth=count,
    )


@_compiled
def _backward(work: Any, layers: Any, layout: Any, start: int, count: int) -> None:
    """Take a block back from the derivative of the loss, and add its share of all gradients."""
    _output_layer_backward(work, layers, layout, start, count)
    for n in range(len(layers) - 2, 0, -1):
        _hidden_layer_backward(work, layers[n - 1], layers[n], layout.params_size, count)
    _first_layer_backward(work, layers, layout, start, count)


# Steps.


@_compiled
def _sum_of_vector(work: Any, start: int) -> float:
    total = 0.0
    for i in range(SIMD_WIDTH):
        total += work[start + i]
    return total


@_compiled
def _finish_gradients(work: Any, layers: Any, layout: Any) -> None:
    """Sum the gradients of the output biases, and clear those of parameters that are there for padding alone.

    Neurons that fill up a vector may not be read, because some activations are not 0 at 0.
    """
    to_gradient = layout.params_size
    first, last = layers[0], layers[-1]
    if last.has_bias:
        for c in range(layout.outputs):
            work[last.bias + to_gradient + c] = _sum_of_vector(work, layout.delta_sums + c * SIMD_WIDTH)
    if not first.has_bias:  # the input that is always one stands for the bias
        work[first.bias + to_gradient : first.bias + to_gradient + first.fan_out_pad] = 0.0
    for n in range(1, len(layers)):
        layer = layers[n]
        if layer.fan_in < layer.fan_in_pad:
            for j in range(layer.fan_out):
                row = layer.weight + to_gradient + j * layer.fan_in_pad
                work[row + layer.fan_in : row + layer.fan_in_pad] = 0.0


@_compiled
def _all_blocks(work: Any, layers: Any, layout: Any, grid: Any, backward: bool) -> float:
    """Take all loaded points through the network; return the sum of squared residuals, and fill the gradients."""
    gradients = layout.params + layout.params_size
    work[gradients : gradients + layout.params_size] = 0.0
    work[layout.squares : layout.squares + SIMD_WIDTH] = 0.0
    work[layout.delta_sums : layout.delta_sums + layout.outputs * SIMD_WIDTH] = 0.0
    _prepare_step(work, layers, layout)
    for start in range(0, layout.points, layout.block):
        count = min(layout.block, layout.points - start)
        _forward(work, layers, layout, grid, start, count)
        if backward:
            _backward(work, layers, layout, start, count)
    _finish_gradients(work, layers, layout)
    return _sum_of_vector(work, layout.squares)


@_compiled
def _final_error(work: Any, layers: Any, layout: Any, grid: Any, schedule: Any, coords: Any, targets: Any) -> float:
    """Return the mean squared error over all points, in parts of as many points as a step has."""
    total, squares = len(coords), 0.0
    for first in range(0, total, schedule.points):
        if schedule.draws:
            count = min(schedule.points, total - first)
            load_points(work, layout, coords, targets, first, count, schedule.output_shift)
        squares += _all_blocks(work, layers, layout, grid, False)
    return squares / (total * layout.outputs)


@_compiled
def _fit_one(work: Any, layers: Any, layout: Any, grid: Any, schedule: Any, chunk: Any, n: int) -> tuple[float, int]:
    """Fit network ``n`` in place by Adam; return its mean squared error at the end and the steps it took."""
    coords, targets = chunk.coords[n if len(chunk.coords) > 1 else 0], chunk.targets[n]
    size, params = layout.params_size, layout.params
    load_params(work, layers, layout, chunk.flat[n])
    load_points(work, layout, coords, targets, 0, schedule.points, schedule.output_shift)
    power1, power2, taken = 1.0, 1.0, schedule.steps
    for step in range(schedule.steps):
        if chunk.stop[0] != 0:
            return -1.0, step
        if schedule.draws:
            draw_points(work, layout, coords, targets, schedule, chunk.keys[n], step)
        mse = _all_blocks(work, layers, layout, grid, True) / (schedule.points * layout.outputs)
        if schedule.target_mse >= 0 and step % CHECK_EVERY == 0 and mse <= schedule.target_mse:
            taken = step
            break
        power1, power2 = power1 * BETA1, power2 * BETA2
        adam(
            work,
            params=params,
            gradients=params + size,
            first_moments=params + 2 * size,
            second_moments=params + 3 * size,
            vectors=size // SIMD_WIDTH,
            rate=schedule.lr / (1.0 - power1),
            correction=1.0 / np.sqrt(1.0 - power2),
        )
    store_params(work, layers, layout, chunk.flat[n])
    return _final_error(work, layers, layout, grid, schedule, coords, targets), taken


def _entry(stamp: str) -> Any:
    """Return the kernel, whose place in numba's cache depends on ``stamp``, see :func:`._compile.source_stamp`."""

    @cached_njit()
    def fit_networks(space: Any, schedule: Any, chunk: Any) -> None:
        """Fit the networks of a :class:`Chunk` in place, one after the other, in one work space."""
        _ = stamp
        work, layers, layout, grid = space
        for n in range(len(chunk.flat)):
            chunk.mse[n], chunk.steps[n] = _fit_one(work, layers, layout, grid, schedule, chunk, n)

    return fit_networks


fit_networks = _entry(source_stamp(_activation, _problem, _cpu_activations, _cpu_layout, _cpu_llvm, _cpu_vectors))
