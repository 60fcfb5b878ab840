"""Vector primitives of the fitting kernel, written as LLVM instructions that numba compiles into it.

All of them work on one float32 buffer and offsets into it. Rows are padded to whole vectors of ``LANES`` numbers, as
many as one register of this machine holds, so that nothing here has a remainder. The widths, strides and counts are
run-time numbers: one compilation serves every spec.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic
from numpy.polynomial import Chebyshev, Polynomial

_FEATURES = llvm.get_host_cpu_features()
LANES = 16 if _FEATURES.get("avx512f") else 8 if _FEATURES.get("avx2") else 4
TILE = 8 if LANES == 16 else 4
"""Rows of a matrix product held in registers at once, by two vectors of columns."""
BLOCK = 16
"""Points are handled in multiples of this: a whole number of vectors, and of tiles, on every machine."""
KINDS = ("none", "sine", "cosine", "relu", "leaky_relu", "tanh", "gaussian", "sigmoid", "silu")
"""Activations of the kernel, by number."""

_F32, _I32, _I64 = ir.FloatType(), ir.IntType(32), ir.IntType(64)
_VECTOR, _BITS = ir.VectorType(_F32, LANES), ir.VectorType(_I32, LANES)
_ROUND = 12582912.0  # 1.5 * 2**23: adding it leaves the nearest whole number in the lowest bits


def _coefficients(function: Callable[[Any], Any], degree: int, end: float) -> list[float]:
    """A polynomial through the Chebyshev points of [0, end], lowest power first."""
    return [
        float(c)
        for c in Chebyshev.interpolate(function, degree, domain=[0.0, end]).convert(kind=Polynomial).coef  # pyright: ignore
    ]


# sin(pi f) / f and cos(pi f) in powers of f^2, |f| <= 1/2: 7e-9 and 2e-10 from the functions
_SIN = _coefficients(lambda u: math.pi * np.sinc(np.sqrt(u)), 4, 0.25)
_COS = _coefficients(lambda u: np.cos(math.pi * np.sqrt(u)), 5, 0.25)
_EXP = [1 / math.factorial(n) for n in range(8)]


class _Emitter:
    """Writes instructions at the builder's place; offsets are 64-bit numbers of floats from the buffer's start."""

    def __init__(self, context: Any, builder: Any, buffer_type: Any, buffer: Any) -> None:
        self.builder = builder
        self.base = context.make_array(buffer_type)(context, builder, value=buffer).data

    def whole(self, value: int) -> Any:
        return ir.Constant(_I64, value)

    def at(self, *terms: Any) -> Any:
        out = terms[0]
        for term in terms[1:]:
            out = self.builder.add(out, self.whole(term) if isinstance(term, int) else term)
        return out

    def scaled(self, value: Any, by: Any) -> Any:
        return self.builder.mul(value, self.whole(by) if isinstance(by, int) else by)

    def pointer(self, offset: Any) -> Any:
        return self.builder.gep(self.base, [offset])

    def moved(self, pointer: Any, by: Any) -> Any:
        return self.builder.gep(pointer, [by])

    def place(self, value: Any) -> Any:
        """A pointer that a loop moves."""
        out = cgutils.alloca_once(self.builder, value.type)
        self.builder.store(value, out)
        return out

    def load_from(self, pointer: Any) -> Any:
        return self.builder.load(self.builder.bitcast(pointer, _VECTOR.as_pointer()), align=4)

    def load(self, offset: Any) -> Any:
        return self.load_from(self.pointer(offset))

    def store_to(self, pointer: Any, value: Any) -> None:
        self.builder.store(value, self.builder.bitcast(pointer, _VECTOR.as_pointer()), align=4)

    def store(self, offset: Any, value: Any) -> None:
        self.store_to(self.pointer(offset), value)

    def spread(self, scalar: Any) -> Any:
        """One number in every lane."""
        first = self.builder.insert_element(ir.Constant(_VECTOR, ir.Undefined), scalar, ir.Constant(_I32, 0))
        zeros = ir.Constant(ir.VectorType(_I32, LANES), [0] * LANES)
        return self.builder.shuffle_vector(first, ir.Constant(_VECTOR, ir.Undefined), zeros)

    def spread_at(self, offset: Any) -> Any:
        return self.spread(self.builder.load(self.builder.gep(self.base, [offset]), align=4))

    def spread_double(self, value: Any) -> Any:
        return self.spread(self.builder.fptrunc(value, _F32))

    def constant(self, value: float) -> Any:
        return ir.Constant(_VECTOR, [float(np.float32(value))] * LANES)

    def call(self, name: str, *arguments: Any) -> Any:
        kind = ir.FunctionType(_VECTOR, [_VECTOR] * len(arguments))
        full = f"llvm.{name}.v{LANES}f32"
        return self.builder.call(cgutils.get_or_insert_function(self.builder.module, kind, full), arguments)

    def fma(self, a: Any, b: Any, c: Any) -> Any:
        return self.call("fmuladd", a, b, c)

    def mul(self, a: Any, b: Any) -> Any:
        return self.builder.fmul(a, b)

    def add(self, a: Any, b: Any) -> Any:
        return self.builder.fadd(a, b)

    def sub(self, a: Any, b: Any) -> Any:
        return self.builder.fsub(a, b)

    def div(self, a: Any, b: Any) -> Any:
        return self.builder.fdiv(a, b)

    def polynomial(self, coefficients: Sequence[Any], x: Any) -> Any:
        """By Horner's rule, lowest power first."""
        out = coefficients[-1]
        for c in reversed(coefficients[:-1]):
            out = self.fma(out, x, c)
        return out

    def variable(self, value: Any) -> Any:
        """A vector that a loop changes; LLVM keeps it in a register."""
        out = cgutils.alloca_once(self.builder, _VECTOR)
        self.builder.store(value, out)
        return out

    @contextmanager
    def loop(self, stop: Any, step: int = 1, start: Any = None, guard: int = 1) -> Iterator[Any]:
        """``for i in range(start, stop - guard + 1, step)``."""
        b = self.builder
        counter = cgutils.alloca_once(b, _I64)
        b.store(self.whole(0) if start is None else start, counter)
        head, body, end = (b.append_basic_block(name) for name in ("head", "body", "end"))
        b.branch(head)
        b.position_at_end(head)
        i = b.load(counter)
        b.cbranch(b.icmp_signed("<=", b.add(i, self.whole(guard)), stop), body, end)
        b.position_at_end(body)
        yield i
        b.store(b.add(i, self.whole(step)), counter)
        b.branch(head)
        b.position_at_end(end)


