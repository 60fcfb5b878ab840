"""What the compiled kernel needs to know of a spec and its points: sizes, offsets, and the grid if there is one."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from weightspace._spec import NetSpec
from weightspace.fitting.kernels import _cpu_kernel as k
from weightspace.fitting.kernels._cpu_vectors import BLOCK, KINDS, LANES

_FIRST_CACHE = 32768  # bytes of values and slopes that a block may take
_LARGEST_BLOCK = 256


@dataclass(frozen=True, eq=False)
class Plan:
    """Tables for :func:`weightspace.fitting.kernels._cpu_kernel.fit_networks`; the numbers of columns are named there.

    Args:
        layers: int64 ``[layer, column]``, sizes and offsets of every layer.
        gains: float64 ``[layer, 2]``: omega and omega / pi of what the layer makes.
        size: int64, sizes and offsets that belong to no layer.
        grid: int64 ``[point, 3]``: the rows of the table with the point's two coordinates, and how many points from
            this one on lie in one line, their columns in order; of no length where the points are no grid.
        table: float32 ``[unique, in]``, what the table's rows are made from.
        floats: size of the work space.
    """

    layers: np.ndarray
    gains: np.ndarray
    size: np.ndarray
    grid: np.ndarray
    table: np.ndarray
    floats: int

    def work_space(self) -> np.ndarray:
        """A buffer for one thread; it begins at the start of a cache line."""
        raw = np.zeros(self.floats + 16, dtype=np.float32)
        start = (-raw.ctypes.data % 64) // 4
        buffer = raw[start : start + self.floats]
        buffer[self.size[k.TABLE] : self.size[k.TABLE] + self.table.size] = self.table.ravel()
        return buffer


def supported(spec: NetSpec) -> bool:
    """Whether the kernel can fit networks of this spec: a hidden layer at least, and activations it has."""
    return bool(spec.hidden) and all((axis.activation or "none") in KINDS for axis in _made(spec)[:-1])


def plan(spec: NetSpec, coords: np.ndarray, *, batch: int = 0) -> Plan:
    """Lay out the work space.

    Args:
        spec: a chain of linear layers.
        coords: float32 ``[coordinates, point, in]``, one set of points for all networks or one for each.
        batch: points of each step; all of them where 0.
    """
    points = _up(batch or coords.shape[1], BLOCK)
    axes = _made(spec)
    hidden = [_up(axis.size, LANES) for axis in axes[:-1]]
    block = _FIRST_CACHE // (8 * sum(hidden)) // BLOCK * BLOCK
    block = min(max(block, BLOCK), _LARGEST_BLOCK, points)
    grid = _grid(spec, coords) if batch == 0 else None
    size = np.zeros(15, dtype=np.int64)
    free = 0

    def take(count: int) -> int:
        nonlocal free
        start, free = free, free + _up(count, 16)
        return start

    d, out = spec.in_features, spec.out_features
    wide = _up(d + 1, 4)
    layers = np.zeros((len(axes), 12), dtype=np.int64)
    gains = np.zeros((len(axes), 2), dtype=np.float64)
    size[k.PARAMS] = free
    for number, (layer, axis) in enumerate(zip(spec.layers, axes, strict=True)):
        row, reads, makes = layers[number], spec.axis(layer.consumes).size, axis.size
        reads_pad = wide if number == 0 else hidden[number - 1]
        makes_pad = _up(makes, LANES)
        row[k.READS], row[k.READS_PAD], row[k.MAKES], row[k.MAKES_PAD] = reads, reads_pad, makes, makes_pad
        row[k.WEIGHT] = take((makes if number == len(axes) - 1 else makes_pad) * reads_pad)
        row[k.BIAS] = row[k.WEIGHT] + d * makes_pad if number == 0 else take(makes_pad)
        row[k.FLAT_WEIGHT] = spec.slices[layer.weight].start
        row[k.FLAT_BIAS] = -1 if layer.bias is None else spec.slices[layer.bias].start
        if number < len(axes) - 1:
            row[k.KIND] = KINDS.index(axis.activation or "none")
            gains[number] = axis.omega, axis.omega / math.pi
    size[k.COUNT] = free
    take(3 * free)
    for number, width in enumerate(hidden):
        layers[number, k.VALUE], layers[number, k.SLOPE] = take(block * width + 208), take(block * width + 208)
        if number:
            layers[number, k.TURNED] = take(hidden[number - 1] * width)
    size[k.POINTS], size[k.BLOCK_POINTS], size[k.IN], size[k.IN_PAD], size[k.OUT] = points, block, d, wide, out
    size[k.X], size[k.TARGET], size[k.MASK] = take(points * wide), take(out * points), take(points)
    size[k.DELTA], size[k.SQUARES], size[k.OUT_SLOPE] = take(out * points), take(LANES), take(out * LANES)
    lines = np.zeros((0, 3), dtype=np.int64)
    table = np.zeros((0, wide), dtype=np.float32)
    if grid is not None:
        lines, table = grid
        lines = np.concatenate([lines, np.ones((points - len(lines), 3), dtype=np.int64)])
        size[k.UNIQUE] = len(table)
        size[k.TABLE] = take(table.size + 2 * len(table) * hidden[0])
    return Plan(layers, gains, size, lines, table, free)


def _made(spec: NetSpec) -> list:
    """The axes that layers make, the output last."""
    return [spec.axis(layer.produces) for layer in spec.layers]


def _up(count: int, multiple: int) -> int:
    return -(-count // multiple) * multiple


def _grid(spec: NetSpec, coords: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Two-dimensional points of few distinct rows and columns, and a first layer of sines: their places, the table."""
    if coords.shape[0] != 1 or coords.shape[2] != 2 or _made(spec)[0].activation != "sine":
        return None
    fast = 0 if len(coords[0]) > 1 and coords[0, 0, 0] != coords[0, 1, 0] else 1  # the coordinate that runs in a line
    columns, column = np.unique(coords[0, :, fast], return_inverse=True)
    lines, line = np.unique(coords[0, :, 1 - fast], return_inverse=True)
    if 4 * (len(columns) + len(lines)) > coords.shape[1]:
        return None
    table = np.zeros((len(columns) + len(lines), 4), dtype=np.float32)
    table[: len(columns), fast] = columns
    table[len(columns) :, 1 - fast] = lines
    table[len(columns) :, 2] = 1.0  # the bias belongs to the second term alone
    return np.stack([column, line + len(columns), _runs(column, line)], axis=1).astype(np.int64), table


def _runs(column: np.ndarray, line: np.ndarray) -> np.ndarray:
    """How many points from each on continue its line."""
    goes_on = (line[1:] == line[:-1]) & (column[1:] == column[:-1] + 1)
    ends = np.append(np.flatnonzero(~goes_on), len(column) - 1)
    places = np.arange(len(column))
    return ends[np.searchsorted(ends, places)] - places + 1
