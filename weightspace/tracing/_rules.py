"""The rule of each ATen operator: which axes it ties together, and what it leaves of their symmetry.

A rule gets the operator's place and its own arguments, with values of the network as :class:`TracedTensor`, and
returns the traced output. Constants arrive as tensors. What a rule does not prove it freezes, or it refuses.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from weightspace.tracing._axes import (
    ACTIVE,
    Affine,
    Layout,
    Segment,
    Site,
    TracedTensor,
    bind,
    cut,
    fixed,
    freeze,
    hidden,
    resolved,
    source_of,
    unite,
)
from weightspace.tracing._chain import activate, monomial, read

Rule = Callable[..., Any]
RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Enter a rule under the names of its ATen operators."""

    def enter(function: Rule) -> Rule:
        RULES.update({f"aten.{name}": function for name in names})
        return function

    return enter


def lift(value: Any) -> TracedTensor:
    """Return a constant as a traced value: fixed along the axes on which its entries differ."""
    if isinstance(value, TracedTensor):
        return value
    dims: list[Layout | None] = []
    for dim, size in enumerate(value.shape):
        same = size == 1 or bool((value == value.narrow(dim, 0, 1)).all())
        dims.append(None if same else fixed(size))
    return TracedTensor(tuple(value.shape), tuple(dims))


def tensors(values: Any) -> list[TracedTensor]:
    """Return all tensors among arguments, lifted."""
    if isinstance(values, TracedTensor | Tensor):
        return [lift(values)]
    if isinstance(values, dict):
        values = values.values()
    elif not isinstance(values, list | tuple):
        return []
    return [tensor for value in values for tensor in tensors(value)]


def moved(value: TracedTensor, shape: Any, dims: Sequence[Layout | None], state: Any = ...) -> TracedTensor:
    """Return the same numbers in other places: the state stays, but no product with the value before is a square."""
    state = value.state if state is ... else state
    return TracedTensor(
        tuple(shape), tuple(dims), replace(state, origin=object()) if isinstance(state, Affine) else state
    )


# Elementwise operators.


@rule("alias", "clone", "contiguous", "detach", "lift_fresh", "lift_fresh_copy", "positive", "requires_grad")
def identity(site: Site, value: TracedTensor, *_: Any, **__: Any) -> TracedTensor:
    return value


@rule("to", "_to_copy", "type_as")
def cast(site: Site, value: TracedTensor, *args: Any, **kwargs: Any) -> TracedTensor:
    given = [*args, *kwargs.values()]
    whole = any(isinstance(x, torch.dtype) and not x.is_floating_point for x in given)
    return value.bind() if whole else value


@rule("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout", "native_dropout")
def dropout(site: Site, value: TracedTensor, p: float, train: bool = True) -> TracedTensor:
    if train and p > 0:
        site.refuse(f"dropout with p={p} in training mode; pass training=self.training")
    return value


def pointwise(site: Site, *args: Any, **kwargs: Any) -> TracedTensor:
    """A function of each number by itself, or of those at one place: their axes are one, with permutations alone."""
    given = tensors((args, kwargs))
    return TracedTensor(site.shape, broadcast(site, given, site.shape)).bind()


def broadcast(site: Site, values: Iterable[TracedTensor], shape: Sequence[int]) -> tuple[Layout | None, ...]:
    """Unite the axes that stand at one place, from the last on."""
    dims: list[Layout | None] = [None] * len(shape)
    for value in values:
        skip = len(shape) - len(value.shape)
        for i, (size, layout) in enumerate(zip(value.shape, value.dims, strict=True), start=skip):
            if size == shape[i]:
                dims[i] = unite(dims[i], layout, str(site))
            bind(layout)
    return tuple(dims)


