"""The vector operations of the CPU kernel, written as LLVM instructions that numba compiles into it.

All of them work on one float32 array, the work space, and on places in it. Rows are padded to whole vectors of
``SIMD_WIDTH`` numbers, so that no operation has a remainder. Widths, strides and counts are run-time numbers, so that
one compilation serves every spec. The kernel calls them with named operands: ``product(work, left=..., right=...)``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from weightspace._activation import KERNELS
from weightspace.fitting.kernels._cpu_activations import formulas, sine
from weightspace.fitting.kernels._cpu_llvm import (
    SIMD_WIDTH,
    Matrix,
    Value,
    Variable,
    Writer,
    fma,
    primitive,
    shuffle,
    sqrt,
)
from weightspace.fitting.kernels._problem import BETA1, BETA2, EPS

TILE_ROWS = 8 if SIMD_WIDTH == 16 else 4
"""Rows of a matrix product that are held in registers at once, by two vectors of columns."""
POINT_MULTIPLE = 16
"""Points are handled in multiples of this, which is a whole number of vectors and of tiles on every machine."""


# Matrix products: out = left right, of ``rows`` by ``vectors`` vectors, summed over ``depth`` terms.


def _accumulate(
    w: Writer, left: Matrix, right: Matrix, depth: int, sums: list[list[Variable]], *, transposed: bool
) -> None:
    """Add ``left right`` to the sums of one tile. Pointers walk along: no turn multiplies by a stride."""
    rows, columns, unroll = len(sums), len(sums[0]), 4
    left_rows = [w.at(left.start + left.stride * m) for m in range(1 if transposed else rows)]
    left_column, right_row = Variable(left_rows[0]), Variable(w.at(right.start))
    left_steps, right_steps = ([matrix.stride * j for j in range(unroll + 1)] for matrix in (left, right))

    def term(k: Value, j: int) -> None:
        row = right_row.value + right_steps[j]
        vectors = [(row + n * SIMD_WIDTH).load() for n in range(columns)]
        column = left_column.value + left_steps[j] if transposed else None
        for m in range(rows):
            number = (left_rows[m] + (k + j) if column is None else column + m).load_broadcast()
            for n in range(columns):
                sums[m][n].value = fma(number, vectors[n], sums[m][n].value)

    def terms(k: Value, count: int) -> None:
        for j in range(count):
            term(k, j)
        right_row.value += right_steps[count]
        if transposed:
            left_column.value += left_steps[count]

    w.in_groups(depth, unroll, terms)


def _product(
    w: Writer,
    left: Matrix,
    right: Matrix,
    out: Matrix,
    rows: int,
    vectors: int,
    depth: int,
    *,
    initial: Callable[[Any, Any], Value],
    finish: Callable[[Any, Value], None],
    transposed: bool = False,
) -> None:
    """Multiply matrices tile by tile.

    Args:
        w: where to write.
        left: ``[rows, depth]``, or ``[depth, rows]`` where ``transposed``.
        right: ``[depth, vectors]``.
        out: ``[rows, vectors]``.
        rows: of the product.
        vectors: in a row of the product.
        depth: terms of each sum.
        initial: ``(place, column)`` to the vector that a sum starts from.
        finish: ``(place, sum)``, stores one vector of the product.
        transposed: multiply by the transpose of ``left``.
    """

    def tile(m: Value, height: int, column: Any, columns: int) -> None:
        begin: Any = left.start + (m if transposed else m * left.stride)
        shifts = [column + n * SIMD_WIDTH for n in range(columns)]
        places = [[out.start + m * out.stride + out.stride * i + shift for shift in shifts] for i in range(height)]
        sums = [[Variable(initial(place, shift)) for place, shift in zip(r, shifts, strict=True)] for r in places]
        right_part = Matrix(right.start + column, right.stride)
        _accumulate(w, Matrix(begin, left.stride), right_part, depth, sums, transposed=transposed)
        for places_row, sums_row in zip(places, sums, strict=True):
            for place, total in zip(places_row, sums_row, strict=True):
                finish(place, total.value)

    def strip(n: Value, columns: int) -> None:
        done = w.integer(0)
        for height in sorted({TILE_ROWS, 4, 1}, reverse=True):
            with w.loop(rows, height, done) as m:
                tile(m, height, n * SIMD_WIDTH, columns)
            done = rows - (rows - done) % height

    w.in_groups(vectors, 2, strip)


@primitive
def product(w: Writer, left: Matrix, right: Matrix, out: Matrix, rows: int, vectors: int, depth: int) -> None:
    """Compute ``out = left right``."""
    _product(w, left, right, out, rows, vectors, depth, initial=lambda place, column: w.zeros(), finish=w.store)


@primitive
def product_plus_bias(
    w: Writer, left: Matrix, right: Matrix, bias: int, out: Matrix, rows: int, vectors: int, depth: int
) -> None:
    """Compute ``out = left right + bias``, the bias a row at the place ``bias``."""
    _product(
        w, left, right, out, rows, vectors, depth, initial=lambda place, column: w.load(bias + column), finish=w.store
    )


@primitive
def sine_of_product_plus_bias(
    w: Writer,
    left: Matrix,
    right: Matrix,
    bias: int,
    values: Matrix,
    slopes: int,
    rows: int,
    vectors: int,
    depth: int,
    omega: float,
    turns: float,
) -> None:
    """Compute ``values = sin(omega z)`` and ``slopes = omega cos(omega z)`` for ``z = left right + bias``.

    The matrix ``slopes`` has the stride of ``values``, and ``turns`` is ``omega / pi``.
    """
    formula = sine(omega, turns)

    def finish(place: Value, z: Value) -> None:
        value, slope = formula(z)
        w.store(place + (slopes - values.start), slope)
        w.store(place, value)

    _product(
        w, left, right, values, rows, vectors, depth, initial=lambda place, column: w.load(bias + column), finish=finish
    )


@primitive
def multiply_by_product(
    w: Writer, left: Matrix, right: Matrix, out: Matrix, rows: int, vectors: int, depth: int
) -> None:
    """Multiply ``out`` by ``left right``, elementwise."""

    def finish(place: Value, total: Value) -> None:
        w.store(place, total * w.load(place))

    _product(w, left, right, out, rows, vectors, depth, initial=lambda place, column: w.zeros(), finish=finish)


@primitive
def add_transposed_product(
    w: Writer, left: Matrix, right: Matrix, out: Matrix, rows: int, vectors: int, depth: int
) -> None:
    """Add ``left^T right`` to ``out``."""
    _product(
        w,
        left,
        right,
        out,
        rows,
        vectors,
        depth,
        initial=lambda place, column: w.load(place),
        finish=w.store,
        transposed=True,
    )


# Activations.


@primitive
def activate(
    w: Writer, activation: int, z: int, values: int, slopes: int, vectors: int, omega: float, turns: float
) -> None:
    """Compute ``values = f(z)`` and ``slopes = f'(z)``, where ``turns`` is ``omega / pi``.

    The values may overwrite ``z``.
    """
    known = formulas(omega, turns)
    for number, name in enumerate(KERNELS):
        with w.when_equal(activation, number), w.loop(vectors) as i:
            value, slope = known[name](w.load(z + i * SIMD_WIDTH))
            w.store(values + i * SIMD_WIDTH, value)
            w.store(slopes + i * SIMD_WIDTH, slope)


@primitive
def sine_of_sums(
    w: Writer,
    sin_a: int,
    cos_a: int,
    sin_b: int,
    cos_b: int,
    values: int,
    slopes: int,
    stride: int,
    rows: int,
    vectors: int,
    omega: float,
) -> None:
    """Compute ``values = sin(a + b)`` and ``slopes = omega cos(a + b)`` for rows of ``a`` and one row ``b``.

    The addition theorem needs the sines and cosines of ``a`` and ``b`` alone. ``stride`` is that of all rows.
    """

    def strip(n: Value, columns: int) -> None:
        shift = n * SIMD_WIDTH
        shifts = [i * SIMD_WIDTH for i in range(columns)]
        sines, cosines = ([w.load(place + shift + i) for i in shifts] for place in (sin_b, cos_b))
        steep_sines, steep_cosines = [-(omega * s) for s in sines], [omega * c for c in cosines]
        pointers = [Variable(w.at(place + shift)) for place in (sin_a, cos_a, values, slopes)]

        def sum_row() -> None:
            here = [pointer.value for pointer in pointers]
            for i in range(columns):
                sa, ca = ((pointer + shifts[i]).load() for pointer in here[:2])
                slope = fma(ca, steep_cosines[i], sa * steep_sines[i])
                (here[2] + shifts[i]).store(fma(sa, cosines[i], ca * sines[i]))
                (here[3] + shifts[i]).store(slope)
            for pointer, now in zip(pointers, here, strict=True):
                pointer.value = now + stride

        def sum_rows(_: Value, count: int) -> None:
            for _turn in range(count):
                sum_row()

        w.in_groups(rows, 4, sum_rows)

    w.in_groups(vectors, 2, strip)


@primitive
def transpose(w: Writer, source: Matrix, target: Matrix, rows: int, vectors: int) -> None:
    """Compute ``target = source^T`` for a multiple of ``SIMD_WIDTH`` rows of ``source`` of ``vectors`` vectors.

    A square of one vector a side takes log2(SIMD_WIDTH) rounds of exchanges between its rows.
    """
    width = SIMD_WIDTH
    with w.loop(rows, width) as r, w.loop(vectors) as c:
        begin = source.start + r * source.stride + c * width
        square = [w.load(begin + source.stride * i) for i in range(width)]
        step = width // 2
        while step:
            low = [i if not i & step else i - step + width for i in range(width)]
            high = [i + step if not i & step else i + width for i in range(width)]
            for i in range(width):
                if not i & step:
                    a, b = square[i], square[i + step]
                    square[i], square[i + step] = shuffle(a, b, low), shuffle(a, b, high)
            step //= 2
        begin = target.start + c * width * target.stride + r
        for i in range(width):
            w.store(begin + target.stride * i, square[i])


# Output, loss and update.


def _pairwise_sums(a: Value, b: Value) -> Value:
    """Return the sums of neighbours: those of ``a``, then those of ``b``."""
    return shuffle(a, b, range(0, 2 * SIMD_WIDTH, 2)) + shuffle(a, b, range(1, 2 * SIMD_WIDTH, 2))


@primitive
def dot_rows(w: Writer, rows: Matrix, weights: int, out: int, points: int, vectors: int) -> None:
    """Compute ``out[p] = sum_k rows[p, k] weights[k]`` for a multiple of ``SIMD_WIDTH`` points."""
    with w.loop(points, SIMD_WIDTH) as p:
        begin = rows.start + p * rows.stride
        starts = [begin + rows.stride * i for i in range(SIMD_WIDTH)]
        sums = [Variable(w.zeros()) for _ in starts]
        with w.loop(vectors) as k:
            weight = w.load(weights + k * SIMD_WIDTH)
            for start, total in zip(starts, sums, strict=True):
                total.value = fma(weight, w.load(start + k * SIMD_WIDTH), total.value)
        values = [total.value for total in sums]
        while len(values) > 1:
            values = [_pairwise_sums(a, b) for a, b in zip(values[::2], values[1::2], strict=True)]
        w.store(out + p, values[0])


@primitive
def loss_gradient(
    w: Writer, out: int, target: int, mask: int, bias: int, squares: int, gradient: int, vectors: int, factor: float
) -> None:
    """Turn the outputs of a network into the derivative of the loss.

    ``r = mask (out + bias - target)``; ``squares += r^2``; ``out = factor r``; ``gradient += out``. ``bias`` is one
    number; ``squares`` and ``gradient`` are one vector each, which sum separate points.
    """
    add = w.at(bias).load_broadcast()
    sum_of_squares, sum_of_errors = Variable(w.load(squares)), Variable(w.load(gradient))
    with w.loop(vectors) as i:
        shift = i * SIMD_WIDTH
        residual = (w.load(out + shift) + add - w.load(target + shift)) * w.load(mask + shift)
        sum_of_squares.value = fma(residual, residual, sum_of_squares.value)
        error = residual * factor
        sum_of_errors.value += error
        w.store(out + shift, error)
    w.store(squares, sum_of_squares.value)
    w.store(gradient, sum_of_errors.value)


@primitive
def add_column_sums(w: Writer, matrix: Matrix, out: int, rows: int, vectors: int) -> None:
    """Add ``sum_p matrix[p, n]`` to ``out[n]``, for a multiple of four rows."""
    with w.loop(vectors) as n:
        shift = n * SIMD_WIDTH
        sums = [Variable(w.zeros()) for _ in range(4)]  # four chains, because an addition takes four cycles
        with w.loop(rows, 4) as p:
            for i, total in enumerate(sums):
                total.value += w.load(matrix.start + shift + (p + i) * matrix.stride)
        a, b, c, d = (total.value for total in sums)
        w.store(out + shift, w.load(out + shift) + ((a + b) + (c + d)))


@primitive
def output_layer_backward(
    w: Writer,
    delta: Matrix,
    weights: int,
    gradient: int,
    values: Matrix,
    slopes: int,
    rows: int,
    vectors: int,
    outputs: int,
) -> None:
    """Take the derivative of the loss from the outputs back to the last hidden layer.

    ``gradient[c, n] += sum_p delta[c, p] values[p, n]`` and ``slopes[p, n] *= sum_c delta[c, p] weights[c, n]``. The
    number of ``rows`` is a multiple of four, ``slopes`` has the stride of ``values``, and ``weights`` and ``gradient``
    have rows of ``vectors`` vectors.
    """
    with w.loop(vectors) as n:
        shift = n * SIMD_WIDTH
        value_row, slope_row = (Variable(w.at(place + shift)) for place in (values.start, slopes))
        with w.loop(rows, 4) as p:
            value_pointer, slope_pointer = value_row.value, slope_row.value
            value = [(value_pointer + values.stride * i).load() for i in range(4)]
            back = [Variable(w.zeros()) for _ in value]
            with w.loop(outputs) as c:
                errors = w.at(delta.start + p + c * delta.stride)
                error = [(errors + i).load_broadcast() for i in range(4)]
                column = c * vectors * SIMD_WIDTH + shift
                weight, sums = w.load(weights + column), w.at(gradient + column)
                for number, total in zip(error, back, strict=True):
                    total.value = fma(number, weight, total.value)
                # two short chains, because the next rows wait for these sums in memory
                even, odd = (fma(error[i], value[i], error[i + 2] * value[i + 2]) for i in range(2))
                sums.store(sums.load() + (even + odd))
            for i, total in enumerate(back):
                slope = slope_pointer + values.stride * i
                slope.store(slope.load() * total.value)
            value_row.value = value_pointer + values.stride * 4
            slope_row.value = slope_pointer + values.stride * 4


@primitive
def adam(
    w: Writer,
    params: int,
    gradients: int,
    first_moments: int,
    second_moments: int,
    vectors: int,
    rate: float,
    correction: float,
) -> None:
    """Take one step of Adam.

    ``m += (1 - beta1) (g - m)``; ``v = beta2 v + (1 - beta2) g^2``; ``p -= rate m / (correction sqrt(v) + eps)``. In
    step ``t``, ``rate = lr / (1 - beta1^t)`` and ``correction = 1 / sqrt(1 - beta2^t)``.
    """
    with w.loop(vectors) as i:
        shift = i * SIMD_WIDTH
        p, g, m, v = (w.load(start + shift) for start in (params, gradients, first_moments, second_moments))
        m = fma(1 - BETA1, g - m, m)
        v = fma((1 - BETA2) * g, g, BETA2 * v)
        w.store(first_moments + shift, m)
        w.store(second_moments + shift, v)
        w.store(params + shift, p - rate * (m / fma(sqrt(v), correction, EPS)))