def _unrolled(e: _Emitter, count: Any, by: int, body: Callable[[Any], None]) -> None:
    """``for i in range(count)``, ``by`` at a time and then the rest: few turns, which the processor can foresee."""
    with e.loop(count, by, guard=by) as i:
        for j in range(by):
            body(e.at(i, j))
    with e.loop(count, 1, e.builder.and_(count, e.whole(-by))) as i:
        body(i)


def _primitive(count: int, emit: Callable[..., None], doubles: int = 0) -> Any:
    """A numba function of the buffer, ``count`` whole numbers and ``doubles`` real ones that is exactly ``emit``."""
    kinds = (types.int64,) * count + (types.float64,) * doubles

    def typing(context: Any, buffer: Any, *numbers: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            emit(_Emitter(context, builder, signature.args[0], arguments[0]), *arguments[1:])
            return context.get_dummy_value()

        return types.void(buffer, *kinds), generate

    names = [f"n{i}" for i in range(len(kinds))]
    scope: dict[str, Any] = {"typing": typing}
    # intrinsic() reads the names of the arguments off the function: spell them out, as many as there are
    exec(
        f"def function(context, buffer, {', '.join(names)}): return typing(context, buffer, {', '.join(names)})", scope
    )
    return intrinsic(scope["function"])


# Matrix products: C[m, n] = sum_k A[m, k] B[k, n], rows of B and C contiguous in n, A in k or, turned, m.


def _sum_over_depth(e: _Emitter, turned: bool, sums: list[list[Any]], a, stride, b, b_stride, depth) -> None:
    """``sums += A B`` for one tile; pointers walk along, so that a turn has no multiplication by a stride."""
    rows, columns, unroll = len(sums), len(sums[0]), 4
    left = [e.pointer(a)] if turned else [e.pointer(e.at(a, e.scaled(stride, m))) for m in range(rows)]
    left_now, right_now = e.place(left[0]), e.place(e.pointer(b))
    left_steps, right_steps = ([e.scaled(by, j) for j in range(unroll + 1)] for by in (stride, b_stride))

    def step(k: Any, j: int) -> None:
        row = e.moved(e.builder.load(right_now), right_steps[j])
        right = [e.load_from(e.moved(row, e.whole(n * LANES))) for n in range(columns)]
        column = e.moved(e.builder.load(left_now), left_steps[j]) if turned else None
        for m in range(rows):
            where = e.moved(left[m], e.at(k, j)) if column is None else e.moved(column, e.whole(m))
            number = e.spread(e.builder.load(where, align=4))
            for n in range(columns):
                e.builder.store(e.fma(number, right[n], e.builder.load(sums[m][n])), sums[m][n])

    def turn(k: Any, count: int) -> None:
        for j in range(count):
            step(k, j)
        e.builder.store(e.moved(e.builder.load(right_now), right_steps[count]), right_now)
        if turned:
            e.builder.store(e.moved(e.builder.load(left_now), left_steps[count]), left_now)

    with e.loop(depth, unroll, guard=unroll) as k:
        turn(k, unroll)
    with e.loop(depth, 1, e.builder.and_(depth, e.whole(-unroll))) as k:
        turn(k, 1)


def _tile(
    e: _Emitter, mode: str, turned: bool, rows: int, columns: int, a, stride, b, b_stride, c, c_stride, depth, bias,
    finish: Callable[[Any, Any], None],
):  # fmt: skip
    ends = [[e.at(c, e.scaled(c_stride, m), n * LANES) for n in range(columns)] for m in range(rows)]
    sums = []
    for m in range(rows):
        if mode == "add":
            first = [e.load(ends[m][n]) for n in range(columns)]
        elif mode in ("bias", "sine"):
            first = [e.load(e.at(bias, n * LANES)) for n in range(columns)]
        else:
            first = [e.constant(0.0)] * columns
        sums.append([e.variable(value) for value in first])
    _sum_over_depth(e, turned, sums, a, stride, b, b_stride, depth)
    for m in range(rows):
        for n in range(columns):
            finish(ends[m][n], e.builder.load(sums[m][n]))


def _product(mode: str, *, turned: bool = False) -> Any:
    def emit(e: _Emitter, a, stride, b, b_stride, c, c_stride, rows, vectors, depth, bias, *sine) -> None:
        shared = (sine[0], e.spread_double(sine[2]), *_sine_coefficients(e, e.spread_double(sine[1]))) if sine else None

        def finish(place: Any, total: Any) -> None:
            if shared is not None:
                slope, *turns = shared
                total, steep = _turns(e, total, *turns)
                e.store(e.at(place, slope), steep)
            e.store(place, e.mul(total, e.load(place)) if mode == "times" else total)

        def strip(n: Any, columns: int) -> None:
            shift = e.scaled(n, LANES)
            b_, c_, bias_ = e.at(b, shift), e.at(c, shift), e.at(bias, shift)
            done: Any = e.whole(0)
            for height in sorted({TILE, 4, 1}, reverse=True):
                with e.loop(rows, height, done, height) as m:
                    a_, cm = e.at(a, m if turned else e.scaled(m, stride)), e.at(c_, e.scaled(m, c_stride))
                    _tile(
                        e, mode, turned, height, columns, a_, stride, b_, b_stride, cm, c_stride, depth, bias_, finish
                    )
                left = e.builder.srem(e.builder.sub(rows, done), e.whole(height))
                done = e.builder.sub(rows, left)

        with e.loop(vectors, 2, guard=2) as n:
            strip(n, 2)
        with e.loop(vectors, 1, e.builder.and_(vectors, e.whole(-2))) as n:
            strip(n, 1)

    return _primitive(11, emit, doubles=2) if mode == "sine" else _primitive(10, emit)


product = _product("zero")
"""``C = A B``: (a, its stride, b, its stride, c, its stride, rows, vectors in a row of C, depth, unused)."""
product_bias = _product("bias")
"""``C = A B + bias``, the bias a row."""
product_sine = _product("sine")
"""``product_bias``, then its sines into C and their slopes as far on as the eleventh number says.

(..., bias, distance of the slopes from C, omega, omega / pi)
"""
product_times = _product("times")
"""``C *= A B``, elementwise."""
turned_product_add = _product("add", turned=True)
"""``C += A^T B``."""


# Activations: z -> f(z) and f'(z).


def _turns(e: _Emitter, z: Any, frequency: Any, sin: Sequence[Any], cos: Sequence[Any]) -> tuple[Any, Any]:
    """Sine and cosine of pi times ``z * frequency`` by one range reduction, each by its coefficients."""
    shifted = e.fma(z, frequency, e.constant(_ROUND))
    rest = e.fma(z, frequency, e.builder.fneg(e.sub(shifted, e.constant(_ROUND))))
    odd = e.builder.shl(e.builder.bitcast(shifted, _BITS), ir.Constant(_BITS, [31] * LANES))
    square = e.mul(rest, rest)
    return _signed(e, e.mul(rest, e.polynomial(sin, square)), odd), _signed(e, e.polynomial(cos, square), odd)


def _signed(e: _Emitter, value: Any, odd: Any) -> Any:
    return e.builder.bitcast(e.builder.xor(e.builder.bitcast(value, _BITS), odd), _VECTOR)


def _scaled_by(e: _Emitter, coefficients: Sequence[float], factor: Any) -> list[Any]:
    return [e.mul(e.constant(c), factor) for c in coefficients]


def _exp(e: _Emitter, x: Any) -> Any:
    x = e.call("minnum", e.call("maxnum", x, e.constant(-87.0)), e.constant(88.0))
    shifted = e.fma(x, e.constant(1 / math.log(2)), e.constant(_ROUND))
    whole = e.sub(shifted, e.constant(_ROUND))
    high = float(np.float32(0.693359375))  # nine bits: its products with whole numbers are exact
    rest = e.fma(whole, e.constant(-high), x)
    rest = e.fma(whole, e.constant(high - math.log(2)), rest)
    power = e.builder.shl(e.builder.bitcast(shifted, _BITS), ir.Constant(_BITS, [23] * LANES))
    value = e.polynomial([e.constant(c) for c in _EXP], rest)
    return e.builder.bitcast(e.builder.add(e.builder.bitcast(value, _BITS), power), _VECTOR)


def _row(e: _Emitter, name: str, z: Any) -> tuple[Any, Any]:
    """``f(z)`` and ``f'(z)`` of one row of the activation table that is not periodic."""
    one, zero = e.constant(1.0), e.constant(0.0)
    if name == "none":
        return z, one
    if name in ("relu", "leaky_relu"):
        leak = e.constant(0.01) if name == "leaky_relu" else zero
        positive = e.builder.fcmp_ordered(">", z, zero)
        slope = e.builder.select(positive, one, leak)
        return e.mul(slope, z), slope
    if name == "gaussian":
        value = _exp(e, e.builder.fneg(e.mul(z, z)))
        return value, e.mul(e.mul(e.constant(-2.0), z), value)
    if name == "tanh":
        value = e.sub(one, e.div(e.constant(2.0), e.add(_exp(e, e.add(z, z)), one)))
        return value, e.sub(one, e.mul(value, value))
    sigmoid = e.div(one, e.add(one, _exp(e, e.builder.fneg(z))))
    rest = e.sub(one, sigmoid)
    if name == "sigmoid":
        return sigmoid, e.mul(sigmoid, rest)
    return e.mul(z, sigmoid), e.mul(sigmoid, e.fma(z, rest, one))


def _sine_coefficients(e: _Emitter, gain: Any) -> tuple[list[Any], list[Any]]:
    """Of the sine, and of its slope."""
    return [e.constant(c) for c in _SIN], _scaled_by(e, _COS, gain)


def _activate(e: _Emitter, kind, z, value, slope, vectors, omega, frequency) -> None:
    def over(name: str) -> None:
        one, gain, turn = e.constant(1.0), e.spread_double(omega), e.spread_double(frequency)
        sine = name == "sine"  # the factor omega of the derivative goes into the coefficients
        sin = _scaled_by(e, _SIN, one if sine else e.builder.fneg(gain))
        cos = _scaled_by(e, _COS, gain if sine else one)
        with e.loop(vectors) as i:
            shift = e.scaled(i, LANES)
            here = e.load(e.at(z, shift))
            out = _turns(e, here, turn, sin, cos) if name in ("sine", "cosine") else _row(e, name, here)
            out = out if name != "cosine" else out[::-1]
            e.store(e.at(value, shift), out[0])
            e.store(e.at(slope, shift), out[1])

    for number, name in enumerate(KINDS):
        with e.builder.if_then(e.builder.icmp_signed("==", kind, e.whole(number))):
            over(name)


activate = _primitive(5, _activate, doubles=2)
"""(kind, z, value, slope, vectors, omega, omega / pi); value may lie where z lies."""


def _rotate(e: _Emitter, sin_a, cos_a, sin_b, cos_b, value, slope, stride, vectors, rows, omega) -> None:
    gain = e.spread_double(omega)

    def columns(n: Any, count: int) -> None:
        shift = e.scaled(n, LANES)
        sines, cosines = ([e.load(e.at(place, shift, i * LANES)) for i in range(count)] for place in (sin_b, cos_b))
        steep_sines, steep_cosines = [e.builder.fneg(e.mul(gain, s)) for s in sines], [e.mul(gain, c) for c in cosines]
        walking = [e.place(e.pointer(e.at(place, shift))) for place in (sin_a, cos_a, value, slope)]

        def row(p: Any) -> None:
            here = [e.builder.load(pointer) for pointer in walking]
            for i in range(count):
                sa, ca = (e.load_from(e.moved(pointer, e.whole(i * LANES))) for pointer in here[:2])
                steep = e.fma(ca, steep_cosines[i], e.mul(sa, steep_sines[i]))
                e.store_to(e.moved(here[2], e.whole(i * LANES)), e.fma(sa, cosines[i], e.mul(ca, sines[i])))
                e.store_to(e.moved(here[3], e.whole(i * LANES)), steep)
            for pointer, now in zip(walking, here, strict=True):
                e.builder.store(e.moved(now, stride), pointer)

        _unrolled(e, rows, 4, row)

    with e.loop(vectors, 2, guard=2) as n:
        columns(n, 2)
    with e.loop(vectors, 1, e.builder.and_(vectors, e.whole(-2))) as n:
        columns(n, 1)


rotate = _primitive(9, _rotate, doubles=1)
"""Sines of sums, and their slopes, from the addition theorem for a run of rows ``a`` and one ``b``.

(sin a, cos a, sin b, cos b, value, slope, stride of all rows, vectors, rows, omega)
"""


def _transpose(e: _Emitter, source, source_stride, target, target_stride, rows, vectors) -> None:
    """By squares of one vector a side, in log2(LANES) rounds of exchanges between rows."""
    with e.loop(rows, LANES) as r, e.loop(vectors) as c:
        begin = e.at(source, e.scaled(r, source_stride), e.scaled(c, LANES))
        square = [e.load(e.at(begin, e.scaled(source_stride, i))) for i in range(LANES)]
        step = LANES // 2
        while step:
            low = [i if not i & step else i - step + LANES for i in range(LANES)]
            high = [i + step if not i & step else i + LANES for i in range(LANES)]
            for i in range(LANES):
                if not i & step:
                    a, b = square[i], square[i + step]
                    for j, mask in ((i, low), (i + step, high)):
                        square[j] = e.builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(_I32, LANES), mask))
            step //= 2
        begin = e.at(target, e.scaled(e.scaled(c, LANES), target_stride), r)
        for i in range(LANES):
            e.store(e.at(begin, e.scaled(target_stride, i)), square[i])


