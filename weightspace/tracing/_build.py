"""From the axes that a walk met to a spec: what a spec can say keeps its symmetry, and every axis gets a name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from weightspace._spec import Axis, Init, Kind, NetSpec, Param
from weightspace.tracing._axes import (
    Layout,
    Refused,
    Segment,
    TracedAxis,
    TracedParam,
    TracedTensor,
    bind,
    freeze,
    hidden,
    resolved,
)

_PARTS = 64
"""The largest number of parts into which a tensor is cut because its features repeat an axis."""


def settle(params: Sequence[TracedParam]) -> None:
    """Fix the axes that a spec cannot say, until all that is left can be said."""
    for param in params:
        for layout in param.dims:
            freeze(tuple(s for s in resolved(layout) if s.axis.size == 1 and not s.axis.activations), "its one entry")
    while True:
        before = sum(len(hidden(layout)) for param in params for layout in param.dims)
        for param in params:
            _settle(param)
        _settle_linear(params)
        produced = {axis for param in params for axis in hidden(param.dims[0])}
        for param in params:
            for layout in param.dims:
                for segment in resolved(layout):
                    if not segment.axis.fixed and segment.axis not in produced:
                        freeze((segment,), f"{param.keys[0]!r}, which nothing but a table of vectors produces")
        if before == sum(len(hidden(layout)) for param in params for layout in param.dims):
            return


def _settle(param: TracedParam) -> None:
    rows, columns = param.dims[0], param.dims[1] if len(param.dims) > 1 else ()
    key = param.keys[0]
    for segment in resolved(columns):
        if len(resolved(columns)) > _PARTS or (segment.inner > 1 and len(param.dims) > 2):
            freeze((segment,), f"the columns of {key!r}, whose channels are not whole")
    if set(hidden(rows)) & set(hidden(columns)):
        freeze(
            tuple(s for s in resolved(rows) if s.axis in hidden(columns)),
            f"a sum that ties what {key!r} reads to what it makes: one permutation would act twice on it, which a "
            "spec cannot say",
        )
    parts = resolved(rows)
    if not hidden(rows) or (len(parts) == 1 and (parts[0].plain or stacks(param))):
        return
    if stacks(param):
        return
    whole = len(parts) <= _PARTS and all(s.inner == 1 or len(param.dims) == 1 for s in parts)
    if hidden(columns) or not whole:
        freeze(rows, f"the rows of {key!r}, which hold several axes or parts of one, which a spec cannot say")
    elif param.as_weight or param.as_bias != param.uses or any(s.inner > 1 and s.inside is None for s in parts):
        bind(rows)


def stacks(param: TracedParam) -> bool:
    """Whether a matrix is read as one, or as several on top of each other, whose rows may be heads."""
    rows, columns = (resolved(layout) for layout in (*param.dims, ())[:2])
    own = bool(param.as_weight) and len(param.dims) > 1 and len(rows) <= _PARTS
    return own and (len(rows) == 1 or len(columns) == 1) and all(s.plain or not s.axis.fixed for s in rows)


def _settle_linear(params: Sequence[TracedParam]) -> None:
    """Leave matrices where a spec can say them: on what rows make and columns read, each in one orientation."""
    columns: dict[TracedAxis, set[bool]] = {}
    for param in params:
        for i, layout in enumerate(param.dims):
            for segment in resolved(layout):
                axis = segment.inside or segment.axis
                if axis.fixed or axis.name_of_activation()[0] != "linear":
                    freeze((Segment(segment.inside),) if segment.inside else (), "an operator on its heads")
                    continue
                norm = i == 0 and not param.as_weight and param.as_bias != param.uses
                if i > 1 or norm or (segment.inner > 1 and segment.inside is None):
                    axis.bound = True
                if i == 1:
                    columns.setdefault(axis, set()).add(segment.dual)
    for axis, found in columns.items():
        axis.bound |= len(found) > 1


class Names:
    """Names for axes: ``in``, ``out``, and h1, h2, ... in the order of the state dict."""

    def __init__(self, params: Sequence[TracedParam] = ()) -> None:
        self.axes: dict[str, Axis] = {}
        self.names: dict[Any, str] = {}
        self.counts = {"h": 0, "in": 0}
        layouts = [param.dims[0] for param in params if len(param.dims) > 1]
        self.heads = {s.axis for rows in layouts for s in resolved(rows) if s.inner > 1 and not s.axis.fixed}
        self.members: dict[TracedAxis, list[str]] = {}
        self.turned: dict[TracedAxis, bool] = {}
        """Whether the spec's axis is the dual of the traced one: what columns read is the axis itself."""
        for param in params:
            for i, layout in reversed(list(enumerate(param.dims[:2]))):
                for segment in resolved(layout) if i == 1 else ():
                    self.turned.setdefault(segment.inside or segment.axis, segment.dual)

    def of_heads(self, segment: Segment) -> str:
        """Return the name of an axis of heads: blocks that move with those of all other axes of the same heads."""
        key = (segment.axis, segment.inner, segment.inside)
        if key not in self.names:
            self.counts["h"] += 1
            name = self.names[key] = f"h{self.counts['h']}"
            kind = "linear" if segment.inside is not None else "other"
            self.members.setdefault(segment.axis, []).append(name)
            self.axes[name] = Axis(name, segment.size, kind, 1.0, segment.axis.size)
        return self.names[key]

    def tie_heads(self, produced: set[str]) -> None:
        """Let all axes of the same heads follow the first of them that a parameter produces."""
        for members in self.members.values():
            leader = next((name for name in members if name in produced), members[0])
            for name in members:
                if name != leader:
                    self.axes[name] = replace(self.axes[name], follows=leader)

    def dual(self, segment: Segment) -> bool:
        """Whether rows make the dual of the axis that the spec names; the first that do are no duals."""
        axis = segment.inside or segment.axis
        if axis.fixed or axis.name_of_activation()[0] != "linear":
            return False
        return segment.dual ^ self.turned.setdefault(axis, segment.dual)

    def of(self, axis: TracedAxis, place: str) -> str:
        """Return the name of an axis; a fixed one is called by its place and size, unless it is an end.

        Rows and columns without symmetry have different names: what lies between them is not recorded.
        """
        axis = axis.root()
        if axis not in self.names:
            if axis.fixed and axis.source != "in":
                return self.plain(axis.size, place)
            kind = "in" if axis.fixed else "h"
            self.counts[kind] += 1
            number = self.counts[kind]
            self.names[axis] = kind if kind == "in" and number == 1 else f"{kind}{number}"
            activation, omega = (None, 1.0) if axis.fixed else axis.name_of_activation()
            self.axes[self.names[axis]] = Axis(self.names[axis], axis.size, activation, omega)
        return self.names[axis]

    def plain(self, size: int, place: str) -> str:
        name = "one" if size == 1 and place != "k" else f"{place}{size}"
        self.axes.setdefault(name, Axis(name, size))
        return name


