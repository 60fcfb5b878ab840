"""The axes of a network while ``spec_of`` walks its graph: lanes, united where the network ties them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from weightspace._activation import activation
from weightspace._trace_rules import Parameter, refuse


class Lane:
    """One axis of channels or features. Sums unite lanes; what is said of one is then said of all united with it.

    ``bound`` means that permutations alone are proved; ``fixed``, that nothing may be permuted: an input or an output;
    ``maxed`` and ``padded``, that a maximum over positions takes signs away, and a mean over padded ones phases.
    """

    def __init__(self, size: int, *, fixed: str | None = None) -> None:
        self.size = size
        self.fixed = fixed
        self.bound = False
        self.maxed = False
        self.padded = False
        self.activations: list[str] = []
        self._parent: Lane | None = None

    def root(self) -> Lane:
        lane = self
        while lane._parent is not None:
            lane = lane._parent
        return lane

    def bind(self) -> None:
        self.root().bound = True

    def unite(self, other: Lane) -> None:
        """From here on one permutation acts on both, and nothing else does."""
        a, b = self.root(), other.root()
        if a is not b:
            if b.fixed and not a.fixed:
                a, b = b, a
            b._parent = a
            a.activations += b.activations
        a.bind()

    def name_of_activation(self) -> str:
        """Return its activation where the whole group of that row is proved, or "other"."""
        names = set(self.activations)
        if len(names) != 1:
            return "other"
        row = activation(next(iter(names)))
        plain = row.scale == "none" and not row.periodic
        signed = row.scale == "sign" or row.periodic
        if not plain and (self.bound or len(self.activations) > 1):
            return "other"
        if (self.maxed and signed) or (self.padded and row.periodic):
            return "other"
        return row.name


@dataclass(frozen=True)
class Segment:
    """A run of features: ``lane.size`` channels of ``pos`` folded positions each, the channel first."""

    lane: Lane
    pos: int = 1

    @property
    def size(self) -> int:
        return self.lane.size * self.pos


@dataclass(frozen=True)
class Signal:
    """The value of a graph node: a tensor whose axis ``dim`` is a concatenation of segments.

    ``state`` is ``"affine"`` (straight from linear maps), ``"active"`` (what leaves an activation, and the input) or
    ``"mixed"`` (its lanes are bound).
    """

    shape: tuple[int, ...]
    dim: int
    segments: tuple[Segment, ...]
    state: str

    @property
    def last(self) -> bool:
        return self.dim == len(self.shape) - 1

    def lanes(self) -> list[Lane]:
        return [segment.lane.root() for segment in self.segments]

    def bind(self) -> Signal:
        for lane in self.lanes():
            lane.bind()
        return replace(self, state="mixed")


@dataclass(frozen=True, eq=False)
class Entry:
    """One parameter met: its place in the state dict, and its axes as lanes or as (name, size)."""

    key: str
    axes: tuple[Lane | tuple[str, int], ...]
    kind: str
    folded: bool = False


@dataclass
class Ledger:
    """All parameters met so far, and the tensors' shapes."""

    shapes: dict[str, tuple[int, ...]]
    entries: list[Entry] = field(default_factory=list)
    beyond_chain: bool = False
    """Whether something was met that no sequential chain of linear layers has."""

    def affine(self, value: Signal, weight: Any, bias: Any, shape: tuple[int, ...], dim: int, label: str) -> Signal:
        """A linear map over the features: a new lane, columns for every segment."""
        if not isinstance(weight, Parameter) or not (bias is None or isinstance(bias, Parameter)):
            refuse(f"{label} with weights that are computed, not parameters of the module")
        size, columns, *kernel = self.shapes[weight.name]
        if columns != value.shape[value.dim]:
            refuse(f"{label} reads {columns} of {value.shape[value.dim]} features")
        self._read(value)
        lane = Lane(size)
        inner = tuple((f"k{k}", k) for k in kernel)
        for segment in value.segments:
            folded = segment.pos > 1
            pos = ((f"pos{segment.pos}", segment.pos),) if folded else ()
            self.entries.append(Entry(weight.name, (lane, segment.lane, *pos, *inner), "weight", folded))
        if bias is not None:
            self.entries.append(Entry(bias.name, (lane,), "bias"))
        return Signal(shape, dim, (Segment(lane),), "affine")

    def depthwise(self, value: Signal, weight: Any, bias: Any, shape: tuple[int, ...], label: str) -> Signal:
        """A convolution of each channel by itself: no new lane, and permutations alone."""
        kernel = tuple((f"k{k}", k) for k in self.shapes[weight.name][2:])
        lane, *others = value.lanes()
        if others or lane.size != value.shape[1]:
            refuse(f"{label}: a depthwise convolution of a concatenation")
        self.entries.append(Entry(weight.name, (lane, ("one", 1), *kernel), "weight"))
        if bias is not None:
            self.entries.append(Entry(bias.name, (lane,), "bias"))
        self.beyond_chain = True
        return replace(value.bind(), shape=shape)

    def norm(self, value: Signal, names: list[str], inner: tuple[int, ...] = ()) -> Signal:
        """Parameters and statistics for each feature (and position), then permutations alone."""
        for name in names:
            for segment in value.segments:
                pos = ((f"pos{segment.pos}", segment.pos),) if segment.pos > 1 else ()
                axes = (segment.lane, *pos, *((f"pos{size}", size) for size in inner))
                self.entries.append(Entry(name, axes, "norm", bool(pos)))
        self.beyond_chain = True
        return value.bind()

    @staticmethod
    def _read(value: Signal) -> None:
        """Leave permutations alone where a linear map reads without an activation in between."""
        for lane in value.lanes():
            if not (value.state == "active" and lane.activations):
                lane.bind()


def signal_of(value: Any, label: str) -> Signal:
    """The argument of an operator, if it is one of the network's values."""
    if not isinstance(value, Signal):
        refuse(f"{label} on something other than the network's values")
    return value
