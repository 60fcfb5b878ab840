"""Features inside equivariant layers: one tensor a parameter, in the order that the layers compute in."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations

import torch
from torch import Tensor

from weightspace._matrix_layer import Reduction, matrix_layer
from weightspace._spec import NetSpec, Param
from weightspace._weights import Weights

Axes = tuple[str, ...]


@dataclass(frozen=True)
class Layout:
    """How one parameter lies: its hidden axes, the spec's last one first, and the size of its fixed axes together.

    Torch's parameters name what they produce before what they consume, so in a chain that order moves nothing.
    """

    param: Param
    hidden: Axes
    order: tuple[int, ...]
    fixed: int

    def features(self, value: Tensor) -> Tensor:
        """``[batch, *axes, channel]`` to ``[batch, *hidden, fixed * channel]``."""
        return value.permute(0, *self.order, value.ndim - 1).flatten(1 + len(self.hidden))

    def restore(self, value: Tensor, spec: NetSpec, channels: int) -> Tensor:
        """``[batch, *hidden, fixed * channel]`` to ``[batch, *axes, channel]``."""
        sizes = [spec.axis(self.param.axes[i - 1]).size for i in self.order]
        value = value.reshape(value.shape[0], *sizes, channels)
        back = [0] * len(self.order)
        for new, old in enumerate(self.order, start=1):
            back[old - 1] = new
        return value.permute(0, *back, value.ndim - 1)


@lru_cache(maxsize=256)
def layouts(spec: NetSpec, ends: bool = False) -> tuple[Layout, ...]:
    """The layout of every parameter; with ``ends``, inputs and outputs count as hidden axes."""
    free = [axis.name for axis in spec.axes if axis.hidden or (ends and axis.name in (spec.input, spec.output))]
    rank = {name: -i for i, name in enumerate(free)}
    out = []
    for param in spec.params:
        hidden = sorted((i for i, a in enumerate(param.axes) if a in rank), key=lambda i: rank[param.axes[i]])
        fixed = [i for i, a in enumerate(param.axes) if a not in rank]
        size = math.prod(spec.axis(param.axes[i]).size for i in fixed)
        out.append(Layout(param, tuple(param.axes[i] for i in hidden), tuple(i + 1 for i in (*hidden, *fixed)), size))
    return tuple(out)


def subsets(axes: Axes) -> list[Axes]:
    """Return all subsets of some axes, from none to all of them."""
    return [kept for size in range(len(axes) + 1) for kept in combinations(axes, size)]


@dataclass(frozen=True, eq=False)
class Features:
    """Features of a batch of networks, by parameter, and what pooling over hidden axes leaves of them.

    Args:
        spec: the networks.
        members: the layouts of its parameters.
        values: ``[batch, *hidden, fixed * channel]`` of each parameter.
        pools: of each parameter, by every set of its hidden axes but all of them: its features pooled over the others.
    """

    spec: NetSpec
    members: tuple[Layout, ...]
    values: Sequence[Tensor]
    pools: Sequence[Mapping[Axes, Tensor]]

    @classmethod
    def read(cls, members: tuple[Layout, ...], features: Weights, reduction: Reduction = "mean") -> Features:
        """Cut features ``[batch, param, channel]`` into parameters, and pool them."""
        values = [lay.features(value) for lay, (_, value) in zip(members, features.items(), strict=True)]
        pools = [_pools(value, lay.hidden, reduction) for lay, value in zip(members, values, strict=True)]
        return cls(features.spec, members, values, pools)

    def joined(self, kept: Axes) -> Tensor:
        """Return what pooling leaves by some axes, ``[batch, *kept, feature]``: of all parameters that carry them."""
        own = zip(self.members, self.values, self.pools, strict=True)
        parts = [
            value if lay.hidden == kept else pools[kept] for lay, value, pools in own if set(kept) <= set(lay.hidden)
        ]
        return torch.cat(parts, -1) if len(parts) > 1 else parts[0]

    def updated(
        self,
        bases: Sequence[Tensor | None],
        maps: Sequence[Tensor | None],
        added: Sequence[Mapping[Axes, Tensor]],
        *,
        relu: bool,
        reduction: Reduction,
    ) -> Features:
        """Map each parameter's base, add what is broadcast to it, activate, and pool.

        Args:
            bases: of each parameter, ``[batch, *hidden, feature]``; None for zeros.
            maps: the matrix that maps each base; None for the identity.
            added: of each parameter, by set of axes, what is repeated over its other hidden axes.
            relu: whether to apply a ReLU.
            reduction: how to pool.
        """
        values, pools = [], []
        for lay, base, matrix, parts in zip(self.members, bases, maps, added, strict=True):
            if len(lay.hidden) == 2 and base is not None:
                value, own = _matrix(lay.hidden, base, matrix, dict(parts), relu, reduction)
            else:
                terms = [_broadcast(part, kept, lay.hidden) for kept, part in parts.items()]
                if base is not None:
                    terms.append(base if matrix is None else torch.nn.functional.linear(base, matrix))
                value = terms[0] if len(terms) == 1 else sum(terms[1:], start=terms[0])
                value = value.relu() if relu else value
                value = value.expand(-1, *(self.spec.axis(name).size for name in lay.hidden), -1)
                own = _pools(value, lay.hidden, reduction)
            values.append(value)
            pools.append(own)
        return Features(self.spec, self.members, values, pools)

    def weights(self, channels: int) -> Weights:
        """Return the features as ``[batch, param, channel]``."""
        rows = [
            lay.restore(value, self.spec, channels).flatten(1, -2)
            for lay, value in zip(self.members, self.values, strict=True)
        ]
        return Weights(torch.cat(rows, 1), self.spec)


def _matrix(
    axes: Axes, base: Tensor, matrix: Tensor | None, parts: dict[Axes, Tensor], relu: bool, reduction: Reduction
) -> tuple[Tensor, dict[Axes, Tensor]]:
    """Update a parameter with two hidden axes."""
    first, second = (axes[0],), (axes[1],)
    if axes in parts:
        base = base + parts.pop(axes)
    out, nothing = base.shape[-1] if matrix is None else len(matrix), base.new_zeros(1)
    rows = parts.pop(first, nothing).expand(len(base), base.shape[1], out)
    cols = parts.pop(second, nothing).expand(len(base), base.shape[2], out)
    if () in parts:
        rows = rows + parts[()][:, None]
    value, p, q = matrix_layer(base, matrix, rows, cols, relu=relu, reduction=reduction)
    return value, {first: p, second: q, (): _reduce(p, 1, reduction)}


def _reduce(value: Tensor, dim: int, reduction: Reduction) -> Tensor:
    # not .mean(): the gradient of a sum is a view, that of a mean a tensor of the full size
    return value.amax(dim) if reduction == "max" else value.sum(dim) * (1 / value.shape[dim])


def _pools(value: Tensor, hidden: Axes, reduction: Reduction) -> dict[Axes, Tensor]:
    """Pool a parameter's features over every set of its hidden axes, each time from the smallest that is there."""
    found = {hidden: value}
    for kept in sorted(subsets(hidden), key=len, reverse=True):
        if kept not in found:
            parent = min((s for s in found if set(kept) < set(s)), key=len)
            axis = next(i for i, name in enumerate(parent) if name not in kept)
            found[kept] = _reduce(found[parent], axis + 1, reduction)
    del found[hidden]
    return found


def _broadcast(part: Tensor, kept: Axes, hidden: Axes) -> Tensor:
    """Insert axes of size one where ``hidden`` has an axis that ``kept`` has not."""
    for i, name in enumerate(hidden):
        if name not in kept:
            part = part.unsqueeze(1 + i)
    return part
