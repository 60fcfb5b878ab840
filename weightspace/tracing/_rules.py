"""The rule of each ATen operator: which axes it ties together, and what it leaves of their symmetry.

A rule gets the operator's place and its own arguments, with values of the network as :class:`TracedTensor`, and
returns the traced output. Constants arrive as tensors. What a rule does not prove it freezes, or it refuses. Here are
elementwise operators, norms, reductions and pooling; the files beside this one have the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from weightspace.tracing._axes import Affine, Layout, Site, TracedTensor, bind, fixed, freeze, hidden, source_of, unite
from weightspace.tracing._chain import activate, monomial

Rule = Callable[..., Any]
RULES: dict[str, Rule] = {}
EXACT: set[Rule] = set()
"""The rules of operators that a chain may have: if their output has a state, it says all that they do."""


def rule(names: str, *, exact: bool = False) -> Callable[[Rule], Rule]:
    """Enter a rule under the names of its ATen operators, set apart by spaces."""

    def enter(function: Rule) -> Rule:
        RULES.update({f"aten.{name}": function for name in names.split()})
        EXACT.update({function} if exact else ())
        return function

    return enter


def lift(value: Any) -> TracedTensor:
    """Return a constant as a traced value: fixed along the axes on which its entries differ."""
    if isinstance(value, TracedTensor):
        return value
    same = [size == 1 or bool((value == value.narrow(dim, 0, 1)).all()) for dim, size in enumerate(value.shape)]
    dims = [None if equal else fixed(size) for equal, size in zip(same, value.shape, strict=True)]
    return TracedTensor(tuple(value.shape), tuple(dims))


def tensors(values: Any) -> list[TracedTensor]:
    """Return all tensors among arguments, lifted."""
    if isinstance(values, TracedTensor | Tensor):
        return [lift(values)]
    values = values.values() if isinstance(values, dict) else values
    return [t for value in values for t in tensors(value)] if not isinstance(values, _ATOMS) else []


_ATOMS = (str, int, float, complex, type(None), torch.dtype, torch.device, torch.layout, torch.memory_format)


def broadcast(
    site: Site, values: Iterable[TracedTensor], shape: Sequence[int], *, alone: bool = True
) -> tuple[Layout | None, ...]:
    """Unite the axes that stand at one place, from the last on, with permutations alone unless said otherwise."""
    dims: list[Layout | None] = [None] * len(shape)
    for value in values:
        for i, (size, layout) in enumerate(zip(value.shape, value.dims, strict=True), len(shape) - len(value.shape)):
            bind(layout if alone else None)
            dims[i] = unite(dims[i], layout, str(site)) if size == shape[i] else dims[i]
    return tuple(dims)


# Elementwise operators.


@rule("alias clone contiguous detach lift_fresh lift_fresh_copy positive requires_grad", exact=True)
def identity(site: Site, value: TracedTensor, *_: Any, **__: Any) -> TracedTensor:
    return value


@rule("to _to_copy type_as", exact=True)
def cast(site: Site, value: TracedTensor, *args: Any, **kwargs: Any) -> TracedTensor:
    whole = any(isinstance(x, torch.dtype) and not x.is_floating_point for x in [*args, *kwargs.values()])
    return value.bind() if whole else value


@rule("dropout feature_dropout alpha_dropout feature_alpha_dropout native_dropout", exact=True)
def dropout(site: Site, value: TracedTensor, p: float, train: bool = True) -> TracedTensor:
    if train and p > 0:
        site.refuse(f"dropout with p={p} in training mode; pass training=self.training")
    return value


def pointwise(site: Site, *args: Any, **kwargs: Any) -> TracedTensor:
    """A function of the numbers at one place: their axes are one, with permutations alone."""
    return TracedTensor(site.shape, broadcast(site, tensors((args, kwargs)), site.shape)).bind()


@rule("hardswish log_sigmoid special_expit floor_divide", exact=True)
def elementwise(site: Site, *args: Any, **kwargs: Any) -> TracedTensor:
    """An activation of the table, or any other function of the numbers at one place."""
    first = args[0]
    found = activate(site.op, first, [*args[1:], *kwargs.values()]) if isinstance(first, TracedTensor) else None
    return found or pointwise(site, *args, **kwargs)


@rule("add sub mul div pow neg square multiply divide true_divide subtract", exact=True)
def arithmetic(site: Site, a: Any, b: Any = None, **kwargs: Any) -> TracedTensor:
    found = None if kwargs else monomial(site.op, a, b)
    if found is not None and found.shape == site.shape:
        return found
    for value, bias in ((a, b), (b, a)) if site.op == "aten.add" and not kwargs else ():
        exact = _is_bias(bias) and isinstance(getattr(value, "state", None), Affine) and value.state.exact
        if exact and (*value.shape[:-1], *bias.shape) == site.shape:
            for layout in value.dims[:-1]:
                bind(layout)
            return add_bias(site, value, bias, len(value.shape) - 1)
    return pointwise(site, a, b)


def add_bias(site: Site, value: TracedTensor, bias: Any, dim: int) -> TracedTensor:
    """Add a vector to one axis: a bias, if it is a parameter and the value comes from a linear map."""
    if bias is None:
        return value
    out = along(site, value, bias, dim)
    if not _is_bias(bias):
        return out.bind()
    bias.param.as_bias += 1
    return out if out.state else out.bind()


def _is_bias(value: Any) -> bool:
    return isinstance(value, TracedTensor) and value.param is not None and value.order == (0,)


def along(site: Site, value: TracedTensor, vector: Any, dim: int) -> TracedTensor:
    """Tie a vector to one axis of a value."""
    layout = unite(value.dims[dim], lift(vector).dims[0], str(site))
    return value.moved(value.shape, (*value.dims[:dim], layout, *value.dims[dim + 1 :]))


@rule("prelu _prelu_kernel")
def prelu(site: Site, value: TracedTensor, weight: Any) -> TracedTensor:
    wide = len(weight.shape) == 1 < len(value.shape) and weight.shape[0] > 1
    return along(site, value, weight, 1).bind() if wide else pointwise(site, value, weight)


@rule("_weight_norm")
def weight_norm(site: Site, v: TracedTensor, g: TracedTensor, dim: int = 0) -> TracedTensor:
    return pointwise(site, v, g)


# Norms.


@rule("batch_norm instance_norm _native_batch_norm_legit_no_training")
def batch_norm(site: Site, x: TracedTensor, *args: Any, **_: Any) -> TracedTensor:
    for vector in args[:4]:
        x = x if vector is None else along(site, x, vector, 1)
    return x.bind()


@rule("group_norm")
def group_norm(site: Site, x: TracedTensor, groups: int, weight: Any = None, bias: Any = None, *_: Any) -> TracedTensor:
    """One group, or one for each channel, treats channels alike; others tie them to their places."""
    if groups not in (1, x.shape[1]):
        freeze(x.dims[1], str(site))
    return batch_norm(site, x, weight, bias)


@rule("layer_norm rms_norm")
def layer_norm(site: Site, x: TracedTensor, sizes: Sequence[int], *args: Any, **_: Any) -> TracedTensor:
    return pointwise(replace(site, shape=x.shape), x, *args)


@rule("softmax log_softmax _softmax _log_softmax")
def softmax(site: Site, value: TracedTensor, *_: Any, **__: Any) -> TracedTensor:
    return value.bind()


# Reductions.


@rule("mean sum amax amin var std norm linalg_norm linalg_vector_norm logsumexp prod all any var_mean std_mean")
def reduce(site: Site, value: TracedTensor, *args: Any, **kwargs: Any) -> Any:
    """A symmetric function over some axes; over positions, means keep signs and factors, and maxima factors."""
    shape = site.shape[0] if isinstance(site.shape, list) else site.shape
    dims, kept = _reduced(value, shape, [*args, *kwargs.values()]), len(shape) == len(value.shape)
    left = [None if i in dims else layout for i, layout in enumerate(value.dims) if kept or i not in dims]
    if site.op in ("aten.mean", "aten.sum", "aten.amax", "aten.amin") and not any(hidden(value.dims[d]) for d in dims):
        return pooled(value, shape, left, maximum=site.op.startswith("aten.am"))
    value.bind()
    out = TracedTensor(shape, tuple(left))
    return [out, out] if isinstance(site.shape, list) else out


def _reduced(value: TracedTensor, shape: Sequence[int], args: list[Any]) -> set[int]:
    """Return the axes that a reduction goes over: a list among its arguments, or a number where axes are left."""
    lists = [x for x in args if isinstance(x, list | tuple)] + [[x] for x in args[:1] if type(x) is int and shape]
    dims: Iterable[int] = lists[0] if lists and lists[0] else range(len(value.shape))
    return {dim % len(value.shape) for dim in dims}


@rule("max min argmax argmin median mode kthvalue")
def extreme(site: Site, value: TracedTensor, *args: Any, **kwargs: Any) -> Any:
    """Over one axis, with indices, which depend on the order of that axis."""
    if args and isinstance(args[0], TracedTensor | Tensor):
        return pointwise(site, value, *args)
    several, named = isinstance(site.shape, list), kwargs.get("dim", args[0] if args else None)
    if named is None:
        return site.freeze(value) if "arg" in site.op else TracedTensor(site.shape, value.bind().dims[:0])
    shape, dim = site.shape[0] if several else site.shape, int(named) % len(value.shape)
    freeze(value.dims[dim], str(site))
    middle = (None,) if len(shape) == len(value.shape) else ()
    out = TracedTensor(shape, (*value.dims[:dim], *middle, *value.dims[dim + 1 :]))
    value.bind()
    return [out, out] if several else out


# Operators over positions, each channel by itself.


def pooled(value: TracedTensor, shape: Any, dims: Sequence[Layout | None], *, maximum: bool) -> TracedTensor:
    """Note what a mean or maximum over positions takes away; a mean of what leaves an activation takes nothing."""
    for axis in value.axes:
        axis.maxed |= maximum
        axis.padded |= isinstance(value.state, Affine)
    return value.moved(shape, dims)


def positions(site: Site, value: TracedTensor, *_: Any, **__: Any) -> Any:
    """Pooling, padding or resampling over the last axes, as many as the operator's name says."""
    several, count = isinstance(site.shape, list), next(int(c) for c in site.op if c.isdigit())
    shape, first = site.shape[0] if several else site.shape, len(value.shape) - count
    for layout in value.dims[first:]:
        freeze(layout, str(site))
    dims = (*value.dims[:first], *(fixed(n) for n in shape[first:]))
    out = pooled(value, shape, dims, maximum="max" in site.op)
    return [out, None] if several else out