transpose = _primitive(6, _transpose)
"""(source, its row stride, target, its row stride, rows, vectors in a row); rows are rounded up to whole squares."""


# Output, loss and update.


def _pairs(e: _Emitter, a: Any, b: Any) -> Any:
    """Sums of neighbours: those of ``a``, then those of ``b``."""
    even, odd = (ir.Constant(ir.VectorType(_I32, LANES), list(range(start, 2 * LANES, 2))) for start in (0, 1))
    return e.add(e.builder.shuffle_vector(a, b, even), e.builder.shuffle_vector(a, b, odd))


def _read_out(e: _Emitter, h, row_stride, w, vectors, out, points) -> None:
    with e.loop(points, LANES, guard=LANES) as p:
        begin = e.at(h, e.scaled(p, row_stride))
        rows = [e.at(begin, e.scaled(row_stride, i)) for i in range(LANES)]
        sums = [e.variable(e.constant(0.0)) for _ in rows]
        with e.loop(vectors) as n:
            shift = e.scaled(n, LANES)
            weight = e.load(e.at(w, shift))
            for row, total in zip(rows, sums, strict=True):
                e.builder.store(e.fma(weight, e.load(e.at(row, shift)), e.builder.load(total)), total)
        values = [e.builder.load(total) for total in sums]
        while len(values) > 1:
            values = [_pairs(e, a, b) for a, b in zip(values[::2], values[1::2], strict=True)]
        e.store(e.at(out, p), values[0])