def build(
    params: Sequence[TracedParam], order: Sequence[str], source: TracedTensor, output: TracedTensor, init: Init
) -> NetSpec:
    """Return the spec of the parameters, in the order of the state dict; all axes of the output are fixed."""
    ends = _output(output, params)
    settle(params)
    names = Names(params)
    end = _name_ends(names, ends, output)
    found: dict[str, list[Param]] = {}
    for key in order:
        for param in params:
            if key in param.keys:
                found[key] = _params(param, key, names)
    names.tie_heads({param.produces for own in found.values() for param in own})
    if "in" not in names.axes:  # no parameter has it: channels of pictures, else the last axis
        names.axes["in"] = Axis("in", source.shape[1 if len(source.shape) > 3 else -1] if source.shape else 1)
    last = [names.axes.pop(name) for name in dict.fromkeys(("in", end))]
    axes = (last[0], *names.axes.values(), *last[1:])
    try:
        return NetSpec(axes, tuple(p for key in order for p in found.get(key, ())), output=end, init=init)
    except ValueError as error:
        raise Refused(str(error)) from error


def _output(output: TracedTensor, params: Sequence[TracedParam]) -> Layout:
    """Fix the axes of the output, and return the layout of its features: else what the last matrix makes."""
    made = {s.axis for param in params for s in resolved(param.made or ())}
    found = [tuple(resolved(layout or ())) for layout in output.dims]
    found = [layout for layout in found if any(s.axis in made or not s.axis.fixed for s in layout)]
    for layout in output.dims:
        freeze(layout, "the output")
    last = max(params, key=lambda param: param.as_weight, default=None)
    return found[-1] if found else tuple(resolved(last.made or ())) if last else ()


