"""All linear maps on weight-space features that commute with the permutations of a spec's hidden axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations

import torch
from torch import Tensor, nn

from weightspace._checks import whole_number
from weightspace._spec import NetSpec, Param, check_spec
from weightspace._weights import Weights, check_features

Axes = tuple[str, ...]


@dataclass(frozen=True)
class _Layout:
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
def layouts(spec: NetSpec, ends: bool = False) -> tuple[_Layout, ...]:
    """The layout of every parameter; with ``ends``, inputs and outputs count as hidden axes."""
    free = [axis.name for axis in spec.axes if axis.hidden or (ends and axis.name in (spec.input, spec.output))]
    rank = {name: -i for i, name in enumerate(free)}
    out = []
    for param in spec.params:
        hidden = sorted((i for i, a in enumerate(param.axes) if a in rank), key=lambda i: rank[param.axes[i]])
        fixed = [i for i, a in enumerate(param.axes) if a not in rank]
        size = math.prod(spec.axis(param.axes[i]).size for i in fixed)
        out.append(_Layout(param, tuple(param.axes[i] for i in hidden), tuple(i + 1 for i in (*hidden, *fixed)), size))
    return tuple(out)


def _subsets(axes: Axes) -> list[Axes]:
    return [kept for size in range(len(axes) + 1) for kept in combinations(axes, size)]


def pooled(spec: NetSpec, features: Weights) -> dict[Axes, Tensor]:
    """Every parameter's features averaged over every set of its hidden axes, joined by the axes that remain.

    Args:
        spec: the networks.
        features: ``[batch, param, channel]``.

    Returns:
        For every set ``S`` of hidden axes that some parameter carries, ``[batch, *S, feature]``: the features of all
        parameters that carry ``S``, side by side. ``S`` lists the spec's last axis first.
    """
    return _pooled(layouts(spec), features)


def _pooled(members: Sequence[_Layout], features: Weights) -> dict[Axes, Tensor]:
    parts: dict[Axes, list[Tensor]] = {}
    for layout, (_, value) in zip(members, features.items(), strict=True):
        whole = layout.features(value)
        means = {layout.hidden: whole}
        for kept in sorted(_subsets(layout.hidden), key=len, reverse=True):
            if kept not in means:  # average the smallest mean already there over one more axis
                parent = sorted([s for s in means if set(kept) < set(s)], key=len)[0]
                axis = next(i for i, name in enumerate(parent) if name not in kept)
                # not .mean(): the gradient of a sum is a view, that of a mean a tensor of the full size
                means[kept] = means[parent].sum(axis + 1) * (1 / means[parent].shape[axis + 1])
            parts.setdefault(kept, []).append(means[kept])
    return {kept: torch.cat(values, -1) if len(values) > 1 else values[0] for kept, values in parts.items()}


class EquivariantLinear(nn.Module):
    r"""The whole space of permutation-equivariant affine maps from features to features.

    For a source parameter ``q``, a target ``p`` and a set ``S`` of hidden axes that both carry, the map averages ``q``
    over its other hidden axes, multiplies by a free matrix between the fixed axes and channels of both, and
    repeats the result over the other hidden axes of ``p``:

    .. math:: y_p = \sum_{S \subseteq H_p} \; broadcast_{H_p \setminus S}
        \Big( \sum_{q: S \subseteq H_q} A^S_{pq} \; mean_{H_q \setminus S} \, x_q \Big) + b_p

    These maps are a basis of all linear equivariant maps as long as every hidden axis has at least two neurons. Nothing
    is spelled out by position: the sums come from the axis names. Averages are computed once and shared by all targets,
    and each ``S`` is one matrix product.

    Args:
        spec: the networks.
        in_channels: channels of ``x``.
        out_channels: channels of ``y``.
        bias: whether to add ``b``.
        ends: whether inputs and outputs count as hidden axes, whose permutations the layer then commutes with too.

    Raises:
        ValueError: for fewer than one channel; on call, for networks of another spec or features of other channels.

    Example:
        >>> import weightspace as ws
        >>> spec = ws.siren(2, 8, 8, 1)
        >>> layer = EquivariantLinear(spec, 1, 4)
        >>> layer(ws.Weights(torch.randn(3, spec.num_params, 1), spec)).flat.shape
        torch.Size([3, 105, 4])

    Reference:
        Navon et al., *Equivariant Architectures for Learning in Deep Weight Spaces*, 2023, Theorem 5.1 and appendix B.
    """

    def __init__(
        self, spec: NetSpec, in_channels: int, out_channels: int, *, bias: bool = True, ends: bool = False
    ) -> None:
        super().__init__()
        check_spec(spec)
        if min(whole_number("in_channels", in_channels, None), whole_number("out_channels", out_channels, None)) < 1:
            raise ValueError(f"expected at least one channel, got {in_channels=}, {out_channels=}")
        self.spec, self.in_channels, self.out_channels = spec, in_channels, out_channels
        self.layouts = layouts(spec, ends)
        found = dict.fromkeys(s for lay in self.layouts for s in _subsets(lay.hidden))  # a set has no order to rely on
        self.sets: list[Axes] = sorted(found, key=len)
        self.maps = nn.ModuleList()
        for kept in self.sets:
            members = [lay for lay in self.layouts if set(kept) <= set(lay.hidden)]
            wide = sum(lay.fixed for lay in members)
            self.maps.append(nn.Linear(wide * in_channels, wide * out_channels, bias=bias and not kept))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """He initialisation, each target's variance shared equally among the sets that reach it."""
        for kept, linear in zip(self.sets, self.maps, strict=True):
            assert isinstance(linear, nn.Linear)
            members = [lay for lay in self.layouts if set(kept) <= set(lay.hidden)]
            start = 0
            for lay in members:
                stop = start + lay.fixed * self.out_channels
                std = math.sqrt(2 / (linear.in_features * 2 ** len(lay.hidden)))
                nn.init.normal_(linear.weight[start:stop], std=std)
                start = stop
            if linear.bias is not None:
                nn.init.zeros_(linear.bias)

    def forward(self, features: Weights) -> Weights:
        check_features(self.spec, features, self.in_channels)
        means = _pooled(self.layouts, features)
        parts: dict[str, list[Tensor]] = {lay.param.name: [] for lay in self.layouts}
        for kept, linear in zip(self.sets, self.maps, strict=True):
            members = [lay for lay in self.layouts if set(kept) <= set(lay.hidden)]
            split = linear(means[kept]).split([lay.fixed * self.out_channels for lay in members], -1)
            for lay, part in zip(members, split, strict=True):
                parts[lay.param.name].append(_broadcast(part, kept, lay.hidden))
        out = {name: _total(own) for name, own in parts.items()}
        rows = []
        for lay in self.layouts:
            sizes = [self.spec.axis(a).size for a in lay.hidden]
            value = out[lay.param.name].expand(-1, *sizes, -1)
            rows.append(lay.restore(value, self.spec, self.out_channels).flatten(1, -2))
        return features.replace(torch.cat(rows, 1))


