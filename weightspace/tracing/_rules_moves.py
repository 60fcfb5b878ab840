"""One rule for all operators that move numbers: they are run on numbered entries, to see where each number goes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby, permutations
from typing import Any

import torch
from torch import Tensor
from torch.fx.node import map_aggregate

from weightspace.tracing._axes import (
    ACTIVE,
    Affine,
    Layout,
    Segment,
    Site,
    TracedAxis,
    TracedTensor,
    cut,
    fixed,
    freeze,
    hidden,
    resolved,
    source_of,
    unite,
)
from weightspace.tracing._rules import broadcast, lift, pointwise, rule


@rule(
    "_unsafe_view repeat tile flip roll rot90 pixel_shuffle pixel_unshuffle channel_shuffle im2col reflection_pad1d "
    "reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d replication_pad3d upsample_nearest1d "
    "upsample_nearest2d upsample_nearest3d slice_scatter select_scatter copy tril triu permute t transpose mH"
)
def move(site: Site, *args: Any, **kwargs: Any) -> Any:
    """Follow every entry: neurons that move together keep their permutation, all others lose it."""
    lifted: Any = lambda x: lift(x) if isinstance(x, Tensor) else x  # noqa: E731
    return _follow(site, map_aggregate((args, kwargs), lifted))


@rule("cat concat concatenate")
def cat(site: Site, values: Sequence[Any], dim: int = 0) -> TracedTensor:
    parts, dim = [lift(value) for value in values if math.prod(value.shape)], dim % len(site.shape)
    rows = [TracedTensor((1, *part.shape), (None, *part.dims[:dim], None, *part.dims[dim + 1 :])) for part in parts]
    states = [part.state for part in parts]
    dims = list(broadcast(site, rows, (len(parts), *site.shape), alone=False)[1:])
    dims[dim] = tuple(s for part in parts for s in part.dims[dim] or fixed(part.shape[dim]))
    affine = all(isinstance(state, Affine) and state.exact for state in states)
    out = TracedTensor(site.shape, tuple(dims), ACTIVE if set(states) == {ACTIVE} else Affine() if affine else None)
    return out if out.state else out.bind()


@rule("stack")
def stack(site: Site, values: Sequence[Any], dim: int = 0) -> TracedTensor:
    shape, dim = list(site.shape), dim % len(site.shape)
    shape[dim] = 1
    return cat(site, [v.moved(shape, (*v.dims[:dim], None, *v.dims[dim:])) for v in map(lift, values)], dim)


@rule("index index_select gather take_along_dim repeat_interleave")
def choose(site: Site, value: Any, *args: Any, **kwargs: Any) -> Any:
    """The same, by numbers of entries; where these are inputs, nothing is known of the order."""
    moving = [x for x in _traced((args, kwargs)) if x.axes] or _traced((args, kwargs))
    return site.freeze(lift(value), *moving) if moving else _follow(site, ((lift(value), *args), kwargs))


@rule("pad constant_pad_nd")
def pad(site: Site, value: TracedTensor, sizes: Sequence[int], *settings: Any, **named: Any) -> TracedTensor:
    given = [*settings, *named.values()]
    mode = [x for x in given if isinstance(x, str) and x != "constant"]
    out = _follow(site, ((value, list(sizes), *mode), {}))
    return out.bind() if any(x for x in given if isinstance(x, int | float)) else out


@rule("glu")
def glu(site: Site, value: TracedTensor, dim: int = -1) -> TracedTensor:
    return pointwise(site, *_follow(replace(site, target=torch.ops.aten.chunk), ((value, 2, dim), {})))


def _traced(values: Any) -> list[TracedTensor]:
    found: list[TracedTensor] = []
    map_aggregate(values, lambda x: found.append(x) if isinstance(x, TracedTensor) else None)
    return found


def _follow(site: Site, given: Any) -> Any:
    """Run the operator on numbers from one on; it puts 0 where its output comes from no value."""
    if len(set(_traced(given))) > 1:
        seen: Any = lambda x: look(x, heads=True) if isinstance(x, TracedTensor) else x  # noqa: E731
        given = map_aggregate(given, seen)
    values, start = list(dict.fromkeys(_traced(given))), 1
    starts: dict[TracedTensor, int] = {}
    for value in values:
        base = value if value.view is None else value.view[0]
        starts[base], start = start, start + math.prod(base.shape)
        for layout in base.dims:  # an axis of one neuron leaves no trace
            freeze(layout if _size(resolved(layout or ())) == 1 else None, str(site))
    dtype = torch.float32 if start < 2**24 else torch.float64

    def number(x: Any) -> Any:
        if isinstance(x, TracedTensor) and x.view is not None:
            return x.view[1].to(dtype).contiguous()
        count = math.prod(x.shape) if isinstance(x, TracedTensor) else 0
        return torch.arange(starts[x], starts[x] + count, dtype=dtype).view(x.shape) if count else x

    shorter = isinstance(site.shape, tuple) and math.prod(site.shape) <= min(math.prod(v.shape) for v in values)
    shorter &= values[0].view is None
    if shorter and not any(value.axes or _constant(value) for value in values):  # nothing to follow
        source = source_of(layout for value in values for layout in value.dims)
        return TracedTensor(site.shape, tuple(fixed(n, source) if n > 1 else None for n in site.shape))
    args, kwargs = map_aggregate(given, number)
    found = site.target(*args, **kwargs)
    outs = []
    for labels in [found] if isinstance(found, Tensor) else found:
        labels = labels.to(torch.int32 if start < 2**31 else torch.int64)
        base = next(iter(starts))
        if len(starts) == 1 and bool(labels.all()) and _scattered(base, labels - 1):
            source = source_of(base.dims)
            out = values[0].moved(labels.shape, [fixed(n, source) for n in labels.shape])
            earlier = values[0].view or (base, labels, site, ())
            outs.append(replace(out, view=(base, labels, earlier[2], (labels, *earlier[3]))))
            continue
        named = site if values[0].view is None else values[0].view[2]
        out = values[0].moved(labels.shape, _dims(named, starts, labels))
        if not bool(labels.all()):
            for axis in out.axes:
                axis.padded |= isinstance(out.state, Affine)
        outs.append(out.bind() if len(values) > 1 else _as_view(out, base, labels) if base is values[0] else out)
    return outs[0] if isinstance(found, Tensor) else outs


def look(value: TracedTensor, *, heads: bool = False) -> TracedTensor:
    """Return a value in place of a view, for an operator that reads it.

    Args:
        value: a view, or any other value, which is returned as it is.
        heads: whether neurons that lie along two axes are blocks: a permutation of blocks stays, and what is inside of
            them; otherwise they have no symmetry.
    """
    if value.view is None:
        return value
    base, labels, site, history = value.view
    for d in range(len(base.shape) if heads else 0):
        for places in history:
            _split_heads(site, base, d, places - 1)
    out = value.moved(labels.shape, _dims(site, {base: 1}, labels))
    return replace(out, state=value.state)


def _split_heads(site: Site, base: TracedTensor, d: int, flat: Tensor) -> None:
    """Cut an axis whose neurons lie along two axes, in order, into heads and what is inside of them."""
    if not hidden(base.dims[d]):
        return
    place = flat // math.prod(base.shape[d + 1 :]) % base.shape[d]
    low, count = int(place.min()), int(place.max() - place.min()) + 1
    for e, f in permutations(range(flat.ndim), 2):
        size = flat.shape[f]
        heads, rest = divmod(count, size)
        if rest or heads < 2 or size < 2 or flat.shape[e] % heads:
            continue
        rows, columns = (
            torch.arange(flat.shape[i]).view([-1 if i == j else 1 for j in range(flat.ndim)]) for i in (e, f)
        )
        if bool((place == low + rows // (flat.shape[e] // heads) * size + columns).all()):
            part = resolved(cut(cut(base.dims[d] or (), low, str(site))[1], count, str(site))[0])
            if len(part) == 1 and part[0].plain and not part[0].axis.fixed and part[0].inside is None:
                _as_heads(part[0].axis, heads, size)
            return


def _as_heads(axis: TracedAxis, heads: int, size: int) -> None:
    outer, inner = TracedAxis(heads), TracedAxis(size)
    outer.bound = True
    inner.bound, inner.maxed, inner.plain = axis.bound or bool(axis.activations), axis.maxed, axis.plain
    axis.parts = (Segment(outer, size, inner),)


def _scattered(value: TracedTensor, flat: Tensor) -> bool:
    """Whether the neurons of an axis lie along no single axis."""
    found = [d for d, layout in enumerate(value.dims) if hidden(layout)]
    return any(_find(value, d, flat, inside=False) is None for d in found)


def _constant(value: TracedTensor) -> bool:
    """Whether a value is constant along an axis of several entries."""
    return any(layout is None and size > 1 for layout, size in zip(value.dims, value.shape, strict=True))


def _as_view(out: TracedTensor, value: TracedTensor, labels: Tensor) -> TracedTensor:
    """Keep in mind that this is a parameter with its axes in another order."""
    if value.param is None or sorted(out.shape) != sorted(value.shape) or 1 in out.shape:
        return out
    strides = [math.prod(value.shape[i + 1 :]) for i in range(len(value.shape))]
    corner = labels[(0,) * labels.ndim]
    steps = [int(labels[(*(0,) * e, 1, *(0,) * (labels.ndim - e - 1))] - corner) for e in range(labels.ndim)]
    places = [strides.index(step) for step in steps if step in strides]
    kept = [value.shape[i] for i in places] == list(out.shape)
    return replace(out, param=value.param, order=tuple(value.order[i] for i in places)) if kept else out


_PARTS = 256
"""An axis that is spread over more stretches than these has no symmetry left."""
Piece = tuple[int, Layout, TracedTensor]
"""A stretch of an output axis: where it begins, its layout, and the value that it comes from."""


def _dims(site: Site, starts: dict[TracedTensor, int], labels: Tensor) -> list[Layout | None]:
    """Return the layout of each output axis."""
    pieces: list[list[Piece]] = [[] for _ in labels.shape]
    source = source_of(layout for value in starts for layout in value.dims)
    if not labels.numel():
        return [fixed(size, source) for size in labels.shape]
    repeats = any(_constant(value) or labels.numel() > math.prod(value.shape) for value in starts)
    for value, start in starts.items():
        for d, layout in enumerate(value.dims):
            if hidden(layout) or (layout and len(starts) > 1):
                for place, at, found in _trace(site, value, d, labels - start):
                    _enter(site, pieces[place], (at, found, value))
    out: list[Layout | None] = []
    for e, size in enumerate(labels.shape):
        dims: list[Segment] = []
        for start, layout, _ in sorted(pieces[e], key=lambda piece: piece[0]):
            dims += [*_gap(start - _size(dims), source), *layout]
        same = size == 1 or (repeats and bool((labels == labels.narrow(e, 0, 1)).all()))
        out.append(None if same and not dims else (*dims, *_gap(size - _size(dims), source)))
    return out


def _size(layout: Sequence[Segment]) -> int:
    return sum(segment.size for segment in layout)


def _gap(size: int, source: str) -> Layout:
    return fixed(size, source) if size else ()


def _enter(site: Site, pieces: list[Piece], new: Piece) -> None:
    """Add a stretch: in the place of one of another value their axes are one; what overlaps otherwise is fixed."""
    for old in pieces:
        ends = [(piece[0], piece[0] + _size(piece[1])) for piece in (old, new)]
        if ends[0] == ends[1] and old[2] is not new[2]:
            unite(old[1], new[1], str(site))
            return
        if _in_head(old, new) and not _fill(old, new):  # heads in groups, or parts of them
            freeze(new[1], str(site))
            return
        if _fill(old, new):
            old_layout = (replace(old[1][0], inside=new[1][0].axis, dual=new[1][0].dual),)
            pieces[pieces.index(old)] = (old[0], old_layout, old[2])
            return
        if ends[0][0] < ends[1][1] and ends[1][0] < ends[0][1]:
            freeze((*old[1], *new[1]), str(site))
            return
    pieces.append(new)


def _in_head(old: Piece, new: Piece) -> bool:
    """Whether a stretch lies in one of the heads that lie there already."""
    if old[2] is not new[2] or len(old[1]) != 1 or old[1][0].inner == 1:
        return False
    offset, inner = new[0] - old[0], old[1][0].inner
    return 0 <= offset < old[1][0].size and offset // inner == (offset + _size(new[1]) - 1) // inner


def _fill(old: Piece, new: Piece) -> bool:
    """Whether a stretch is all of one of the heads that lie there already."""
    if not _in_head(old, new) or len(new[1]) != 1 or old[1][0].inner != _size(new[1]):
        return False
    (heads,), (own,) = old[1], new[1]
    return own.inner == 1 and own.inside is None and heads.inside in (None, own.axis) and heads.axis is not own.axis


def _trace(site: Site, value: TracedTensor, d: int, flat: Tensor) -> list[tuple[int, int, Layout]]:
    """Find the output axis along which the neurons of one axis lie, and return its stretches of neurons.

    Heads come first, and then what is inside of them, which may lie along another axis.
    """
    out: list[tuple[int, int, Layout]] = []
    for inside in (False, True):
        parts = resolved(value.dims[d] or ())
        if inside and not any(part.inside for part in parts):
            break
        found = _find(value, d, flat, inside=inside)
        if found is None:
            own = tuple(Segment(s.inside) for s in parts if s.inside is not None) if inside else value.dims[d]
            freeze(own, str(site))
        elif isinstance(found, _Line):
            out += _along(site, value, d, found)
    return out


@dataclass(frozen=True)
class _Line:
    """The output axis along which neurons lie: their numbers, and the rest of the number of each entry."""

    axis: int
    ids: Tensor
    rest: Tensor
    base: int
    inside: bool


def _find(value: TracedTensor, d: int, flat: Tensor, *, inside: bool) -> _Line | bool | None:
    """Find the output axis along which neurons lie; ``None`` if there is no single one, ``False`` if there are none.

    Entry ``flat`` of the value is neuron ``mine``; ``rest`` is all of its number that does not depend on the neuron.
    """
    parts, stride = resolved(value.dims[d] or ()), math.prod(value.shape[d + 1 :])
    there = (flat >= 0) & (flat < math.prod(value.shape))
    owner = torch.cat([torch.full((s.size,), k) for k, s in enumerate(parts)])
    first, step = [], []
    for s in parts:
        own = s.inside if inside else s.axis
        first.append(next((j for j, o in enumerate(parts) if (o.inside if inside else o.axis) is own), 0))
        step.append(stride if inside else s.inner * stride)
    neuron = torch.cat(
        [
            torch.arange(s.inner).repeat(s.axis.size)
            if inside
            else torch.arange(s.axis.size).repeat_interleave(s.inner)
            for s in parts
        ]
    )
    base = 1 + int(neuron.max())
    at = (flat.clamp_min(0) // stride % len(owner)).long()
    if inside:
        there &= torch.tensor([s.inside is not None for s in parts])[owner][at]
    if not bool(there.any()):
        return False
    mine = torch.where(there, (torch.tensor(first)[owner] * base + neuron)[at], -1)
    corner = torch.unravel_index(there.flatten().int().argmax(), flat.shape)
    for e in range(flat.ndim):
        line = mine[tuple(slice(None) if i == e else int(c) for i, c in enumerate(corner))]
        along = line.view([-1 if i == e else 1 for i in range(flat.ndim)])
        if bool((line == line[0]).all()) or not bool(((mine == along) | ~there).all()):
            continue
        rest = torch.where(there, flat - (torch.tensor(step)[owner] * neuron)[at], -1)
        return _Line(e, line, rest.movedim(e, 0).reshape(len(line), -1), base, inside)
    return None


def _along(site: Site, value: TracedTensor, d: int, found: _Line) -> list[tuple[int, int, Layout]]:
    """Return the stretches of neurons on the output axis along which they lie."""
    parts = resolved(value.dims[d] or ())
    stretches = _stretches(found.ids.tolist(), found.base)
    if len(stretches) > _PARTS:
        freeze(value.dims[d], str(site))
        return [(found.axis, 0, fixed(len(found.ids)))]
    if found.inside:
        own = [Segment(s.inside or s.axis, 1, None, s.dual) for s in parts]
    else:
        own = [Segment(s.axis, 1, None, s.dual if s.inside is None else False) for s in parts]
    return [(found.axis, *piece) for piece in _pieces(site, own, stretches, found.rest)]


def _stretches(ids: list[int], base: int) -> list[list[int]]:
    """Cut a line of neurons into stretches ``[start, part, first neuron, neurons, repeats of each]``."""
    out: list[list[int]] = []
    for i, run in groupby(range(len(ids)), key=ids.__getitem__):
        places = list(run)
        start, repeats = places[0], len(places)
        last = out[-1] if out else [0] * 5
        follows = last[4] == repeats and last[1] * base + last[2] + last[3] == i and i % base
        if i >= 0 and follows and last[0] + last[3] * repeats == start:
            last[3] += 1
        elif i >= 0:
            out.append([start, i // base, i % base, 1, repeats])
    return out


def _pieces(site: Site, parts: list[Segment], stretches: list[list[int]], rest: Tensor) -> list[tuple[int, Layout]]:
    """Turn stretches into layouts, where all that does not depend on the neuron is the same for each of them."""
    pieces: list[tuple[int, Layout]] = []
    partial = Counter(part for _, part, _, count, _ in stretches if count < parts[part].axis.size)
    for start, part, first, count, repeats in stretches:
        axis = (parts[part],)
        block = rest[start : start + count * repeats].unflatten(0, (count, repeats))
        if partial[part] > 2 or not bool((block == block[:1]).all()):
            freeze(axis, str(site))
            pieces.append((start, fixed(count * repeats)))
        else:
            own = cut(cut(axis, first, str(site))[1], count, str(site))[0]
            pieces.append((start, tuple(Segment(s.axis, s.inner * repeats, None, s.dual) for s in own)))
    return pieces
