"""Write LLVM instructions as if they were Python: values with arithmetic, variables, loops, and named operands.

A function marked by :func:`primitive` runs once, when numba compiles a call of it, and writes the instructions of that
call. Its loops are LLVM's where they are ``writer.loop`` and are written out, turn by turn, where they are Python's.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

_FEATURES = llvm.get_host_cpu_features()
SIMD_WIDTH = 16 if _FEATURES.get("avx512f") else 8 if _FEATURES.get("avx2") else 4
"""Numbers of float32 in one vector register of this machine."""

_FLOAT, _INT32, _INT64 = ir.FloatType(), ir.IntType(32), ir.IntType(64)
_VECTOR, _BITS = ir.VectorType(_FLOAT, SIMD_WIDTH), ir.VectorType(_INT32, SIMD_WIDTH)


class Matrix(NamedTuple):
    """A matrix in the work space, or rows of one, each row contiguous.

    Args:
        start: the place of its first number, in floats from the start of the work space.
        stride: the floats from one row to the next.
    """

    start: int
    stride: int


_KINDS = {int: types.int64, float: types.float64, Matrix: types.NamedUniTuple(types.int64, 2, Matrix)}
"""The numba type of an operand by its annotation."""


def primitive(write: Callable[..., None]) -> Any:
    """Make a numba function that is exactly the instructions that ``write`` writes.

    The function takes the work space, a float32 array, and then the operands of ``write`` by their names. An operand is
    annotated with what the caller passes: a whole number (``int``), a real number (``float``), or a :class:`Matrix`.
    ``write`` receives their LLVM values: a :class:`Value` for a whole number, a vector of equal numbers for a real one.
    """
    operands = list(inspect.signature(write, eval_str=True).parameters.values())[1:]
    kinds = tuple(_KINDS[operand.annotation] for operand in operands)

    def typing(context: Any, work: Any, *_: Any, **__: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Sequence[Any]) -> Any:
            array = context.make_array(signature.args[0])(context, builder, value=arguments[0])
            writer = Writer(builder, array.data)
            values = zip(arguments[1:], operands, strict=True)
            write(writer, *(writer.operand(value, operand.annotation) for value, operand in values))
            return context.get_dummy_value()

        return types.void(work, *kinds), generate

    # numba reads the names of the arguments off the function's signature
    names = ["context", "work", *(operand.name for operand in operands)]
    named = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in names]
    typing.__signature__ = inspect.Signature(named)  # pyright: ignore[reportFunctionMemberAccess]
    typing.__name__, typing.__doc__ = write.__name__, write.__doc__
    return intrinsic(typing)


class Value:
    """An LLVM value with Python's arithmetic: an int64, a vector, or a pointer to float32, which moves by ``+``."""

    __slots__ = ("builder", "ir")

    def __init__(self, builder: Any, value: Any) -> None:
        self.builder, self.ir = builder, value

    def like(self, number: Any) -> Value:
        """Return a number of Python as a value of this one's type, and a value as it is."""
        if isinstance(number, Value):
            return number
        kind = self.ir.type
        if isinstance(kind, ir.VectorType):
            number = [float(np.float32(number)) if kind == _VECTOR else number] * SIMD_WIDTH
        return Value(self.builder, ir.Constant(kind if not isinstance(kind, ir.PointerType) else _INT64, number))

    def _apply(self, name: str, *others: Any) -> Value:
        return Value(self.builder, getattr(self.builder, name)(self.ir, *(self.like(other).ir for other in others)))

    @property
    def _letter(self) -> str:
        """The first letter of LLVM's instructions on numbers of this type."""
        return "f" if self.ir.type == _VECTOR else ""

    def __add__(self, other: Any) -> Value:
        if isinstance(self.ir.type, ir.PointerType):
            return Value(self.builder, self.builder.gep(self.ir, [self.like(other).ir]))
        return self._apply(self._letter + "add", other)

    def __sub__(self, other: Any) -> Value:
        return self._apply(self._letter + "sub", other)

    def __mul__(self, other: Any) -> Value:
        return self._apply(self._letter + "mul", other)

    def __truediv__(self, other: Any) -> Value:
        return self._apply("fdiv", other)

    def __mod__(self, other: Any) -> Value:
        return self._apply("srem", other)

    def __and__(self, other: Any) -> Value:
        return self._apply("and_", other)

    def __xor__(self, other: Any) -> Value:
        return self._apply("xor", other)

    def __lshift__(self, other: int) -> Value:
        return self._apply("shl", other)

    def __neg__(self) -> Value:
        return self._apply("fneg")

    def __radd__(self, other: float) -> Value:
        return self.like(other) + self

    def __rsub__(self, other: float) -> Value:
        return self.like(other) - self

    def __rmul__(self, other: float) -> Value:
        return self.like(other) * self

    def __rtruediv__(self, other: float) -> Value:
        return self.like(other) / self

    def bits(self) -> Value:
        """Return the bits of a vector, as int32."""
        return Value(self.builder, self.builder.bitcast(self.ir, _BITS))

    def floats(self) -> Value:
        """Return the vector of float32 that has these bits."""
        return Value(self.builder, self.builder.bitcast(self.ir, _VECTOR))

    def load(self) -> Value:
        """Return the vector that this pointer points to."""
        return Value(self.builder, self.builder.load(self._vector_pointer(), align=4))

    def store(self, vector: Value) -> None:
        """Write a vector to where this pointer points."""
        self.builder.store(vector.ir, self._vector_pointer(), align=4)

    def load_broadcast(self) -> Value:
        """Return a vector all of whose numbers are the one that this pointer points to."""
        return broadcast(Value(self.builder, self.builder.load(self.ir, align=4)))

    def _vector_pointer(self) -> Any:
        return self.builder.bitcast(self.ir, _VECTOR.as_pointer())