read_out = _primitive(6, _read_out)
"""``out[p] = sum_k h[p, k] w[k]``: (h, its row stride, w, vectors of k, out, points)."""


def _residual(e: _Emitter, out, target, mask, bias, squares, gradient, vectors, factor) -> None:
    """``out`` becomes the derivative of the loss; its squares and the bias' gradient are added to one vector each."""
    add, scale = e.spread_at(bias), e.spread_double(factor)
    total, slope = e.variable(e.load(squares)), e.variable(e.load(gradient))
    with e.loop(vectors) as i:
        shift = e.scaled(i, LANES)
        error = e.sub(e.add(e.load(e.at(out, shift)), add), e.load(e.at(target, shift)))
        error = e.mul(error, e.load(e.at(mask, shift)))
        e.builder.store(e.fma(error, error, e.builder.load(total)), total)
        error = e.mul(error, scale)
        e.builder.store(e.add(e.builder.load(slope), error), slope)
        e.store(e.at(out, shift), error)
    e.store(squares, e.builder.load(total))
    e.store(gradient, e.builder.load(slope))


residual = _primitive(7, _residual, doubles=1)
"""(out, target, mask, bias, sum of squares, bias gradient, vectors, factor)."""


def _column_sums(e: _Emitter, rows, stride, count, vectors, out) -> None:
    with e.loop(vectors) as n:
        shift = e.scaled(n, LANES)
        sums = [e.variable(e.constant(0.0)) for _ in range(4)]  # four chains: an addition takes four cycles
        with e.loop(count, 4, guard=4) as p:
            for i, total in enumerate(sums):
                here = e.load(e.at(rows, shift, e.scaled(e.at(p, i), stride)))
                e.builder.store(e.add(e.builder.load(total), here), total)
        a, b, c, d = (e.builder.load(total) for total in sums)
        e.store(e.at(out, shift), e.add(e.load(e.at(out, shift)), e.add(e.add(a, b), e.add(c, d))))