def _total(parts: list[Tensor]) -> Tensor:
    """Their sum, broadcast. The sets came from the fewest axes to the most: the last part has the full size."""
    first, *others, last = parts if len(parts) > 1 else [None, *parts]
    if first is None:
        return last
    for i, part in enumerate([first, *others]):
        last = last + part if i == 0 else last.add_(part)  # the first sum is a new tensor: the others add in place
    return last


def _broadcast(part: Tensor, kept: Axes, hidden: Axes) -> Tensor:
    """Insert axes of size one where ``hidden`` has an axis that ``kept`` has not."""
    for i, name in enumerate(hidden):
        if name not in kept:
            part = part.unsqueeze(1 + i)
    return part


class NeuronAttention(nn.Module):
    r"""Attention among the neurons of each hidden axis, added to every parameter that carries the axis.

    A neuron's token is what the parameters that carry it hold on average over their other hidden axes; what comes back
    is broadcast over those. It commutes with permutations, and is not linear.

    Args:
        spec: the networks.
        channels: of the features, kept.
        heads: of attention; divides ``channels``.

    Reference:
        Navon et al., *Equivariant Architectures for Learning in Deep Weight Spaces*, 2023, appendix (set layers).
        Departure: beside the linear layer, not in place of one of its blocks.
    """

    def __init__(self, spec: NetSpec, channels: int, heads: int) -> None:
        super().__init__()
        check_spec(spec)
        if channels % whole_number("attention", heads):
            raise ValueError(f"attention: expected a divisor of {channels}, got {heads}")
        self.spec, self.in_channels, self.heads, self.layouts = spec, channels, heads, layouts(spec)
        self.read, self.write = nn.ModuleList(), nn.ModuleList()
        for axis in spec.hidden:
            wide = channels * sum(lay.fixed for lay in self.layouts if axis.name in lay.hidden)
            self.read.append(nn.Linear(wide, 3 * channels))
            self.write.append(nn.Linear(channels, wide))

    def forward(self, features: Weights) -> Weights:
        check_features(self.spec, features, self.in_channels)
        means = _pooled(self.layouts, features)
        parts = {
            lay.param.name: lay.features(value) for lay, (_, value) in zip(self.layouts, features.items(), strict=True)
        }
        for axis, read, write in zip(self.spec.hidden, self.read, self.write, strict=True):
            kept = (axis.name,)
            tokens = read(means[kept]).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
            mixed = nn.functional.scaled_dot_product_attention(*tokens).transpose(1, 2).flatten(2)
            members = [lay for lay in self.layouts if axis.name in lay.hidden]
            split = write(mixed).split([lay.fixed * self.in_channels for lay in members], -1)
            for lay, part in zip(members, split, strict=True):
                parts[lay.param.name] = parts[lay.param.name] + _broadcast(part, kept, lay.hidden)
        rows = [lay.restore(parts[lay.param.name], self.spec, self.in_channels).flatten(1, -2) for lay in self.layouts]
        return features.replace(torch.cat(rows, 1))


class InvariantPool(nn.Module):
    """Every parameter's features averaged over its hidden axes, side by side: ``[batch, size * channel]``."""

    def __init__(self, spec: NetSpec, *, ends: bool = False) -> None:
        super().__init__()
        self.layouts = layouts(spec, ends)
        self.size = sum(layout.fixed for layout in self.layouts)

    def forward(self, features: Weights) -> Tensor:
        parts = []
        for layout, (_, value) in zip(self.layouts, features.items(), strict=True):
            value = layout.features(value)
            parts.append(value.flatten(1, -2).mean(1) if value.ndim > 2 else value)
        return torch.cat(parts, -1)