def _name_ends(names: Names, ends: Layout, output: TracedTensor) -> str:
    """Name the axes of the output, and return the name of the whole."""
    size = output.shape[-1] if output.shape else 1
    if len(ends) == 1 and ends[0].plain:
        axis = ends[0].axis.root()
        names.names[axis] = "in" if axis.source == "in" else "out"
        names.axes[names.names[axis]] = Axis(names.names[axis], axis.size)
        names.counts["in"] += axis.source == "in"
        return names.names[axis]
    for number, segment in enumerate(ends if len(ends) > 1 else (), start=1):
        axis = segment.axis.root()
        if axis not in names.names and axis.source != "in":
            names.names[axis] = f"out{number}"
            names.axes[f"out{number}"] = Axis(f"out{number}", axis.size)
    names.axes["out"] = Axis("out", sum(segment.size for segment in ends) or size)
    return "out"


def _params(param: TracedParam, key: str, names: Names) -> list[Param]:
    """Return the spec's parameters for one tensor: one, or one for each part of a concatenation."""
    rows = _joined(param.dims[0], folded=len(param.dims) == 1)
    columns = _joined(param.dims[1], folded=len(param.dims) == 2) if len(param.dims) > 1 else []
    kind: Kind = "norm"
    if len(param.dims) > 1 and (hidden(param.dims[1]) or (param.as_weight and (len(rows) == 1 or stacks(param)))):
        kind = "weight"
    elif (
        len(param.dims) == 1
        and param.uses == param.as_bias
        and all(segment.plain or segment.axis in names.heads for segment in rows)
    ):
        kind = "bias"
    place, tail = ("columns", "k") if kind == "weight" else ("pos", "pos")
    rest = [names.plain(size, tail) for size in param.shape[2:]]
    parts = []
    along_rows = kind != "weight" or len(rows) > 1
    for segment in rows if along_rows else columns:
        whole = segment.axis in names.heads
        inner = [names.plain(segment.inner, "pos")] if segment.inner > 1 and not whole else []
        first = segment if along_rows else rows[0]
        others = columns if along_rows else [segment]
        axes = [_name(names, first, "rows"), *(_name(names, s, place) for s in others)]
        axes = [axes[0], *(_again(names, name, axes[0]) for name in [*axes[1:], *inner, *rest])]
        stacked = kind == "weight" and along_rows
        parts.append((tuple(axes), bool(inner), stacked, kind != "norm" and names.dual(first)))
    if len(parts) == 1:
        return [Param(key, parts[0][0], kind, key, *parts[0][1:])]
    return [Param(f"{key}[{i}]", axes, kind, key, *more) for i, (axes, *more) in enumerate(parts)]


def _name(names: Names, segment: Segment, place: str) -> str:
    """Name the axis of a segment, with what is inside of its heads."""
    axis = segment.axis.root()
    return names.of_heads(segment) if axis in names.heads and not axis.fixed else names.of(axis, place)


def _again(names: Names, name: str, other: str) -> str:
    """Nothing permutes an axis without symmetry: it may bear a second name."""
    if name != other:
        return name
    names.axes.setdefault(f"{name}-too", Axis(f"{name}-too", names.axes[name].size))
    return f"{name}-too"


def _joined(layout: Layout, *, folded: bool) -> list[Segment]:
    """Return the segments of a layout; if nothing is permuted on it, it is one."""
    parts = resolved(layout)
    if not hidden(layout) and not (len(parts) == 1 and parts[0].plain):
        return [Segment(TracedAxis(sum(part.size for part in parts), fixed=True))]
    named = [not part.axis.fixed or part.plain or (folded and bool(part.axis.source)) for part in parts]
    return [p if own else Segment(TracedAxis(p.size, fixed=True)) for p, own in zip(parts, named, strict=True)]
