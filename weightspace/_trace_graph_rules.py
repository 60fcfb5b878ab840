"""The effect of each operator on the lanes of a network under trace: the rules behind ``spec_of`` beyond chains.

A rule gets the ledger, the shape that the operator's output had on the example, a label for messages, and the
operator's own arguments. An operator without a rule for what it is given is refused by name.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from weightspace._activation import ACTIVATIONS, LEAKY_SLOPE
from weightspace._trace_lanes import Ledger, Segment, Signal, signal_of
from weightspace._trace_norms import NORMS, norm
from weightspace._trace_rules import _SPELLINGS, Parameter, _number, refuse

Shape = tuple[int, ...]
Rule = Callable[..., Signal]


def _linear(ledger: Ledger, shape: Shape, label: str, input: Any, weight: Any, bias: Any = None) -> Signal:
    value = signal_of(input, label)
    (lane, *others) = value.lanes()
    if not value.last and lane.fixed == "in" and not others and len(value.segments) == 1:  # points, not a picture
        if any(lane in entry.axes for entry in ledger.entries):
            refuse(f"{label} on the last axis of an input whose second axis is read as channels")
        lane.size = value.shape[-1]
        value = replace(value, dim=len(value.shape) - 1)
    if not value.last:
        refuse(f"{label} along another axis than the one of channels; flatten first")
    return ledger.affine(value, weight, bias, shape, len(shape) - 1, label)


def _conv(
    ledger: Ledger, shape: Shape, label: str, dims: int, input: Any, weight: Any, bias: Any, groups: int
) -> Signal:
    value = signal_of(input, label)
    _spatial(value, dims, label)
    ledger.beyond_chain = True
    if groups == 1:
        if any(segment.pos > 1 for segment in value.segments):
            refuse(f"{label} over folded positions")
        return ledger.affine(value, weight, bias, shape, 1, label)
    if groups == value.shape[1] == shape[1]:
        return ledger.depthwise(value, weight, bias, shape, label)
    refuse(f"{label} with groups={groups}: a permutation must keep the groups, and specs cannot say so")


def _spatial(value: Signal, dims: int, label: str) -> None:
    if value.dim != 1 or len(value.shape) != dims + 2:
        refuse(f"{label}: expected [batch, channel] and {dims} axes of positions, got {list(value.shape)}")


def _max_pool(dims: int) -> Rule:
    def rule(ledger: Ledger, shape: Shape, label: str, input: Any, *_: Any, **__: Any) -> Signal:
        return _pooled(ledger, shape, label, dims, input, maximum=True)

    return rule


def _mean_pool(dims: int) -> Rule:
    def rule(ledger: Ledger, shape: Shape, label: str, input: Any, *_: Any, **__: Any) -> Signal:
        return _pooled(ledger, shape, label, dims, input, maximum=False)

    return rule


def _pooled(ledger: Ledger, shape: Shape, label: str, dims: int, input: Any, *, maximum: bool) -> Signal:
    """Over positions, each channel by itself: maxima keep positive factors, means any factor."""
    value = signal_of(input, label)
    _spatial(value, dims, label)
    for lane in value.lanes():
        lane.maxed |= maximum
        lane.padded |= value.state == "affine"
    ledger.beyond_chain = True
    return replace(value, shape=shape)


def _positions(ledger: Ledger, shape: Shape, label: str, input: Any, *_: Any, **__: Any) -> Signal:
    """Padding or resampling of positions, a linear map of each channel by itself."""
    value = signal_of(input, label)
    if value.dim != 1 or len(value.shape) < 3 or shape[:2] != value.shape[:2]:
        refuse(f"{label} from {list(value.shape)} to {list(shape)}: only positions may be padded or resampled")
    return _pooled(ledger, shape, label, len(shape) - 2, value, maximum=False)


def _pad(
    ledger: Ledger, shape: Shape, label: str, input: Any, pad: Any, mode: str = "constant", value: Any = 0
) -> Signal:
    moved = _positions(ledger, shape, label, input)
    touching = len(pad) > 2 * (len(shape) - 2)
    if touching and any(pad[2 * (len(shape) - 2) :]):
        refuse(f"{label} of the channels or the batch")
    return moved if mode != "constant" or not value else moved.bind()


def _reduce(ledger: Ledger, shape: Shape, label: str, input: Any, dim: Any = None, keepdim: bool = False) -> Signal:
    """A mean or sum over positions."""
    value = signal_of(input, label)
    if dim is None:
        refuse(f"{label} over all axes")
    ndim = len(value.shape)
    dims = {d % ndim for d in (dim if isinstance(dim, tuple | list) else (dim,))}
    if value.dim in dims or 0 in dims:
        refuse(f"{label} over the batch or the channels")
    for lane in value.lanes():
        lane.padded |= value.state == "affine"
    ledger.beyond_chain = True
    left = value.dim if keepdim else value.dim - sum(d < value.dim for d in dims)
    return replace(value, shape=shape, dim=left)


def _reshape(ledger: Ledger, shape: Shape, label: str, input: Any, *sizes: Any, **_: Any) -> Signal:
    """Any change of shape that keeps the channels whole, or folds each with all of its positions."""
    value = signal_of(input, label)
    old = value.shape
    if any(isinstance(size, torch.dtype) for size in sizes):
        refuse(f"{label} to another dtype")
    ledger.beyond_chain |= shape != old
    if value.dim == 1 and len(shape) > 1 and shape[0] == old[0]:
        if shape[1] == old[1]:
            return replace(value, shape=shape)
        folded = int(torch.Size(old[2:]).numel())
        if len(shape) == 2 and shape[1] == old[1] * folded:
            segments = tuple(Segment(segment.lane, segment.pos * folded) for segment in value.segments)
            return replace(value, shape=shape, segments=segments)
    if value.last and shape and shape[-1] == old[-1]:
        return replace(value, shape=shape, dim=len(shape) - 1)
    refuse(f"{label} from {list(old)} to {list(shape)}: channels (axis {value.dim}) must stay whole")


def _permute(ledger: Ledger, shape: Shape, label: str, input: Any, *dims: Any, **named: Any) -> Signal:
    value = signal_of(input, label)
    order = named.get("dims", dims[0] if len(dims) == 1 else dims)
    ledger.beyond_chain = True
    return replace(value, shape=shape, dim=[d % len(shape) for d in order].index(value.dim))


def _transpose(ledger: Ledger, shape: Shape, label: str, input: Any, dim0: int, dim1: int) -> Signal:
    order = list(range(len(shape)))
    order[dim0], order[dim1] = order[dim1], order[dim0]
    return _permute(ledger, shape, label, input, order)


def _cat(ledger: Ledger, shape: Shape, label: str, tensors: Any, dim: int = 0) -> Signal:
    ledger.beyond_chain = True
    values = [signal_of(value, label) for value in tensors]
    if any(value.dim != dim % len(shape) for value in values):
        refuse(f"{label} along axis {dim}, which is not the one of the channels")
    state = values[0].state
    if any(value.state != state for value in values):
        values, state = [value.bind() for value in values], "mixed"
    return Signal(shape, values[0].dim, tuple(s for value in values for s in value.segments), state)


def _sum(ledger: Ledger, shape: Shape, label: str, input: Any, other: Any, alpha: Any = 1) -> Signal:
    """Two values with the same channels: one permutation must act on both. Constants commute with permutations."""
    if _number(input) or _number(other):
        return _factor(ledger, shape, label, input, other)
    a, b = signal_of(input, label), signal_of(other, label)
    ledger.beyond_chain = True
    sizes = [[(segment.lane.size, segment.pos) for segment in value.segments] for value in (a, b)]
    if len(a.shape) != len(b.shape) or a.dim != b.dim or sizes[0] != sizes[1]:
        refuse(f"{label} of values whose channels differ: {list(a.shape)} and {list(b.shape)}")
    for mine, theirs in zip(a.segments, b.segments, strict=True):
        mine.lane.unite(theirs.lane)
    return replace(a, shape=shape, state="mixed")


def _factor(ledger: Ledger, shape: Shape, label: str, input: Any, other: Any) -> Signal:
    """A Python number times, or added to, a value."""
    if isinstance(input, Signal) and isinstance(other, Signal):
        refuse(f"{label} of two values: products have other symmetries")
    if not (_number(input) or _number(other)):
        refuse(f"{label} with something other than a Python number")
    return signal_of(other if _number(input) else input, label).bind()


def _active(name: str) -> Rule:
    """An activation of the table: its whole group where it acts on what comes straight from one affine map."""

    def rule(ledger: Ledger, shape: Shape, label: str, input: Any, *settings: Any, **named: Any) -> Signal:
        value = signal_of(input, label)
        given = [*settings, *named.values()]
        if (name == "leaky_relu" and given not in ([], [LEAKY_SLOPE])) or (
            name == "gelu" and given not in ([], ["none"])
        ):
            return value.bind()
        for lane in value.lanes():
            lane.activations.append(name)
            if value.state != "affine":
                lane.bind()
        return replace(value, state="active" if value.state == "affine" else "mixed")

    return rule


def _elementwise(ledger: Ledger, shape: Shape, label: str, input: Any, *settings: Any, **named: Any) -> Signal:
    """A function of each number by itself, or of all channels alike: permutations commute with it."""
    if not all(_number(s) or isinstance(s, str | None | bool) for s in [*settings, *named.values()]):
        refuse(f"{label} with something other than Python numbers")
    return signal_of(input, label).bind()


def _softmax(ledger: Ledger, shape: Shape, label: str, input: Any, dim: Any = None, **_: Any) -> Signal:
    return _elementwise(ledger, shape, label, input, dim)


def _dropout(ledger: Ledger, shape: Shape, label: str, input: Any, p: float = 0.5, training: bool = True) -> Signal:
    if training and p > 0:
        refuse(f"{label} with p={p} in training mode; pass training=self.training")
    return signal_of(input, label)


def _identity(ledger: Ledger, shape: Shape, label: str, input: Any) -> Signal:
    return signal_of(input, label)


def _times(maximum: Callable[[int], Rule], names: str, dims: int) -> dict[Any, Rule]:
    functional = {"MaxPool": "max_pool", "AvgPool": "avg_pool"}
    found: dict[Any, Rule] = {}
    for name in (names, f"Adaptive{names}"):
        found[getattr(nn, f"{name}{dims}d")] = maximum(dims)
        prefix = "adaptive_" if name.startswith("Adaptive") else ""
        for home in (F, torch):
            if (function := getattr(home, f"{prefix}{functional[names]}{dims}d", None)) is not None:
                found[function] = maximum(dims)
    return found


_ELEMENTWISE = (
    *(torch.clamp, torch.abs, torch.exp, torch.square, F.relu6, F.elu, F.selu, F.celu, F.softplus, F.hardtanh, F.mish),
    *(F.hardswish, F.hardsigmoid, F.softsign, F.logsigmoid, torch.sin, torch.cos, operator.neg, torch.neg),
    *("clamp", "abs", "exp", "square", "sin", "cos", "neg", operator.pow, torch.pow, "pow"),
    *(nn.ReLU6, nn.ELU, nn.SELU, nn.CELU, nn.Softplus, nn.Hardtanh, nn.Hardswish, nn.Hardsigmoid, nn.Mish),
    *(nn.Softsign, nn.LogSigmoid),
)
_SHAPES = (torch.flatten, torch.reshape, torch.squeeze, torch.unsqueeze, nn.Flatten, nn.Unflatten)
_SHAPES_METHODS = ("flatten", "reshape", "view", "squeeze", "unsqueeze", "unflatten")
_SAME = (*_SPELLINGS["identity"], *(nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout))
RULES: dict[Any, Rule] = {
    **dict.fromkeys(_ELEMENTWISE, _elementwise),
    **dict.fromkeys((F.softmax, F.log_softmax, torch.softmax, torch.log_softmax), _softmax),
    **dict.fromkeys(("softmax", "log_softmax", nn.Softmax, nn.LogSoftmax), _softmax),
    **dict.fromkeys((*_SHAPES, *_SHAPES_METHODS), _reshape),
    **dict.fromkeys((torch.permute, "permute"), _permute),
    **dict.fromkeys((torch.transpose, torch.swapaxes, "transpose", "swapaxes"), _transpose),
    **dict.fromkeys((torch.cat, torch.concat, torch.concatenate), _cat),
    **dict.fromkeys((*_SPELLINGS["add"], *_SPELLINGS["sub"]), _sum),
    **dict.fromkeys((*_SPELLINGS["mul"], *_SPELLINGS["div"]), _factor),
    **dict.fromkeys((torch.mean, torch.sum, "mean", "sum"), _reduce),
    **dict.fromkeys((F.interpolate, nn.Upsample, nn.UpsamplingNearest2d, nn.UpsamplingBilinear2d), _positions),
    **dict.fromkeys((nn.ZeroPad1d, nn.ZeroPad2d, nn.ReflectionPad1d, nn.ReflectionPad2d), _positions),
    **dict.fromkeys((nn.ReplicationPad1d, nn.ReplicationPad2d, nn.CircularPad1d, nn.CircularPad2d), _positions),
    **dict.fromkeys(_SAME, _identity),
    **{key: rule for dims in (1, 2, 3) for key, rule in _times(_max_pool, "MaxPool", dims).items()},
    **{key: rule for dims in (1, 2, 3) for key, rule in _times(_mean_pool, "AvgPool", dims).items()},
    **{key: _active(row.name) for row in ACTIVATIONS.values() for key in row.spellings},
    F.pad: _pad,
    F.linear: _linear,
    F.dropout: _dropout,
    F.dropout2d: _dropout,
    nn.Dropout: _identity,
}
_CONV_FUNCTIONS = {F.conv1d: 1, F.conv2d: 2, F.conv3d: 3, torch.conv1d: 1, torch.conv2d: 2, torch.conv3d: 3}


def apply(ledger: Ledger, shape: Shape, key: Any, label: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Signal:
    """Find the operator's rule and apply it."""
    kwargs = {name: value for name, value in kwargs.items() if name != "inplace"}
    try:
        if key in _CONV_FUNCTIONS:
            return _functional_conv(ledger, shape, label, _CONV_FUNCTIONS[key], *args, **kwargs)
        if key not in RULES:
            refuse(label)
        return RULES[key](ledger, shape, label, *args, **kwargs)
    except TypeError as error:
        refuse(f"{label} with {len(args)} positional arguments and {sorted(kwargs)}: {error}")


