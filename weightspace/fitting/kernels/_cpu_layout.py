"""The work space of the CPU kernel: where everything lies in it, and how signals and parameters come there and back.

The work space of a thread is one float32 array. Rows are padded to whole vectors, and every part begins at the start of
a cache line.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numba import njit

from weightspace._spec import NetSpec
from weightspace.fitting.kernels._cpu_llvm import SIMD_WIDTH
from weightspace.fitting.kernels._cpu_vectors import POINT_MULTIPLE
from weightspace.fitting.kernels._problem import kernel_number, produced_axes

_FIRST_CACHE = 32768  # bytes that the values and slopes of a block may take
_LARGEST_BLOCK = 256
_CACHE_LINE = 16  # floats
_GAP = 208  # floats after values and slopes: where they are powers of two apart, they compete for the same cache lines

LAYER = np.dtype(
    [
        ("fan_in", np.int64),  # neurons that the layer reads
        ("fan_in_pad", np.int64),  # length of a row of them
        ("fan_out", np.int64),  # neurons that the layer produces
        ("fan_out_pad", np.int64),  # length of a row of them
        ("activation", np.int64),  # the number of the activation, see _problem.kernel_number
        ("omega", np.float64),
        ("turns", np.float64),  # omega / pi
        ("has_bias", np.bool_),
        ("flat_weight", np.int64),  # places in the flat vector of a network
        ("flat_bias", np.int64),
        ("weight", np.int64),  # place of [fan_out, fan_in_pad]; the first layer's is [fan_in_pad, fan_out_pad]
        ("bias", np.int64),  # place of [fan_out_pad]
        ("transposed_weight", np.int64),  # place of [fan_in_pad, fan_out_pad], between hidden layers
        ("values", np.int64),  # place of [block, fan_out_pad]: h = f(z)
        ("slopes", np.int64),  # place of [block, fan_out_pad]: f'(z), and on the way back dL/dz
    ],
    align=True,
)
"""One layer of the networks. A place is an offset into the work space, in floats."""

GRID_POINT = np.dtype([("column", np.int64), ("line", np.int64), ("run", np.int64)])
"""One point of a grid: the rows of the table for its column and its line, and how many points continue its line."""

LAYOUT = np.dtype(
    [
        ("points", np.int64),  # points of a step, rounded up to a whole number of vectors
        ("block", np.int64),  # points that go forward and back together
        ("inputs", np.int64),  # coordinates of a point
        ("inputs_pad", np.int64),  # length of a row of them and a one, by which the first layer multiplies its bias
        ("outputs", np.int64),  # channels of a target
        ("loss_factor", np.float64),  # 2 / (points of a step * outputs), not rounded up
        ("params_size", np.int64),  # floats of the parameters
        ("params", np.int64),  # place of the parameters; gradients and both moments follow, each as long
        ("x", np.int64),  # place of [points, inputs_pad]
        ("targets", np.int64),  # place of [outputs, points]
        ("mask", np.int64),  # place of [points]: 1 for a point, 0 for padding
        ("delta", np.int64),  # place of [outputs, points]: the derivative of the loss by the outputs
        ("squares", np.int64),  # place of one vector: the sum of squared residuals
        ("delta_sums", np.int64),  # place of one vector for each output: the gradient of its bias
        ("table_rows", np.int64),  # distinct columns and lines of the grid; 0 where the points are no grid
        ("table", np.int64),  # place of [table_rows, inputs_pad]: their coordinates
        ("table_sines", np.int64),  # place of [table_rows, fan_out_pad]: sines of the first layer
        ("table_cosines", np.int64),  # place of [table_rows, fan_out_pad]
    ]
)
"""Sizes and places in the work space that belong to no layer."""


class WorkSpace(NamedTuple):
    """The work space of one thread, and where everything lies in it.

    Args:
        floats: the work space, float32.
        layers: records of ``LAYER``, ``[layer]``.
        layout: a record of ``LAYOUT``.
        grid: records of ``GRID_POINT``, ``[point]``; empty where the points are no grid.
    """

    floats: np.ndarray
    layers: np.ndarray
    layout: np.void
    grid: np.ndarray


def lay_out(spec: NetSpec, coords: np.ndarray, *, points: int | None = None) -> WorkSpace:
    """Make a work space.

    Args:
        spec: a chain of linear layers.
        coords: float32 ``[network or 1, point, in]``.
        points: the points of each step; all of them where ``None``.
    """
    grid, table = _grid(spec, coords) if points is None else _no_grid()
    layout = np.zeros(1, dtype=LAYOUT)[0]
    count = coords.shape[1] if points is None else points
    layout["points"] = _round_up(count, POINT_MULTIPLE)
    layout["inputs"], layout["outputs"] = spec.in_features, spec.out_features
    layout["inputs_pad"] = _round_up(spec.in_features + 1, 4)
    layout["loss_factor"] = 2.0 / (count * spec.out_features)
    layout["table_rows"] = len(table)
    layers = _sizes(spec, int(layout["inputs_pad"]))
    layout["block"] = _block_size(layers, int(layout["points"]))
    space = _Space()
    _place_params(layers, layout, space)
    _place_activations(layers, int(layout["block"]), space)
    _place_signals(layout, space)
    _place_table(layers, layout, space)
    floats = space.allocate()
    floats[layout["table"] : layout["table_sines"]] = table.ravel()
    return WorkSpace(floats, layers, layout, _padded_grid(grid, int(layout["points"])))


class _Space:
    """A counter of floats that hands out parts of the work space, each at the start of a cache line."""

    def __init__(self) -> None:
        self.size = 0

    def take(self, count: int) -> int:
        """Return the place of a new part of ``count`` floats."""
        place = self.size
        self.size += _round_up(int(count), _CACHE_LINE)
        return place

    def allocate(self) -> np.ndarray:
        """Return zeros, float32, for all parts."""
        raw = np.zeros(self.size + _CACHE_LINE, dtype=np.float32)
        start = (-raw.ctypes.data // raw.itemsize) % _CACHE_LINE
        return raw[start : start + self.size]


def _sizes(spec: NetSpec, inputs_pad: int) -> np.ndarray:
    """Return records of ``LAYER`` with everything but the places in the work space."""
    layers = np.zeros(len(spec.layers), dtype=LAYER)
    below, below_pad = spec.in_features, inputs_pad
    for row, layer, axis in zip(layers, spec.layers, produced_axes(spec), strict=True):
        row["fan_in"], row["fan_in_pad"] = below, below_pad
        below, below_pad = axis.size, _round_up(axis.size, SIMD_WIDTH)
        row["fan_out"], row["fan_out_pad"] = below, below_pad
        number: Any = kernel_number(axis)
        row["activation"] = number
        row["omega"], row["turns"] = axis.omega, axis.omega / math.pi
        row["has_bias"] = layer.bias is not None
        row["flat_weight"] = spec.slices[layer.weight].start
        row["flat_bias"] = 0 if layer.bias is None else spec.slices[layer.bias].start
    return layers


def _block_size(layers: np.ndarray, points: int) -> int:
    """Return how many points go forward and back together: as many as the first cache holds."""
    bytes_of_point = 8 * int(layers["fan_out_pad"][:-1].sum())  # values and slopes, float32
    fitting = _FIRST_CACHE // bytes_of_point // POINT_MULTIPLE * POINT_MULTIPLE
    return min(max(fitting, POINT_MULTIPLE), _LARGEST_BLOCK, points)


def _place_params(layers: np.ndarray, layout: np.void, space: _Space) -> None:
    """Take room for the parameters, their gradients and moments.

    The weights of the first layer lie input by input, and its bias follows as if it were that of one input more.
    """
    layout["params"] = space.size
    first, last = layers[0], layers[-1]
    first["weight"] = space.take(first["fan_in_pad"] * first["fan_out_pad"])
    first["bias"] = first["weight"] + first["fan_in"] * first["fan_out_pad"]
    for row in layers[1:-1]:
        row["weight"] = space.take(row["fan_out_pad"] * row["fan_in_pad"])
        row["bias"] = space.take(row["fan_out_pad"])
    last["weight"], last["bias"] = space.take(last["fan_out"] * last["fan_in_pad"]), space.take(last["fan_out_pad"])
    layout["params_size"] = space.size
    space.take(3 * space.size)


def _place_activations(layers: np.ndarray, block: int, space: _Space) -> None:
    """Take room for a block's values and slopes of every hidden layer, and for the transposed weights between them."""
    for n, row in enumerate(layers[:-1]):
        row["values"] = space.take(block * row["fan_out_pad"] + _GAP)
        row["slopes"] = space.take(block * row["fan_out_pad"] + _GAP)
        if n > 0:
            row["transposed_weight"] = space.take(row["fan_in_pad"] * row["fan_out_pad"])


