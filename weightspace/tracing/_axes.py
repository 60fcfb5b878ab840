"""Axes of a network under trace: which of them are one, and what is proved of each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn

from torch import Tensor

from weightspace._activation import activation


class Refused(Exception):
    """The reason why a network cannot be read."""


class TracedAxis:
    """An axis of features, which operators unite with others or cut into parts.

    Args:
        size: number of entries.
        fixed: whether nothing may be permuted: positions, inputs, outputs, and what an operator reads in order.
        reason: the operator that fixed it, for messages.
        source: ``"in"`` where it comes from the example input.

    ``bound`` means that permutations alone are proved; ``maxed``, that a maximum over positions takes signs away;
    ``padded``, that a mean or sum over positions takes phases away; ``plain``, that a linear map reads it with no
    activation in between. Axes that are one may be dual to each other, as those of queries and keys.
    """

    def __init__(self, size: int, *, fixed: bool = False, reason: str = "", source: str = "") -> None:
        self.size, self.fixed, self.reason, self.source = size, fixed, reason, source
        self.bound = self.maxed = self.padded = self.plain = False
        self.activations: list[tuple[str, float]] = []
        self.parts: tuple[Segment, ...] | None = None
        self._parent: TracedAxis | None = None
        self._dual = False

    def root(self) -> TracedAxis:
        return self.oriented()[0]

    def oriented(self) -> tuple[TracedAxis, bool]:
        """Return the axis that stands for all that are one with this, and whether this one is its dual."""
        axis, dual = self, False
        while axis._parent is not None:
            axis, dual = axis._parent, dual ^ axis._dual
        return axis, dual

    def join(self, other: TracedAxis, reason: str, *, dual: bool = False) -> None:
        """Make two axes one, or one the dual of the other: what is proved of one is then proved of both."""
        (a, mine), (b, theirs) = self.oriented(), other.oriented()
        dual ^= mine ^ theirs
        if a is b:
            a.bound |= dual
            return
        if a.fixed != b.fixed:
            a.reason = b.reason = a.reason or b.reason or reason
        if (b.fixed, b.source) > (a.fixed, a.source):
            a, b = b, a
        if b.activations and a.activations:
            a.bound = True
        b._parent, b._dual = a, dual
        a.activations += b.activations
        a.bound, a.maxed, a.padded = a.bound or b.bound, a.maxed or b.maxed, a.padded or b.padded
        a.plain |= b.plain

    def split(self, at: int) -> tuple[TracedAxis, TracedAxis]:
        """Cut a hidden axis into two, of which each has a permutation of its own."""
        parts = tuple(TracedAxis(size, fixed=size == 1) for size in (at, self.size - at))
        for part in parts:
            part.bound, part.maxed, part.padded, part.plain = self.bound, self.maxed, self.padded, self.plain
            part.activations = list(self.activations)
        self.parts = tuple(Segment(part) for part in parts)
        return parts[0], parts[1]

    def name_of_activation(self) -> tuple[str, float]:
        """Return the activation and omega, where the whole group of its row is proved, or ``("other", 1.0)``."""
        if self.plain and not (self.bound or self.maxed or self.activations):
            return "linear", 1.0
        if self.bound or self.plain or len(set(self.activations)) != 1:
            return "other", 1.0
        name, omega = self.activations[0]
        row = activation(name)
        lost = self.maxed and (row.scale == "sign" or row.periodic)
        lost |= row.periodic and (self.padded or len(self.activations) > 1)
        return ("other", 1.0) if lost else (name, omega)


@dataclass(frozen=True)
class Segment:
    """A run of ``axis.size * inner`` features: ``inner`` of them, side by side, belong to each neuron of the axis.

    Where the neurons are heads, ``inside`` is the axis of the features of each. ``dual`` says whether the features are
    those of the axis, or of its dual.
    """

    axis: TracedAxis
    inner: int = 1
    inside: TracedAxis | None = None
    dual: bool = field(default=False, compare=False)

    @property
    def size(self) -> int:
        return self.axis.size * self.inner

    @property
    def plain(self) -> bool:
        return self.inner == 1


Layout = tuple[Segment, ...]
"""One axis of a tensor: a concatenation of segments."""


def fixed(size: int, source: str = "") -> Layout:
    """Return the layout of an axis on which nothing is permuted."""
    return (Segment(TracedAxis(size, fixed=True, source=source)),)


def resolved(layout: Iterable[Segment]) -> list[Segment]:
    """Return the segments with axes that are united replaced by one, and axes that were cut by their parts."""
    out: list[Segment] = []
    for segment in layout:
        axis, dual = segment.axis.oriented()
        dual ^= segment.dual
        inside = None if segment.inside is None else segment.inside.root()
        if inside is not None:
            dual = segment.dual ^ segment.inside.oriented()[1]  # type: ignore[union-attr]
        if axis.parts is None:
            out.append(Segment(axis, segment.inner, _whole(inside, segment), dual))
        elif segment.inner == 1:
            out += [Segment(p.axis, p.inner, p.inside, p.dual ^ dual) for p in resolved(axis.parts)]
        else:
            parts = resolved(axis.parts)
            kept = all(part.inner == 1 for part in parts)
            freeze(() if kept or inside is None else (Segment(inside),), "heads in groups")
            out += [Segment(p.axis, p.inner * segment.inner, inside if kept else None, dual) for p in parts]
    return out


def _whole(inside: TracedAxis | None, segment: Segment) -> TracedAxis | None:
    """Return the axis inside of heads, or ``None`` where it has no symmetry, or is cut into parts."""
    if inside is None or inside.fixed or segment.axis.root().fixed:
        freeze(() if inside is None or inside.fixed else (Segment(inside),), "heads without symmetry")
        return None
    if inside.parts is not None:
        freeze(inside.parts, "parts of heads")
        return None
    return inside


def hidden(layout: Layout | None) -> list[TracedAxis]:
    """Return the axes that may still be permuted, those inside of heads behind them."""
    found = resolved(layout or ())
    inside = [s.inside for s in found if s.inside is not None and not s.inside.fixed]
    return [*(s.axis for s in found if not s.axis.fixed), *inside]


def source_of(layouts: Iterable[Layout | None]) -> str:
    """Return ``"in"`` if any of these axes comes from the example input."""
    return max((s.axis.source for layout in layouts for s in resolved(layout or ())), default="")


def freeze(layout: Layout | None, reason: str) -> None:
    """Leave no symmetry on a layout."""
    for axis in hidden(layout):
        axis.fixed, axis.reason = True, reason


def bind(layout: Layout | None) -> None:
    """Leave permutations alone on a layout."""
    for axis in hidden(layout):
        axis.bound = True


def cut(layout: Sequence[Segment], at: int, reason: str) -> tuple[Layout, Layout]:
    """Cut a layout after ``at`` features; an axis whose neurons the cut goes through is fixed."""
    head, rest = [], resolved(layout)
    while rest and rest[0].size <= at:
        at -= rest[0].size
        head.append(rest.pop(0))
    if at:
        first = rest.pop(0)
        if not first.axis.fixed and at % first.inner == 0:
            halves = first.axis.split(at // first.inner)
            here, there = (Segment(part, first.inner, first.inside, first.dual) for part in halves)
        else:
            freeze((first,), reason)
            here, there = (fixed(size, first.axis.source)[0] for size in (at, first.size - at))
        head.append(here)
        rest.insert(0, there)
    return tuple(head), tuple(rest)


def unite(a: Layout | None, b: Layout | None, reason: str, *, dual: bool = False) -> Layout | None:
    """Make one permutation act on two layouts of one size, as far as both allow it, or make them dual.

    ``None`` stands for an axis along which a tensor is constant: it goes with any.
    """
    if a is None or b is None:
        return b if a is None else a
    left, right = tuple(resolved(a)), tuple(resolved(b))
    while left:
        x, y = left[0], right[0]
        if x == y or (x.size == y.size and x.inner == y.inner):
            _join(x, y, reason, dual)
            left, right = left[1:], right[1:]
        elif x.size != y.size:
            left, right = (sum(cut(side, min(x.size, y.size), reason), ()) for side in (left, right))
        else:
            plain, other = (x, y) if x.plain and not x.axis.fixed else (y, x)
            if plain.axis.fixed or not plain.plain:
                freeze((x, y), reason)
            else:
                if plain.axis.activations or plain.axis.bound or plain.axis.maxed or dual:
                    bind((other,))
                plain.axis.parts = (replace(other, dual=other.dual ^ plain.dual),)
            left, right = left[1:], right[1:]
        left, right = tuple(resolved(left)), tuple(resolved(right))
    return tuple(resolved(a))


def _join(x: Segment, y: Segment, reason: str, dual: bool) -> None:
    """Make two segments of one size and depth one, with what is inside of their heads."""
    other = x.dual ^ y.dual ^ dual
    x.axis.join(y.axis, reason, dual=other if x.inside is None and y.inside is None else False)
    if x.inside is not None and y.inside is not None:
        x.inside.join(y.inside, reason, dual=other)
    else:
        freeze(tuple(Segment(s.inside) for s in (x, y) if s.inside is not None), reason)


@dataclass(eq=False)
class TracedParam:
    """A parameter or buffer of the module: its state dict keys (several, if it is tied) and its axes.

    ``uses`` counts the operators that read it, ``as_bias`` those that add it to a linear map; ``as_weight`` is the
    number of the last one that reads it as a matrix or kernel, 0 for none, and ``made`` what that one makes.
    """

    keys: list[str]
    shape: tuple[int, ...]
    dims: tuple[Layout, ...] = ()
    uses: int = 0
    as_bias: int = 0
    as_weight: int = 0
    made: Layout | None = None

    def __post_init__(self) -> None:
        # A spec holds hidden axes in the first two places alone.
        self.dims = tuple((Segment(TracedAxis(n)),) if i < 2 else fixed(n) for i, n in enumerate(self.shape))


@dataclass(frozen=True, eq=False)
class Affine:
    """The state of a value ``factor * z ** power + shift`` of a linear map's output ``z``, which ``origin`` names."""

    factor: float = 1.0
    power: float = 1.0
    shift: float = 0.0
    origin: object = field(default_factory=object)

    @property
    def exact(self) -> bool:
        return (self.factor, self.power, self.shift) == (1.0, 1.0, 0.0)

    @property
    def linear(self) -> bool:
        """Whether every matrix commutes with what was done to ``z``."""
        return (self.power, self.shift) == (1.0, 0.0)