class Variable:
    """A value that the turns of a loop change. LLVM keeps it in a register."""

    def __init__(self, value: Value) -> None:
        self._builder = value.builder
        self._place = cgutils.alloca_once(value.builder, value.ir.type)
        self.value = value

    @property
    def value(self) -> Value:
        return Value(self._builder, self._builder.load(self._place))

    @value.setter
    def value(self, value: Value) -> None:
        self._builder.store(value.ir, self._place)


class Writer:
    """The place where instructions are written, and the work space that they read and write."""

    def __init__(self, builder: Any, work: Any) -> None:
        self.builder, self.work = builder, Value(builder, work)

    def operand(self, value: Any, annotation: type) -> Any:
        """Return what a primitive receives for an argument of a call."""
        if annotation is Matrix:
            return Matrix(*(Value(self.builder, self.builder.extract_value(value, i)) for i in range(2)))  # pyright: ignore
        if annotation is float:
            return broadcast(Value(self.builder, self.builder.fptrunc(value, _FLOAT)))
        return Value(self.builder, value)

    def integer(self, number: int) -> Value:
        """Return a whole number."""
        return Value(self.builder, ir.Constant(_INT64, number))

    def zeros(self) -> Value:
        """Return a vector of zeros."""
        return Value(self.builder, ir.Constant(_VECTOR, [0.0] * SIMD_WIDTH))

    def at(self, place: Any) -> Value:
        """Return the pointer to a place of the work space."""
        return self.work + place

    def load(self, place: Any) -> Value:
        """Return the vector at a place of the work space."""
        return self.at(place).load()

    def store(self, place: Any, vector: Value) -> None:
        """Write a vector to a place of the work space."""
        self.at(place).store(vector)

    @contextmanager
    def loop(self, stop: Any, step: int = 1, start: Any = 0) -> Iterator[Any]:
        """Repeat for whole steps: ``for i in range(start, stop - step + 1, step)``."""
        builder = self.builder
        counter = Variable(self.integer(start) if isinstance(start, int) else start)
        head, body, end = (builder.append_basic_block(name) for name in ("head", "body", "end"))
        builder.branch(head)
        builder.position_at_end(head)
        i = counter.value
        builder.cbranch(builder.icmp_signed("<=", (i + step).ir, stop.ir), body, end)
        builder.position_at_end(body)
        yield i
        counter.value = i + step
        builder.branch(head)
        builder.position_at_end(end)

    def in_groups(self, count: Any, size: int, body: Callable[[Any, int], None]) -> None:
        """Call ``body(i, size)`` for every whole group of turns, then ``body(i, 1)`` for each turn of the rest.

        Loops become short, so that the processor foresees their end.
        """
        with self.loop(count, size) as i:
            body(i, size)
        with self.loop(count, 1, count & -size) as i:
            body(i, 1)

    @contextmanager
    def when_equal(self, value: Any, number: int) -> Iterator[None]:
        """Run the instructions of the block where a whole number has this value."""
        with self.builder.if_then(self.builder.icmp_signed("==", value.ir, value.like(number).ir)):
            yield


def broadcast(number: Value) -> Value:
    """Return a vector all of whose numbers are ``number``."""
    builder, undefined = number.builder, ir.Constant(_VECTOR, ir.Undefined)
    first = builder.insert_element(undefined, number.ir, ir.Constant(_INT32, 0))
    return Value(builder, builder.shuffle_vector(first, undefined, ir.Constant(_BITS, [0] * SIMD_WIDTH)))


def shuffle(a: Value, b: Value, places: Sequence[int]) -> Value:
    """Return the vector of the numbers at these places of ``a`` followed by ``b``."""
    return Value(a.builder, a.builder.shuffle_vector(a.ir, b.ir, ir.Constant(_BITS, list(places))))


def where_positive(x: Value, yes: Any, no: Any) -> Value:
    """Return ``yes`` where ``x > 0`` and ``no`` elsewhere."""
    builder = x.builder
    positive = builder.fcmp_ordered(">", x.ir, x.like(0.0).ir)
    return Value(builder, builder.select(positive, x.like(yes).ir, x.like(no).ir))


def fma(a: Any, b: Any, c: Any) -> Value:
    """Return ``a b + c``, rounded once where the machine can."""
    return _call("fmuladd", a, b, c)


def sqrt(x: Value) -> Value:
    """Return the square root."""
    return _call("sqrt", x)


def clip(x: Value, low: float, high: float) -> Value:
    """Return the nearest number between two bounds."""
    return _call("minnum", _call("maxnum", x, low), high)


def _call(name: str, *arguments: Any) -> Value:
    """Call an intrinsic function of LLVM on vectors."""
    one = next(a for a in arguments if isinstance(a, Value))
    kind = ir.FunctionType(_VECTOR, [_VECTOR] * len(arguments))
    function = cgutils.get_or_insert_function(one.builder.module, kind, f"llvm.{name}.v{SIMD_WIDTH}f32")
    return Value(one.builder, one.builder.call(function, [one.like(a).ir for a in arguments]))