def _functional_conv(
    ledger: Ledger,
    shape: Shape,
    label: str,
    dims: int,
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Signal:
    return _conv(ledger, shape, label, dims, input, weight, bias, groups)


CONVS: dict[Any, int] = {nn.Conv1d: 1, nn.Conv2d: 2, nn.Conv3d: 3}
_SETTINGS: dict[Any, tuple[str, ...]] = {nn.LeakyReLU: ("negative_slope",), nn.GELU: ("approximate",)}


def apply_module(
    ledger: Ledger, shape: Shape, module: nn.Module, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Signal:
    """The same for a module of torch.nn."""
    label, key = f"{type(module).__name__} ({name!r})", type(module)
    given: Any = module
    if key is nn.Linear or key in CONVS:
        weight, bias = Parameter(f"{name}.weight"), None if given.bias is None else Parameter(f"{name}.bias")
        if key is nn.Linear:
            return _linear(ledger, shape, label, *args, weight=weight, bias=bias, **kwargs)
        return _conv(ledger, shape, label, CONVS[key], *args, weight=weight, bias=bias, groups=given.groups, **kwargs)
    if key in NORMS:
        return norm(ledger, label, module, name, *args, **kwargs)
    settings = {n: getattr(given, n) for n in _SETTINGS.get(key, ())}
    return apply(ledger, shape, key, label, args, {**kwargs, **settings})