ACTIVE = "active"
"""The state of what leaves an activation, and of the input. What is neither this nor affine has bound axes."""
State = Affine | str | None


@dataclass(frozen=True, eq=False)
class TracedTensor:
    """A value of the graph: its shape, the layout of each axis (``None`` where it is constant along it), its state.

    ``param`` and ``order`` say of which parameter it is a view, and which axis of it each axis is. A ``view`` is a
    value, the places of its entries, the operator that spread its neurons over several axes, and the places along the
    way: what reads it decides about their symmetry.
    """

    shape: tuple[int, ...]
    dims: tuple[Layout | None, ...]
    state: State = None
    param: TracedParam | None = None
    order: tuple[int, ...] = ()
    view: tuple[TracedTensor, Tensor, Site, tuple[Tensor, ...]] | None = None

    @property
    def linear(self) -> bool:
        """Whether it is a linear map's output, maybe times a number."""
        return isinstance(self.state, Affine) and self.state.linear

    @property
    def axes(self) -> list[TracedAxis]:
        return [axis for layout in self.dims for axis in hidden(layout)]

    def moved(self, shape: Sequence[int], dims: Sequence[Layout | None]) -> TracedTensor:
        """Return the numbers in other places: the state stays, but its product with this value is no square."""
        state = replace(self.state, origin=object()) if isinstance(self.state, Affine) else self.state
        return TracedTensor(tuple(shape), tuple(dims), state)

    def mark(self, site: Site, made: Layout | None) -> None:
        """Note, if it is a parameter, that an operator reads it as a matrix or kernel that makes an axis."""
        if self.param is not None:
            self.param.as_weight, self.param.made = site.number, made

    def bind(self) -> TracedTensor:
        """Leave permutations alone on all axes, and return the value without a state."""
        for axis in self.axes:
            axis.bound = True
        return TracedTensor(self.shape, self.dims)


@dataclass(frozen=True)
class Site:
    """An operator of the graph: its name, its place in module, source and graph, and the shape of its output."""

    op: str
    path: str
    line: str
    shape: Any = ()
    number: int = 0
    target: Any = None

    def __str__(self) -> str:
        path = f" in {self.path!r}" if self.path else ""
        return f"{self.op}{path}" + (f" ({self.line})" if self.line else "")

    def refuse(self, reason: str) -> NoReturn:
        raise Refused(f"{self}: {reason}")

    def freeze(self, *tensors: TracedTensor) -> Any:
        """Leave no symmetry on what an operator reads; what it returns has none either."""
        for tensor in tensors:
            for layout in tensor.dims:
                freeze(layout, str(self))
        source = source_of(layout for tensor in tensors for layout in tensor.dims)

        def opaque(shape: Any) -> Any:
            if isinstance(shape, list):
                return [opaque(part) for part in shape]
            return TracedTensor(shape, tuple(fixed(n, source) for n in shape)) if isinstance(shape, tuple) else None

        return opaque(self.shape)