@rule("add", "sub", "mul", "div", "pow", "neg", "square", "multiply", "divide", "true_divide", "subtract")
def arithmetic(site: Site, a: Any, b: Any = None, **kwargs: Any) -> TracedTensor:
    found = None if kwargs else monomial(site.op, a, b)
    if found is not None and found.shape == site.shape:
        return found
    if site.op == "aten.add" and not kwargs and isinstance(a, TracedTensor) and isinstance(b, TracedTensor):
        for value, bias in ((a, b), (b, a)):
            fits = bias.param and bias.order == (0,) and value.shape[-1:] == bias.shape and value.shape == site.shape
            if isinstance(value.state, Affine) and value.state.exact and fits:
                for layout in value.dims[:-1]:
                    bind(layout)
                return add_bias(site, value, bias, len(value.shape) - 1)
    return pointwise(site, a, b)


def add_bias(site: Site, value: TracedTensor, bias: Any, dim: int) -> TracedTensor:
    """Add a vector to one axis of a linear map's output."""
    bias = lift(bias)
    dims = list(value.dims)
    dims[dim] = unite(dims[dim], bias.dims[0], str(site))
    if bias.param is None or bias.order != (0,):
        bind(dims[dim])
        return TracedTensor(value.shape, tuple(dims)).bind()
    bias.param.as_bias += 1
    return moved(value, value.shape, dims) if value.state else TracedTensor(value.shape, tuple(dims)).bind()


@rule("hardswish", "log_sigmoid", "special_expit", "floor_divide")
def elementwise(site: Site, *args: Any, **kwargs: Any) -> TracedTensor:
    """An activation of the table, or any other function of each number."""
    settings = [*args[1:], *kwargs.values()]
    found = activate(site.op, args[0], settings) if isinstance(args[0], TracedTensor) else None
    return found if found is not None else pointwise(site, *args, **kwargs)


@rule("glu")
def glu(site: Site, value: TracedTensor, dim: int = -1) -> TracedTensor:
    a, b = split(replace(site, shape=[site.shape] * 2), value, site.shape[dim], dim)
    return pointwise(site, a, b)


@rule("prelu", "_prelu_kernel")
def prelu(site: Site, value: TracedTensor, weight: Any) -> TracedTensor:
    slope = lift(weight)
    if slope.shape != (1,) and len(slope.shape) == 1 and len(value.shape) > 1:
        unite(value.dims[1], slope.dims[0], str(site))
        bind(slope.dims[0])
        return value.bind()
    return pointwise(site, value, slope)


# Operators that move numbers.


@rule("view", "reshape", "_unsafe_view", "flatten", "unflatten", "squeeze", "unsqueeze", "view_as", "reshape_as")
def reshape(site: Site, value: TracedTensor, *_: Any, **__: Any) -> TracedTensor:
    """Group axes of the old and the new shape that hold the same numbers; axes of channels must stay whole."""
    old, new, dims = value.shape, site.shape, []
    if not math.prod(old):
        return site.freeze(value)
    i = j = 0
    while i < len(old) or j < len(new):
        start, begin = i, j
        i, j = min(i + 1, len(old)), min(j + 1, len(new))
        while (left := math.prod(old[start:i])) != (right := math.prod(new[begin:j])):
            i, j = i + (left < right), j + (right < left)
        dims += regroup(value.dims[start:i], old[start:i], new[begin:j], str(site))
    return moved(value, new, dims)