column_sums = _primitive(5, _column_sums)
"""``out[n] += sum_p rows[p, n]``: (rows, their stride, their number, a multiple of four, vectors, out)."""


def _output_back(e: _Emitter, delta, points, weight, gradient, value, slope, stride, count, vectors, outputs) -> None:
    with e.loop(vectors) as n:
        shift = e.scaled(n, LANES)
        values, slopes = (e.place(e.pointer(e.at(place, shift))) for place in (value, slope))
        with e.loop(count, 4, guard=4) as p:
            here, there = e.builder.load(values), e.builder.load(slopes)
            rows = [e.load_from(e.moved(here, e.scaled(stride, i))) for i in range(4)]
            back = [e.variable(e.constant(0.0)) for _ in rows]
            with e.loop(outputs) as c:
                errors = e.pointer(e.at(delta, p, e.scaled(c, points)))
                numbers = [e.spread(e.builder.load(e.moved(errors, e.whole(i)), align=4)) for i in range(4)]
                column = e.at(e.scaled(e.scaled(c, vectors), LANES), shift)
                weights, out = e.load(e.at(weight, column)), e.pointer(e.at(gradient, column))
                for number, total in zip(numbers, back, strict=True):
                    e.builder.store(e.fma(number, weights, e.builder.load(total)), total)
                one, other = (
                    e.fma(numbers[i], rows[i], e.mul(numbers[i + 2], rows[i + 2])) for i in range(2)
                )  # short chains: the sums wait in memory for the next rows
                e.store_to(out, e.add(e.load_from(out), e.add(one, other)))
            for i, total in enumerate(back):
                end = e.moved(there, e.scaled(stride, i))
                e.store_to(end, e.mul(e.load_from(end), e.builder.load(total)))
            for pointer, now in ((values, here), (slopes, there)):
                e.builder.store(e.moved(now, e.scaled(stride, 4)), pointer)