def _place_signals(layout: np.void, space: _Space) -> None:
    """Take room for the points of a step and for what becomes of them at the output."""
    points, outputs = layout["points"], layout["outputs"]
    layout["x"] = space.take(points * layout["inputs_pad"])
    layout["targets"], layout["mask"] = space.take(outputs * points), space.take(points)
    layout["delta"], layout["squares"] = space.take(outputs * points), space.take(SIMD_WIDTH)
    layout["delta_sums"] = space.take(outputs * SIMD_WIDTH)


def _place_table(layers: np.ndarray, layout: np.void, space: _Space) -> None:
    """Take room for the coordinates, sines and cosines of a grid's columns and lines."""
    coordinates, sines = (layout["table_rows"] * width for width in (layout["inputs_pad"], layers[0]["fan_out_pad"]))
    layout["table"] = space.take(coordinates + 2 * sines)
    layout["table_sines"] = layout["table"] + coordinates
    layout["table_cosines"] = layout["table_sines"] + sines


def _no_grid() -> tuple[np.ndarray, np.ndarray]:
    return np.zeros(0, dtype=GRID_POINT), np.zeros((0, 4), dtype=np.float32)


def _grid(spec: NetSpec, coords: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the points as points of a grid, and the table of its distinct columns and lines.

    Both are empty unless the points are two-dimensional, of few distinct columns and lines, the same for all networks,
    and the first layer is one of sines.
    """
    if coords.shape[0] != 1 or coords.shape[2] != 2 or produced_axes(spec)[0].activation != "sine":
        return _no_grid()
    first_changes = len(coords[0]) > 1 and coords[0, 0, 0] != coords[0, 1, 0]
    along = 0 if first_changes else 1  # the coordinate that runs along a line
    columns, column = np.unique(coords[0, :, along], return_inverse=True)
    lines, line = np.unique(coords[0, :, 1 - along], return_inverse=True)
    if 4 * (len(columns) + len(lines)) > coords.shape[1]:
        return _no_grid()
    table = np.zeros((len(columns) + len(lines), 4), dtype=np.float32)
    table[: len(columns), along] = columns
    table[len(columns) :, 1 - along] = lines
    table[len(columns) :, 2] = 1.0  # the bias belongs to one of the two terms
    grid = np.zeros(len(column), dtype=GRID_POINT)
    grid["column"], grid["line"], grid["run"] = column, line + len(columns), _runs(column, line)
    return grid, table


def _runs(column: np.ndarray, line: np.ndarray) -> np.ndarray:
    """Return how many points from each point on continue its line, column by column."""
    continues = (line[1:] == line[:-1]) & (column[1:] == column[:-1] + 1)
    ends = np.append(np.flatnonzero(~continues), len(column) - 1)
    places = np.arange(len(column))
    return ends[np.searchsorted(ends, places)] - places + 1


def _padded_grid(grid: np.ndarray, points: int) -> np.ndarray:
    """Return the grid with points for the padding, which may be any of the table."""
    if not len(grid):
        return grid
    return np.concatenate([grid, np.ones(points - len(grid), dtype=GRID_POINT)])


def _round_up(count: int, multiple: int) -> int:
    return -(-count // multiple) * multiple


# Signals and parameters into the work space, and back.


@njit(nogil=True, inline="always")
def _load_point(work: Any, layout: Any, p: int, coords: Any, targets: Any, number: int, output_shift: float) -> None:
    """Load point ``number`` of a signal as point ``p`` of the step."""
    for c in range(layout.outputs):
        work[layout.targets + c * layout.points + p] = targets[number, c] - output_shift
    for i in range(layout.inputs):
        work[layout.x + p * layout.inputs_pad + i] = coords[number, i]


@njit(nogil=True)
def load_points(work: Any, layout: Any, coords: Any, targets: Any, first: int, count: int, shift: float) -> None:
    """Load ``count`` points from number ``first`` on, and mask the rest."""
    work[layout.x : layout.x + layout.points * layout.inputs_pad] = 0.0
    work[layout.targets : layout.targets + layout.outputs * layout.points] = 0.0
    work[layout.mask : layout.mask + layout.points] = 0.0
    for p in range(count):
        _load_point(work, layout, p, coords, targets, first + p, shift)
        work[layout.x + p * layout.inputs_pad + layout.inputs] = 1.0
        work[layout.mask + p] = 1.0


@njit(nogil=True)
def draw_points(work: Any, layout: Any, coords: Any, targets: Any, schedule: Any, key: int, step: int) -> None:
    """Load the minibatch of one step, the points that :func:`._minibatch.draw_points` draws."""
    total = np.uint64(len(coords))
    for p in range(schedule.points):
        # splitmix64 is written out here, because numba does not compile the functions of PyTorch
        z = np.uint64(key) + np.uint64(step * schedule.points + p + 1) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
        drawn: Any = np.int64(((z >> np.uint64(33)) * total) >> np.uint64(31))
        _load_point(work, layout, p, coords, targets, drawn, schedule.output_shift)


@njit(nogil=True)
def _weight_place(layers: Any, n: int, i: int, j: int) -> int:
    """Return the place of the weight from neuron ``i`` to neuron ``j``; the first layer lies input by input."""
    layer = layers[n]
    return layer.weight + (i * layer.fan_out_pad + j if n == 0 else j * layer.fan_in_pad + i)


@njit(nogil=True)
def load_params(work: Any, layers: Any, layout: Any, flat: Any) -> None:
    """Load the parameters of a network into padded rows; gradients and moments become 0."""
    work[layout.params : layout.params + 4 * layout.params_size] = 0.0
    for n in range(len(layers)):
        layer = layers[n]
        for j in range(layer.fan_out):
            for i in range(layer.fan_in):
                work[_weight_place(layers, n, i, j)] = flat[layer.flat_weight + j * layer.fan_in + i]
            if layer.has_bias:
                work[layer.bias + j] = flat[layer.flat_bias + j]


@njit(nogil=True)
def store_params(work: Any, layers: Any, layout: Any, flat: Any) -> None:
    """Store the parameters into the flat vector of a network."""
    for n in range(len(layers)):
        layer = layers[n]
        for j in range(layer.fan_out):
            for i in range(layer.fan_in):
                flat[layer.flat_weight + j * layer.fan_in + i] = work[_weight_place(layers, n, i, j)]
            if layer.has_bias:
                flat[layer.flat_bias + j] = work[layer.bias + j]