def regroup(dims: Sequence[Layout | None], old: Sequence[int], new: Sequence[int], reason: str) -> list[Layout | None]:
    """Return the layouts of one group of axes after a reshape."""
    if list(old) == list(new):
        return list(dims)
    if all(layout is None for layout in dims):
        return [None] * len(new)
    source = source_of(dims)
    carrying = [i for i, layout in enumerate(dims) if hidden(layout)]
    wide = [j for j, size in enumerate(new) if size > 1]
    if len(carrying) == 1 and math.prod(old) == old[carrying[0]] and len(wide) <= 1:
        place = wide[0] if wide else 0 if new else None
        if place is not None:
            return [dims[carrying[0]] if j == place else None for j in range(len(new))]
    if len(carrying) != 1:
        for layout in dims:
            freeze(layout, reason)
        return [fixed(size, source) if size > 1 else None for size in new]
    at = carrying[0]
    before, after = math.prod(old[:at]), math.prod(old[at + 1 :])
    runs = resolved(dims[at] or ())
    if len(runs) == 1:
        runs = [Segment(runs[0].axis, before * runs[0].outer, runs[0].inner * after)]
    else:
        runs = [Segment(s.axis, s.outer, s.inner * after) for s in runs] * before
    for j in range(len(new)):
        found = spread(runs, math.prod(new[:j]), math.prod(new[j + 1 :]))
        if found is not None:
            return [found if k == j else fixed(size, source) if size > 1 else None for k, size in enumerate(new)]
    freeze(tuple(runs), reason)
    return [fixed(size, source) if size > 1 else None for size in new]