output_back = _primitive(10, _output_back)
"""``gradient[c, n] += sum_p delta[c, p] value[p, n]`` and ``slope[p, n] *= sum_c delta[c, p] weight[c, n]``.

(delta, its stride, weight, gradient, value, slope, stride of both, rows, a multiple of four, vectors, outputs)
"""


def _adam(e: _Emitter, p, g, m, v, vectors, rate, bias2, beta1, beta2, eps) -> None:
    step, correction, tiny = (e.spread_double(x) for x in (rate, bias2, eps))
    one = ir.Constant(ir.DoubleType(), 1.0)  # 1 - beta is small: its difference in float32 would be off by 1e-5
    keep2 = e.spread_double(beta2)
    new1, new2 = (e.spread_double(e.builder.fsub(one, beta)) for beta in (beta1, beta2))
    with e.loop(vectors) as i:
        shift = e.scaled(i, LANES)
        gradient, first = e.load(e.at(g, shift)), e.load(e.at(m, shift))
        first = e.fma(new1, e.sub(gradient, first), first)
        second = e.fma(e.mul(new2, gradient), gradient, e.mul(keep2, e.load(e.at(v, shift))))
        root = e.fma(e.call("sqrt", second), correction, tiny)
        e.store(e.at(m, shift), first)
        e.store(e.at(v, shift), second)
        e.store(e.at(p, shift), e.sub(e.load(e.at(p, shift)), e.mul(step, e.div(first, root))))


adam = _primitive(5, _adam, doubles=5)
"""(weights, gradients, both moments, vectors, rate / (1 - beta1^t), 1 / sqrt(1 - beta2^t), betas, eps)."""