_POSITIONS = """
max_pool{}d max_pool{}d_with_indices avg_pool{}d adaptive_avg_pool{}d _adaptive_avg_pool{}d adaptive_max_pool{}d
upsample_linear{}d upsample_bilinear{}d upsample_trilinear{}d upsample_bicubic{}d _upsample_nearest_exact{}d
_upsample_bilinear{}d_aa _upsample_bicubic{}d_aa
"""
for _count in "123":
    rule(_POSITIONS.replace("{}", _count))(positions)


@rule("embedding")
def embedding(site: Site, weight: TracedTensor, indices: Any, *_: Any, **__: Any) -> TracedTensor:
    """A table of vectors: nothing permutes its rows, and a network reads rows in place of an input."""
    freeze(weight.dims[0], str(site))
    if isinstance(indices, TracedTensor):
        unite(weight.dims[0], fixed(weight.shape[0], source_of(indices.dims)), str(site))
    weight.mark(site, weight.dims[1])
    return TracedTensor(site.shape, (*lift(indices).dims, weight.dims[1])).bind()


@rule("cumsum cumprod logcumsumexp sort topk cummax cummin")
def scan(site: Site, value: TracedTensor, *args: Any, **kwargs: Any) -> Any:
    """An operator that reads one axis in its order, and all others alike."""
    if isinstance(site.shape, list):
        return site.freeze(value)
    dims, dim = list(value.dims), kwargs.get("dim", args[0] if args else -1)
    freeze(dims[dim], str(site))
    dims[dim] = fixed(site.shape[dim])
    return TracedTensor(site.shape, tuple(dims)).bind()