def spread(runs: list[Segment], before: int, after: int) -> Layout | None:
    """Return the layout of the axis that holds all neurons, between ``before`` and ``after`` other entries."""
    if any(run.inner % after for run in runs):
        return None
    if len(runs) == 1 and runs[0].outer % before == 0:
        return (Segment(runs[0].axis, runs[0].outer // before, runs[0].inner // after),)
    count = len(runs) // before
    if len(runs) == 1 or count * before != len(runs) or runs != runs[:count] * before:
        return None
    return tuple(Segment(s.axis, s.outer, s.inner // after) for s in runs[:count])


@rule("permute", "transpose", "t", "swapaxes", "swapdims", "movedim", "moveaxis", "numpy_T", "mT", "adjoint")
def permute(site: Site, value: TracedTensor, *args: Any, **kwargs: Any) -> TracedTensor:
    op = getattr(torch.ops.aten, site.op.removeprefix("aten."))
    strides = op(torch.empty([2] * len(value.shape)), *args, **kwargs).stride()
    order = [len(value.shape) - stride.bit_length() for stride in strides]
    out = moved(value, site.shape, [value.dims[i] for i in order])
    return replace(out, param=value.param, order=tuple(value.order[i] for i in order) if value.param else ())


@rule("expand", "expand_as", "broadcast_to")
def expand(site: Site, value: TracedTensor, *_: Any, **__: Any) -> TracedTensor:
    skip = len(site.shape) - len(value.shape)
    pairs = zip(value.shape, site.shape[skip:], value.dims, strict=True)
    dims = [layout if old == new else None for old, new, layout in pairs]
    return moved(value, site.shape, [None] * skip + dims)


@rule("repeat", "tile")
def repeat(site: Site, value: TracedTensor, *_: Any) -> TracedTensor:
    skip = len(site.shape) - len(value.shape)
    pairs = zip(value.shape, site.shape[skip:], value.dims, strict=True)
    dims = [None if layout is None else layout * (new // old) for old, new, layout in pairs]
    return moved(value, site.shape, [None] * skip + dims)


@rule("cat", "concat", "concatenate")
def cat(site: Site, values: Sequence[Any], dim: int = 0) -> TracedTensor:
    parts = [lift(value) for value in values if math.prod(value.shape)]
    dim %= len(site.shape)
    dims: list[Layout | None] = [None] * len(site.shape)
    for i in range(len(dims)):
        for part in parts if i != dim else ():
            dims[i] = unite(dims[i], part.dims[i], str(site))
    along = [fixed(part.shape[dim]) if part.dims[dim] is None else part.dims[dim] for part in parts]
    dims[dim] = sum(along, ())  # type: ignore[arg-type]
    states = [part.state for part in parts]
    affine = all(isinstance(state, Affine) and state.exact for state in states)
    state = ACTIVE if set(states) == {ACTIVE} else Affine() if affine else None
    out = TracedTensor(site.shape, tuple(dims), state)
    return out if state else out.bind()


@rule("stack")
def stack(site: Site, values: Sequence[Any], dim: int = 0) -> TracedTensor:
    dim %= len(site.shape)
    place = replace(site, shape=(*site.shape[:dim], 1, *site.shape[dim + 1 :]))
    return cat(site, [moved(v, place.shape, (*v.dims[:dim], None, *v.dims[dim:])) for v in map(lift, values)], dim)


@rule(
    "split", "split_with_sizes", "chunk", "tensor_split", "unsafe_split", "unsafe_chunk", "unbind", "hsplit", "vsplit"
)
def split(site: Site, value: TracedTensor, sizes: Any = 0, dim: int = 0) -> list[TracedTensor]:
    unbinds = site.op == "aten.unbind"
    dim = (sizes if unbinds else dim) % len(value.shape)
    if unbinds:
        freeze(value.dims[dim], str(site))
        return [moved(value, shape, (*value.dims[:dim], *value.dims[dim + 1 :])) for shape in site.shape]
    out, rest = [], value.dims[dim]
    for shape in site.shape:
        head, rest = (None, None) if rest is None else cut(rest, shape[dim], str(site))
        out.append(moved(value, shape, (*value.dims[:dim], head, *value.dims[dim + 1 :])))
    return out


@rule("slice", "narrow")
def slice_(
    site: Site, value: TracedTensor, dim: int = 0, start: Any = 0, end: Any = None, step: int = 1
) -> TracedTensor:
    dim %= len(value.shape)
    size, length, layout = value.shape[dim], site.shape[dim], value.dims[dim]
    start = (start or 0) + (size if (start or 0) < 0 else 0)
    if length != size and layout is not None:
        if step != 1:
            freeze(layout, str(site))
            layout = fixed(length, source_of([layout]))
        else:
            layout = cut(cut(layout, start, str(site))[1], length, str(site))[0]
    return moved(value, site.shape, (*value.dims[:dim], layout, *value.dims[dim + 1 :]))


@rule("select")
def select(site: Site, value: TracedTensor, dim: int, index: Any) -> TracedTensor:
    dim %= len(value.shape)
    freeze(value.dims[dim], str(site))
    return moved(value, site.shape, (*value.dims[:dim], *value.dims[dim + 1 :]))


@rule("flip", "roll")
def reorder(site: Site, value: TracedTensor, *args: Any) -> TracedTensor:
    return in_order(site, value, args[-1] if args[-1] else range(len(value.shape)), keep=True)


@rule("cumsum", "cumprod", "logcumsumexp", "diff", "sort", "argsort", "topk", "cummax", "cummin")
def scan(site: Site, value: TracedTensor, *args: Any, **kwargs: Any) -> Any:
    return (
        site.freeze(value.bind())
        if isinstance(site.shape, list)
        else in_order(site, value, [kwargs.get("dim", args[0] if args else -1)])
    )


def in_order(site: Site, value: TracedTensor, dims: Any, *, keep: bool = False) -> TracedTensor:
    """An operator that reads some axes in their order, and all others alike."""
    for dim in dims if isinstance(dims, list | tuple | range) else [dims]:
        freeze(value.dims[dim], str(site))
    out = [a if m == n else fixed(n) for a, m, n in zip(value.dims, value.shape, site.shape, strict=True)]
    return moved(value, site.shape, out) if keep else TracedTensor(site.shape, tuple(out)).bind()


@rule("tril", "triu")
def triangle(site: Site, value: TracedTensor, diagonal: int = 0) -> TracedTensor:
    return in_order(site, value, [-2, -1])


@rule("embedding")
def embedding(site: Site, weight: TracedTensor, indices: Any, *_: Any, **__: Any) -> TracedTensor:
    freeze(weight.dims[0], str(site))
    if isinstance(indices, TracedTensor):
        unite(weight.dims[0], fixed(weight.shape[0], source_of(indices.dims)), str(site))
    if weight.param is not None:
        weight.param.as_weight = True
    return TracedTensor(site.shape, (*lift(indices).dims, weight.dims[1])).bind()


@rule("index", "index_select")
def index(site: Site, value: Any, indices: Any, chosen: Any = None) -> TracedTensor:
    value = lift(value)
    if isinstance(indices, int):
        indices = [None] * (indices % len(value.shape)) + [chosen]
    at = [i for i, entry in enumerate(indices) if entry is not None]
    if any(isinstance(entry, Tensor) and entry.dtype in (torch.bool, torch.uint8) for entry in indices):
        return site.freeze(value)
    for i in at:
        freeze(value.dims[i], str(site))
    start = at[0] if at == list(range(at[0], at[0] + len(at))) else 0
    rest = [layout for i, layout in enumerate(value.dims) if i not in at]
    count = len(site.shape) - len(rest)
    new: list[Layout | None] = [fixed(n) for n in site.shape[start : start + count]]
    return moved(value, site.shape, (*rest[:start], *new, *rest[start:]))


@rule("slice_scatter", "select_scatter", "copy")
def scatter(site: Site, value: Any, source: Any, dim: int = 0, *_: Any, **__: Any) -> TracedTensor:
    base, new = lift(value), lift(source)
    if site.op == "aten.copy":
        return TracedTensor(site.shape, broadcast(site, [new], site.shape), new.state).bind()
    dim %= len(base.shape)
    for part in (base, new) if len(new.shape) == len(base.shape) else (base,):
        freeze(part.dims[dim], str(site))
    dims = list(base.dims)
    dims[dim] = fixed(base.shape[dim])
    others = new.dims if len(new.shape) == len(base.shape) else (*new.dims[:dim], None, *new.dims[dim:])
    for i, layout in enumerate(others):
        dims[i] = unite(dims[i], layout, str(site)) if i != dim else dims[i]
    return TracedTensor(site.shape, tuple(dims)).bind()


@rule(
    "gather",
    "index_put",
    "masked_select",
    "pixel_shuffle",
    "pixel_unshuffle",
    "channel_shuffle",
    "im2col",
    "col2im",
    "unfold",
)
def opaque(site: Site, *args: Any, **kwargs: Any) -> Any:
    """An operator whose order of entries matters: no symmetry is left."""
    return site.freeze(*tensors((args, kwargs)))


# Reductions.


@rule(
    "mean",
    "sum",
    "amax",
    "amin",
    "var",
    "std",
    "norm",
    "linalg_vector_norm",
    "logsumexp",
    "prod",
    "all",
    "any",
    "var_mean",
    "std_mean",
)
def reduce(site: Site, value: TracedTensor, *args: Any, **kwargs: Any) -> Any:
    """A symmetric function over some axes; over positions, means keep signs and factors, and maxima factors."""
    several = isinstance(site.shape, list)
    shape = site.shape[0] if several else site.shape
    dims = _reduced(value.shape, shape, [*args, *kwargs.values()])
    over = [axis for dim in dims for axis in hidden(value.dims[dim])]
    kept = len(shape) == len(value.shape)
    out = [None if i in dims else layout for i, layout in enumerate(value.dims) if kept or i not in dims]
    op = site.op.removeprefix("aten.")
    if over or several or op not in ("mean", "sum", "amax", "amin"):
        value.bind()
        result = TracedTensor(shape, tuple(out))
        return [result] * len(site.shape) if several else result
    return pooled(value, shape, out, maximum=op in ("amax", "amin"))


def _reduced(old: Sequence[int], new: Sequence[int], args: list[Any]) -> set[int]:
    """Return the axes that a reduction goes over, told from its arguments."""
    lists = [x for x in args if isinstance(x, list | tuple)] + [[x] for x in args[:1] if type(x) is int and len(new)]
    if lists and lists[0]:
        return {dim % len(old) for dim in lists[0]}
    return set(range(len(old)))


@rule("max", "min", "argmax", "argmin", "median", "mode", "kthvalue")
def extreme(site: Site, value: TracedTensor, *args: Any, **kwargs: Any) -> Any:
    """Over one axis, with indices: these tell the order of what they point into."""
    if args and isinstance(args[0], TracedTensor | Tensor):
        return pointwise(site, value, *args)
    return site.freeze(value)


@rule("softmax", "log_softmax", "_softmax", "_log_softmax")
def softmax(site: Site, value: TracedTensor, *_: Any, **__: Any) -> TracedTensor:
    return TracedTensor(site.shape, value.dims).bind()


def pooled(value: TracedTensor, shape: Any, dims: Sequence[Layout | None], *, maximum: bool) -> TracedTensor:
    """Note what a mean or maximum over positions takes away; a mean of what leaves an activation takes nothing."""
    for axis in value.axes:
        axis.maxed |= maximum
        axis.padded |= isinstance(value.state, Affine)
    return moved(value, shape, dims)


# Operators over positions.


def positions(site: Site, value: TracedTensor, count: int, *, maximum: bool = False) -> TracedTensor:
    """Pooling, padding or resampling over the last ``count`` axes, each channel by itself."""
    first = len(value.shape) - count
    for layout in value.dims[first:]:
        freeze(layout, str(site))
    dims = (*value.dims[:first], *(fixed(n) for n in site.shape[first:]))
    return pooled(value, site.shape, dims, maximum=maximum)


def _pool(site: Site, value: TracedTensor, *_: Any, **__: Any) -> Any:
    count = int(site.op[site.op.index("pool") + 4])
    if isinstance(site.shape, list):
        site = replace(site, shape=site.shape[0])
        return [positions(site, value, count, maximum=True), None]
    return positions(site, value, count, maximum="max" in site.op)


for _kind in ("max_pool{}d", "max_pool{}d_with_indices", "avg_pool{}d", "adaptive_avg_pool{}d", "adaptive_max_pool{}d"):
    rule(*(name.format(d) for d in (1, 2, 3) for name in (_kind, f"_{_kind}")))(_pool)


@rule(
    "upsample_nearest1d",
    "upsample_nearest2d",
    "upsample_nearest3d",
    "upsample_linear1d",
    "upsample_bilinear2d",
    "upsample_trilinear3d",
    "upsample_bicubic2d",
    "_upsample_bilinear2d_aa",
    "_upsample_bicubic2d_aa",
    "_upsample_nearest_exact1d",
    "_upsample_nearest_exact2d",
    "_upsample_nearest_exact3d",
    "reflection_pad1d",
    "reflection_pad2d",
    "reflection_pad3d",
    "replication_pad1d",
    "replication_pad2d",
    "replication_pad3d",
)
def resample(site: Site, value: TracedTensor, *_: Any, **__: Any) -> TracedTensor:
    return positions(site, value, next(int(c) for c in site.op if c.isdigit()))


@rule("pad", "constant_pad_nd")
def pad(site: Site, value: TracedTensor, sizes: Sequence[int], *settings: Any, **named: Any) -> TracedTensor:
    """Padding of positions; zeros beside channels are features that nothing permutes."""
    given = [*settings, *named.values()]
    constant = next((float(x) for x in given if isinstance(x, int | float)), 0.0)
    dims, plain = list(value.dims), not any(x in ("reflect", "replicate", "circular") for x in given)
    for i in range(len(sizes) // 2):
        dim = len(dims) - 1 - i
        before, after = sizes[2 * i], sizes[2 * i + 1]
        if not (before or after) or (dims[dim] is None and not plain):
            continue
        if hidden(dims[dim]) and plain and min(before, after) >= 0 and not constant:
            dims[dim] = (*(fixed(before) if before else ()), *(dims[dim] or ()), *(fixed(after) if after else ()))
            value = value.bind()
        else:
            freeze(dims[dim], str(site))
            dims[dim] = fixed(site.shape[dim])
    out = pooled(value, site.shape, dims, maximum=False)
    return out.bind() if constant else out


# Linear maps and convolutions.


def contract(site: Site, equation: str, *given: Any) -> TracedTensor:
    """A sum over products, in the letters of ``einsum``: one letter is one axis.

    With a matrix of the module as one operand, ``out`` first and ``in`` second, it is a linear map; any other product
    leaves permutations alone.
    """
    names, out = equation.split("->")
    values = [lift(value) for value in given]
    places = list(zip(values, names.split(","), strict=True))
    layouts: dict[str, Layout | None] = {}
    sizes: dict[str, int] = {}
    for value, letters in places:
        for letter, layout, size in zip(letters, value.dims, value.shape, strict=True):
            if size != 1 or sizes.get(letter, 1) == 1:
                layouts[letter] = unite(layouts.get(letter), layout, str(site))
                sizes[letter] = size
    dims = [layouts[letter] for letter in out]
    for value, letters in places:
        others = "".join(other for _, other in places if other is not letters)
        summed, made = (
            [x for x in letters if (x in others) != (x in out) and (x in out) == end] for end in (False, True)
        )
        if value.param is None or len(values) != 2 or len(letters) != 2 or not len(summed) == len(made) == 1:
            continue
        value.param.as_weight = True
        other, there = places[1 - places.index((value, letters))]
        if other.param is None:
            read(other, there.index(summed[0]))
            if value.order[letters.index(summed[0])] == 0:
                value.bind()
            return TracedTensor(site.shape, tuple(dims), Affine())
    for value in values:
        value.bind()
    return TracedTensor(site.shape, tuple(dims))


@rule("linear")
def linear(site: Site, x: Any, weight: Any, bias: Any = None) -> TracedTensor:
    batch = _letters(len(x.shape) - 1)
    out = contract(site, f"{batch}i,oi->{batch}o", x, weight)
    return out if bias is None else add_bias(site, out, bias, len(out.shape) - 1)


def _letters(count: int) -> str:
    return "ABCDEFGHJKLMN"[:count]


@rule("matmul", "mm", "bmm", "mv", "dot", "vdot")
def matmul(site: Site, a: Any, b: Any) -> TracedTensor:
    a, b = lift(a), lift(b)
    left, right = len(a.shape), len(b.shape)
    batch = _letters(max(left, right, 2) - 2)
    first = "k" if left == 1 else batch[len(batch) - left + 2 :] + "ik"
    second = "k" if right == 1 else batch[len(batch) - right + 2 :] + "kj"
    out = batch + ("i" if left > 1 else "") + ("j" if right > 1 else "")
    return contract(site, f"{first},{second}->{out}", a, b)


@rule("addmm", "baddbmm", "addmv")
def addmm(site: Site, bias: Any, a: Any, b: Any, *, beta: float = 1, alpha: float = 1) -> TracedTensor:
    out = matmul(site, a, b)
    if beta == alpha == 1 and len(lift(bias).shape) == 1:
        return add_bias(site, out, bias, len(out.shape) - 1)
    return pointwise(site, out, bias)


@rule("einsum")
def einsum(site: Site, equation: str, operands: Sequence[Any], **_: Any) -> TracedTensor:
    equation = equation.replace(" ", "")
    if "..." in equation or "->" not in equation:
        names, _, out = equation.partition("->")
        longest = 0
        parts = names.split(",")
        for k, (name, value) in enumerate(zip(parts, operands, strict=True)):
            count = len(value.shape) - len(name.replace("...", ""))
            longest = max(longest, count)
            parts[k] = name.replace("...", "0123456789"[10 - count :] if count else "")
        if "->" not in equation:
            out = "..." + "".join(sorted(c for c in set(names) - set(".,") if names.count(c) == 1))
        equation = ",".join(parts) + "->" + out.replace("...", "0123456789"[10 - longest :] if longest else "")
    if any(len(set(name)) < len(name) for name in equation.split("->")[0].split(",")):
        return site.freeze(*tensors(operands))
    return contract(site, equation, *operands)


@rule("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "convolution")
def conv(site: Site, x: Any, weight: Any, bias: Any = None, *args: Any, **kwargs: Any) -> TracedTensor:
    x, w = lift(x), lift(weight)
    transposed = "transpose" in site.op or (site.op == "aten.convolution" and args[3])
    groups = kwargs.get("groups", args[-1] if (args and type(args[-1]) is int) else 1)
    if "transpose" in site.op:
        groups = kwargs.get("groups", args[3] if len(args) > 3 else 1)
    at = len(x.shape) - len(w.shape) + 1
    for layout in (*x.dims[at + 1 :], *w.dims[2:]):
        freeze(layout, str(site))
    tail = tuple(fixed(n) for n in site.shape[at + 1 :])
    if w.param is not None:
        w.param.as_weight = True
    into, made = (0, 1) if transposed else (1, 0)
    if groups == 1:
        unite(x.dims[at], w.dims[into], str(site))
        read(x, at)
        raw = w.param is not None and w.order == tuple(range(len(w.shape))) and not transposed
        if not raw:
            x.bind()
            w.bind()
        channels, state = w.dims[made], Affine()
    elif groups == x.shape[at] and w.shape[1] == 1:
        inner = w.shape[0] // groups
        layout = tuple(Segment(s.axis, s.outer, s.inner * inner) for s in resolved(x.dims[at] or ()))
        channels, state = unite(layout or None, w.dims[0], str(site)), None
        x.bind()
        w.bind()
    else:
        for layout in (x.dims[at], *w.dims[:2]):
            freeze(layout, str(site))
        x.bind()
        channels, state = fixed(site.shape[at]), Affine()
    out = TracedTensor(site.shape, (*x.dims[:at], channels, *tail), state)
    out = out if state else out.bind()
    return out if bias is None else add_bias(site, out, bias, at)


def _scaled(site: Site, value: TracedTensor, vector: Any, dim: int) -> TracedTensor:
    """Tie a vector to one axis, with permutations alone."""
    if vector is None:
        return value
    vector = lift(vector)
    unite(value.dims[dim], vector.dims[0], str(site))
    vector.bind()
    return value.bind()


# Norms.


@rule("batch_norm", "instance_norm")
def batch_norm(site: Site, x: TracedTensor, *args: Any, **_: Any) -> TracedTensor:
    for vector in args[:4]:
        x = _scaled(site, x, vector, 1)
    return x.bind()


@rule("group_norm")
def group_norm(site: Site, x: TracedTensor, groups: int, weight: Any = None, bias: Any = None, *_: Any) -> TracedTensor:
    """One group, or one for each channel, treats channels alike; others tie them to their places."""
    if groups not in (1, x.shape[1]):
        freeze(x.dims[1], str(site))
    return batch_norm(site, x, weight, bias)


@rule("layer_norm", "rms_norm")
def layer_norm(site: Site, x: TracedTensor, sizes: Sequence[int], *args: Any, **_: Any) -> TracedTensor:
    for tensor in tensors(args):
        broadcast(site, [x, tensor], x.shape)
    return x.bind()


@rule("_weight_norm")
def weight_norm(site: Site, v: TracedTensor, g: TracedTensor, dim: int = 0) -> TracedTensor:
    return pointwise(site, v, g)


EXACT: set[Rule] = {identity, cast, dropout, arithmetic, elementwise, linear, matmul, addmm, permute}
"""The rules of operators that a chain may have: what they return, if it has a state, the chain accounts for."""
